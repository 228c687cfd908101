"""ROC and precision-recall curves, exact, with bands over patients."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from radtransfer.metrics.intervals import score_interval

GRID = np.linspace(0, 1, 101)
"""Where bands are drawn: false-positive rates, or recalls."""


@dataclass(frozen=True)
class Curve:
    """One curve and its band.

    Attributes:
        question: Which it is of.
        kind: "roc" or "pr".
        x: False-positive rate, or recall, at every threshold.
        y: Sensitivity, or precision, there.
        low: Of the 95 % band, at `GRID`.
        high: Likewise.
        area: Exact area under a ROC curve; average precision of the other.
        prevalence: Share of positives.
    """

    question: str
    kind: str
    x: list[float]
    y: list[float]
    low: list[float]
    high: list[float]
    area: float
    prevalence: float


@dataclass(frozen=True)
class _Sorted:
    """Answers from the highest score down, and where the score changes."""

    truth: np.ndarray
    clusters: np.ndarray
    last: np.ndarray


def both_curves(
    question: str, truth: np.ndarray, scores: np.ndarray, clusters: Sequence[str], *, draws: int = 2000, seed: int = 0
) -> tuple[Curve, Curve] | None:
    """The ROC and the precision-recall curve of one question; None where there is no positive or no negative.

    The bands are pointwise 95 % intervals of sensitivity at a false-positive rate, and of precision at a recall, as
    `score_interval` gives them. The variance is that of whole patients drawn with replacement; a draw without positives
    or without negatives is left out.

    Args:
        question: Its name.
        truth: bool (answers,).
        scores: float (answers,), finite; higher means more likely true.
        clusters: What is drawn together, (answers,).
        draws: Of the bootstrap.
        seed: Of the draws.

    References:
        Fawcett 2006, Pattern Recognition Letters 27, section 7 (vertical averaging); Field and Welsh 2007,
        J. R. Stat. Soc. B 69 (cluster bootstrap). Average precision is scikit-learn's, without interpolation.
    """
    if not truth.any() or truth.all():
        return None
    names, codes = np.unique(np.asarray(clusters, dtype=object).astype(str), return_inverse=True)
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), truth.size - 1)
    answers = _Sorted(truth[order], codes[order], last)
    true, false = _counts(answers, np.ones(names.size))
    bands = _bands(answers, names.size, draws, seed)
    x, y = np.append(0, false / false[-1]), np.append(0, true / true[-1])
    roc = Curve(question, "roc", x.tolist(), y.tolist(), *bands[0], float(np.trapezoid(y, x)), float(truth.mean()))
    recall, precision = true / true[-1], true / (true + false)
    average = float(np.sum(np.diff(recall, prepend=0) * precision))
    pr = Curve(question, "pr", recall.tolist(), precision.tolist(), *bands[1], average, float(truth.mean()))
    return roc, pr


def _counts(answers: _Sorted, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """True and false positives at each threshold, from the highest, with these weights of the clusters."""
    each = weights[answers.clusters]
    true = np.cumsum(each * answers.truth)[answers.last]
    return true, np.cumsum(each * ~answers.truth)[answers.last]


def _bands(answers: _Sorted, clusters: int, draws: int, seed: int) -> list[list[list[float]]]:
    """Low and high end of both bands at `GRID`."""
    rng, drawn = np.random.default_rng(seed), []
    for _ in range(draws):
        weights = np.bincount(rng.integers(clusters, size=clusters), minlength=clusters).astype(float)
        true, false = _counts(answers, weights)
        if true[-1] and false[-1]:
            drawn.append((_sensitivity(true, false), _precision(true, false)))
    curves = _counts(answers, np.ones(clusters))
    patients = np.unique(answers.clusters[answers.truth]).size
    bands = []
    for number, at_grid in enumerate((_sensitivity, _precision)):
        value = at_grid(*curves)
        values = np.array([each[number] for each in drawn] or [value])
        ends = score_interval(value, values.var(axis=0), patients, patients, mean=values.mean(axis=0))
        bands.append([end.tolist() for end in ends])
    bands[0][0][-1] = 1.0  # at a false-positive rate of 1 every positive is found
    return bands


def _sensitivity(true: np.ndarray, false: np.ndarray) -> np.ndarray:
    """At `GRID`: the top of the curve where it is vertical."""
    # A little to the right, since a rate such as 3/60 may be the least bit above 0.05.
    return np.interp(GRID + 1e-9, np.append(0, false / false[-1]), np.append(0, true / true[-1]))


def _precision(true: np.ndarray, false: np.ndarray) -> np.ndarray:
    """At `GRID`: of the highest threshold that has this recall."""
    held = true + false > 0
    true, false = true[held], false[held]
    place = np.searchsorted(true / true[-1], GRID - 1e-12)
    return (true / (true + false))[np.minimum(place, true.size - 1)]
