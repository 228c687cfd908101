"""Finds the runs that a report is about and sorts them into arms: what was trained alike but for chance.

Runs that differ in nothing but their seed, folder and folds are one arm. What an arm starts from and what of it trains
is read from the resolved plan that each run records, so that equal plans of different names are equal.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from radtransfer.errors import RunError
from radtransfer.runs import finished_folds, read_rows, read_run
from radtransfer.yaml_text import read_yaml

_CHANCE = ("seed", "out", "track", "system.", "splits.fold", "recipe")
"""Settings that do not make another arm."""

_PLAN = ("model.weights", "model.backbone", "model.preprocessing", "transfer.")
"""Settings that are told by start, depth and backbone."""


@dataclass(frozen=True)
class TrainedFold:
    """One trained network: fold, repeat and seed, test AUC (None where undefined), and the rows of its `curve.csv`."""

    fold: int
    repeat: int
    seed: int
    auc: float | None
    curve: Sequence[Mapping[str, str]]

    @property
    def key(self) -> str:
        """What a training of another arm must share to be compared with it."""
        return f"seed {self.seed}, fold {self.fold}"


@dataclass(frozen=True, eq=False)
class ArmRun:
    """A run folder with a result.

    Attributes:
        path: The folder.
        settings: Dotted settings, of its config.yaml.
        record: Its run.json.
        metrics: Its metrics.json; empty while folds are missing.
        folds: What is finished.
        called: Its arm in the study that it belongs to; empty outside of one.
    """

    path: Path
    settings: Mapping[str, Any]
    record: Mapping[str, Any]
    metrics: Mapping[str, Any]
    folds: Sequence[TrainedFold]
    called: str = ""

    @property
    def seed(self) -> int:
        return self.settings.get("seed", 0)

    @property
    def alike(self) -> str:
        """The same for runs of one arm."""
        kept = {name: value for name, value in self.settings.items() if not name.startswith(_CHANCE)}
        return json.dumps(kept, sort_keys=True, default=str)


@dataclass(frozen=True, eq=False)
class Arm:
    """Runs that were trained alike, and how they are called.

    Attributes:
        name: Unique in the report.
        start, depth, backbone, context: As in `ArmSummary`.
        runs: One per seed.
    """

    name: str
    start: str
    depth: str
    backbone: str
    context: str
    runs: Sequence[ArmRun] = field(default_factory=tuple)

    @property
    def folds(self) -> list[TrainedFold]:
        return [fold for run in self.runs for fold in run.folds]


def find_runs(paths: Sequence[Path]) -> tuple[list[ArmRun], list[str]]:
    """The runs in `paths`, each a run or a folder of runs, and notes of what has no result.

    Raises:
        RunError: A path holds no run, or none of the runs has a finished fold.
    """
    runs, notes, called = [], [], {}
    for path in paths:
        called |= {folder: name for folder, name in _folders(path).items() if folder not in called}
    for folder, name in called.items():
        record, folds = read_run(folder), finished_folds(folder)
        if not folds:
            notes.append(f"{folder.name}: no finished fold ({record.get('status', 'status unknown')}); left out")
            continue
        if record.get("status") != "finished":
            notes.append(f"{folder.name}: {record.get('status')}; only fold {', '.join(map(str, folds))} counted")
        runs.append(replace(_read(folder, record, folds), called=name))
    if not runs:
        raise RunError(f"Expected runs with a finished fold. Received: {', '.join(map(str, paths))}.")
    return runs, notes


def sort_arms(runs: Sequence[ArmRun]) -> list[Arm]:
    """Runs that differ only by chance belong to one arm; arms are named by what they differ in."""
    groups: dict[str, list[ArmRun]] = {}
    for run in runs:
        groups.setdefault(run.alike, []).append(run)
    members = list(groups.values())
    others = _differing([group[0] for group in members])
    arms = []
    for group in members:
        first = group[0]
        context = ", ".join(f"{name.split('.')[-1]} {_text(first.settings.get(name))}" for name in others)
        start, depth = _start(first), _depth(first)
        arms.append(Arm("", start, depth, _backbone(first), context, tuple(group)))
    return [
        Arm(name, a.start, a.depth, a.backbone, a.context, a.runs) for name, a in zip(_names(arms), arms, strict=True)
    ]


def _folders(path: Path) -> dict[Path, str]:
    """The run folders that `path` stands for, and what a study calls each."""
    if (path / "run.json").is_file():
        return {path: ""}
    study = _of_study(path)
    found = sorted(file.parent for pattern in ("*/run.json", "runs/*/run.json") for file in path.glob(pattern))
    if not found and not study:
        raise RunError(f"{path}: expected a run folder, a study, or a folder of runs; there is no run.json in it.")
    return study or dict.fromkeys(found, "")


def _of_study(path: Path) -> dict[Path, str]:
    """The run folders that a study's `table.json` names, with their arms; sources are left out."""
    try:
        rows = json.loads((path / "table.json").read_text(encoding="utf-8"))["runs"]
        arms = {Path(row["path"]): row["arm"] for row in reversed(rows) if row["kind"] != "source" and row["path"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    places = {place if place.is_absolute() or place.exists() else path / place: arm for place, arm in arms.items()}
    return {place: arm for place, arm in reversed(places.items()) if (place / "run.json").is_file()}


def _read(folder: Path, record: Mapping[str, Any], folds: Mapping[int, Path]) -> ArmRun:
    document, _ = read_yaml(folder / "config.yaml")
    trained = []
    for number, place in folds.items():
        metrics = json.loads((place / "metrics.json").read_text(encoding="utf-8"))
        curve = read_rows(place / "curve.csv") if (place / "curve.csv").is_file() else []
        seed = document.get("seed", 0)
        trained.append(TrainedFold(number, metrics.get("repeat", 1), seed, metrics.get("auc"), curve))
    whole = folder / "metrics.json"
    metrics = json.loads(whole.read_text(encoding="utf-8")) if whole.is_file() else {}
    return ArmRun(folder, dict(_flat(document)), record, metrics, trained)


def _flat(document: Mapping[str, Any], prefix: str = ""):
    for name, value in document.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _differing(runs: Sequence[ArmRun]) -> list[str]:
    """Settings, other than those of the plan, that are not the same everywhere."""
    names = dict.fromkeys(name for run in runs for name in run.settings if not name.startswith((*_CHANCE, *_PLAN)))
    return [name for name in names if len({_text(run.settings.get(name)) for run in runs}) > 1]


def _start(run: ArmRun) -> str:
    """What the stages start from, weights named: "imagenet", "random", or "imagenet through stage1, then random"."""
    stages = run.record.get("plan", {}).get("stages", [])
    weights = str(run.record.get("weights", {}).get("source") or run.settings.get("model.weights") or "pretrained")
    origin = _origin(weights)
    names = {"pretrained": origin, "random": "random"}
    parts: list[tuple[str, str]] = []
    for stage in stages:
        kind = stage["starts_from"]
        text = names.get(kind, f"{kind} of {origin}" if kind != "gabor" else kind)
        parts = (
            [*parts[:-1], (text, stage["stage"])]
            if parts and parts[-1][0] == text
            else [*parts, (text, stage["stage"])]
        )
    if not parts:
        return str(run.settings.get("transfer.scheme") or weights)
    return ", then ".join([*(f"{text} through {stage}" for text, stage in parts[:-1]), parts[-1][0]])


def _origin(weights: str) -> str:
    """What weights are called: a run by its folder, whichever fold and file of it is named."""
    path = Path(weights)
    for part in (path, path.parent):
        if part.name.startswith("fold_"):
            return part.parent.name or weights
    return path.name


def _depth(run: ArmRun) -> str:
    """What trains: "all stages", "the head alone", or the stages from the first that does."""
    plan = run.record.get("plan", {})
    trains = [stage["stage"] for stage in plan.get("stages", []) if stage["trains"]]
    if len(trains) == len(plan.get("stages", [])):
        return "all stages" + (", after the head" if plan.get("head_first") else "")
    return "the head alone" if not trains else f"from {trains[0]} up"


def _backbone(run: ArmRun) -> str:
    widths = {stage["width"] for stage in run.record.get("plan", {}).get("stages", [])}
    slim = "" if widths <= {1.0} else ", slim"
    return f"{run.record.get('backbone') or run.settings.get('model.backbone')}{slim}"


def _names(arms: Sequence[Arm]) -> list[str]:
    """What a study calls them, folder names where each arm is one run, else what arms differ in; made unique."""
    shown = [key for key in ("backbone", "start", "depth", "context") if len({getattr(arm, key) for arm in arms}) > 1]
    said = [", ".join(filter(None, (getattr(arm, key) for key in shown))) or arm.start for arm in arms]
    if all(arm.runs[0].called for arm in arms):
        names = [arm.runs[0].called for arm in arms]
        more = [arm.context or text for arm, text in zip(arms, said, strict=True)]
        names = [f"{name}, {text}" if names.count(name) > 1 else name for name, text in zip(names, more, strict=True)]
    elif all(len(arm.runs) == 1 for arm in arms):
        names = [arm.runs[0].path.resolve().name for arm in arms]
        if len(set(names)) < len(names):
            names = [f"{arm.runs[0].path.resolve().parent.name}/{name}" for arm, name in zip(arms, names, strict=True)]
    else:
        names = said
    return [name if names.count(name) == 1 else f"{name} #{number}" for number, name in enumerate(names, start=1)]


def _text(value: Any) -> str:
    return Path(value).name if isinstance(value, str) and "/" in value else str(value)
