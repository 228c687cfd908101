"""Arms as a table: what each scores, and how pairs of them differ on the same images, folds and seeds."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np

from radtransfer.comparisons.predictions import common_predictions, compare_aucs, pooled_auc
from radtransfer.comparisons.run_predictions import RunPredictions, read_predictions
from radtransfer.errors import DataError, RadtransferError, RunError
from radtransfer.metrics.agreement import agreement, kappa_interval
from radtransfer.metrics.auc_difference import delong
from radtransfer.metrics.scoring import main_questions
from radtransfer.progress import Progress
from radtransfer.reports.arms.arm_names import differ_in
from radtransfer.reports.arms.arm_results import ArmDifference, ArmResults, ArmSummary, Interval
from radtransfer.reports.arms.run_arms import Arm, ArmRun
from radtransfer.reports.arms.tested_images import image_sets, other_files
from radtransfer.reports.fold_statistics import fold_difference, spread

MOST_ARMS = 10
"""Up to so many arms every pair is compared; beyond, those that a rule of the advice needs."""

_TOLD = ("start", "depth", "backbone", "recipe", "context", "preprocessing")

Pair = tuple[RunPredictions, RunPredictions]


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
