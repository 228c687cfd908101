import pytest

from radtransfer.reports.arms import ArmDifference, ArmResults, ArmSummary
from radtransfer.reports.sections import difference_parts, size_parts


def summary(name, start, backbone, parameters):
    return ArmSummary(name, start, "all stages", backbone, mean=0.8, pooled=0.8, ci95=(0.7, 0.9), parameters=parameters)


def legend(*summaries):
    (picture,) = size_parts(ArmResults(list(summaries)))
    return [text.get_text() for text in picture.figure.legends[0].get_texts()]


def test_an_arm_that_stands_alone_is_called_by_its_name():
    assert legend(summary("a", "w", "small", 10**6), summary("b", "random", "large", 10**7)) == ["a", "b"]


def test_arms_that_differ_in_size_alone_are_called_by_what_they_share():
    arms = (summary("a", "random", "small", 10**6), summary("b", "random", "large", 10**7))
    assert legend(*arms, summary("c", "w", "large", 10**7)) == ["random, all stages", "c"]


def test_arms_of_one_size_are_not_drawn():
    assert size_parts(ArmResults([summary("a", "w", "one", 10), summary("b", "random", "one", 10)])) == []


@pytest.mark.parametrize("references", [{}, {"a": "b", "c": "b"}])
def test_rows_of_differences_say_which_arm_is_taken_from_which(references):
    arms = [ArmSummary(name, "w", "all", "n", mean=auc) for name, auc in (("a", 0.9), ("b", 0.8), ("c", 0.7))]
    pairs = [ArmDifference(a, b, 0.1, (0.0, 0.2), 50) for a, b in (("a", "b"), ("a", "c"), ("b", "c"))]
    picture = difference_parts(ArmResults(arms, pairs), references)[0]
    (axes,) = picture.figure.axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == (["a − b", "c − b"] if references else ["a − b", "a − c"])
    assert axes.get_xlabel() == "difference in AUC"


def test_long_names_of_a_difference_stand_on_two_lines():
    a, b = "inception_v3, random", "inception_v3, imagenet"
    arms = [ArmSummary(a, "w", "all", "n", mean=0.9), ArmSummary(b, "w", "all", "n", mean=0.8)]
    picture = difference_parts(ArmResults(arms, [ArmDifference(a, b, 0.1, None, 50)]), {})[0]
    assert [label.get_text() for label in picture.figure.axes[0].get_yticklabels()] == [f"{a}\n− {b}"]
