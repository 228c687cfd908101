import numpy as np

from radtransfer.evaluation.heat_maps import confident_mistakes_first, multi_label_verdicts, single_label_verdicts
from radtransfer.evaluation.scored_network import Decision

NAN = float("nan")


def test_of_several_classes_the_largest_output_is_explained():
    probabilities = np.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2]])
    found = single_label_verdicts(probabilities, np.eye(3)[[1, 2]], ["a", "b", "c"])
    assert [(item.name, item.decision, item.truth, item.wrong) for item in found] == [
        ("b", Decision(1), "b", False),
        ("a", Decision(0), "c", True),
    ]


def test_a_single_output_is_the_second_of_two_classes():
    found = single_label_verdicts(np.array([[0.9], [0.2]]), np.array([[1, 0], [1, 0]]), ["well", "sick"])
    assert [(item.name, item.decision, item.wrong) for item in found] == [
        ("sick", Decision(0, present=True), True),
        ("well", Decision(0, present=False), False),
    ]
    assert found[1].probability == 0.8


def test_of_several_labels_the_one_that_is_most_wrong_is_explained():
    probabilities = np.array([[0.9, 0.2, 0.4], [0.1, 0.6, 0.3]])
    found = multi_label_verdicts(probabilities, np.array([[1, 1, NAN], [NAN, NAN, NAN]]), ["edema", "mass", "node"])
    assert [(item.name, item.decision, item.truth, item.wrong) for item in found] == [
        ("not mass", Decision(1, present=False), "edema; mass", True),
        ("mass", Decision(1, present=True), "", None),
    ]


def test_without_labels_nothing_is_wrong():
    found = single_label_verdicts(np.array([[0.6, 0.4]]), None, ["a", "b"])
    assert found[0].wrong is None
    assert found[0].truth == ""


def test_confident_mistakes_stand_first_and_sure_right_answers_last():
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.05, 0.95], [0.45, 0.55], [0.8, 0.2]])
    truth = np.eye(2)[[0, 0, 0, 1, 1]]
    order = [item.row for item in confident_mistakes_first(single_label_verdicts(probabilities, truth, ["a", "b"]))]
    assert order == [2, 4, 1, 3, 0]
