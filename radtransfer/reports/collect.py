"""Reads what a report is made from: run folders with their results, and the table of a study.

A study is its `table.json`, as `radtransfer.studies.tables` writes it; what has been computed since is seen in the
folders of its runs.
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
"""Settings that do not make another arm; the positive class is the same in all runs of a report."""

REPEATS = ("seed", "splits.fold")
"""Settings of a study's grid whose values are repeats of one arm, not other arms."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class TrainedFold:
    """One trained network."""

    fold: int
    repeat: int
    seed: int
    auc: float | None  # on the test images; None where undefined
    curve: Sequence[Mapping[str, str]]  # the rows of its curve.csv

    @property
    def key(self) -> str:
        """What a training of another arm must share to be compared with it."""
        return f"seed {self.seed}, fold {self.fold}"


@dataclass(frozen=True, eq=False)
class ArmRun:
    """A run folder with a result."""

    path: Path
    settings: Mapping[str, Any]  # dotted, of its config.yaml; the input scale as it was resolved
    record: Mapping[str, Any]  # its run.json
    metrics: Mapping[str, Any]  # its metrics.json; empty while folds are missing
    folds: Sequence[TrainedFold]  # what is finished
    weights: str = ""  # what it starts from, as a study calls it; empty outside of one

    @property
    def seed(self) -> int:
        return self.settings.get("seed", 0)

    @property
    def scoring(self) -> Scoring:
        """The classes, and what of them the AUC is of."""
        return recorded_scoring(self.record, positive_from=self.settings.get("data.positive_from"))


@dataclass(frozen=True, eq=False)
class Arm:
    """Runs that were trained alike but for chance, one per seed."""

    name: str  # unique in the report
    start: str  # what it starts from, such as "imagenet" or "random"
    depth: str  # what trains, such as "all stages" or "the head alone"
    backbone: str  # and its width
    recipe: str = ""  # settings of training in which arms of the report differ; empty where there are none
    context: str = ""  # the same of all other settings
    runs: Sequence[ArmRun] = ()  # one at least
    of_study: bool = False  # whether a study gave the name
    preprocessing: str = ""  # input scale, such as "caffe input"; empty where all arms of its backbone have the same

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
    if not runs:
        raise RunError(f"Expected runs with a finished fold. Received: {', '.join(map(str, paths))}.")
    return runs, notes


def read_arm_run(folder: Path, *, weights: str = "") -> ArmRun:
    """A run with a finished fold; `weights` as a study calls what it starts from.

    Raises:
        RunError: Its files are not as they were written.
    """
    with reading(folder):
        document, record, trained = read_settings(folder), read_run(folder), []
        seed = document.get("seed", 0)
        for number, place in finished_folds(folder).items():
            metrics, file = read_record(place / "metrics.json"), place / "curve.csv"
            curve = read_rows(file) if file.is_file() else []
            for row in curve:  # an error unless its figures are numbers
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
    """What `table.json` holds."""

    path: Path  # the study's folder
    about: Mapping[str, Any]  # its words: name, title, follows, needs, published, reference, threshold, axes
    rows: Sequence[Row]  # of its runs, arms and sources
    compare: Mapping[str, Sequence[Mapping[str, Any]]]  # "cca" and "predictions", each a list of {a, b, runs}

    @property
    def arms(self) -> list[Row]:
        return [row for row in self.rows if row["kind"] != "source"]

    @property
    def sources(self) -> list[Row]:
        return [row for row in self.rows if row["kind"] == "source"]

    def folder(self, row: Row) -> Path:
        """Where a run is: as the table says, from here or from the study's folder or one above it."""
        place = Path(row["path"])
        tries = [place, *(parent / place for parent in (self.path, *self.path.resolve().parents))]
        return next((path for path in tries if (path / "run.json").is_file()), place)

    def state(self, row: Row) -> dict[str, Any]:
        """Its `run`, `arm`, `labels`, `status`, `error` and how many `folds` it has, by its folder as it is now."""
        folder, status, folds = self.folder(row), row["status"], 0
        if (folder / "run.json").is_file():
            folds = len(finished_folds(folder))
            finished = read_run(folder).get("status") == "finished"
            status = "finished" if finished else "partly" if folds else status
        elif row["status"] == "finished":
            status = "gone"
        return {key: row[key] for key in ("run", "arm", "labels", "error")} | {"status": status, "folds": folds}

    def arm_name(self, row: Row) -> str:
        """The arm, and in brackets its values of the settings that it is run with several values of."""
        mine, values = [other["labels"] for other in self.arms if other["arm"] == row["arm"]], []
        for name in self.about.get("axes", ()):
            if name not in REPEATS and len({short(labels.get(name)) for labels in mine}) > 1:
                value = row["labels"].get(name)
                # A word, such as a backbone, stands by itself; a number with what it is of.
                title = "" if isinstance(value, str) else f"{name.rpartition('.')[2].replace('_', ' ')} "
                values.append(f"{title}{short(value)}")
        return f"{row['arm']} ({', '.join(values)})" if values else row["arm"]

    def by_name(self) -> dict[str, list[Row]]:
        """The rows of each arm, repeats together, in the order of the table."""
        found: dict[str, list[Row]] = {}
        for row in self.arms:
            found.setdefault(self.arm_name(row), []).append(row)
        return found

    def pairs(self, kind: str) -> Iterator[tuple[str, str, str, str]]:
        """For each pair of runs to be compared: the arms' names, with @initial where asked, and the runs' keys."""

        def side(text: str, key: str) -> str:
            arm, at, moment = text.partition("@")
            row = next(row for row in self.arms if row["run"] == key and row["arm"] == arm)
            return f"{self.arm_name(row)}{at}{moment}"

        for item in self.compare.get(kind, ()):
            for a, b in item["runs"]:
                yield side(item["a"], a), side(item["b"], b), a, b


def read_study(path: Path) -> StudyRecord | None:
    """The study whose folder `path` is; None where it is none.

    Raises:
        RunError: It is a study that has no table yet, or one that cannot be read.
    """
    file = path / "table.json"
    if not file.is_file():
        if (path / "study.yaml").is_file():
            raise RunError(
                f"{path}: the study has no table.json yet, which is written when it ends or is stopped. Go on with it "
                f"(radtransfer study {path / 'study.yaml'}), or report on its runs."
            )
        return None
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
        record = StudyRecord(path, table.get("study", {}), table["runs"], table.get("compare", {}))
        record.by_name()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RunError(f"{file} is no table of a study ({error!r}). Run the study again; its runs are kept.") from None
    return record


def short(value: Any, none: str = "none") -> str:
    """A value of a setting in a name: of a path, its end."""
    if isinstance(value, str) and "/" in value:
        return Path(value).name
    return none if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _folders(path: Path) -> list[Path]:
    """The run folders that `path` stands for."""
    if (path / "run.json").is_file():
        return [path]
    study = read_study(path)
    if study is not None:
        return [folder for row in study.arms if ((folder := study.folder(row)) / "run.json").is_file()]
    found = sorted(file.parent for pattern in ("*/run.json", "runs/*/run.json") for file in path.glob(pattern))
    if found:
        return found
    raise RunError(
        f"{path}: expected a run folder, a study, or a folder of runs; there is no run.json in it.{suggest_path(path)}"
    )


def _flat(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in document.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
