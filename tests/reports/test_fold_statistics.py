import numpy as np
import pytest
from scipy import stats

from radtransfer.reports.statistics import fold_difference, spread


def test_the_spread_of_folds_is_that_of_a_sample():
    assert spread([0.7, 0.8, 0.9]).sd == pytest.approx(0.1)
    assert (spread([0.7]).mean, spread([0.7]).sd, spread([0.7]).n) == (0.7, None, 1)
    assert (spread([]).mean, spread([]).n) == (None, 0)


def test_only_folds_that_both_have_are_compared():
    found = fold_difference({"1": 0.9, "2": 0.8, "3": 0.7}, {"3": 0.6, "1": 0.7, "9": 0.1})
    assert (found.mean, found.n, found.positive) == (pytest.approx(0.15), 2, 2)


def test_the_interval_is_wider_than_that_of_independent_folds():
    rng = np.random.default_rng(0)
    values = rng.normal(0.05, 0.02, size=5)
    found = fold_difference({str(i): v for i, v in enumerate(values)}, dict.fromkeys("01234", 0.0))
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    widened = np.sqrt((1 / 5 + 1 / 4) / (1 / 5))
    assert (found.ci95[1] - found.ci95[0]) == pytest.approx((high - low) * widened)
    assert sum(found.ci95) / 2 == pytest.approx(values.mean())


def test_one_fold_has_no_interval_and_none_no_difference():
    one = fold_difference({"1": 0.9}, {"1": 0.8})
    assert (one.sd, one.ci95, one.n) == (None, None, 1)
    assert fold_difference({"1": 0.9}, {"2": 0.8}) is None


def test_the_interval_covers_the_truth_where_folds_share_their_training_images():
    """A share of the noise is common to all folds, as where they share 1 - 1/n of what they learn from."""
    rng = np.random.default_rng(3)
    n, inside, trials = 5, 0, 600
    correlation = 1 / n
    for _ in range(trials):
        common, own = rng.normal(), rng.normal(size=n)
        values = np.sqrt(correlation) * common + np.sqrt(1 - correlation) * own
        low, high = fold_difference(dict(enumerate(values)), dict.fromkeys(range(n), 0.0)).ci95
        inside += low <= 0 <= high
    assert 0.92 < inside / trials < 0.98
