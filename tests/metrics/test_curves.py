import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from radtransfer.evaluation.intervals import GRID, both_curves, score_interval


@pytest.fixture
def answers():
    """200 answers with ties, of 60 patients."""
    rng = np.random.default_rng(0)
    truth = rng.random(200) < 0.3
    scores = np.round(np.clip(rng.normal(0.4 + 0.2 * truth, 0.2), 0, 1), 2)
    return truth, scores, [f"p{number}" for number in rng.integers(60, size=200)]


def test_the_curves_are_scikit_learns(answers):
    truth, scores, clusters = answers
    roc, pr = both_curves("sick", truth, scores, clusters, draws=100)
    x, y, _ = roc_curve(truth, scores, drop_intermediate=False)
    assert roc.x == pytest.approx(x)
    assert roc.y == pytest.approx(y)
    assert roc.area == pytest.approx(roc_auc_score(truth, scores))
    precision, recall, _ = precision_recall_curve(truth, scores)
    assert pr.x == pytest.approx(recall[-2::-1])
    assert pr.y == pytest.approx(precision[-2::-1])
    assert pr.area == pytest.approx(average_precision_score(truth, scores))
    assert pr.prevalence == truth.mean()


def test_the_bands_have_the_variance_of_curves_of_drawn_patients(answers):
    truth, scores, clusters = answers
    roc, pr = both_curves("sick", truth, scores, clusters, draws=400, seed=3)
    names = np.unique(clusters)
    members = [np.flatnonzero(np.array(clusters) == name) for name in names]
    rng = np.random.default_rng(3)
    sensitivities, precisions = [], []
    for _ in range(400):
        rows = np.concatenate([members[place] for place in rng.integers(names.size, size=names.size)])
        x, y, _ = roc_curve(truth[rows], scores[rows], drop_intermediate=False)
        at = [max(y[x <= value + 1e-12]) if np.any(np.isclose(x, value)) else np.interp(value, x, y) for value in GRID]
        sensitivities.append(at)
        precision, recall, _ = precision_recall_curve(truth[rows], scores[rows])
        order = slice(-2, None, -1)
        precisions.append([precision[order][np.argmax(recall[order] >= value - 1e-12)] for value in GRID])
    patients = len({name for name, yes in zip(clusters, truth, strict=True) if yes})
    x, y, _ = roc_curve(truth, scores, drop_intermediate=False)
    tops = np.interp(GRID + 1e-9, x, y)
    low, high = score_interval(
        tops, np.var(sensitivities, axis=0), patients, patients, mean=np.mean(sensitivities, axis=0)
    )
    assert roc.low[:-1] == pytest.approx(low[:-1], abs=1e-6)
    assert roc.high[:-1] == pytest.approx(high[:-1], abs=1e-6)
    assert (roc.low[-1], roc.high[-1]) == (1, 1)
    precision, recall, _ = precision_recall_curve(truth, scores)
    there = np.array([precision[-2::-1][np.argmax(recall[-2::-1] >= value - 1e-12)] for value in GRID])
    low, high = score_interval(there, np.var(precisions, axis=0), patients, patients, mean=np.mean(precisions, axis=0))
    assert pr.low == pytest.approx(low, abs=1e-9)
    assert pr.high == pytest.approx(high, abs=1e-9)


def test_the_bands_of_one_patient_and_of_a_perfect_curve_have_a_width(answers):
    truth, scores, clusters = answers
    for curves in (both_curves("", truth, scores, ["p"] * 200), both_curves("", truth, truth * 1.0, clusters)):
        for curve in curves:
            widths = np.array(curve.high) - np.array(curve.low)
            assert widths[:-1].min() > 0.05


def test_the_band_of_a_curve_that_reaches_1_does_not_fall_there():
    truth = np.arange(120) < 60
    scores = np.where(truth, 2.0, 1.0) + np.arange(120) / 1000
    scores[:6], scores[60:80], scores[100:] = 0.5, 3.0, 0.2  # from 0.9 to 1 at a false-positive rate of 2/3
    roc, _ = both_curves("sick", truth, scores, [str(number) for number in range(120)], draws=400)
    assert np.diff(roc.low).min() > -0.1


def test_one_sided_answers_have_no_curve():
    assert both_curves("sick", np.array([True, True]), np.array([0.1, 0.2]), ["a", "b"]) is None
