from dataclasses import asdict

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, roc_curve

from radtransfer.errors import ConfigError, DataError
from radtransfer.evaluation.calibration import (
    OperatingPoint,
    check_rule,
    choose_point,
    decisions,
    rate_intervals,
    rates,
)
from radtransfer.evaluation.scoring import Question, Scoring

TWO = Scoring("multiclass", ("well", "sick"))


@pytest.fixture
def validation():
    """Targets and probabilities of 300 images of two classes."""
    rng = np.random.default_rng(0)
    truth = rng.random(300) < 0.4
    sick = np.round(np.clip(rng.normal(0.4 + 0.2 * truth, 0.2), 0, 1), 2)
    return np.stack([~truth, truth], axis=1).astype(float), np.stack([1 - sick, sick], axis=1)


def figures(validation, threshold):
    targets, probabilities = validation
    tn, fp, fn, tp = confusion_matrix(targets[:, 1] > 0.5, probabilities[:, 1] >= threshold).ravel()
    return tp / (tp + fn), tn / (tn + fp)


@pytest.mark.parametrize("rule", ["sensitivity=0.9", "specificity=0.9", "youden", "sensitivity=1", "specificity=1"])
def test_a_rule_chooses_the_point_of_scikit_learns_curve(validation, rule):
    targets, probabilities = validation
    point = choose_point(rule, targets, probabilities, TWO)
    x, y, _ = roc_curve(targets[:, 1], probabilities[:, 1], drop_intermediate=False)
    name, _, least = rule.partition("=")
    if name == "sensitivity":
        expected = (y[np.argmax(y >= float(least))], 1 - x[np.argmax(y >= float(least))])
    elif name == "specificity":
        place = np.flatnonzero(1 - x >= float(least) - 1e-9)[-1]
        expected = (y[place], 1 - x[place])
    else:
        expected = (y[np.argmax(y - x)], 1 - x[np.argmax(y - x)])
    found = point.sensitivity["sick"], point.specificity["sick"]
    assert found == pytest.approx(expected)
    assert found == pytest.approx(figures(validation, point.thresholds["sick"]))
    assert point.n_images == 300


def test_a_threshold_lies_between_two_scores(validation):
    targets, probabilities = validation
    threshold = choose_point("youden", targets, probabilities, TWO).thresholds["sick"]
    assert np.abs(probabilities[:, 1] - threshold).min() > 0.004


def test_certain_scores_can_be_told_apart():
    targets = np.array([[1, 0], [1, 0], [0, 1]], float)
    probabilities = np.array([[0, 1], [0.5, 0.5], [0, 1]], float)
    point = choose_point("specificity=1", targets, probabilities, TWO)
    assert point.specificity == {"sick": 1.0}
    assert not decisions(probabilities, TWO, point).any()


def test_labels_and_grades_have_their_own_questions():
    rng = np.random.default_rng(1)
    labels = Scoring("multilabel", ("edema", "fracture"))
    targets = (rng.random((50, 2)) < 0.5).astype(float)
    targets[:5, 0] = np.nan
    point = choose_point("youden", targets, rng.random((50, 2)), labels)
    assert set(point.thresholds) == {"edema", "fracture"}
    grades = Scoring("multiclass", ("0", "1", "2"), positive_from=2)
    targets, probabilities = np.eye(3)[rng.integers(3, size=50)], rng.dirichlet([1, 1, 1], 50)
    point = choose_point("youden", targets, probabilities, grades)
    assert list(point.thresholds) == ["grade >= 2"]
    expected = probabilities[:, 2] >= point.thresholds["grade >= 2"]
    assert decisions(probabilities, grades, point)[:, 0].tolist() == expected.tolist()


def test_rates_are_scikit_learns_and_nothing_has_no_share():
    truth, scores = np.array([True, True, False, False, False]), np.array([0.9, 0.2, 0.8, 0.1, 0.3])
    found = rates(Question("sick", np.arange(5), truth, scores), 0.5)
    tn, fp, fn, tp = confusion_matrix(truth, scores >= 0.5).ravel()
    assert [found[name] for name in ("tn", "fp", "fn", "tp")] == [tn, fp, fn, tp]
    assert (found["sensitivity"], found["specificity"], found["ppv"]) == pytest.approx((0.5, 2 / 3, 0.5))
    assert found["accuracy"] == pytest.approx((found["tp"] + found["tn"]) / 5)
    assert rates(Question("sick", np.arange(5), truth, scores), 2)["ppv"] is None


def test_intervals_are_over_patients():
    rng = np.random.default_rng(0)
    truth = np.repeat(rng.random(100) < 0.5, 10)
    scores = np.repeat(rng.random(100), 10)
    question = Question("sick", np.arange(1000), truth, scores)
    of_patients = rate_intervals(question, 0.5, np.arange(1000) // 10)
    of_images = rate_intervals(question, 0.5, np.arange(1000))
    for name in ("sensitivity", "specificity"):
        wide, narrow = np.diff(of_patients[name])[0], np.diff(of_images[name])[0]
        assert wide > 2.5 * narrow
        assert of_patients[name][0] < rates(question, 0.5)[name] < of_patients[name][1]
    for low, high in rate_intervals(question, 0.5, np.zeros(1000, int)).values():
        assert high - low > 0.5
    healthy = Question("sick", np.arange(9), np.zeros(9, bool), np.zeros(9))
    found = rate_intervals(healthy, 0.5, np.arange(9))
    assert found["sensitivity"] is None
    assert found["specificity"] == pytest.approx(list(binomtest(9, 9).proportion_ci(method="wilson")))


@pytest.mark.parametrize("rule", ["best", "sensitivity", "sensitivity=90", "specificity=0", "youden=1", ""])
def test_other_rules_are_refused(rule):
    with pytest.raises(ConfigError, match="sensitivity=X"):
        check_rule(rule)


def test_a_rule_has_one_spelling():
    assert [check_rule(rule) for rule in ("Youden", "sensitivity = .90", "specificity=1.0")] == [
        "youden",
        "sensitivity=0.9",
        "specificity=1",
    ]


def test_several_classes_have_no_yes_and_one_sided_images_no_threshold(validation):
    with pytest.raises(ConfigError, match="a model of 3 classes: a, b, c"):
        choose_point("youden", np.eye(3), np.eye(3), Scoring("multiclass", ("a", "b", "c")))
    targets, probabilities = validation
    with pytest.raises(DataError, match="0 negative"):
        choose_point("youden", np.tile([0.0, 1.0], (300, 1)), probabilities, TWO)


def test_a_point_survives_json():
    point = OperatingPoint("youden", {"sick": 0.25}, {"sick": 0.9}, {"sick": 0.8}, 40)
    assert OperatingPoint(**asdict(point)) == point
