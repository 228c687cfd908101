"""What every measure of the similarity table promises, on arrays and on sums of batches."""

import numpy as np
import pytest

from radtransfer.errors import SimilarityError
from radtransfer.similarity import SIMILARITIES, StreamedSums

ROWS, CHANNELS = 800, 10


@pytest.fixture(params=SIMILARITIES)
def measure(request):
    return SIMILARITIES[request.param]


@pytest.fixture(scope="module")
def layers():
    """Two layers that see the same inputs, and one that sees others."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(ROWS, 6))
    x, y = (np.tanh(inputs @ rng.normal(size=(6, CHANNELS))) + 0.3 * rng.normal(size=(ROWS, CHANNELS)) for _ in "xy")
    return x, y, rng.normal(size=(ROWS, CHANNELS))


def streamed(x, y, batch):
    sums = StreamedSums()
    for start in range(0, len(x), batch):
        sums.add({"x": x[start : start + batch]}, {"y": y[start : start + batch]})
    return sums.pair("x", "y")


def test_it_has_a_title_of_its_own(measure):
    assert measure.title
    assert [SIMILARITIES[name].title for name in SIMILARITIES].count(measure.title) == 1


def test_a_layer_is_as_similar_to_itself_as_can_be(measure, layers):
    x, y, other = layers
    assert measure.of_rows(x, x).value == pytest.approx(1, abs=0.01)
    assert measure.of_rows(x, x).value > measure.of_rows(x, y).value > measure.of_rows(x, other).value


def test_the_result_counts_rows_ranks_and_constant_channels(measure, layers):
    x, y = layers[0].copy(), layers[1]
    x[:, 3] = 0.1
    found = measure.of_rows(x, y)
    assert (found.rows, len(found.constant_x), len(found.constant_y)) == (ROWS, 1, 0)


def test_rows_count_and_not_their_order(measure, layers):
    x, y, _ = layers
    order = np.random.default_rng(1).permutation(ROWS)
    assert measure.of_rows(x[order], y[order]).value == pytest.approx(measure.of_rows(x, y).value, abs=1e-9)


def test_sums_of_batches_give_what_the_arrays_give(measure, layers):
    x, y, _ = layers
    if measure.of_sums is None:
        pytest.skip("needs the rows")
    expected = measure.of_rows(x, y).value
    for batch in (ROWS, 37):
        assert measure.of_sums(streamed(x, y, batch)).value == pytest.approx(expected, abs=1e-9)


def test_the_chance_it_states_is_what_unrelated_layers_score(measure, layers):
    x, _, other = layers
    found = measure.of_rows(x, other)
    if measure.chance is not None:
        assert found.value == pytest.approx(measure.chance(ROWS, found.rank_x, found.rank_y), abs=0.03)
    if measure.chance_of_sums is not None:
        assert found.value == pytest.approx(measure.chance_of_sums(streamed(x, other, ROWS)), abs=0.03)


def test_what_is_no_number_is_an_error(measure, layers):
    x, y = layers[0].copy(), layers[1]
    x[5, 2] = np.nan
    with pytest.raises(SimilarityError, match="^x: expected finite"):
        measure.of_rows(x, y)
