"""What a comparison of arms found: what each scores, how pairs differ on the same images, and how soon they learn.

References:
    Raghu et al. 2019, Transfusion (arXiv 1902.07208), Figures 6 to 8: steps to a threshold.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from radtransfer.errors import DataError, RadtransferError, RunError
from radtransfer.evaluation.intervals import agreement, delong, kappa_interval
from radtransfer.evaluation.predict import RunPredictions, read_predictions
from radtransfer.evaluation.scoring import main_questions
from radtransfer.process import Progress
from radtransfer.reports.changes import LayerChange
from radtransfer.reports.collect import Arm, ArmRun, TrainedFold
from radtransfer.reports.figures import mean_curve
from radtransfer.reports.statistics import Interval, fold_difference, spread
from radtransfer.reports.subject import differ_in
from radtransfer.runs.read import steps_to
from radtransfer.similarity.compare_predictions import common_predictions, compare_aucs, pooled_auc

MOST_ARMS = 10
"""Up to so many arms every pair is compared; beyond, those that a rule of the advice needs."""

_TOLD = ("start", "depth", "backbone", "recipe", "context", "preprocessing")

Pair = tuple[RunPredictions, RunPredictions]


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


def summarize_arms(arms: Sequence[Arm], predictions: "PredictionShelf") -> list[ArmSummary]:
    """Each arm's row; AUCs that are not defined are None."""
    images = image_sets(arms, predictions.of)
    return [_summary(arm, predictions, images[arm.name]) for arm in arms]


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


def _summary(arm: Arm, predictions: PredictionShelf, images: int) -> ArmSummary:
    aucs = [fold.auc for fold in arm.folds if fold.auc is not None]
    found = spread(aucs)
    pooled, interval = _pooled(arm, predictions)
    plan: dict[str, Any] = arm.runs[0].record.get("plan", {})
    return ArmSummary(
        name=arm.name,
        start=arm.start,
        depth=arm.depth,
        backbone=arm.backbone,
        recipe=arm.recipe,
        context=arm.context,
        parameters=plan.get("total_parameters"),
        trainable=plan.get("trainable_parameters"),
        trainings=len(aucs),
        seeds=len({fold.seed for fold in arm.folds}),
        mean=found.mean,
        sd=found.sd,
        pooled=pooled,
        ci95=interval,
        of_study=arm.of_study,
        images=images,
        preprocessing=arm.preprocessing,
    )


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
    for place, a in enumerate(scored):
        for b in scored[place + 1 :]:
            changed = sum(getattr(a, key) != getattr(b, key) for key in _TOLD)
            few = len(scored) <= MOST_ARMS or changed <= 1
            if few or a in best or b in best or {a.name, b.name} in named:
                yield a.name, b.name


def _difference(a: Arm, b: Arm, predictions: PredictionShelf) -> ArmDifference | None:
    pairs = list(_read_pairs(a, b, predictions))
    if not pairs:
        return None
    compared = compare_aucs(pairs)
    if compared.difference is None:
        return None
    folds = fold_difference(*({fold.key: fold.auc for fold in arm.folds if fold.auc is not None} for arm in (a, b)))
    kappa, kappa_interval, shares = _agreement(pairs)
    first = pairs[0][0]
    clusters = {name for pair, _ in pairs for name in pair.clusters}
    return ArmDifference(
        a=a.name,
        b=b.name,
        value=compared.difference,
        ci95=compared.ci95,
        patients=len(clusters),
        unit="images" if first.patients is None else "patients",
        fold_mean=folds and folds.mean,
        fold_sd=folds and folds.sd,
        fold_ci95=folds and folds.ci95,
        trainings=folds.n if folds else 0,
        better=folds.positive if folds else 0,
        p=_delong(pairs),
        kappa=kappa,
        kappa_ci95=kappa_interval,
        agreement=shares,
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


def _agreement(pairs: Sequence[Pair]) -> tuple[float | None, Interval | None, tuple[float, float]]:
    """Kappa of being right together, its interval over patients, and the shares it comes from."""
    right = [[np.nanmean(run.right, axis=1) for run in pair] for pair in pairs]
    a, b = (np.concatenate([sides[side] for sides in right]) for side in (0, 1))
    known = ~(np.isnan(a) | np.isnan(b))
    found = agreement(a[known], b[known])
    patients = np.concatenate([np.array(one.clusters, object) for one, _ in pairs])[known]
    interval = None if found.kappa is None else kappa_interval(a[known], b[known], patients)
    return found.kappa, interval, (found.observed, found.independent)


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
