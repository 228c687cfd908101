"""Every rule on made-up tables whose right answer is known."""

from itertools import combinations

import pytest

from radtransfer.reports.advice import (
    advice,
    equal_but_different,
    few_trainings,
    how_deep,
    little_change_little_gain,
    lost_when_frozen,
    one_training,
    which_size,
    which_start,
)
from radtransfer.reports.arms import ArmDifference, ArmResults, ArmSummary
from radtransfer.reports.changes import LayerChange


def arm(name, auc, *, start="imagenet", depth="all stages", backbone="resnet50", **more):
    given = {"parameters": 23_000_000, "trainable": 23_000_000, "trainings": 9, "seeds": 3, "sd": 0.01} | more
    return ArmSummary(name, start, depth, backbone, mean=auc, pooled=auc, ci95=(auc - 0.02, auc + 0.02), **given)


def results(*arms, half=0.01, changes=None, **more):
    """Every pair compared, with intervals of ± `half`."""
    differences = []
    for a, b in combinations(arms, 2):
        value = a.mean - b.mean
        figures = {"value": value, "ci95": (value - half, value + half), "patients": 200, "trainings": 9}
        differences.append(ArmDifference(a.name, b.name, better=9 if value > 0 else 0, **figures | more))
    return ArmResults(arms, differences, changes or {})


def only(points):
    (point,) = points
    return point


def test_the_best_start_is_named_with_the_evidence():
    point = only(which_start(results(arm("s", 0.7, start="random"), arm("i", 0.9))))
    assert (point.verdict, point.text) == ("initialization", "Start from imagenet (resnet50): better than random.")
    assert "i 0.900 ± 0.010 over 9 trainings, pooled 0.900 (0.880 to 0.920)" in point.evidence
    assert "i − s +0.200 (+0.190 to +0.210, 200 patients), better in 9 of 9 trainings" in point.evidence


def test_starts_that_are_equal_are_both_named():
    found = results(arm("i", 0.9), arm("r", 0.895, start="radimagenet"), arm("s", 0.7, start="random"))
    point = only(which_start(found))
    assert point.verdict == "initialization"
    assert point.text == "Start from imagenet or radimagenet (resnet50): they are equal within 0.02; random is worse."


def test_a_start_that_cannot_be_told_apart_is_undecided_and_says_what_would_decide():
    point = only(which_start(results(arm("i", 0.9), arm("r", 0.86, start="radimagenet"), half=0.08)))
    assert point.verdict == "inconclusive"
    assert (
        "imagenet has the highest AUC (resnet50), but there is no significant difference from radimagenet" in point.text
    )
    assert "about 800 patients instead of 200 would show a difference" in point.text


def test_arms_that_were_not_compared_are_undecided():
    point = only(which_start(ArmResults([arm("i", 0.9), arm("s", 0.5, start="random")])))
    assert point.verdict == "inconclusive"
    assert "random was not tested on the same images" in point.text


def test_arms_that_differ_in_two_things_do_not_say_which_start():
    assert not list(which_start(results(arm("i", 0.9), arm("s", 0.7, start="random", backbone="cbr_tiny"))))
    assert not list(which_start(results(arm("i", 0.9), arm("s", 0.7, start="random", context="epochs 3"))))


def test_the_shallowest_training_that_loses_nothing_is_advised():
    found = results(
        arm("all", 0.9),
        arm("top", 0.899, depth="from stage4 up", trainable=9_000_000),
        arm("head", 0.8, depth="the head alone", trainable=0),
    )
    point = only(how_deep(found))
    assert point.text == "Train from stage4 up (resnet50): it is equal within 0.02 to all stages, the best."


def test_where_freezing_costs_everything_is_trained():
    found = results(arm("all", 0.9), arm("head", 0.8, depth="the head alone", trainable=0))
    assert only(how_deep(found)).text == "Train all stages (resnet50): the head alone has a lower AUC."
    signature = only(lost_when_frozen(found))
    assert signature.verdict == "AUC lost when frozen"
    assert "all − head +0.100 (+0.090 to +0.110" in signature.evidence


def test_freezing_that_costs_nothing_is_no_failure():
    assert not list(lost_when_frozen(results(arm("all", 0.9), arm("head", 0.91, depth="the head alone", trainable=0))))


def test_an_undecided_depth_says_so():
    found = results(arm("all", 0.9), arm("head", 0.88, depth="the head alone", trainable=0), half=0.05)
    point = only(how_deep(found))
    assert point.verdict == "inconclusive"
    assert "It is unclear whether “the head alone” is enough (resnet50)" in point.text
    assert "would show a difference" in point.text


@pytest.mark.parametrize(
    ("small", "half", "word", "text"),
    [
        (
            0.895,
            0.01,
            "size",
            "Use cbr_tiny (1.1 million parameters): it is equal within 0.02 to resnet50",
        ),
        (
            0.8,
            0.01,
            "size",
            "Use resnet50 (23.0 million parameters): cbr_tiny (1.1 million parameters) has a lower AUC.",
        ),
        (
            0.87,
            0.05,
            "inconclusive",
            "It is unclear whether “cbr_tiny (1.1 million parameters)” is enough:",
        ),
        (
            0.95,
            0.01,
            "size",
            "Use cbr_tiny (1.1 million parameters): no larger choice has a higher AUC.",
        ),
        (
            0.91,
            0.05,
            "inconclusive",
            "Use cbr_tiny (1.1 million parameters): no larger choice has a higher AUC, but the",
        ),
    ],
)
def test_the_smallest_network_that_is_enough(small, half, word, text):
    found = results(arm("large", 0.9), arm("small", small, backbone="cbr_tiny", parameters=1_080_000), half=half)
    point = only(which_size(found))
    assert point.verdict == word
    assert point.text.startswith(text)


def test_arms_trained_once_are_named():
    assert only(one_training(results(arm("i", 0.9, trainings=1, seeds=1), arm("s", 0.8)))).text.startswith(
        "i: trained only once."
    )
    assert only(one_training(results(arm("i", 0.9, seeds=1)))).verdict == "one seed"
    assert not list(one_training(results(arm("i", 0.9))))


def test_a_network_that_stays_like_its_start_without_gain_is_named():
    layers = {"i": [LayerChange("stem", 0.95, (0.9, 0.97)), LayerChange("stage1", 0.9)]}
    starts = arm("i", 0.8), arm("s", 0.79, start="random")
    point = only(little_change_little_gain(results(*starts, half=0.02, changes=layers)))
    assert point.verdict == "high similarity, little gain"
    assert "mean similarity to its initialization 0.93 over 2 layers" in point.text
    assert "i − s +0.010" in point.evidence
    moved = {"i": [LayerChange("stem", 0.95), LayerChange("stage1", 0.3)]}
    assert not list(little_change_little_gain(results(*starts, changes=moved)))
    assert not list(little_change_little_gain(results(arm("i", 0.9), starts[1], changes=layers)))


def test_equal_networks_that_err_differently_are_named():
    arms = arm("i", 0.9), arm("r", 0.899, start="radimagenet")
    point = only(equal_but_different(results(*arms, kappa=0.2, kappa_ci95=(0.1, 0.3))))
    assert point.verdict == "equal AUC, different errors"
    assert "kappa 0.20 (0.10 to 0.30)" in point.evidence
    assert not list(equal_but_different(results(*arms, kappa=0.3, kappa_ci95=(0.1, 0.5))))
    assert not list(equal_but_different(results(*arms, half=0.05, kappa=0.2, kappa_ci95=(0.1, 0.3))))


def test_a_difference_that_training_again_may_turn_is_named():
    starts = arm("i", 0.9), arm("s", 0.86, start="random")
    point = only(few_trainings(results(*starts, fold_mean=0.04, fold_ci95=(-0.04, 0.12))))
    assert point.verdict == "few trainings"
    assert "the 95 % CI over trainings includes 0" in point.text
    assert "Against s, a conclusion needs about 36 trainings instead of 9" in point.text
    assert point.evidence == "i − s +0.040 (−0.040 to +0.120 over 9 trainings, better in 9)"
    assert not list(few_trainings(results(*starts, fold_mean=0.04, fold_ci95=(0.01, 0.07))))
    assert not list(few_trainings(results(*starts, half=0.1, fold_mean=0.04, fold_ci95=(-0.04, 0.12))))


def test_nothing_is_claimed_without_an_interval():
    arms = [arm(str(i), 0.5 + 0.05 * i, start=f"start {i}", depth=f"depth {i % 2}", trainable=i) for i in range(6)]
    found = results(*arms)
    for point in advice(found):
        assert "(" in point.evidence and " to " in point.evidence, point


def test_an_arm_without_auc_has_no_say():
    assert advice(ArmResults([ArmSummary("a", "x", "all", "b"), ArmSummary("c", "y", "all", "b")])) == []


def test_a_difference_is_known_from_both_sides():
    found = results(arm("i", 0.9), arm("s", 0.7, start="random"))
    swapped = found.difference("s", "i")
    assert (swapped.a, swapped.b) == ("s", "i")
    assert swapped.value == pytest.approx(-0.2)
    assert swapped.ci95 == pytest.approx((-0.21, -0.19))
    assert swapped.better == 0
    assert found.difference("i", "nobody") is None
