"""What a comparison of arms found: what each scores, how pairs differ on the same images, and how soon they learn.

References:
    Raghu et al. 2019, Transfusion (arXiv 1902.07208), Figures 6 to 8: steps to a threshold.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any, TypeVar

import numpy as np

from radtransfer.errors import DataError, RadtransferError, RunError
from radtransfer.evaluation.intervals import agreement, delong, kappa_interval
from radtransfer.evaluation.predictions import RunPredictions, read_predictions
from radtransfer.evaluation.scoring import main_questions
from radtransfer.process import Progress
from radtransfer.reports.changes import LayerChange
from radtransfer.reports.collect import Arm, ArmRun, TrainedFold
from radtransfer.reports.figures import mean_curve
from radtransfer.reports.statistics import Interval, fold_difference, spread
from radtransfer.reports.subject import SETTINGS, but_start, differ_in
from radtransfer.runs.read import steps_to
from radtransfer.similarity.compare_predictions import common_predictions, compare_aucs, pooled_auc

MOST_ARMS = 10
"""Up to so many arms every pair is compared; beyond, those that a rule of the advice needs."""

_TOLD = ("start", "depth", "backbone", "recipe", "context", "preprocessing")

Pair = tuple[RunPredictions, RunPredictions]


@dataclass(frozen=True)
class ArmSummary:
    """Networks that were trained alike but for chance: runs that differ in their seed, and their folds."""

    name: str
    start: str  # as of `Arm`, up to `context`
    depth: str
    backbone: str
    recipe: str = ""
    context: str = ""
    parameters: int | None = None  # of the backbone, as `trainable`
    trainable: int | None = None
    trainings: int = 1  # networks trained, each a seed and a fold
    seeds: int = 1  # different seeds
    mean: float | None = None  # AUC over trainings
    sd: float | None = None  # ddof 1
    pooled: float | None = None  # AUC of the out-of-fold predictions together, averaged over repeats and seeds
    ci95: Interval | None = None  # of `pooled`, over patients
    of_study: bool = False
    images: int = 1  # which of the report's sets of test images it was tested on, from 1
    preprocessing: str = ""

    @property
    def origin(self) -> str:
        """What it starts from, in a sentence: the arm itself, where a study gave it a name."""
        return f"“{self.name}”" if self.of_study else self.start


@dataclass(frozen=True)
class ArmDifference:
    """Arm A less arm B on the same images and folds."""

    a: str
    b: str
    value: float  # difference of the pooled AUCs
    ci95: Interval | None  # over patients, the trained networks taken as they are
    patients: int  # how many; images where patients are not known
    unit: str = "patients"  # what `patients` counts: "patients" or "images"
    fold_mean: float | None = None  # of the differences training by training, on the same fold and seed
    fold_sd: float | None = None
    fold_ci95: Interval | None = None
    trainings: int = 1  # how many such differences
    better: int = 0  # in how many of them A is better
    p: float | None = None  # of DeLong's test, where each arm is one run of one question
    kappa: float | None = None  # Cohen's, of being right or wrong about the same images
    kappa_ci95: Interval | None = None  # over patients
    agreement: tuple[float, float] | None = (
        None  # share of images both right or both wrong, and of independent networks
    )
    differ_in: tuple[str, ...] = ()  # in words, such as "start" or "learning rate"

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
class StepDifference:
    """Steps of A less steps of B to the threshold, training by training on the same seed and fold.

    A training that never gets there counts with the last step at which it was looked at, so that the difference is
    then a bound: the real one is larger.
    """

    a: str
    b: str
    mean: float  # of the differences
    sd: float | None  # ddof 1; None for one training
    ci95: Interval | None  # corrected for shared training images, never narrower than ± `spacing`; None below two
    trainings: int  # of which at least one of the two gets there
    only_a: int = 0  # trainings of which one alone gets there
    only_b: int = 0
    spacing: int = 0  # steps between two looks at the AUC

    def turned(self) -> "StepDifference":
        """B less A."""
        sides = {"a": self.b, "b": self.a, "only_a": self.only_b, "only_b": self.only_a}
        return replace(self, mean=-self.mean, ci95=_turned(self.ci95), **sides)


_Difference = TypeVar("_Difference", ArmDifference, StepDifference)


@dataclass(frozen=True)
class ArmResults:
    """The whole table."""

    arms: Sequence[ArmSummary]  # in the order given
    differences: Sequence[ArmDifference] = ()  # of the pairs that were compared
    changes: Mapping[str, Sequence[LayerChange]] = field(default_factory=dict)  # by arm, lowest layer first
    steps: Sequence[StepDifference] = ()  # to the threshold
    threshold: float | None = None  # test AUC that steps are counted to

    def difference(self, a: str, b: str) -> ArmDifference | None:
        """A less B; None where they were not compared."""
        return _between(self.differences, a, b)

    def step_difference(self, a: str, b: str) -> StepDifference | None:
        """Steps of A less steps of B; None where they were not compared."""
        return _between(self.steps, a, b)

    @property
    def scored(self) -> list[ArmSummary]:
        """The arms that have an AUC, best first among those of the same test images: by the pooled, else the mean."""
        scores = {arm.name: arm.mean if arm.pooled is None else arm.pooled for arm in self.arms}
        known = (arm for arm in self.arms if arm.mean is not None)
        return sorted(known, key=lambda arm: (arm.images, -scores[arm.name]))

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


def summarize_arms(arms: Sequence[Arm], predictions: "PredictionShelf") -> list[ArmSummary]:
    """Each arm's row; AUCs that are not defined are None."""
    images, rows = image_sets(arms, predictions.of), []
    for arm in arms:
        aucs = [fold.auc for fold in arm.folds if fold.auc is not None]
        found, plan = spread(aucs), arm.runs[0].record.get("plan", {})
        pooled, interval = _pooled(arm, predictions)
        rows.append(
            ArmSummary(
                **{name: getattr(arm, name) for name in ("name", "start", "depth", "backbone", *SETTINGS, "of_study")},
                parameters=plan.get("total_parameters"),
                trainable=plan.get("trainable_parameters"),
                trainings=len(aucs),
                seeds=len({fold.seed for fold in arm.folds}),
                mean=found.mean,
                sd=found.sd,
                pooled=pooled,
                ci95=interval,
                images=images[arm.name],
            )
        )
    return rows


class PredictionShelf:
    """The test predictions of runs, each read once; what cannot be read is noted."""

    def __init__(self, notes: list[str]):
        self.notes, self._read = notes, {}

    def of(self, run: ArmRun) -> RunPredictions | None:
        if run.path not in self._read:
            try:
                self._read[run.path] = read_predictions(str(run.path))
            except (RadtransferError, OSError, KeyError) as error:
                there = all((run.path / f"fold_{fold.fold}" / "predictions.csv").is_file() for fold in run.folds)
                if isinstance(error, RunError) and there:  # cut or changed, and not left out
                    raise
                self._read[run.path] = None
                self.notes.append(f"{run.path.name}: predictions cannot be read ({error}); not compared")
        return self._read[run.path]


def compare_arms(
    arms: Sequence[Arm],
    summaries: Sequence[ArmSummary],
    predictions: PredictionShelf,
    progress: Progress,
    *,
    named: Collection[frozenset[str]] = (),
) -> list[ArmDifference]:
    """The differences of pairs of arms, of those `named` above all; what cannot be compared is noted."""
    by_name = {arm.name: arm for arm in arms}
    chosen = list(_pairs(summaries, named))
    found = []
    for number, (a, b) in enumerate(chosen, start=1):
        progress.count("arms compared", number, len(chosen))
        try:
            found.append(_difference(by_name[a], by_name[b], predictions))
        except DataError as error:
            predictions.notes.append(f"{a} and {b} are not compared: {error}")
    return [difference for difference in found if difference is not None]


def other_files(a: ArmRun, b: ArmRun) -> bool:
    """Whether images of the same name are different files, as two hospitals may both have a "sick/001.png".

    The fingerprint of a run's files is also another where fewer of them train; so it only counts where the data
    come from another place.
    """
    places = [[run.settings.get(name) for name in ("data.source", "data.image_root")] for run in (a, b)]
    prints = [run.record.get("images_sha256") for run in (a, b)]
    return places[0] != places[1] and None not in prints and prints[0] != prints[1]


def image_sets(arms: Sequence[Arm], read: Callable[[ArmRun], RunPredictions | None]) -> dict[str, int]:
    """Arm to the number, from 1, of the set of images that it was tested on; sets of one number overlap."""
    firsts: list[tuple[ArmRun, set[str] | None]] = []
    numbers = {}
    for arm in arms:
        run, known = arm.runs[0], [found for run in arm.runs if (found := read(run)) is not None]
        tested = {path for found in known for path in found.paths} if known else None
        for number, (other, paths) in enumerate(firsts, start=1):
            if not other_files(run, other) and (None in (tested, paths) or tested & paths):
                numbers[arm.name] = number
                break
        else:
            firsts.append((run, tested))
            numbers[arm.name] = len(firsts)
    return numbers


def watched_curves(arms: Sequence[Arm]) -> dict[str, list[list[tuple[int, float]]]]:
    """Steps and test AUC of every training that was watched, by arm."""
    watched = {arm.name: [curve for fold in arm.folds if (curve := _looks(fold))] for arm in arms}
    return {name: curves for name, curves in watched.items() if curves}


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
    pairs = [(a, b) for a, b in combinations(arms, 2) if a.start != b.start and but_start(a) == but_start(b)]
    return [found for a, b in pairs if (found := step_difference(a, b, threshold)) is not None]


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
            looks = [step for step, _ in _looks(pair[side])]
            steps[side][fold.key] = looks[-1] if reached[side] is None else reached[side]
            alone[side] += reached[1 - side] is None
            spacing = max(spacing, int(max(np.diff([0, *looks]))))
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


def _pooled(arm: Arm, predictions: PredictionShelf) -> tuple[float | None, Interval | None]:
    """The mean over runs and its interval over patients; of a run whose predictions are gone, as it recorded them."""
    read = [found for run in arm.runs if (found := predictions.of(run)) is not None]
    if read:
        found = pooled_auc(read)
        return (None, None) if found is None else (found.area, found.ci95)
    auc = (arm.runs[0].metrics.get("auc") or {}) if len(arm.runs) == 1 else {}
    return auc.get("pooled"), tuple(auc["ci95"]) if auc.get("ci95") else None


def _pairs(arms: Sequence[ArmSummary], named: Collection[frozenset[str]]) -> Iterator[tuple[str, str]]:
    """All pairs of few arms; of many, those that are named or differ in one thing, and each with the best.

    There is a best arm of each set of images.
    """
    scored = [arm for arm in arms if arm.mean is not None]
    best = {arm.images: arm for arm in reversed(ArmResults(arms).scored)}.values()
    for a, b in combinations(scored, 2):
        few = len(scored) <= MOST_ARMS or sum(getattr(a, key) != getattr(b, key) for key in _TOLD) <= 1
        if few or a in best or b in best or {a.name, b.name} in named:
            yield a.name, b.name


def _difference(a: Arm, b: Arm, predictions: PredictionShelf) -> ArmDifference | None:
    pairs = list(_read_pairs(a, b, predictions))
    compared = compare_aucs(pairs) if pairs else None
    if compared is None or compared.difference is None:
        return None
    folds = fold_difference(*({fold.key: fold.auc for fold in arm.folds if fold.auc is not None} for arm in (a, b)))
    # Whether both are right about an image, over the repeats of each.
    right = [[np.nanmean(run.right, axis=1) for run in pair] for pair in pairs]
    right_a, right_b = (np.concatenate([sides[side] for sides in right]) for side in (0, 1))
    known = ~(np.isnan(right_a) | np.isnan(right_b))
    right_a, right_b = right_a[known], right_b[known]
    agreed = agreement(right_a, right_b)
    clusters = np.concatenate([np.array(one.clusters, object) for one, _ in pairs])
    return ArmDifference(
        a=a.name,
        b=b.name,
        value=compared.difference,
        ci95=compared.ci95,
        patients=len(set(clusters)),
        unit="images" if pairs[0][0].patients is None else "patients",
        fold_mean=folds and folds.mean,
        fold_sd=folds and folds.sd,
        fold_ci95=folds and folds.ci95,
        trainings=folds.n if folds else 0,
        better=folds.positive if folds else 0,
        p=_delong(pairs),
        kappa=agreed.kappa,
        kappa_ci95=None if agreed.kappa is None else kappa_interval(right_a, right_b, clusters[known]),
        agreement=(agreed.observed, agreed.independent),
        differ_in=differ_in(a, b),
    )


def _read_pairs(a: Arm, b: Arm, predictions: PredictionShelf) -> Iterator[Pair]:
    """Runs of the same seed; where no seed is shared, in their order."""
    seeds = {run.seed: run for run in b.runs}
    runs = [(run, seeds[run.seed]) for run in a.runs if run.seed in seeds] or list(zip(a.runs, b.runs, strict=False))
    for one, other in runs:
        read = predictions.of(one), predictions.of(other)
        if None not in read:
            if other_files(one, other):
                raise DataError("their images have the same names, and are different files.")
            yield common_predictions(*read, Progress())


def _delong(pairs: Sequence[Pair]) -> float | None:
    if len(pairs) > 1 or pairs[0][0].repeated:
        return None
    one, other = ([*main_questions(run.targets, run.probabilities, run.scoring)] for run in pairs[0])
    test = delong(one[0].name, one[0].truth, one[0].scores, other[0].scores) if len(one) == 1 else None
    return test and test.p


def _between(differences: Sequence[_Difference], a: str, b: str) -> _Difference | None:
    for found in differences:
        if (found.a, found.b) == (a, b):
            return found
        if (found.a, found.b) == (b, a):
            return found.turned()
    return None


def _turned(interval: Interval | None) -> Interval | None:
    return None if interval is None else (-interval[1], -interval[0])
