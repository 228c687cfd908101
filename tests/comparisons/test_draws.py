import numpy as np
import pytest
import tensorflow as tf

from radtransfer import similarity
from radtransfer.similarity import SIMILARITIES, StreamedSums
from radtransfer.similarity.layer_rows import AllPairsSums, Draw, PairedSums, spread_positions
from radtransfer.similarity.layer_scores import combine, score_draw
from radtransfer.similarity.measure import total_moments

IMAGES, GROUPS = 11, np.array([0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 4])
CCA = SIMILARITIES["cca"].of_sums


@pytest.fixture
def maps():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(IMAGES, 6, 6, 5))
    b = a @ rng.normal(size=(5, 7)) + rng.normal(size=(IMAGES, 6, 6, 7))
    return {"low": a.astype(np.float32)}, {"other": b.astype(np.float32)}


@pytest.fixture
def draw():
    positions = spread_positions((6, 6), images=IMAGES, rows=290, rng=np.random.default_rng(1))
    return Draw(positions, {"stem": ("low", np.arange(5))}, {"stem": ("other", np.arange(7))})


def feed(sums, maps, batch_size):
    for first in range(0, IMAGES, batch_size):
        last = min(first + batch_size, IMAGES)
        parts = ({name: tf.constant(values[first:last]) for name, values in side.items()} for side in maps)
        sums.add(first, last, *parts)
    return sums


def rows_of(values, positions, shift=0):
    flat = values.reshape(IMAGES, 36, -1)
    parts = [flat[(i - shift) % IMAGES][positions.between(i, i + 1)[0]] for i in range(IMAGES)]
    return np.concatenate(parts)


@pytest.mark.parametrize("batch_size", [1, 4, 11])
def test_grouped_sums_are_those_of_all_rows(maps, draw, batch_size):
    sums = feed(PairedSums(draw, GROUPS, norms=True), maps, batch_size)
    ((name, groups, _),) = sums.pairs()
    x, y = rows_of(maps[0]["low"], draw.positions), rows_of(maps[1]["other"], draw.positions)
    assert (name, len(groups)) == ("stem", 5)
    assert total_moments(groups).rows == 290
    assert CCA(total_moments(groups)).value == pytest.approx(similarity.cca(x, y).value, abs=1e-12)
    debiased = SIMILARITIES["cka"].of_sums(total_moments(groups)).value
    assert debiased == pytest.approx(similarity.cka(x, y).value, abs=1e-12)


@pytest.mark.parametrize("batch_size", [1, 4, 11])
def test_mismatched_sums_pair_an_image_with_the_one_before_at_the_same_positions(maps, draw, batch_size):
    ((name, _, pair),) = feed(PairedSums(draw, GROUPS, norms=False, mismatched=True), maps, batch_size).pairs()
    x, y = rows_of(maps[0]["low"], draw.positions), rows_of(maps[1]["other"], draw.positions, shift=1)
    assert pair.rows == 290
    assert CCA(pair).value == pytest.approx(similarity.cca(x, y).value, abs=1e-12)
    assert CCA(pair).value < 0.3


def test_crossed_sums_hold_every_pair(maps, draw):
    positions = draw.positions
    both = Draw(
        positions,
        {"stem": ("low", np.arange(5)), "next": ("low", np.array([1, 3]))},
        {"stem": ("other", np.arange(7))},
    )
    found = {(a, b): CCA(pair).value for a, b, pair in feed(AllPairsSums(both, norms=False), maps, 4).pairs()}
    x, y = rows_of(maps[0]["low"], positions), rows_of(maps[1]["other"], positions)
    assert found == {
        ("stem", "stem"): pytest.approx(similarity.cca(x, y).value, abs=1e-12),
        ("next", "stem"): pytest.approx(similarity.cca(x[:, [1, 3]], y).value, abs=1e-12),
    }


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_layer_that_is_not_finite_says_so_and_leaves_the_others_their_scores(maps, draw, bad):
    both = Draw(
        draw.positions,
        {"stem": ("low", np.arange(5)), "next": ("low", np.arange(5))},
        {"stem": ("other", np.arange(7)), "next": ("fine", np.arange(7))},
    )
    maps[1]["fine"] = maps[1]["other"].copy()
    maps[1]["other"][5] = bad
    found = {name: groups for name, groups, _ in feed(PairedSums(both, GROUPS, norms=False), maps, 4).pairs()}
    assert "stem of B (other): expected finite activations" in both.undefined("stem", "stem")
    assert both.undefined("next", "next") == ""
    x, y = rows_of(maps[0]["low"], both.positions), rows_of(maps[1]["fine"], both.positions)
    assert CCA(total_moments(found["next"])).value == pytest.approx(similarity.cca(x, y).value, abs=1e-12)


def test_a_layer_that_is_constant_but_for_one_group_of_images_has_a_score_but_no_interval(maps, draw):
    maps[1]["other"][2:] = 0.5
    ((_, groups, _),) = feed(PairedSums(draw, GROUPS, norms=False), maps, 4).pairs()
    score = score_draw(groups, None, {"cca": SIMILARITIES["cca"]}, images=IMAGES)["cca"]
    assert score.value > 0
    assert score.left_out is None
    assert combine("stem", "cca", [[score]]).ci95 is None


def test_a_constant_layer_has_no_score_and_says_why(maps, draw):
    maps[1]["other"][:] = 0.5
    ((_, groups, _),) = feed(PairedSums(draw, GROUPS, norms=False), maps, 4).pairs()
    score = score_draw(groups, None, {"cca": SIMILARITIES["cca"]}, images=IMAGES)["cca"]
    assert score.value is None
    assert "stem of B (other): expected at least one channel that varies" in score.undefined
    assert combine("stem", "cca", [[score]]).similarity is None


def test_debiased_cka_of_unrelated_layers_is_0_also_where_rows_are_few():
    make_rows = np.random.default_rng(0).normal
    sums = StreamedSums(pairs="same")
    sums.add({"x": make_rows(size=(30, 40))}, {"y": make_rows(size=(30, 40))})
    score = score_draw([sums.pair("x", "y")], None, {"cka": SIMILARITIES["cka"]}, images=30)["cka"]
    assert score.null.closed_form == 0


def test_the_error_of_folds_with_other_images_is_that_of_a_mean_of_independent_ones(maps, draw):
    ((_, groups, _),) = feed(PairedSums(draw, GROUPS, norms=False), maps, 4).pairs()
    score = score_draw(groups, None, {"cca": SIMILARITIES["cca"]}, images=IMAGES)["cca"]

    def width(folds, **options):
        low, high = combine("stem", "cca", folds, **options).ci95
        return high - low

    assert width([[score], [score]]) == pytest.approx(width([[score]]) / np.sqrt(2))
    assert width([[score], [score]], same_images=True) == pytest.approx(width([[score]]))
    interval = similarity.jackknife_interval(groups, CCA)
    assert combine("stem", "cca", [[score]]).ci95 == pytest.approx((interval.low, interval.high))
