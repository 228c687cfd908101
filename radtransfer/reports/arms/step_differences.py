"""How soon arms learn: training steps to a threshold of test AUC, and how two arms differ in them.

References:
    Raghu et al. 2019, Transfusion (arXiv 1902.07208), Figures 6 to 8: steps to a threshold.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from radtransfer.curve import steps_to
from radtransfer.figures.convergence import mean_curve
from radtransfer.reports.arms.run_arms import Arm, TrainedFold
from radtransfer.reports.fold_statistics import fold_difference, spread

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
