from radtransfer.reports.arms.arm_results import ArmResults, ArmSummary
from radtransfer.reports.sections.runs import size_parts


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
