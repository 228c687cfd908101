"""Statistics of reports and their format: means over folds, verdicts on differences, and similarity against gain.

References:
    Nadeau and Bengio 2003, Inference for the Generalization Error, Machine Learning 52 (the corrected variance).
    Juodelyte, Jiménez-Sánchez and Cheplygina 2023, Revisiting Hidden Representations (arXiv 2302.08272):
    similarity against relative gain.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Interval = tuple[float, float]


@dataclass(frozen=True)
class Spread:
    """Mean, standard deviation (ddof 1; None for one value) and number of values."""

    mean: float | None
    sd: float | None
    n: int


@dataclass(frozen=True)
class FoldDifference:
    """A minus B on common folds; the interval is corrected for shared training images."""

    mean: float
    sd: float | None  # ddof 1; None for one fold
    ci95: Interval | None  # of the mean; None for one fold
    n: int  # folds
    positive: int  # folds in which A is better


def spread(values: Sequence[float]) -> Spread:
    """The spread of finite values; the mean of no values is None."""
    array = np.asarray(values, np.float64)
    mean = float(array.mean()) if array.size else None
    return Spread(mean, float(array.std(ddof=1)) if array.size > 1 else None, array.size)


def fold_difference(a: Mapping[str, float], b: Mapping[str, float]) -> FoldDifference | None:
    """The difference of two networks, given as values by fold; None without a common fold.

    Networks of a cross-validation share most training images, so that their differences vary too little between folds.
    The variance is taken as sd² · (1/n + 1/(n - 1)) for n folds that test 1/n of the images each.
    """
    from scipy.stats import t as student

    values = np.array([a[fold] - b[fold] for fold in a if fold in b], np.float64)
    n = values.size
    if n == 0:
        return None
    mean, sd, interval = float(values.mean()), None, None
    if n > 1:
        sd = float(values.std(ddof=1))
        half = float(student.ppf(0.975, n - 1)) * sd * math.sqrt(1 / n + 1 / (n - 1))
        interval = (mean - half, mean + half)
    return FoldDifference(mean, sd, interval, n, int((values > 0).sum()))


SAME = 0.02  # AUCs are called equal if the interval of their difference is within ± this
MOST = 100  # no number of patients or trainings is given beyond this multiple


def verdict(ci95: Sequence[float] | None, *, same: float = SAME) -> str:
    """The conclusion from the 95 % interval of a difference: "better", "worse", "equal" or "inconclusive".

    An interval of zero width is inconclusive: it results from too few values, such as two equal folds.
    """
    if _is_empty(ci95):
        return "inconclusive"
    low, high = ci95
    if low > -same and high < same:
        return "equal"
    return "better" if low > 0 else "worse" if high < 0 else "inconclusive"


def more_patients(value: float, ci95: Sequence[float] | None, n: int) -> tuple[int | None, str] | None:
    """The number of patients that a conclusion needs if the difference stays the same; the interval shrinks as 1/√n.

    Number (None beyond `MOST` times `n`) and conclusion, "apart" or "equal"; None without an interval.
    """
    if _is_empty(ci95):
        return None
    half = (ci95[1] - ci95[0]) / 2
    needed = (_factor(half, SAME - abs(value)), "equal"), (_factor(half, abs(value)), "apart")
    factor, what = min(needed, key=lambda pair: pair[0])
    return (_rounded(factor * n) if factor <= MOST else None), what


def more_trainings(value: float, half: float, n: int) -> int | None:
    """The number of trainings for an interval of ± `half` to exclude 0; None beyond `MOST` times `n`."""
    factor = _factor(half, abs(value))
    return _rounded(factor * n) if factor <= MOST else None


def _is_empty(ci95: Sequence[float] | None) -> bool:
    return ci95 is None or ci95[1] - ci95[0] < 1e-12


def _factor(half: float, room: float) -> float:
    return math.inf if room <= 0 else max((half / room) ** 2, 1.0)


def _rounded(count: float) -> int:
    """Rounded up to two digits."""
    step = 10 ** max(math.floor(math.log10(max(count, 1))) - 1, 0)
    return math.ceil(count / step) * step


_FLAT = 1e-12  # values that differ by less than this share of the largest are constant except for rounding errors


@dataclass(frozen=True)
class GainPoint:
    """One fold of one target."""

    target: str
    fold: str
    similarity: float  # of the network before and after fine-tuning, 0–1
    gain: float  # (AUC - AUC of random initialization) / AUC of random initialization


@dataclass(frozen=True)
class Line:
    """Least-squares fit of y to x; undefined values are None, and `reason` says why."""

    slope: float | None
    intercept: float | None
    r: float | None  # Pearson's correlation
    ci95: Interval | None  # of the slope, Student's t on `df` degrees of freedom
    r_ci95: Interval | None  # by Fisher's transformation; needs four points
    n: int
    df: int
    reason: str | None = None


def relative_gain(auc: float, of_random: float) -> float:
    """The gain over random initialization, relative to its AUC, which is not 0."""
    return (auc - of_random) / of_random


def fit_line(x: Sequence[float], y: Sequence[float], *, groups: int = 1) -> Line:
    """The least-squares fit of y to x, finite values; `groups` means were subtracted from both before."""
    from scipy.stats import t as student

    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    n, df = x.size, x.size - groups - 1
    if df < 1 or _constant(x):
        few = f"too few points for a line with an interval ({n})"
        reason = few if df < 1 else "the similarity is the same at every point"
        return Line(None, None, None, None, None, n, df, reason)
    dx, dy = x - x.mean(), y - y.mean()
    slope = float(dx @ dy / (dx @ dx))
    error = math.sqrt(float(np.sum((dy - slope * dx) ** 2)) / df / float(dx @ dx))
    half = float(student.ppf(0.975, df)) * error
    interval, intercept = (slope - half, slope + half), float(y.mean() - slope * x.mean())
    if _constant(y):
        reason = "the gain is the same at every point: no correlation is defined"
        return Line(slope, intercept, None, interval, None, n, df, reason)
    r, r_interval = float(np.clip(dx @ dy / math.sqrt((dx @ dx) * (dy @ dy)), -1, 1)), None
    if abs(r) == 1 and df >= 2:
        r_interval = (r, r)
    elif df >= 2:
        half = 1.959963984540054 / math.sqrt(df - 1)  # Fisher's transformation has variance 1 / (df - 1)
        r_interval = math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)
    return Line(slope, intercept, r, interval, r_interval, n, df)


def fit_within(points: Sequence[GainPoint]) -> Line:
    """The line after subtracting the means of each target, which compares the folds within targets."""
    targets = sorted({point.target for point in points})
    x, y = (np.array([getattr(point, name) for point in points]) for name in ("similarity", "gain"))
    for target in targets:
        mine = np.array([point.target == target for point in points])
        # Rounding left by the subtraction is not variation.
        x[mine] = 0.0 if _constant(x[mine]) else x[mine] - x[mine].mean()
        y[mine] = 0.0 if _constant(y[mine]) else y[mine] - y[mine].mean()
    return fit_line(x, y, groups=max(len(targets), 1))


def slopes_without_one(points: Sequence[GainPoint]) -> dict[str, float | None]:
    """The slope without each target, by target."""
    found = {}
    for target in sorted({point.target for point in points}):
        others = [point for point in points if point.target != target]
        found[target] = fit_line([p.similarity for p in others], [p.gain for p in others]).slope
    return found


def _constant(values: np.ndarray) -> bool:
    return float(np.ptp(values)) <= _FLAT * float(np.abs(values).max(initial=0))


def number(value: float | None, digits: int = 3) -> str:
    """A number with `digits` decimal places."""
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def signed(value: float | None, digits: int = 3) -> str:
    """A number with its sign."""
    return "–" if value is None else f"{value:+.{digits}f}".replace("-", "−")


def mean_sd(mean: float | None, sd: float | None, digits: int = 3) -> str:
    """Mean ± standard deviation, or only the mean of one value."""
    return number(mean, digits) if sd is None else f"{number(mean, digits)} ± {number(sd, digits)}"


def interval(ends: Sequence[float] | None, digits: int = 3) -> str:
    """An interval of differences, with signs."""
    return "–" if ends is None else f"{signed(ends[0], digits)} to {signed(ends[1], digits)}"


def plain_interval(ends: Sequence[float] | None, digits: int = 3) -> str:
    """An interval without signs."""
    return "–" if ends is None else f"{number(ends[0], digits)} to {number(ends[1], digits)}"


def count(value: int | None) -> str:
    """An integer with commas between thousands."""
    return "–" if value is None else f"{value:,}"


def listed(names: Iterable[str], word: str = "and") -> str:
    """One or more names in a sentence: a, b and c."""
    *first, last = names
    return f"{', '.join(first)} {word} {last}" if first else last
