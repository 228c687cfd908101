import numpy as np
import pytest

from radtransfer.training.lr_finder import MIN_STEPS, diverged, steps_per_decade, suggest

LOW, HIGH, STEPS = 1e-6, 1.0, 241
RATES, WIDTH = np.geomspace(LOW, HIGH, STEPS), steps_per_decade(LOW, HIGH, STEPS)


def losses(*, falls_at, noise, seed=0, start=2.0, depth=1.0):
    """A loss that falls by `depth` around a rate, and rises again at 0.3."""
    x = np.log10(RATES)
    curve = start - depth / (1 + np.exp(-4 * (x - np.log10(falls_at)))) + np.exp(8 * (x - np.log10(0.3)))
    return curve + noise * np.random.default_rng(seed).normal(size=STEPS)


def test_rates_grow_tenfold_in_a_decade():
    assert WIDTH % 2 == 1 and RATES[WIDTH - 1] / RATES[0] == pytest.approx(10, rel=0.1)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("falls_at", [1e-4, 1e-3, 1e-2])
def test_the_rate_is_where_the_loss_falls_most_steeply(falls_at, seed):
    found = suggest(RATES, losses(falls_at=falls_at, noise=0.1, seed=seed), width=WIDTH)
    assert abs(np.log10(found.rate / falls_at)) < 0.35
    assert found.slope < -0.5 and found.certainty > 4 and not found.early and found.rate == found.steepest


def test_noise_alone_gives_no_rate():
    flat = [np.random.default_rng(seed).normal(2.0, 0.5, STEPS) for seed in range(200)]
    suggested = [suggest(RATES, loss, width=WIDTH).rate for loss in flat]
    assert sum(rate is not None for rate in suggested) <= 4


def test_a_loss_that_only_began_high_is_told_apart():
    x = np.log10(RATES)
    loss = 3 * np.exp(-2 * (x + 6)) + 2 - 0.1 * (x + 6) + np.exp(8 * (x - np.log10(0.3)))
    found = suggest(RATES, loss, width=WIDTH)
    assert found.steepest < 1e-5 and found.upper > 1e-3 and found.early
    assert found.rate == found.upper and "tenth" in found.rule


def test_the_lowest_loss_bounds_the_rate():
    found = suggest(RATES, losses(falls_at=1e-3, noise=0.0), width=WIDTH)
    assert 1e-2 < found.lowest < 0.3 and found.upper == found.lowest / 10


def test_slopes_are_those_of_least_squares_lines():
    loss = losses(falls_at=1e-3, noise=0.2)
    found = suggest(RATES, loss, width=WIDTH)
    at = 100
    window = slice(at - WIDTH // 2, at + WIDTH // 2 + 1)
    assert found.slopes[at] == pytest.approx(np.polyfit(np.log10(RATES[window]), loss[window], 1)[0])
    assert np.isnan(found.slopes[: WIDTH // 2]).all() and len(found.slopes) == STEPS


@pytest.mark.parametrize(
    ("values", "left"),
    [
        ([1.0, float("nan")], True),
        ([1.0, float("inf")], True),
        ([1.0] * 30, False),
        ([1.0] * 30 + [9.0], False),  # one bad batch
        ([1.0] * 30 + [9.0] * 8, True),
        ([9.0] * 10 + [1.0] * 30 + [4.0] * 10, False),  # not yet where it began
    ],
)
def test_a_loss_that_leaves_is_seen(values, left):
    assert diverged(values, 4 * MIN_STEPS) is left
