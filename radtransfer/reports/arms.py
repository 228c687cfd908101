"""Comparison of arms: AUC of each, paired differences on the same images, and convergence.

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
from radtransfer.reports.subject import SETTINGS, all_but_start, differ_in
from radtransfer.runs.read import steps_to
from radtransfer.similarity.compare_predictions import common_predictions, compare_aucs, pooled_auc

MOST_ARMS = 10  # with more arms, only the pairs for the advice are compared

_ATTRIBUTES = ("start", "depth", "backbone", "recipe", "context", "preprocessing")

Pair = tuple[RunPredictions, RunPredictions]


@dataclass(frozen=True)
class ArmSummary:
    """Networks with the same training except for chance: runs that differ in their seed, and their folds."""

    name: str
    start: str  # as in `Arm`, up to `context`
    depth: str
    backbone: str
    recipe: str = ""
    context: str = ""
    parameters: int | None = None  # of the backbone
    trainable: int | None = None  # parameters of the backbone
    trainings: int = 1  # trained networks, one per seed and fold
    seeds: int = 1  # different seeds
    mean: float | None = None  # AUC over trainings
    sd: float | None = None  # ddof 1
    pooled: float | None = None  # AUC of pooled out-of-fold predictions, averaged over repeats and seeds
    ci95: Interval | None = None  # of `pooled`, over patients
    of_study: bool = False
    images: int = 1  # number of its set of test images, from 1
    preprocessing: str = ""

    @property
    def origin(self) -> str:
        """The initialization in a sentence, or the name of the arm in a study."""
        return f"“{self.name}”" if self.of_study else self.start


@dataclass(frozen=True)
class ArmDifference:
    """Arm A minus arm B on the same images and folds."""

    a: str
    b: str
    value: float  # difference of the pooled AUCs
    ci95: Interval | None  # over patients, without the variation between trainings
    patients: int  # number of patients, or images if patients are unknown
    unit: str = "patients"  # of `patients`: "patients" or "images"
    fold_mean: float | None = None  # mean difference between trainings on the same fold and seed
    fold_sd: float | None = None
    fold_ci95: Interval | None = None
    trainings: int = 1  # number of these differences
    better: int = 0  # in how many of them A is better
    p: float | None = None  # DeLong's test, if each arm is one run with one binary question
    kappa: float | None = None  # Cohen's, of being correct or wrong on the same images
    kappa_ci95: Interval | None = None  # over patients
    agreement: tuple[float, float] | None = None  # both correct or both wrong: observed, and for independent networks
    differ_in: tuple[str, ...] = ()  # in words, such as "start" or "learning rate"

    def swapped(self) -> "ArmDifference":
        """B minus A."""
        return replace(
            self,
            a=self.b,
            b=self.a,
            value=-self.value,
            ci95=_negated(self.ci95),
            fold_mean=None if self.fold_mean is None else -self.fold_mean,
            fold_ci95=_negated(self.fold_ci95),
            better=self.trainings - self.better,
        )


@dataclass(frozen=True)
class StepDifference:
    """Steps of A minus steps of B to the threshold, between trainings with the same seed and fold.

    A training that never reaches it counts with its last evaluated step; the true difference is then larger.
    """

    a: str
    b: str
    mean: float  # of the differences
    sd: float | None  # ddof 1; None for one training
    ci95: Interval | None  # corrected for shared training images, at least ± `spacing`; None below two trainings
    trainings: int  # pairs of which at least one reaches the threshold
    only_a: int = 0  # pairs of which only A reaches it
    only_b: int = 0
    spacing: int = 0  # steps between two evaluations

    def swapped(self) -> "StepDifference":
        """B minus A."""
        sides = {"a": self.b, "b": self.a, "only_a": self.only_b, "only_b": self.only_a}
        return replace(self, mean=-self.mean, ci95=_negated(self.ci95), **sides)


_Difference = TypeVar("_Difference", ArmDifference, StepDifference)


@dataclass(frozen=True)
class ArmResults:
    """All results of the comparison."""

    arms: Sequence[ArmSummary]  # in the order given
    differences: Sequence[ArmDifference] = ()  # of the pairs that were compared
    changes: Mapping[str, Sequence[LayerChange]] = field(default_factory=dict)  # by arm, lowest layer first
    steps: Sequence[StepDifference] = ()  # to the threshold
    threshold: float | None = None  # test AUC

    def difference(self, a: str, b: str) -> ArmDifference | None:
        """A minus B; None if they were not compared."""
        return _between(self.differences, a, b)

    def step_difference(self, a: str, b: str) -> StepDifference | None:
        """Steps of A minus steps of B; None if they were not compared."""
        return _between(self.steps, a, b)

    @property
    def scored(self) -> list[ArmSummary]:
        """The arms with an AUC, best (pooled, else mean) first within each set of test images."""
        scores = {arm.name: arm.mean if arm.pooled is None else arm.pooled for arm in self.arms}
        known = (arm for arm in self.arms if arm.mean is not None)
        return sorted(known, key=lambda arm: (arm.images, -scores[arm.name]))

    @property
    def image_sets(self) -> int:
        """The number of sets of test images; arms of different sets are not compared."""
        return len({arm.images for arm in self.scored})


def groups_of(found: ArmResults, same: Sequence[str], *, by: str) -> Iterator[list[ArmSummary]]:
    """Arms, best first, with the same test images and attributes `same`, and at least two values of `by`."""
    groups: dict[tuple, list[ArmSummary]] = {}
    for arm in found.scored:
        groups.setdefault(tuple(getattr(arm, name) for name in (*same, "images")), []).append(arm)
    for arms in groups.values():
        if len({getattr(arm, by) for arm in arms}) > 1:
            yield arms


def summarize_arms(arms: Sequence[Arm], predictions: "PredictionCache") -> list[ArmSummary]:
    """The row of each arm; undefined AUCs are None."""
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


class PredictionCache:
    """The test predictions of runs, each read once; failures are noted."""

    def __init__(self, notes: list[str]):
        self.notes, self._read = notes, {}

    def of(self, run: ArmRun) -> RunPredictions | None:
        if run.path not in self._read:
            try:
                self._read[run.path] = read_predictions(str(run.path))
            except (RadtransferError, OSError, KeyError) as error:
                there = all((run.path / f"fold_{fold.fold}" / "predictions.csv").is_file() for fold in run.folds)
                if isinstance(error, RunError) and there:  # the files exist, but were damaged or changed
                    raise
                self._read[run.path] = None
                self.notes.append(f"{run.path.name}: predictions cannot be read ({error}); not compared")
        return self._read[run.path]


def compare_arms(
    arms: Sequence[Arm],
    summaries: Sequence[ArmSummary],
    predictions: PredictionCache,
    progress: Progress,
    *,
    named: Collection[frozenset[str]] = (),
) -> list[ArmDifference]:
    """The differences of pairs of arms, always of those `named`; failures are noted."""
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


def different_files(a: ArmRun, b: ArmRun) -> bool:
    """Whether images of the same name are different files, such as "sick/001.png" of two hospitals.

    The hash of a run's files also depends on the size of its training set; it is compared only for different sources.
    """
    places = [[run.settings.get(name) for name in ("data.source", "data.image_root")] for run in (a, b)]
    prints = [run.record.get("images_sha256") for run in (a, b)]
    return places[0] != places[1] and None not in prints and prints[0] != prints[1]


def image_sets(arms: Sequence[Arm], read: Callable[[ArmRun], RunPredictions | None]) -> dict[str, int]:
    """Arm to the number, from 1, of its set of test images; overlapping sets have the same number."""
    firsts: list[tuple[ArmRun, set[str] | None]] = []
    numbers = {}
    for arm in arms:
        run, known = arm.runs[0], [found for run in arm.runs if (found := read(run)) is not None]
        tested = {path for found in known for path in found.paths} if known else None
        for number, (other, paths) in enumerate(firsts, start=1):
            if not different_files(run, other) and (None in (tested, paths) or tested & paths):
                numbers[arm.name] = number
                break
        else:
            firsts.append((run, tested))
            numbers[arm.name] = len(firsts)
    return numbers


def test_curves(arms: Sequence[Arm]) -> dict[str, list[list[tuple[int, float]]]]:
    """Steps and test AUC of every training with a curve, by arm."""
    found = {arm.name: [curve for fold in arm.folds if (curve := _evaluated(fold))] for arm in arms}
    return {name: curves for name, curves in found.items() if curves}


def usual_threshold(curves: Mapping[str, Sequence[Sequence[tuple[int, float]]]]) -> float | None:
    """An AUC that every arm reaches on average: the minimum over arms of the highest mean, rounded down."""
    highest = [mean.max() for folds in curves.values() if (mean := mean_curve(folds)[1]).size]
    return float(np.floor(100 * min(highest)) / 100) if highest else None


def step_rows(arms: Sequence[Arm], threshold: float) -> list[dict[str, Any]]:
    """Steps to the threshold: mean and SD over the trainings that reach it, their number, and that of all trainings."""
    rows = []
    for arm in arms:
        curves = [fold.curve for fold in arm.folds if _evaluated(fold)]
        reached = [step for curve in curves if (step := steps_to(curve, threshold)) is not None]
        found = spread(reached)
        if curves:
            row = {"arm": arm.name, "threshold": threshold, "steps_mean": found.mean, "steps_sd": found.sd}
            rows.append(row | {"reached": len(reached), "watched": len(curves)})
    return rows


def step_differences(arms: Sequence[Arm], threshold: float) -> list[StepDifference]:
    """The differences of all pairs of arms that differ only in their initialization, if a training reaches it."""
    pairs = [(a, b) for a, b in combinations(arms, 2) if a.start != b.start and all_but_start(a) == all_but_start(b)]
    return [found for a, b in pairs if (found := step_difference(a, b, threshold)) is not None]


def step_difference(a: Arm, b: Arm, threshold: float) -> StepDifference | None:
    """Steps of `a` minus steps of `b`; None if no common training reaches the threshold."""
    others = {fold.key: fold for fold in b.folds if _evaluated(fold)}
    steps: tuple[dict[str, float], dict[str, float]] = {}, {}
    alone, spacing = [0, 0], 0
    for fold in a.folds:
        if not _evaluated(fold) or fold.key not in others:
            continue
        pair = (fold, others[fold.key])
        reached = [steps_to(each.curve, threshold) for each in pair]
        if reached == [None, None]:
            continue
        for side in (0, 1):
            evaluated = [step for step, _ in _evaluated(pair[side])]
            steps[side][fold.key] = evaluated[-1] if reached[side] is None else reached[side]
            alone[side] += reached[1 - side] is None
            spacing = max(spacing, int(max(np.diff([0, *evaluated]))))
    found = fold_difference(*steps)
    if found is None:
        return None
    interval = found.ci95
    if interval is not None:
        half = max((interval[1] - interval[0]) / 2, spacing)
        interval = (found.mean - half, found.mean + half)
    return StepDifference(a.name, b.name, found.mean, found.sd, interval, found.n, *alone, spacing)


def _evaluated(fold: TrainedFold) -> list[tuple[int, float]]:
    """Steps and test AUCs."""
    return [(int(row["step"]), float(row["auc"])) for row in fold.curve if row["split"] == "test" and row["auc"]]


def _pooled(arm: Arm, predictions: PredictionCache) -> tuple[float | None, Interval | None]:
    """The mean over runs and its interval over patients; as recorded, if the predictions of a run are missing."""
    read = [found for run in arm.runs if (found := predictions.of(run)) is not None]
    if read:
        found = pooled_auc(read)
        return (None, None) if found is None else (found.area, found.ci95)
    auc = (arm.runs[0].metrics.get("auc") or {}) if len(arm.runs) == 1 else {}
    return auc.get("pooled"), tuple(auc["ci95"]) if auc.get("ci95") else None


def _pairs(arms: Sequence[ArmSummary], named: Collection[frozenset[str]]) -> Iterator[tuple[str, str]]:
    """All pairs of few arms; of many, named pairs, pairs with one difference, and each arm with the best."""
    scored = [arm for arm in arms if arm.mean is not None]
    best = {arm.images: arm for arm in reversed(ArmResults(arms).scored)}.values()
    for a, b in combinations(scored, 2):
        few = len(scored) <= MOST_ARMS or sum(getattr(a, key) != getattr(b, key) for key in _ATTRIBUTES) <= 1
        if few or a in best or b in best or {a.name, b.name} in named:
            yield a.name, b.name


def _difference(a: Arm, b: Arm, predictions: PredictionCache) -> ArmDifference | None:
    pairs = list(_read_pairs(a, b, predictions))
    compared = compare_aucs(pairs) if pairs else None
    if compared is None or compared.difference is None:
        return None
    folds = fold_difference(*({fold.key: fold.auc for fold in arm.folds if fold.auc is not None} for arm in (a, b)))
    # Whether both are correct on an image, averaged over labels.
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


def _read_pairs(a: Arm, b: Arm, predictions: PredictionCache) -> Iterator[Pair]:
    """Pairs of runs with the same seed; without common seeds, in their order."""
    seeds = {run.seed: run for run in b.runs}
    runs = [(run, seeds[run.seed]) for run in a.runs if run.seed in seeds] or list(zip(a.runs, b.runs, strict=False))
    for one, other in runs:
        read = predictions.of(one), predictions.of(other)
        if None not in read:
            if different_files(one, other):
                raise DataError("their images have the same names but are different files.")
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
            return found.swapped()
    return None


def _negated(interval: Interval | None) -> Interval | None:
    return None if interval is None else (-interval[1], -interval[0])
