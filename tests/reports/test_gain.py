import numpy as np
import pytest
from scipy import stats

from radtransfer.reports.statistics import GainPoint, fit_line, fit_within, relative_gain, slopes_without_one


@pytest.mark.parametrize("n", [3, 5, 20, 200])
def test_a_line_is_that_of_scipy(n):
    rng = np.random.default_rng(n)
    x = rng.uniform(size=n)
    y = 0.3 - 2 * x + rng.normal(scale=0.2, size=n)
    line, theirs = fit_line(x, y), stats.linregress(x, y)
    half = stats.t.ppf(0.975, n - 2) * theirs.stderr
    assert line.slope == pytest.approx(theirs.slope)
    assert line.intercept == pytest.approx(theirs.intercept)
    assert line.r == pytest.approx(theirs.rvalue)
    assert line.ci95 == pytest.approx((theirs.slope - half, theirs.slope + half))
    assert (line.n, line.reason) == (n, None)


def test_a_line_known_by_hand():
    line = fit_line([0, 1, 2, 3], [1, 3, 2, 6])
    assert (line.slope, line.intercept) == (pytest.approx(1.4), pytest.approx(0.9))
    assert line.r == pytest.approx(7 / np.sqrt(5 * 14))
    # The residuals are 0.1, 0.7, -1.7 and 0.9: 4.2 / 2 / 5 is the variance of the slope.
    half = 4.302652729911275 * np.sqrt(4.2 / 2 / 5)
    assert line.ci95 == pytest.approx((1.4 - half, 1.4 + half))


def test_the_interval_of_r_is_that_of_scipy():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 30))
    theirs = stats.pearsonr(x, y).confidence_interval(0.95)
    assert fit_line(x, y).r_ci95 == pytest.approx((theirs.low, theirs.high))


def test_points_on_a_line_have_an_interval_of_no_width():
    line = fit_line([0.1, 0.2, 0.4], [1.1, 1.2, 1.4])
    assert line.r == pytest.approx(1)
    assert line.ci95 == pytest.approx((1, 1))


@pytest.mark.parametrize("x", [[], [0.5], [0.1, 0.9]])
def test_fewer_than_three_points_have_no_line(x):
    line = fit_line(x, x)
    assert (line.slope, line.r, line.ci95, line.n) == (None, None, None, len(x))
    assert "too few" in line.reason


def test_equal_similarities_have_no_line():
    line = fit_line([0.1 + 0.2, 0.3, 0.3], [1, 2, 3])
    assert (line.slope, line.r, line.ci95, line.n) == (None, None, None, 3)
    assert "same at every point" in line.reason


def test_equal_gains_have_a_line_but_no_correlation():
    line = fit_line([0.1, 0.2, 0.3], [0.5, 0.5, 0.5])
    assert (line.slope, line.r) == (pytest.approx(0, abs=1e-12), None)
    assert "no correlation" in line.reason


def test_within_targets_a_difference_between_them_does_not_count():
    rng = np.random.default_rng(1)
    points = [
        GainPoint(target, str(fold), level + x, 10 * level - 2 * x + rng.normal(scale=1e-3))
        for target, level in (("a", 0.1), ("b", 0.5))
        for fold, x in enumerate(rng.uniform(0, 0.1, size=6))
    ]
    assert fit_line([p.similarity for p in points], [p.gain for p in points]).slope > 0
    within = fit_within(points)
    assert within.slope == pytest.approx(-2, abs=0.1)
    assert within.df == 12 - 2 - 1
    # The same by regression on indicators of the targets.
    design = np.array([[p.similarity, p.target == "a", p.target == "b"] for p in points], float)
    coefficients, residual, *_ = np.linalg.lstsq(design, np.array([p.gain for p in points]), rcond=None)
    error = np.sqrt(residual[0] / 9 * np.linalg.inv(design.T @ design)[0, 0])
    assert within.slope == pytest.approx(coefficients[0])
    assert (within.ci95[1] - within.ci95[0]) / 2 == pytest.approx(stats.t.ppf(0.975, 9) * error)


def test_a_point_per_target_says_nothing_within_targets():
    points = [GainPoint(str(i), "1", 0.1 * i, 0.2 * i) for i in range(5)]
    assert fit_within(points).slope is None


def test_the_slope_without_a_target_shows_which_one_makes_it():
    points = [GainPoint("flat", str(i), 0.1 * i, 0.0) for i in range(4)]
    points += [GainPoint("steep", str(i), 0.1 * i, float(i)) for i in range(4)]
    assert slopes_without_one(points) == {"flat": pytest.approx(10), "steep": pytest.approx(0)}


def test_gain_is_relative_to_random_initialization():
    assert relative_gain(0.9, 0.6) == pytest.approx(0.5)
