import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from radtransfer.evaluation.intervals import agreement, decision_agreement


def test_networks_whose_errors_are_independent_agree_as_often_as_the_formula_says():
    rng = np.random.default_rng(0)
    a, b = rng.random(200_000) < 0.8, rng.random(200_000) < 0.6
    found = agreement(a, b)
    assert found.independent == pytest.approx(0.8 * 0.6 + 0.2 * 0.4, abs=3e-3)
    assert found.observed == pytest.approx(found.independent, abs=3e-3)
    assert found.kappa == pytest.approx(0, abs=0.01)


def test_both_accuracies_count():
    assert agreement([1, 1, 1, 0], [1, 0, 0, 0]).independent == pytest.approx(0.75 * 0.25 + 0.25 * 0.75)


def test_kappa_of_errors_and_of_decisions_is_cohens():
    rng = np.random.default_rng(1)
    truth, a, b = rng.integers(3, size=(3, 400))
    b = np.where(rng.random(400) < 0.5, a, b)
    assert agreement(a == truth, b == truth).kappa == pytest.approx(cohen_kappa_score(a == truth, b == truth))
    found = decision_agreement(a, b)
    assert found.kappa == pytest.approx(cohen_kappa_score(a, b))
    assert found.observed == pytest.approx(np.mean(a == b))


def test_probabilities_of_the_truth_agree_as_answers_drawn_from_them_do():
    found = agreement([0.9, 0.5], [0.8, 0.1])
    assert found.observed == pytest.approx(np.mean([0.9 * 0.8 + 0.1 * 0.2, 0.5 * 0.1 + 0.5 * 0.9]))
    assert found.independent == pytest.approx(0.7 * 0.45 + 0.3 * 0.55)


def test_kappa_is_undefined_where_agreement_is_certain():
    assert agreement([1, 1], [1, 1]).kappa is None
