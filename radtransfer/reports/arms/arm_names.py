"""Sorts runs into arms, what was trained alike but for chance, and says in words what each arm is.

What an arm starts from and what of it trains is read from the resolved plan that each run records, so that equal plans
of different names are equal.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from radtransfer.reports.arms.arm_results import NETWORK
from radtransfer.reports.arms.run_arms import CHANCE, Arm, ArmRun
from radtransfer.run_reading import WITHOUT_WEIGHTS, depth_in_words, network_in_words, start_in_words, weights_in_words

_PREPROCESSING = "model.preprocessing"

_PLAN = ("model.weights", "model.backbone", "transfer.")
"""Settings that are told by start, depth and backbone."""

_RECIPE = "training."

_WORDS = {"data.source": "data"}
"""Settings whose own names would not be understood in a sentence."""


def sort_arms(runs: Sequence[ArmRun]) -> list[Arm]:
    """Runs that differ only by chance belong to one arm; arms are named by what they differ in."""
    groups: dict[str, list[ArmRun]] = {}
    for run in runs:
        groups.setdefault(run.alike, []).append(run)
    arms = describe_arms(list(groups.values()))
    return [replace(arm, name=name) for arm, name in zip(arms, _names(arms), strict=True)]


def describe_arms(groups: Sequence[Sequence[ArmRun]]) -> list[Arm]:
    """An arm, without a name, for each group of runs."""
    firsts = [group[0] for group in groups]
    apart = (*CHANCE, *_PLAN, _PREPROCESSING)
    names = dict.fromkeys(name for run in firsts for name in run.settings if not name.startswith(apart))
    others = [name for name in names if len({_text(run.settings.get(name)) for run in firsts}) > 1]
    networks = [network_in_words(run.record) or str(run.settings.get("model.backbone")) for run in firsts]
    modes: dict[str, set[str | None]] = {}
    for run, network in zip(firsts, networks, strict=True):
        modes.setdefault(network, set()).add(run.settings.get(_PREPROCESSING))
    return [
        Arm(
            name="",
            start=_start(run),
            depth=depth_in_words(run.record),
            backbone=network,
            recipe=_told(run, [name for name in others if name.startswith(_RECIPE)]),
            context=_told(run, [name for name in others if not name.startswith(_RECIPE)]),
            runs=tuple(group),
            preprocessing=f"{run.settings.get(_PREPROCESSING)} input" if len(modes[network]) > 1 else "",
        )
        for run, network, group in zip(firsts, networks, groups, strict=True)
    ]


def what_it_is(arm: Any) -> str:
    """Backbone, start, depth and what else is special, of an `Arm` or `ArmSummary`."""
    words = (arm.backbone, arm.start, arm.depth, arm.preprocessing, arm.recipe, arm.context)
    return ", ".join(filter(None, words))


def started_from(arm: Arm) -> str:
    """What an arm starts from, to follow "started from"."""
    return "random weights" if arm.start == "random" else arm.start


def differ_in(a: Arm, b: Arm) -> tuple[str, ...]:
    """What two arms differ in but for chance, in words: network, start, what trains, then names of settings."""
    pairs = [(NETWORK, a.backbone, b.backbone), ("start", a.start, b.start), ("what trains", a.depth, b.depth)]
    of_plan = [name for name, one, other in pairs if one != other]
    names = dict.fromkeys(name for arm in (a, b) for name in arm.runs[0].settings if not name.startswith(CHANCE))
    differing = [name for name in names if len({_text(arm.runs[0].settings.get(name)) for arm in (a, b)}) > 1]
    # Settings of a plan are told by the words above; where these are equal, nothing else tells of them.
    settings = [name for name in differing if not (of_plan and name.startswith(_PLAN))]
    return (*of_plan, *map(_called, settings))


def uses_weights(arm: Arm) -> bool:
    """Whether anything of an arm starts from pretrained weights, or from what is drawn like them."""
    stages = arm.runs[0].record.get("plan", {}).get("stages", [])
    return any(stage["starts_from"] not in WITHOUT_WEIGHTS for stage in stages)


def _called(setting: str) -> str:
    return _WORDS.get(setting) or setting.split(".")[-1].replace("_", " ")


def _told(run: ArmRun, names: Sequence[str]) -> str:
    return ", ".join(f"{name.split('.')[-1].replace('_', ' ')} {_text(run.settings.get(name))}" for name in names)


def _start(run: ArmRun) -> str:
    weights = str(run.record.get("weights", {}).get("source") or run.settings.get("model.weights") or "pretrained")
    told = start_in_words(run.record, weights_in_words(run.weights or weights))
    return told or str(run.settings.get("transfer.scheme") or weights)


def _names(arms: Sequence[Arm]) -> list[str]:
    """Folder names where each arm is one run, else what arms differ in; made unique."""
    if all(len(arm.runs) == 1 for arm in arms):
        names = [arm.runs[0].path.resolve().name for arm in arms]
        if len(set(names)) < len(names):
            names = [f"{arm.runs[0].path.resolve().parent.name}/{name}" for arm, name in zip(arms, names, strict=True)]
    else:
        keys = ("backbone", "start", "depth", "preprocessing", "recipe", "context")
        shown = [key for key in keys if len({getattr(arm, key) for arm in arms}) > 1]
        names = [", ".join(filter(None, (getattr(arm, key) for key in shown))) or arm.start for arm in arms]
    return [name if names.count(name) == 1 else f"{name} #{number}" for number, name in enumerate(names, start=1)]


def _text(value: Any) -> str:
    if value is None:
        return "not given"
    if isinstance(value, str) and "/" in value:
        return Path(value).name
    return f"{value:g}" if isinstance(value, float) else str(value)
