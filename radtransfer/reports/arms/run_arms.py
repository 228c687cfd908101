"""Finds the runs that a report is about, and reads what they found."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from radtransfer.errors import RunError
from radtransfer.metrics.scoring import Scoring, recorded_scoring
from radtransfer.near_path import near_path
from radtransfer.reports.arms.study_record import read_study
from radtransfer.run_reading import read_record, read_rows, read_settings, reading
from radtransfer.runs import finished_folds, read_run

CHANCE = ("seed", "out", "track", "system.", "splits.fold", "recipe", "data.positive_class")
"""Settings that do not make another arm; the positive class is the same in all runs of a report."""


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
        settings: Dotted settings, of its config.yaml; the input scale as it was resolved.
        record: Its run.json.
        metrics: Its metrics.json; empty while folds are missing.
        folds: What is finished.
        weights: What it starts from, as a study calls it; empty outside of one.
    """

    path: Path
    settings: Mapping[str, Any]
    record: Mapping[str, Any]
    metrics: Mapping[str, Any]
    folds: Sequence[TrainedFold]
    weights: str = ""

    @property
    def seed(self) -> int:
        return self.settings.get("seed", 0)

    @property
    def scoring(self) -> Scoring:
        """The classes, and what of them the AUC is of."""
        return recorded_scoring(self.record, positive_from=self.settings.get("data.positive_from"))

    @property
    def alike(self) -> str:
        """The same for runs of one arm."""
        kept = {name: value for name, value in self.settings.items() if not name.startswith(CHANCE)}
        return json.dumps(kept, sort_keys=True, default=str)


@dataclass(frozen=True, eq=False)
class Arm:
    """Runs that were trained alike, and how they are called.

    Attributes:
        name: Unique in the report.
        start, depth, backbone, recipe, context, preprocessing: As in `ArmSummary`.
        runs: One per seed.
        of_study: Whether a study gave the name.
    """

    name: str
    start: str
    depth: str
    backbone: str
    recipe: str = ""
    context: str = ""
    runs: Sequence[ArmRun] = field(default_factory=tuple)
    of_study: bool = False
    preprocessing: str = ""

    @property
    def folds(self) -> list[TrainedFold]:
        return [fold for run in self.runs for fold in run.folds]


def find_runs(paths: Sequence[Path]) -> tuple[list[ArmRun], list[str]]:
    """The runs in `paths`, each a run, a study or a folder of runs, and notes of what has no result.

    Raises:
        RunError: A path holds no run, or none of the runs has a finished fold.
    """
    runs, notes = [], []
    for folder in dict.fromkeys(folder for path in paths for folder in _folders(path)):
        record, folds = read_run(folder), finished_folds(folder)
        if not folds:
            notes.append(f"{folder.name}: no finished fold ({record.get('status', 'status unknown')}); left out")
            continue
        if record.get("status") != "finished":
            notes.append(f"{folder.name}: {record.get('status')}; only fold {', '.join(map(str, folds))} counted")
        runs.append(read_arm_run(folder))
    check_any(runs, paths)
    return runs, notes


def check_any(runs: Sequence[ArmRun], paths: Sequence[Path]) -> None:
    """Raises RunError where there is no run."""
    if not runs:
        raise RunError(f"Expected runs with a finished fold. Received: {', '.join(map(str, paths))}.")


def read_arm_run(folder: Path, *, weights: str = "") -> ArmRun:
    """A run with a finished fold; `weights` as a study calls what it starts from.

    Raises:
        RunError: Its files are not as they were written.
    """
    with reading(folder):
        return _read(folder, weights)


def _read(folder: Path, weights: str) -> ArmRun:
    document = read_settings(folder)
    trained = []
    for number, place in finished_folds(folder).items():
        metrics, curve = read_record(place / "metrics.json"), _curve(place / "curve.csv")
        seed = document.get("seed", 0)
        trained.append(TrainedFold(number, metrics.get("repeat", 1), seed, metrics.get("auc"), curve))
    whole = folder / "metrics.json"
    metrics = read_record(whole) if whole.is_file() else {}
    record, settings = read_run(folder), dict(_flat(document))
    if "preprocessing" in record:
        settings["model.preprocessing"] = record["preprocessing"]
    return ArmRun(folder, settings, record, metrics, trained, weights)


def _curve(file: Path) -> list[dict[str, str]]:
    """The rows of a curve.csv, whose figures are numbers; none where there is no file."""
    rows = read_rows(file) if file.is_file() else []
    for row in rows:
        int(row["step"]), row["split"], float(row["auc"] or "nan")
    return rows


def _folders(path: Path) -> list[Path]:
    """The run folders that `path` stands for."""
    if (path / "run.json").is_file():
        return [path]
    study = read_study(path)
    if study is not None:
        return [folder for row in study.arms if ((folder := study.folder(row)) / "run.json").is_file()]
    found = sorted(file.parent for pattern in ("*/run.json", "runs/*/run.json") for file in path.glob(pattern))
    if not found:
        raise RunError(
            f"{path}: expected a run folder, a study, or a folder of runs; there is no run.json in it.{near_path(path)}"
        )
    return found


def _flat(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in document.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
