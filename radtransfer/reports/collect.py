"""The runs of a report, gathered into arms, and what each scored, learned and changed.

What a comparison of arms found, as plain values: the table from which a report is drawn and its advice is worded.

Finds the runs that a report is about, and reads what they found.

A study's folder as a report reads it: its words, its runs, and what it asks to be compared.

The file is `table.json`, as `radtransfer.studies.tables` writes it. What has been computed since is seen in the runs'
folders.

Which arms were tested on the same images: only their AUCs are compared.

How soon arms learn: training steps to a threshold of test AUC, and how two arms differ in them.

References:
    Raghu et al. 2019, Transfusion (arXiv 1902.07208), Figures 6 to 8: steps to a threshold.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from radtransfer.errors import RunError, near_path
from radtransfer.evaluation.run_predictions import RunPredictions
from radtransfer.evaluation.scoring import Scoring, recorded_scoring
from radtransfer.reports.figures import mean_curve
from radtransfer.reports.statistics import fold_difference, spread
from radtransfer.runs.folder import finished_folds, read_run
from radtransfer.runs.read import read_record, read_rows, read_settings, reading
from radtransfer.training.curve import steps_to

CHANCE = ("seed", "splits.fold")
"""Settings whose values are repeats of one arm, not other arms."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class StudyRecord:
    """What `table.json` holds.

    Attributes:
        path: The study's folder.
        about: Its words: name, title, follows, needs, published, reference, threshold, axes.
        rows: Of its runs, arms and sources.
        compare: "cca" and "predictions", each a list of {a, b, runs}.
    """

    path: Path
    about: Mapping[str, Any]
    rows: Sequence[Row]
    compare: Mapping[str, Sequence[Mapping[str, Any]]]

    @property
    def arms(self) -> list[Row]:
        """The rows that are no sources."""
        return [row for row in self.rows if row["kind"] != "source"]

    @property
    def sources(self) -> list[Row]:
        """The rows of runs that others start from."""
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
        axes = [name for name in self.about.get("axes", ()) if name not in CHANCE]
        mine = [other["labels"] for other in self.arms if other["arm"] == row["arm"]]
        varied = [name for name in axes if len({_text(labels.get(name)) for labels in mine}) > 1]
        values = ", ".join(_label(name, row["labels"].get(name)) for name in varied)
        return f"{row['arm']} ({values})" if values else row["arm"]

    def by_name(self) -> dict[str, list[Row]]:
        """The rows of each arm, repeats together, in the order of the table."""
        found: dict[str, list[Row]] = {}
        for row in self.arms:
            found.setdefault(self.arm_name(row), []).append(row)
        return found

    def pairs(self, kind: str) -> Iterator[tuple[str, str, str, str]]:
        """For each pair of runs to be compared: the arms' names, with @initial where asked, and the runs' keys."""
        for item in self.compare.get(kind, ()):
            for keys in item["runs"]:
                yield (*(self._side(side, key) for side, key in zip((item["a"], item["b"]), keys, strict=True)), *keys)

    def _side(self, side: str, key: str) -> str:
        arm, at, moment = side.partition("@")
        row = next(row for row in self.arms if row["run"] == key and row["arm"] == arm)
        return f"{self.arm_name(row)}{at}{moment}"


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


def _label(name: str, value: Any) -> str:
    """A value by itself where it is a word, such as a backbone; a number with what it is of."""
    text = _text(value)
    return text if isinstance(value, str) else f"{name.rpartition('.')[2].replace('_', ' ')} {text}"


def _text(value: Any) -> str:
    if isinstance(value, str) and "/" in value:
        return Path(value).name
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


CHANCE_RUN_ARMS = ("seed", "out", "track", "system.", "splits.fold", "recipe", "data.positive_class")
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
        kept = {name: value for name, value in self.settings.items() if not name.startswith(CHANCE_RUN_ARMS)}
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


_PLACE = ("data.source", "data.image_root")


def other_files(a: ArmRun, b: ArmRun) -> bool:
    """Whether images of the same name are different files, as two hospitals may both have a "sick/001.png".

    The fingerprint of a run's files is also another where fewer of them train; so it only counts where the data
    come from another place.
    """
    places = [[run.settings.get(name) for name in _PLACE] for run in (a, b)]
    prints = [run.record.get("images_sha256") for run in (a, b)]
    return places[0] != places[1] and None not in prints and prints[0] != prints[1]


def image_sets(arms: Sequence[Arm], read: Callable[[ArmRun], RunPredictions | None]) -> dict[str, int]:
    """Arm to the number, from 1, of the set of images that it was tested on; sets of one number overlap."""
    firsts: list[tuple[ArmRun, frozenset[str] | None]] = []
    numbers = {}
    for arm in arms:
        run, tested = arm.runs[0], _paths(arm, read)
        for number, (other, paths) in enumerate(firsts, start=1):
            if not other_files(run, other) and (None in (tested, paths) or tested & paths):
                numbers[arm.name] = number
                break
        else:
            firsts.append((run, tested))
            numbers[arm.name] = len(firsts)
    return numbers


def _paths(arm: Arm, read: Callable[[ArmRun], RunPredictions | None]) -> frozenset[str] | None:
    """What the arm tested; None where its predictions cannot be read."""
    known = [found for run in arm.runs if (found := read(run)) is not None]
    return frozenset(path for found in known for path in found.paths) if known else None


Interval = tuple[float, float]


@dataclass(frozen=True)
class StepDifference:
    """Steps of A less steps of B to the threshold, training by training on the same seed and fold.

    A training that never gets there counts with the last step at which it was looked at, so that the difference is
    then a bound: the real one is larger.

    Attributes:
        a, b: Names.
        mean, sd: Of the differences; `sd` (ddof 1) is None for one training.
        ci95: 95 % interval of the mean, corrected for shared training images; never narrower than ± the steps between
            two looks at the AUC; None below two trainings.
        trainings: Of which at least one of the two gets there.
        only_a, only_b: Trainings of which one alone gets there.
        spacing: Steps between two looks.
    """

    a: str
    b: str
    mean: float
    sd: float | None
    ci95: Interval | None
    trainings: int
    only_a: int = 0
    only_b: int = 0
    spacing: int = 0

    def turned(self) -> "StepDifference":
        """B less A."""
        ends = None if self.ci95 is None else (-self.ci95[1], -self.ci95[0])
        sides = {"a": self.b, "b": self.a, "only_a": self.only_b, "only_b": self.only_a}
        return replace(self, mean=-self.mean, ci95=ends, **sides)


def watched_curves(arms: Sequence[Arm]) -> dict[str, list[list[tuple[int, float]]]]:
    """Steps and test AUC of every training that was watched, by arm."""
    curves = {}
    for arm in arms:
        watched = [_looks(fold) for fold in arm.folds]
        if any(watched):
            curves[arm.name] = [curve for curve in watched if curve]
    return curves


def usual_threshold(curves: Mapping[str, Sequence[Sequence[tuple[int, float]]]]) -> float | None:
    """An AUC that every arm reaches on average: the lowest of the arms' highest means, down to two places."""
    highest = [mean.max() for folds in curves.values() if (mean := mean_curve(folds)[1]).size]
    return float(np.floor(100 * min(highest)) / 100) if highest else None


def step_rows(arms: Sequence[Arm], threshold: float) -> list[dict[str, Any]]:
    """Steps to the threshold: mean and sd over the trainings that reach it, and how many of how many do."""
    rows = []
    for arm in arms:
        watched = [fold.curve for fold in arm.folds if _looks(fold)]
        reached = [step for curve in watched if (step := steps_to(curve, threshold)) is not None]
        found = spread(reached)
        if watched:
            row = {"arm": arm.name, "threshold": threshold, "steps_mean": found.mean, "steps_sd": found.sd}
            rows.append(row | {"reached": len(reached), "watched": len(watched)})
    return rows


def step_differences(arms: Sequence[Arm], threshold: float) -> list[StepDifference]:
    """Of every pair of arms that differ in their start alone, and have a training that gets there."""
    found = []
    for place, a in enumerate(arms):
        for b in arms[place + 1 :]:
            alike = all(
                getattr(a, key) == getattr(b, key)
                for key in ("backbone", "depth", "recipe", "context", "preprocessing")
            )
            difference = step_difference(a, b, threshold) if alike and a.start != b.start else None
            found += [] if difference is None else [difference]
    return found


def step_difference(a: Arm, b: Arm, threshold: float) -> StepDifference | None:
    """Steps of `a` less steps of `b`; None where no training of both was watched and gets there."""
    others = {fold.key: fold for fold in b.folds if _looks(fold)}
    steps: tuple[dict[str, float], dict[str, float]] = {}, {}
    alone, spacing = [0, 0], 0
    for fold in a.folds:
        if not _looks(fold) or fold.key not in others:
            continue
        pair = (fold, others[fold.key])
        reached = [steps_to(each.curve, threshold) for each in pair]
        if reached == [None, None]:
            continue
        for side in (0, 1):
            last = _looks(pair[side])[-1][0]
            steps[side][fold.key] = last if reached[side] is None else reached[side]
            alone[side] += reached[1 - side] is None
            spacing = max(spacing, _spacing(pair[side]))
    found = fold_difference(*steps)
    if found is None:
        return None
    interval = found.ci95
    if interval is not None:
        half = max((interval[1] - interval[0]) / 2, spacing)
        interval = (found.mean - half, found.mean + half)
    return StepDifference(a.name, b.name, found.mean, found.sd, interval, found.n, *alone, spacing)


def _looks(fold: TrainedFold) -> list[tuple[int, float]]:
    return [(int(row["step"]), float(row["auc"])) for row in fold.curve if row["split"] == "test" and row["auc"]]


def _spacing(fold: TrainedFold) -> int:
    """The steps between two looks, the first counted from none."""
    return int(max(np.diff([0, *(step for step, _ in _looks(fold))])))


NETWORK = "network"
"""What arms of different backbones differ in, as `ArmDifference.differ_in` calls it."""

SETTINGS = ("recipe", "context", "preprocessing")
"""Attributes of an arm that must be equal where its start, or what of it trains, is compared."""


@dataclass(frozen=True)
class ArmSummary:
    """Networks that were trained alike but for chance: runs that differ in their seed, and their folds.

    Attributes:
        name: Unique.
        start: What it starts from, such as "imagenet" or "random".
        depth: What trains, such as "all" or "above stage1".
        backbone: Of the network, and its width.
        recipe: Settings of training in which arms of the report differ; empty where there are none.
        context: The same of all other settings.
        parameters, trainable: Of the backbone.
        trainings: Networks trained, each a seed and a fold.
        seeds: Different seeds.
        mean, sd: AUC over trainings, sd with ddof 1.
        pooled: AUC of the out-of-fold predictions taken together, averaged over repeats and seeds.
        ci95: Its 95 % interval over patients.
        of_study: Whether its name is that of a study's arm.
        images: Which of the report's sets of test images it was tested on, from 1.
        preprocessing: Its input scale, such as "caffe input"; empty where all arms of its backbone have the same.
    """

    name: str
    start: str
    depth: str
    backbone: str
    recipe: str = ""
    context: str = ""
    parameters: int | None = None
    trainable: int | None = None
    trainings: int = 1
    seeds: int = 1
    mean: float | None = None
    sd: float | None = None
    pooled: float | None = None
    ci95: Interval | None = None
    of_study: bool = False
    images: int = 1
    preprocessing: str = ""

    @property
    def origin(self) -> str:
        """What it starts from, in a sentence: the arm itself, where a study gave it a name."""
        return f"“{self.name}”" if self.of_study else self.start


@dataclass(frozen=True)
class ArmDifference:
    """Arm A less arm B on the same images and folds.

    Attributes:
        a, b: Names.
        value: Difference of the pooled AUCs.
        ci95: 95 % interval over patients, the trained networks taken as they are.
        patients: How many; images where patients are not known.
        unit: What `patients` counts: "patients" or "images".
        fold_mean, fold_sd, fold_ci95: Of the differences training by training, on the same fold and seed.
        trainings, better: How many such differences, and in how many A is better.
        p: Of DeLong's test, where each arm is one run of one question; None otherwise.
        kappa: Cohen's, of being right or wrong about the same images.
        kappa_ci95: Its 95 % interval over patients.
        agreement: Share of images on which both are right or both wrong, and that of independent networks.
        differ_in: In words, such as "start" or "learning rate".
    """

    a: str
    b: str
    value: float
    ci95: Interval | None
    patients: int
    unit: str = "patients"
    fold_mean: float | None = None
    fold_sd: float | None = None
    fold_ci95: Interval | None = None
    trainings: int = 1
    better: int = 0
    p: float | None = None
    kappa: float | None = None
    kappa_ci95: Interval | None = None
    agreement: tuple[float, float] | None = None
    differ_in: tuple[str, ...] = ()

    def turned(self) -> "ArmDifference":
        """B less A."""
        return replace(
            self,
            a=self.b,
            b=self.a,
            value=-self.value,
            ci95=_turned(self.ci95),
            fold_mean=None if self.fold_mean is None else -self.fold_mean,
            fold_ci95=_turned(self.fold_ci95),
            better=self.trainings - self.better,
        )


@dataclass(frozen=True)
class LayerChange:
    """How alike a layer is before and after training.

    Attributes:
        layer: Which.
        similarity: CCA, 0–1; None where it is not defined.
        ci95: 95 % interval over images.
        chance: What unrelated layers score.
        dims, rows: Channels and positions that it was computed of; only scores of the same compare.
        by_training: Similarity of each fold, by what `TrainedFold.key` calls it.
    """

    layer: str
    similarity: float | None
    ci95: Interval | None = None
    chance: float | None = None
    dims: int | None = None
    rows: int | None = None
    by_training: Mapping[str, float] = field(default_factory=dict)


_Difference = TypeVar("_Difference", ArmDifference, StepDifference)


@dataclass(frozen=True)
class ArmResults:
    """The whole table.

    Attributes:
        arms: In the order given.
        differences: Of the pairs that were compared.
        changes: Arm to the layers before and after training, lowest first; empty where it was not compared.
        steps: Differences in training steps to the threshold.
        threshold: Test AUC that steps are counted to.
    """

    arms: Sequence[ArmSummary]
    differences: Sequence[ArmDifference] = ()
    changes: Mapping[str, Sequence[LayerChange]] = field(default_factory=dict)
    steps: Sequence[StepDifference] = ()
    threshold: float | None = None

    def difference(self, a: str, b: str) -> ArmDifference | None:
        """A less B; None where they were not compared."""
        return _between(self.differences, a, b)

    def step_difference(self, a: str, b: str) -> StepDifference | None:
        """Steps of A less steps of B; None where they were not compared."""
        return _between(self.steps, a, b)

    @property
    def scored(self) -> list[ArmSummary]:
        """The arms that have an AUC, best first among those of the same test images: by the pooled, else the mean."""
        return sorted((arm for arm in self.arms if arm.mean is not None), key=lambda arm: (arm.images, -_score(arm)))

    @property
    def image_sets(self) -> int:
        """How many sets of images were tested on; arms of different ones are not compared."""
        return len({arm.images for arm in self.scored})


def groups_of(found: ArmResults, alike: Sequence[str], *, by: str) -> Iterator[list[ArmSummary]]:
    """Arms, best first, that have the same test images and attributes in `alike`, and at least two values of `by`."""
    groups: dict[tuple, list[ArmSummary]] = {}
    for arm in found.scored:
        groups.setdefault(tuple(getattr(arm, name) for name in (*alike, "images")), []).append(arm)
    for arms in groups.values():
        if len({getattr(arm, by) for arm in arms}) > 1:
            yield arms


def _between(differences: Sequence[_Difference], a: str, b: str) -> _Difference | None:
    for found in differences:
        if (found.a, found.b) == (a, b):
            return found
        if (found.a, found.b) == (b, a):
            return found.turned()
    return None


def _score(arm: ArmSummary) -> float:
    return arm.mean if arm.pooled is None else arm.pooled


def _turned(interval: Interval | None) -> Interval | None:
    return None if interval is None else (-interval[1], -interval[0])
