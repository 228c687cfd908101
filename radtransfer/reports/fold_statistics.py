"""Means over folds, and what the difference of two networks on the same folds is worth.

References:
    Nadeau and Bengio 2003, Inference for the Generalization Error, Machine Learning 52 (the corrected variance).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Spread:
    """Mean, standard deviation (ddof 1; None for one value) and number of values."""

    mean: float | None
    sd: float | None
    n: int


@dataclass(frozen=True)
class FoldDifference:
    """A less B on the folds that both have.

    Attributes:
        mean, sd: Of the differences; `sd` (ddof 1) is None for one fold.
        ci95: 95 % interval of the mean, corrected for the training images that folds share; None below two folds.
        n: Folds.
        positive: In how many of them A is better.
    """

    mean: float
    sd: float | None
    ci95: tuple[float, float] | None
    n: int
    positive: int


def spread(values: Sequence[float]) -> Spread:
    """Of finite values; the mean of none is None."""
    array = np.asarray(values, np.float64)
    mean = float(array.mean()) if array.size else None
    return Spread(mean, float(array.std(ddof=1)) if array.size > 1 else None, array.size)


def fold_difference(a: Mapping[str, float], b: Mapping[str, float]) -> FoldDifference | None:
    """The difference of two networks, each a value by fold; None without a common fold.

    Networks of a cross-validation learn from nearly the same images, so that their differences vary less from fold to
    fold than they would on new data. The variance is taken as sd² · (1/n + 1/(n - 1)), n folds that test 1/n each.
    """
    from scipy.stats import t as student

    values = np.array([a[fold] - b[fold] for fold in a if fold in b], np.float64)
    n = values.size
    if n == 0:
        return None
    mean, sd = float(values.mean()), float(values.std(ddof=1)) if n > 1 else None
    interval = None
    if sd is not None:
        half = float(student.ppf(0.975, n - 1)) * sd * math.sqrt(1 / n + 1 / (n - 1))
        interval = (mean - half, mean + half)
    return FoldDifference(mean, sd, interval, n, int((values > 0).sum()))
