"""Which initialization reaches the threshold in fewer steps, on made-up tables whose right answer is known."""

import pytest

from radtransfer.reports.advice import convergence, step_verdict
from radtransfer.reports.arms import (
    ArmResults,
    ArmSummary,
    StepDifference,
    step_difference,
    step_differences,
    step_rows,
)
from radtransfer.reports.collect import Arm, ArmRun, TrainedFold


def arm(name, steps, *, last=100, start=None, every=10, recipe=""):
    """An arm whose training k reaches 0.8 at `steps[k]`; None never."""
    folds = []
    for number, reached in enumerate(steps, start=1):
        rows = [
            {"step": str(step), "split": "test", "auc": "0.9" if reached is not None and step >= reached else "0.6"}
            for step in range(every, last + 1, every)
        ]
        folds.append(TrainedFold(number, 1, 0, 0.9, rows))
    return Arm(name, start or name, "all stages", "resnet50", recipe, "", (ArmRun(None, {}, {}, {}, folds),))


def advised(*arms):
    summaries = [ArmSummary(a.name, a.start, a.depth, a.backbone, a.recipe, mean=0.9) for a in arms]
    return list(convergence(ArmResults(summaries, steps=step_differences(arms, 0.8), threshold=0.8)))


def test_the_difference_is_paired_by_fold_and_its_interval_is_corrected():
    found = step_difference(arm("a", [20, 30, 20, 30]), arm("b", [60, 80, 70, 70]), 0.8)
    assert (found.mean, found.trainings, found.spacing) == (-45, 4, 10)
    half = 3.182446305284263 * found.sd * (1 / 4 + 1 / 3) ** 0.5
    assert found.sd == pytest.approx(5.773502691896258)
    assert found.ci95 == pytest.approx((-45 - half, -45 + half))
    assert found.swapped().ci95 == pytest.approx((45 - half, 45 + half))


def test_no_interval_is_narrower_than_the_steps_between_two_looks():
    found = step_difference(arm("a", [20, 20, 20], every=20), arm("b", [40, 40, 40], every=20), 0.8)
    assert found.ci95 == (-40, 0)
    assert step_verdict(found) == "inconclusive"


def test_a_training_that_never_gets_there_counts_with_its_last_step():
    found = step_difference(arm("a", [20, 30, None]), arm("b", [None, 80, None]), 0.8)
    assert (found.mean, found.trainings, found.only_a, found.only_b) == (-65, 2, 1, 0)
    assert (found.swapped().only_a, found.swapped().only_b) == (0, 1)
    assert step_difference(arm("a", [None]), arm("b", [None]), 0.8) is None


def test_only_arms_that_differ_in_their_start_alone_are_compared():
    arms = [arm("a", [20]), arm("b", [30]), arm("c", [30], recipe="epochs 3"), arm("a2", [30], start="a")]
    assert [(d.a, d.b) for d in step_differences(arms, 0.8)] == [("a", "b"), ("b", "a2")]


def test_the_start_that_gets_there_sooner_is_named_with_its_interval():
    (point,) = advised(arm("random", [60, 80, 70, 70]), arm("imagenet", [20, 30, 20, 30]))
    assert point.verdict == "convergence"
    assert point.text == "imagenet reaches AUC 0.8 (resnet50) in fewer steps than random."
    assert point.evidence == "imagenet − random −45 steps (−59 to −31, 4 trainings)"


def test_an_interval_that_contains_zero_is_undecided_and_says_what_would_decide():
    (point,) = advised(arm("imagenet", [20, 90, 20, 60]), arm("random", [60, 60, 50, 70]))
    assert point.verdict == "inconclusive"
    said = "It is unclear which initialization reaches AUC 0.8 (resnet50) in fewer steps; on average it is imagenet"
    assert said in point.text
    assert "trainings instead of 4." in point.text
    assert "imagenet − random −12 steps (" in point.evidence


def test_one_training_is_undecided():
    (point,) = advised(arm("imagenet", [20]), arm("random", [90]))
    assert point.verdict == "inconclusive"
    assert "Against random: there is only one training to compare; run more folds or seeds" in point.text
    assert "no interval" in point.evidence


def test_too_few_looks_are_said():
    (point,) = advised(arm("imagenet", [20, 20, 20], every=20), arm("random", [40, 40, 40], every=20))
    assert "evaluate more often than every 20 steps" in point.text


def test_a_start_that_once_never_arrives_where_another_does_is_not_called_sooner():
    wins = StepDifference("a", "b", -40, 5, (-50, -30), 5, only_a=2, only_b=0, spacing=10)
    assert step_verdict(wins) == "fewer"
    assert step_verdict(wins.swapped()) == "more"
    both = StepDifference("a", "b", -40, 5, (-50, -30), 5, only_a=2, only_b=1, spacing=10)
    assert step_verdict(both) == "inconclusive"


def test_one_of_three_may_be_decided_alone():
    (point,) = advised(arm("i", [20, 30, 20, 30]), arm("m", [20, 40, 20, 30]), arm("s", [80, 90, 80, 90]))
    assert point.verdict == "convergence"
    said = "i reaches AUC 0.8 (resnet50) in fewer steps than s; the comparison with m is inconclusive."
    assert point.text.startswith(said)


def test_nothing_is_said_where_nobody_arrives():
    assert advised(arm("i", [None, None]), arm("s", [None, None])) == []


def test_arms_that_were_not_watched_have_no_row():
    unwatched = Arm("u", "u", "all", "b", runs=(ArmRun(None, {}, {}, {}, [TrainedFold(1, 1, 0, 0.9, [])]),))
    (row,) = step_rows([arm("i", [20, None]), unwatched], 0.8)
    assert (row["arm"], row["steps_mean"], row["reached"], row["watched"]) == ("i", 20, 1, 2)
