"""What an interval allows to say of a difference, and how many more patients would allow more."""

import math
from collections.abc import Sequence

SAME = 0.02
"""AUCs whose difference lies within this, with its whole interval, are called equal."""

_MOST = 100
"""Beyond so many times the patients there are, no number is given."""


def verdict(ci95: Sequence[float] | None, *, same: float = SAME) -> str:
    """What the 95 % interval of a difference says: "better", "worse", "equal" or "undecided".

    An interval without width comes of too few values to have one, such as two folds that happen to agree: undecided.
    """
    if _says_nothing(ci95):
        return "undecided"
    low, high = ci95
    if low > -same and high < same:
        return "equal"
    return "better" if low > 0 else "worse" if high < 0 else "undecided"


def how_many(value: float, ci95: Sequence[float] | None, n: int, *, unit: str = "patients", same: float = SAME) -> str:
    """How many patients would decide an undecided difference, if it stayed as it is; the interval shrinks as 1/√n.

    Args:
        value: The difference.
        ci95: Its 95 % interval.
        n: How many patients it was computed on.
        unit: What is counted.
        same: As in `verdict`.
    """
    if _says_nothing(ci95):
        return f"no interval can be given from {n} {unit}"
    half = (ci95[1] - ci95[0]) / 2
    to_differ = _factor(half, abs(value))
    to_equal = _factor(half, same - abs(value))
    factor, what = min((to_differ, "tell them apart"), (to_equal, f"show them equal within {same:g}"))
    if factor > _MOST:
        return f"more than {_MOST} times the {n} {unit} would be needed"
    return f"about {_rounded(factor * n):,} {unit} instead of {n:,} would {what}, if the difference stays as it is"


def more_trainings(value: float, half: float, n: int) -> str:
    """How many trainings of each would take zero out of an interval of ± `half`, if the difference stayed as it is."""
    factor = _factor(half, abs(value))
    if factor > _MOST:
        return f"more than {_MOST} times the {n} trainings would be needed"
    return f"about {_rounded(factor * n):,} trainings instead of {n:,} would decide"


def _says_nothing(ci95: Sequence[float] | None) -> bool:
    return ci95 is None or ci95[1] - ci95[0] < 1e-12


def _factor(half: float, room: float) -> float:
    return math.inf if room <= 0 else max((half / room) ** 2, 1.0)


def _rounded(count: float) -> int:
    """Up, to two digits."""
    step = 10 ** max(math.floor(math.log10(max(count, 1))) - 1, 0)
    return math.ceil(count / step) * step
