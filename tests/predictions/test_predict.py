import numpy as np
import pytest

from radtransfer.evaluation.calibration import OperatingPoint, with_temperature
from radtransfer.evaluation.predictions import decision_text, positives, predict_stream, predicted_names
from radtransfer.evaluation.scoring import Scoring

TWO = Scoring("multiclass", ("benign", "malignant"))


class Model:
    """What a predictor asks of its model."""

    def __init__(self, scoring, activation):
        self.scoring, self.activation = scoring, activation


def predictions(scoring, *members, activation="softmax", **options):
    """What is said about the images 0, 1, … of which the networks say `members`."""
    forward = lambda images: np.array(members, np.float32)  # noqa: E731
    stream = [([str(row) for row in range(len(members[0]))], None)]
    return list(predict_stream(Model(scoring, activation), forward, stream, **options))


def point(**thresholds):
    return OperatingPoint("youden", thresholds, {}, {}, 10)


def test_the_mean_of_the_networks_is_what_they_say():
    (found,) = predictions(TWO, [[0.9, 0.1]], [[0.3, 0.7]])
    assert found.probabilities == pytest.approx([0.6, 0.4])
    assert (found.path, found.predicted, found.positive) == ("0", ("benign",), None)


def test_an_operating_point_decides_between_two_classes():
    found = predictions(TWO, [[0.8, 0.2], [0.7, 0.3]], point=point(malignant=0.25))
    assert [(item.predicted, item.positive) for item in found] == [(("benign",), False), (("malignant",), True)]


def test_an_operating_point_of_the_first_class_decides_for_it():
    benign = Scoring("multiclass", ("benign", "malignant"), positive_class="benign")
    found = predictions(benign, [[0.8, 0.2], [0.2, 0.8]], point=point(benign=0.25))
    assert [(item.predicted, item.positive) for item in found] == [(("benign",), True), (("malignant",), False)]


def test_temperatures_change_what_is_shown_and_not_what_is_decided():
    first, second = [[0.9, 0.1]], [[0.2, 0.8]]
    (found,) = predictions(TWO, first, second, temperatures=(3.0, 0.5), point=point(malignant=0.44))
    scaled = [with_temperature(np.array(item), t, activation="softmax") for item, t in ((first, 3.0), (second, 0.5))]
    assert found.probabilities == pytest.approx(np.mean(scaled, axis=0)[0], abs=1e-6)
    assert found.positive  # (0.1 + 0.8) / 2 reaches 0.44


def test_grades_keep_their_class_and_say_whether_they_are_referable():
    grades = Scoring("multiclass", ("0", "1", "2"), positive_from=2)
    (found,) = predictions(grades, [[0.5, 0.2, 0.3]], point=point(**{"grade >= 2": 0.25}))
    assert (found.predicted, found.positive) == (("0",), True)


def test_labels_have_a_threshold_each():
    labels = Scoring("multilabel", ("edema", "fracture"))
    said = np.array([[0.6, 0.4], [0.3, 0.5]])
    assert predicted_names(said, labels, None) == [("edema",), ()]
    assert predicted_names(said, labels, point(edema=0.7, fracture=0.4)) == [("fracture",), ("fracture",)]
    assert positives(said, labels, point(edema=0.7, fracture=0.4)) is None


def test_how_classes_are_decided_is_said_in_words():
    grades = Scoring("multiclass", ("0", "1", "2"), positive_from=2)
    labels = Scoring("multilabel", ("edema", "fracture"))
    assert decision_text(TWO, point(malignant=0.25)) == "at the operating point youden"
    assert decision_text(TWO, None) == "by the largest probability"
    assert decision_text(grades, point(**{"grade >= 2": 0.25})) == "by the largest probability"
    assert decision_text(labels, point(edema=0.7, fracture=0.4)) == "at the operating point youden"
    assert decision_text(labels, None) == "by probabilities above 0.5"
