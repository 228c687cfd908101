"""Read the input of a report: run folders with their results, and the table of a study.

A study is its `table.json`, as `radtransfer.studies.tables` writes it; later results are read from its run folders.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from radtransfer.errors import RunError, suggest_path
from radtransfer.evaluation.scoring import Scoring, recorded_scoring
from radtransfer.runs.folder import finished_folds, read_run
from radtransfer.runs.read import read_record, read_rows, read_settings, reading

CHANCE = ("seed", "out", "track", "system.", "splits.fold", "recipe", "data.positive_class")
"""Settings that do not define an arm; the positive class is the same in all runs of a report."""

REPEATS = ("seed", "splits.fold")  # settings of a study's grid that repeat an arm

Row = Mapping[str, Any]


@dataclass(frozen=True)
class TrainedFold:
    """One trained network."""

    fold: int
    repeat: int
    seed: int
    auc: float | None  # on the test images; None if undefined
    curve: Sequence[Mapping[str, str]]  # the rows of its curve.csv

    @property
    def key(self) -> str:
        """Trainings of two arms with the same key are paired."""
        return f"seed {self.seed}, fold {self.fold}"


@dataclass(frozen=True, eq=False)
class ArmRun:
    """A run folder with a result."""

    path: Path
    settings: Mapping[str, Any]  # of its config.yaml, with dotted names and the resolved input scale
    record: Mapping[str, Any]  # its run.json
    metrics: Mapping[str, Any]  # its metrics.json; empty while folds are missing
    folds: Sequence[TrainedFold]  # the finished ones
    weights: str = ""  # initial weights as named in a study; empty without a study

    @property
    def seed(self) -> int:
        return self.settings.get("seed", 0)

    @property
    def scoring(self) -> Scoring:
        """The classes and the definition of the AUC."""
        return recorded_scoring(self.record, positive_from=self.settings.get("data.positive_from"))


@dataclass(frozen=True, eq=False)
class Arm:
    """Runs with the same training except for chance, one per seed."""

    name: str  # unique in the report
    start: str  # initialization, such as "imagenet" or "random"
    depth: str  # what is trained, such as "all stages" or "the head alone"
    backbone: str  # with its width
    recipe: str = ""  # training settings in which arms of the report differ
    context: str = ""  # other settings in which they differ
    runs: Sequence[ArmRun] = ()  # at least one
    of_study: bool = False  # whether the name is from a study
    preprocessing: str = ""  # input scale, such as "caffe input", if arms of its backbone differ in it

    @property
    def folds(self) -> list[TrainedFold]:
        return [fold for run in self.runs for fold in run.folds]


def find_runs(paths: Sequence[Path]) -> tuple[list[ArmRun], list[str]]:
    """The runs in `paths` (runs, studies or folders of runs), and notes on runs without a result."""
    runs, notes = [], []
    for folder in dict.fromkeys(folder for path in paths for folder in _folders(path)):
        record, folds = read_run(folder), finished_folds(folder)
        if not folds:
            notes.append(f"{folder.name}: no finished fold ({record.get('status', 'status unknown')}); left out")
            continue
        if record.get("status") != "finished":
            notes.append(f"{folder.name}: {record.get('status')}; only fold {', '.join(map(str, folds))} counted")
        runs.append(read_arm_run(folder))
    if not runs:
        raise RunError(f"Expected runs with a finished fold. Received: {', '.join(map(str, paths))}.")
    return runs, notes


def read_arm_run(folder: Path, *, weights: str = "") -> ArmRun:
    """Read a run with a finished fold; `weights` is the name of its initial weights in a study."""
    with reading(folder):
        document, record, trained = read_settings(folder), read_run(folder), []
        seed = document.get("seed", 0)
        for number, place in finished_folds(folder).items():
            metrics, file = read_record(place / "metrics.json"), place / "curve.csv"
            curve = read_rows(file) if file.is_file() else []
            for row in curve:  # raises an error unless the values are numbers
                int(row["step"]), row["split"], float(row["auc"] or "nan")
            trained.append(TrainedFold(number, metrics.get("repeat", 1), seed, metrics.get("auc"), curve))
        whole = folder / "metrics.json"
        metrics = read_record(whole) if whole.is_file() else {}
        settings = dict(_flat(document))
        if "preprocessing" in record:
            settings["model.preprocessing"] = record["preprocessing"]
        return ArmRun(folder, settings, record, metrics, trained, weights)


@dataclass(frozen=True)
class StudyRecord:
    """The content of `table.json`."""

    path: Path  # the study's folder
    about: Mapping[str, Any]  # name, title, follows, needs, published, reference, threshold, axes
    rows: Sequence[Row]  # its runs: arms and sources
    compare: Mapping[str, Sequence[Mapping[str, Any]]]  # "cca" and "predictions", each a list of {a, b, runs}

    @property
    def arms(self) -> list[Row]:
        return [row for row in self.rows if row["kind"] != "source"]

    @property
    def sources(self) -> list[Row]:
        return [row for row in self.rows if row["kind"] == "source"]

    def folder(self, row: Row) -> Path:
        """The folder of a run: relative to the working directory, the study's folder or one of its parents."""
        place = Path(row["path"])
        tries = [place, *(parent / place for parent in (self.path, *self.path.resolve().parents))]
        return next((path for path in tries if (path / "run.json").is_file()), place)

    def state(self, row: Row) -> dict[str, Any]:
        """`run`, `arm`, `labels`, `status`, `error` and number of finished `folds`, updated from its folder."""
        folder, status, folds = self.folder(row), row["status"], 0
        if (folder / "run.json").is_file():
            folds = len(finished_folds(folder))
            finished = read_run(folder).get("status") == "finished"
            status = "finished" if finished else "partly" if folds else status
        elif row["status"] == "finished":
            status = "gone"
        return {key: row[key] for key in ("run", "arm", "labels", "error")} | {"status": status, "folds": folds}

    def arm_name(self, row: Row) -> str:
        """The arm with, in brackets, its values of the settings that vary within the arm."""
        mine, values = [other["labels"] for other in self.arms if other["arm"] == row["arm"]], []
        for name in self.about.get("axes", ()):
            if name not in REPEATS and len({short(labels.get(name)) for labels in mine}) > 1:
                value = row["labels"].get(name)
                # A word, such as a backbone, needs no name; a number does.
                title = "" if isinstance(value, str) else f"{name.rpartition('.')[2].replace('_', ' ')} "
                values.append(f"{title}{short(value)}")
        return f"{row['arm']} ({', '.join(values)})" if values else row["arm"]

    def by_name(self) -> dict[str, list[Row]]:
        """The rows of each arm, with repeats, in the order of the table."""
        found: dict[str, list[Row]] = {}
        for row in self.arms:
            found.setdefault(self.arm_name(row), []).append(row)
        return found

    def pairs(self, kind: str) -> Iterator[tuple[str, str, str, str]]:
        """For each pair of runs to compare: names of the arms, with @initial if requested, and keys of the runs."""

        def side(text: str, key: str) -> str:
            arm, at, moment = text.partition("@")
            row = next(row for row in self.arms if row["run"] == key and row["arm"] == arm)
            return f"{self.arm_name(row)}{at}{moment}"

        for item in self.compare.get(kind, ()):
            for a, b in item["runs"]:
                yield side(item["a"], a), side(item["b"], b), a, b


def read_study(path: Path) -> StudyRecord | None:
    """The study in the folder `path`; None if it is not a study; RunError without a readable table."""
    file = path / "table.json"
    if not file.is_file():
        if (path / "study.yaml").is_file():
            raise RunError(
                f"{path}: the study has no table.json yet; it is written when the study ends or stops. Continue it "
                f"(radtransfer study {path / 'study.yaml'}), or report on its runs."
            )
        return None
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
        record = StudyRecord(path, table.get("study", {}), table["runs"], table.get("compare", {}))
        record.by_name()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RunError(f"{file} is not a study table ({error!r}). Run the study again; its runs are reused.") from None
    return record


def short(value: Any, none: str = "none") -> str:
    """The short text of a setting's value; the last part of a path."""
    if isinstance(value, str) and "/" in value:
        return Path(value).name
    return none if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _folders(path: Path) -> list[Path]:
    """The run folders of a run, a study or a folder of runs."""
    if (path / "run.json").is_file():
        return [path]
    study = read_study(path)
    if study is not None:
        return [folder for row in study.arms if ((folder := study.folder(row)) / "run.json").is_file()]
    found = sorted(file.parent for pattern in ("*/run.json", "runs/*/run.json") for file in path.glob(pattern))
    if found:
        return found
    raise RunError(
        f"Expected a run, a study or a folder of runs. Received: {path}; there is no run.json in it."
        f"{suggest_path(path)}"
    )


def _flat(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in document.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
