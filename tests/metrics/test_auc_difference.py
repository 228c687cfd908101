import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from radtransfer.evaluation.intervals import delong


def scores(rng, images=120, shared=0.7, gain=0.0):
    truth = rng.random(images) < 0.4
    common = rng.normal(size=images)
    a, b = (shared * common + rng.normal(size=images) + shift * truth for shift in (1 + gain, 1))
    return truth, a, b


def test_delong_is_the_variance_of_its_structural_components():
    truth, a, b = scores(np.random.default_rng(0), images=40)
    a = np.round(a, 1)  # ties
    above = [np.sign(s[truth][:, None] - s[~truth]) / 2 + 0.5 for s in (a, b)]
    positives, negatives = (np.array([v.mean(axis=axis) for v in above]) for axis in (1, 0))
    covariance = np.cov(positives) / truth.sum() + np.cov(negatives) / (~truth).sum()
    found = delong("q", truth, a, b)
    assert found.error**2 == pytest.approx(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    assert (found.auc_a, found.auc_b) == pytest.approx((roc_auc_score(truth, a), roc_auc_score(truth, b)))
    assert found.difference == pytest.approx(found.auc_a - found.auc_b)


def test_the_test_rejects_one_in_twenty_where_there_is_no_difference_and_most_where_there_is():
    rng = np.random.default_rng(1)
    null = [delong("q", *scores(rng)).p for _ in range(800)]
    assert 0.03 < np.mean(np.array(null) < 0.05) < 0.075
    real = [delong("q", *scores(rng, gain=1.0)).p for _ in range(100)]
    assert np.mean(np.array(real) < 0.05) > 0.7


def test_a_network_and_itself_do_not_differ():
    truth, a, _ = scores(np.random.default_rng(2))
    found = delong("q", truth, a, a)
    assert (found.difference, found.error, found.p) == (0, 0, None)


def test_one_positive_is_too_few():
    truth = np.arange(6) == 0
    assert delong("q", truth, np.arange(6.0), np.arange(6.0)) is None
