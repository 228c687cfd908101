"""Arms that no rule about start, depth or size compares: a sentence says which is better, and what they differ in."""

from dataclasses import replace
from itertools import combinations

import pytest
from click.testing import CliRunner
from run_files import write_run

from radtransfer.cli.main import application
from radtransfer.reports.advice import advice, few_trainings, which_arm, which_size
from radtransfer.reports.arms import ArmDifference, ArmResults, ArmSummary

BOTH = ("start", "epochs")
DIFFERENCE, ZERO = "significant difference", " (95 % CI includes 0)"
UNKNOWN = "so that the effect of each one is unknown"


def arm(name, auc, *, start="random", backbone="cbr_tiny", recipe="", context="", images=1):
    return ArmSummary(name, start, "all", backbone, recipe, context, 10**6, 10**6, mean=auc, pooled=auc, images=images)


def results(*arms, half=0.01, differ_in=BOTH):
    differences = [
        ArmDifference(a.name, b.name, d, (d - half, d + half), 200, differ_in=differ_in)
        for a, b in combinations(arms, 2)
        for d in [a.mean - b.mean]
    ]
    return ArmResults(arms, differences)


@pytest.mark.parametrize(
    ("auc", "half", "word", "text"),
    [
        (0.8, 0.01, "best arm", "“a” is better than “b”. "),
        (0.895, 0.01, "best arm", "“a” and “b” are equal within 0.02. "),
        (
            0.85,
            0.06,
            "inconclusive",
            f"“a” has the highest AUC, but there is no {DIFFERENCE} from “b”{ZERO}. ",
        ),
    ],
)
def test_of_arms_that_differ_in_two_things_the_better_is_named_and_what_they_differ_in(auc, half, word, text):
    found = results(arm("a", 0.9), arm("b", auc, start="imagenet", recipe="epochs 3"), half=half)
    (point,) = which_arm(found)
    assert point.verdict == word
    assert point.text.startswith(f"{text}They differ in start and epochs, {UNKNOWN}.")
    assert ("would show a difference" in point.text) == (word == "inconclusive")
    assert "a − b +" in point.evidence and "200 patients" in point.evidence


def test_a_single_setting_is_named_as_the_only_one():
    (point,) = which_arm(results(arm("a", 0.9), arm("b", 0.8, recipe="epochs 3"), differ_in=("epochs",)))
    assert point.text == "“a” is better than “b”. They differ only in epochs."


def test_what_another_rule_compares_is_not_said_twice():
    assert not list(which_arm(results(arm("a", 0.9), arm("b", 0.8, start="imagenet"))))
    assert not list(which_arm(results(arm("a", 0.9), arm("b", 0.8, backbone="resnet50"))))


def test_of_arms_that_other_rules_link_only_the_best_is_compared():
    pair = arm("a", 0.9), arm("b", 0.8, start="imagenet")
    rest = arm("c", 0.7, context="image size 96"), arm("d", 0.6, context="image size 32")
    (point,) = which_arm(results(*pair, *rest))
    assert point.text.startswith("“a” is better than “c” and “d”. They differ in")


def test_arms_of_other_images_are_not_compared():
    assert not list(which_arm(results(arm("a", 0.9), arm("b", 0.8, context="size 96", images=2))))


def test_arms_that_were_not_compared_are_undecided():
    (point,) = which_arm(ArmResults([arm("a", 0.9), arm("b", 0.8, context="image size 96")]))
    assert point.verdict == "inconclusive"
    assert point.text.endswith("“b” was not tested on the same images.")


def test_a_lead_that_training_again_may_turn_is_named():
    found = results(arm("a", 0.9), arm("b", 0.8, start="imagenet", recipe="epochs 3"))
    turns = [replace(d, fold_mean=0.1, fold_ci95=(-0.1, 0.3), trainings=3) for d in found.differences]
    (point,) = few_trainings(replace(found, differences=turns))
    assert point.text.startswith("The trained networks of a are better than those of b, but")


def test_networks_of_other_starts_and_settings_are_said_to_differ_in_these_too():
    found = results(arm("a", 0.9), arm("b", 0.8, backbone="resnet50"), differ_in=("network", "start", "epochs"))
    (point,) = which_size(found)
    assert point.text.endswith(" They also differ in start and epochs.")


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_a_report_of_two_runs_says_which_is_better_or_that_it_is_undecided(tmp_path, shift):
    more = {"training.epochs": 3, "model.image_size": 96}
    write_run(tmp_path / "runs/a", starts_from="random", weights="random")
    write_run(tmp_path / "runs/b", shift=shift, noise=1, backbone="cbr_tiny", settings=more)
    command = ["report", str(tmp_path / "runs"), "--no-cca", "--out", str(tmp_path / "out")]
    assert CliRunner().invoke(application, command, prog_name="radtransfer").exit_code == 0
    text = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    said = "“b” is better than “a”" if shift > 1 else "no significant difference from “"
    assert said in text
    assert f"They differ in network, start, image size and epochs, {UNKNOWN}" in text


def test_every_pair_of_compared_arms_gets_a_verdict():
    keys = {"start": "imagenet", "backbone": "resnet50", "recipe": "epochs 3", "context": "image size 96"}
    for count in range(1, len(keys) + 1):
        for names in combinations(keys, count):
            found = results(arm("a", 0.9), arm("b", 0.8, **{name: keys[name] for name in names}))
            words = {point.verdict for point in advice(found)}
            assert words & {"best arm", "initialization", "size", "inconclusive"}, names


def test_a_start_with_another_input_is_not_ranked_and_the_advice_says_that_the_input_differs_too(tmp_path):
    write_run(tmp_path / "runs/a", shift=3.0, settings={"model.preprocessing": "caffe"})
    random = {"starts_from": "random", "weights": "random"}
    write_run(tmp_path / "runs/b", shift=0.5, settings={"model.preprocessing": "torch"}, **random)
    command = ["report", str(tmp_path / "runs"), "--no-cca", "--out", str(tmp_path / "out")]
    assert CliRunner().invoke(application, command, prog_name="radtransfer").exit_code == 0
    text = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert f"They differ in start and preprocessing, {UNKNOWN}" in text
    assert "Start from imagenet" not in text


def test_networks_of_different_size_are_compared_and_the_input_is_told():
    large = arm("a", 0.9, backbone="resnet50")
    small = replace(arm("b", 0.9), parameters=10**5, preprocessing="torch input")
    (point,) = which_size(results(large, small, differ_in=("network", "preprocessing")))
    assert "They also differ in preprocessing." in point.text
