import numpy as np
import pytest

from radtransfer import similarity
from radtransfer.errors import SimilarityError
from radtransfer.similarity import SIMILARITIES, StreamedSums

IMAGES, POSITIONS, CHANNELS, GROUPS = 100, 12, 8, 20


def images(rng):
    """Rows of two layers in which the positions of an image resemble each other."""
    inputs = np.repeat(rng.normal(size=(IMAGES, 4)), POSITIONS, axis=0) + rng.normal(size=(IMAGES * POSITIONS, 4))
    mixing = np.random.default_rng(0).normal(size=(2, 4, CHANNELS))
    return [inputs @ m + rng.normal(size=(len(inputs), CHANNELS)) for m in mixing]


def grouped(x, y):
    groups, first = [], None
    for part in np.split(np.arange(len(x)), GROUPS):
        sums = StreamedSums(pairs="same", like=first)
        sums.add({"a": x[part]}, {"a": y[part]})
        first = first or sums
        groups.append(sums.pair("a", "a"))
    return groups


# Too wide for PWCCA, as documented.
@pytest.mark.parametrize(("name", "low", "high"), [("cca", 0.93, 0.99), ("cka", 0.91, 0.99), ("pwcca", 0.93, 1)])
def test_the_interval_covers_the_expected_score(name, low, high):
    rng = np.random.default_rng(1)
    of_sums = SIMILARITIES[name].of_sums
    intervals = [similarity.jackknife_interval(grouped(*images(rng)), of_sums) for _ in range(200)]
    expected = np.mean([interval.value for interval in intervals])
    covered = np.mean([interval.low <= expected <= interval.high for interval in intervals])
    assert low <= covered <= high


def test_the_value_is_that_of_all_rows_and_each_group_is_left_out_once(make_layers):
    x, y = make_layers(0, 600, 6, 5)
    interval = similarity.jackknife_interval(grouped(x, y), SIMILARITIES["cca"].of_sums)
    rest = [np.delete(np.arange(600), part) for part in np.split(np.arange(600), GROUPS)]
    values = np.array([similarity.cca(x[rows], y[rows]).value for rows in rest])
    error = np.sqrt((GROUPS - 1) ** 2 / GROUPS * values.var(ddof=1))
    assert interval.value == pytest.approx(similarity.cca(x, y).value, abs=1e-12)
    assert interval.error == pytest.approx(error, abs=1e-10)
    assert interval.groups == GROUPS


def test_a_channel_that_lives_in_one_group_only_is_dead_without_it(make_layers):
    x, y = make_layers(0, 600, 6, 5)
    x[30:, 2] = 0.7
    x[:30, 2] *= 1e3
    interval = similarity.jackknife_interval(grouped(x, y), SIMILARITIES["cca"].of_sums)
    first = similarity.cca(x[30:], y[30:])
    assert first.constant_x == (2,)
    assert np.isfinite([interval.low, interval.high]).all()
    assert SIMILARITIES["cca"].of_sums(sum(grouped(x, y)[2:], grouped(x, y)[1])).constant_x == (2,)


def test_too_few_groups_are_an_error(make_layers):
    groups = grouped(*make_layers(0, 600, 6, 5))
    with pytest.raises(SimilarityError, match="at least 5 groups"):
        similarity.jackknife_interval(groups[:4], SIMILARITIES["cca"].of_sums)
