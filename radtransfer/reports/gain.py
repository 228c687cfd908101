"""Whether networks that stay like their start gain more from it: a straight line through a point per target and fold.

References:
    Juodelyte, Jiménez-Sánchez and Cheplygina 2023, Revisiting Hidden Representations (arXiv 2302.08272):
    similarity against relative gain.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_FLAT = 1e-12
"""Values that differ by less than this share of the largest are constant: rounding, not data."""


@dataclass(frozen=True)
class GainPoint:
    """One fold of one target.

    Attributes:
        target, fold: Which.
        similarity: Of the fine-tuned network to its own start, 0–1.
        gain: (AUC - AUC of random initialization) / AUC of random initialization.
    """

    target: str
    fold: str
    similarity: float
    gain: float


@dataclass(frozen=True)
class Line:
    """Least squares of y on x; what is not defined is None, and `reason` says why.

    Attributes:
        slope, intercept: Of the line.
        r: Pearson's correlation.
        ci95: 95 % interval of the slope, Student's t on `df` degrees of freedom.
        r_ci95: 95 % interval of r by Fisher's transformation; needs four points.
        n: Points.
        df: Degrees of freedom.
        reason: Why the line, or r, is not defined.
    """

    slope: float | None
    intercept: float | None
    r: float | None
    ci95: tuple[float, float] | None
    r_ci95: tuple[float, float] | None
    n: int
    df: int
    reason: str | None = None


def relative_gain(auc: float, of_random: float) -> float:
    """How much better than from random initialization, as a share of that AUC, which is not 0."""
    return (auc - of_random) / of_random


def fit_line(x: Sequence[float], y: Sequence[float], *, groups: int = 1) -> Line:
    """The least-squares line of y on x.

    Args:
        x: Finite values (n,).
        y: The same.
        groups: How many means were taken away from x and y beforehand; each costs a degree of freedom.
    """
    from scipy.stats import t as student

    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    n, df = x.size, x.size - groups - 1
    if df < 1:
        return _undefined(n, df, f"too few points for a line with an interval ({n})")
    if _constant(x):
        return _undefined(n, df, "the similarity is the same at every point")
    dx, dy = x - x.mean(), y - y.mean()
    slope = float(dx @ dy / (dx @ dx))
    error = math.sqrt(float(np.sum((dy - slope * dx) ** 2)) / df / float(dx @ dx))
    half = float(student.ppf(0.975, df)) * error
    r = None if _constant(y) else float(np.clip(dx @ dy / math.sqrt((dx @ dx) * (dy @ dy)), -1, 1))
    reason = "the gain is the same at every point: no correlation is defined" if r is None else None
    interval = (slope - half, slope + half)
    return Line(slope, float(y.mean() - slope * x.mean()), r, interval, _fisher(r, df), n, df, reason)


def fit_within(points: Sequence[GainPoint]) -> Line:
    """The line through the points after each target's means are taken away: folds of one target compared."""
    targets = sorted({point.target for point in points})
    x, y = (np.array([getattr(point, name) for point in points]) for name in ("similarity", "gain"))
    for target in targets:
        mine = np.array([point.target == target for point in points])
        # Rounding left by the subtraction is not variation.
        x[mine] = 0.0 if _constant(x[mine]) else x[mine] - x[mine].mean()
        y[mine] = 0.0 if _constant(y[mine]) else y[mine] - y[mine].mean()
    return fit_line(x, y, groups=max(len(targets), 1))


def slopes_without_one(points: Sequence[GainPoint]) -> dict[str, float | None]:
    """The slope when one target is left out, by target: whether one target alone makes the line."""
    found = {}
    for target in sorted({point.target for point in points}):
        others = [point for point in points if point.target != target]
        found[target] = fit_line([p.similarity for p in others], [p.gain for p in others]).slope
    return found


def _undefined(n: int, df: int, reason: str) -> Line:
    return Line(None, None, None, None, None, n, df, reason)


def _constant(values: np.ndarray) -> bool:
    return float(np.ptp(values)) <= _FLAT * float(np.abs(values).max(initial=0))


def _fisher(r: float | None, df: int) -> tuple[float, float] | None:
    """The interval of a correlation, whose transformation has variance 1 / (df - 1)."""
    if r is None or df < 2:
        return None
    if abs(r) == 1:
        return (r, r)
    half = 1.959963984540054 / math.sqrt(df - 1)
    return math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)
