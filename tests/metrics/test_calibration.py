import numpy as np
import pytest
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss

from radtransfer.evaluation.calibration import (
    calibration_answers,
    edge_note,
    expected_error,
    fit_temperature,
    mean_with_temperatures,
    reliability,
    with_temperature,
)
from radtransfer.evaluation.scoring import Scoring

TWO = Scoring("multiclass", ("well", "sick"))
THREE = Scoring("multiclass", ("a", "b", "c"))
LABELS = Scoring("multilabel", ("edema", "fracture"))


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.fixture
def drawn():
    """Targets drawn from softmaxes of logits, and what a network says whose logits are 2.5 times as large."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (4000, 3))
    truth = softmax(logits)
    targets = np.eye(3)[[rng.choice(3, p=row) for row in truth]]
    return targets, softmax(2.5 * logits), truth


def test_the_diagram_is_scikit_learns(drawn):
    targets, said, _ = drawn
    found = reliability(said[:, 1], targets[:, 1] > 0.5, bins=10)
    frequency, confidence = calibration_curve(targets[:, 1], said[:, 1], n_bins=10, strategy="uniform")
    assert found.frequency == pytest.approx(frequency)
    assert found.confidence == pytest.approx(confidence)
    assert sum(found.count) == 4000
    share = np.array(found.count) / 4000
    assert found.ece == pytest.approx(np.sum(share * np.abs(frequency - confidence)))


def test_the_error_of_a_small_example_is_as_by_hand():
    found = reliability(np.array([0.05, 0.15, 0.1, 1.0]), np.array([False, True, False, True]), bins=10)
    assert found.count == [1, 2, 1]
    assert found.confidence == pytest.approx([0.05, 0.125, 1.0])
    assert found.start == pytest.approx([0, 0.1, 0.9])
    assert found.ece == pytest.approx((0.05 + 2 * 0.375 + 0) / 4)
    assert reliability(np.array([]), np.array([])) is None


def test_intervals_are_scipys_score_intervals(drawn):
    targets, said, _ = drawn
    found = reliability(said[:40, 1], targets[:40, 1] > 0.5, bins=10)
    assert {0, 1} & set(found.frequency)
    for share, count, ends in zip(found.frequency, found.count, found.ci95, strict=True):
        expected = binomtest(round(share * count), count).proportion_ci(method="wilson")
        assert ends == pytest.approx(list(expected), abs=1e-6)


def test_a_network_that_says_what_is_so_has_hardly_an_error(drawn):
    targets, said, truth = drawn
    assert expected_error(targets, truth, THREE) < 0.03 < 0.1 < expected_error(targets, said, THREE)


def test_what_is_judged_depends_on_the_task():
    targets = np.array([[1, 0, 0], [0, 1, 0]], float)
    probabilities = np.array([[0.6, 0.3, 0.1], [0.5, 0.4, 0.1]])
    ((name, confidences, right),) = calibration_answers(targets, probabilities, THREE)
    assert (name, confidences.tolist(), right.tolist()) == ("largest output", [0.6, 0.5], [True, False])
    ((name, confidences, _),) = calibration_answers(targets[:, :2], probabilities[:, :2], TWO)
    assert (name, confidences.tolist()) == ("sick", [0.3, 0.4])
    known = np.array([[1, np.nan], [0, 1]])
    assert [len(item[1]) for item in calibration_answers(known, probabilities[:, :2], LABELS)] == [2, 1]


def test_the_temperature_is_found_that_made_the_network_too_sure(drawn):
    targets, said, truth = drawn
    found = fit_temperature(targets, said, activation="softmax")
    assert found == pytest.approx(2.5, rel=0.1)
    assert with_temperature(said, 2.5, activation="softmax") == pytest.approx(truth, abs=1e-6)
    assert with_temperature(said, 1.0, activation="softmax") == pytest.approx(said, abs=1e-6)


def test_no_other_temperature_is_likelier_by_scikit_learns_log_loss(drawn):
    targets, said, _ = drawn
    logits = np.log(said)
    best = minimize(lambda t: log_loss(targets, softmax(logits / t[0])), [1.0], method="Nelder-Mead")
    assert fit_temperature(targets, said, activation="softmax") == pytest.approx(best.x[0], rel=1e-3)


def test_sigmoids_have_a_temperature_too_and_unknown_labels_do_not_count():
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, (6000, 2))
    targets = (rng.random((6000, 2)) < 1 / (1 + np.exp(-logits))).astype(float)
    targets[:1000, 1] = np.nan
    said = 1 / (1 + np.exp(-3 * logits))
    said[:1000, 1] = 0.999
    assert fit_temperature(targets, said, activation="sigmoid") == pytest.approx(3, rel=0.1)
    assert fit_temperature(np.full((2, 2), np.nan), said[:2], activation="sigmoid") is None


def test_where_the_best_temperature_is_at_an_end_of_the_range_it_is_that_end_with_a_note():
    targets = np.array([[1.0, 0.0], [0.0, 1.0]])
    for right, end in ((targets, 0.05), (1 - targets, 20)):
        assert fit_temperature(targets, 0.1 + 0.8 * right, activation="softmax") == end
        assert f"temperature {end:g} is an end of the range" in edge_note([1.5, end])
    assert edge_note([1.5, None]) is None


def test_one_answer_that_is_far_wrong_keeps_the_temperature_off_the_end():
    logits = np.array([0.5] * 99 + [-5.0])
    best = minimize_scalar(lambda t: np.logaddexp(0, -logits / t).mean(), bounds=(0.05, 1), method="bounded").x
    said = expit(np.stack([logits, -logits], axis=1))
    assert fit_temperature(np.ones((100, 1)), said[:, :1], activation="sigmoid") == pytest.approx(best, rel=1e-3)
    targets = np.tile([1.0, 0.0], (100, 1))
    assert fit_temperature(targets, said, activation="softmax") == pytest.approx(best, rel=1e-3)


def test_where_no_temperature_makes_a_difference_the_network_stays_as_it_is():
    targets = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert fit_temperature(targets, np.full((2, 2), 0.5), activation="softmax") == 1


def test_certainty_has_a_temperature_as_well():
    targets, said = np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    found = with_temperature(said, fit_temperature(targets, said, activation="softmax"), activation="softmax")
    assert np.isfinite(found).all()
    assert found.sum(axis=1) == pytest.approx([1, 1])


def test_each_network_has_its_own_temperature():
    members = np.array([[[0.8, 0.2]], [[0.3, 0.7]]])
    expected = (with_temperature(members[0], 2.0, activation="softmax") + members[1]) / 2
    assert mean_with_temperatures(members, [2.0, None], activation="softmax") == pytest.approx(expected)
