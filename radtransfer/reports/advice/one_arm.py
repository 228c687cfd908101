"""Advice where there is one arm, and so nothing to compare: how to get a comparison."""

import shlex
from collections.abc import Iterator
from pathlib import Path

from radtransfer.pretrained.manifest import weights_cards
from radtransfer.reports.arms.arm_names import started_from
from radtransfer.reports.arms.run_arms import Arm, ArmRun
from radtransfer.reports.page import Point

_RESET = {"through": "null", "freeze_to": "null", "stages": "{}"}
"""Settings of a plan that a network from random weights, or one that trains throughout, does without."""

_OF_PYTORCH = ("_v1_5", "_torch")
"""Ends of the names of backbones as PyTorch builds them, whose weights `weights convert` writes."""


def one_arm(arm: Arm) -> Iterator[Point]:
    """That nothing is compared, and the commands that train what to compare with and report on both."""
    run, before = arm.runs[0], ""
    if arm.start == "random":
        what, other = "from pretrained weights (`radtransfer weights list` names some)", "WEIGHTS"
        scheme, place = "transfer", Path(f"{run.path}-pretrained")
        if not has_weights(_network(run)):
            what = f"from weights of your own (none are published for {_network(run)}: pretrain it on a folder SOURCE)"
            other = f"{run.path}-source"
            before = f"{_pretraining(run, other)} && "
    else:
        what, other = "from random weights", "random"
        scheme, place = "slim" if arm.backbone.endswith(", slim") else "scratch", Path(f"{run.path}-scratch")
    seeds = ", likewise for the other seeds" if len(arm.runs) > 1 else ""
    paths = [str(run.path) for run in arm.runs]
    yield Point(
        "one arm",
        "Nothing is compared here: the AUC says how well this network does, not what starting from "
        f"{started_from(arm)} brought. Train the same network {what}{seeds}, and report on both.",
        f"{before}{_command(run, other, scheme, place)} && "
        f"{shlex.join(['radtransfer', 'report', *paths, str(place)])} --out report",
    )


def has_weights(backbone: str) -> bool:
    """Whether weights of `backbone` are published, of a family or as PyTorch's."""
    published = {card.backbone for card in weights_cards().values()}
    return bool(published & {backbone, *(backbone.removesuffix(suffix) for suffix in _OF_PYTORCH)})


def _network(run: ArmRun) -> str:
    return str(run.record.get("backbone") or run.settings.get("model.backbone"))


def _pretraining(run: ArmRun, place: str) -> str:
    words = ["radtransfer", "finetune", "pretrain-source", "--data", "SOURCE"]
    return shlex.join([*words, "--set", f"model.backbone={_network(run)}", "--out", place])


def _command(run: ArmRun, weights: str, scheme: str, place: Path) -> str:
    words = ["radtransfer", "finetune", str(run.path / "config.yaml"), "--weights", weights, "--scheme", scheme]
    for name, value in _RESET.items():
        if run.settings.get(f"transfer.{name}") or any(key.startswith(f"transfer.{name}.") for key in run.settings):
            words += ["--set", f"transfer.{name}={value}"]
    return shlex.join([*words, "--out", str(place)])
