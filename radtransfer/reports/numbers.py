"""Figures as a report prints them: a dash where there is none, a real minus sign."""

from collections.abc import Sequence


def number(value: float | None, digits: int = 3) -> str:
    """With so many decimal places."""
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def signed(value: float | None, digits: int = 3) -> str:
    """With its sign."""
    return "–" if value is None else f"{value:+.{digits}f}".replace("-", "−")


def mean_sd(mean: float | None, sd: float | None, digits: int = 3) -> str:
    """Mean ± standard deviation; the mean alone where that of one value is not defined."""
    return number(mean, digits) if sd is None else f"{number(mean, digits)} ± {number(sd, digits)}"


def interval(ends: Sequence[float] | None, digits: int = 3) -> str:
    """Low to high end of an interval of differences."""
    return "–" if ends is None else f"{signed(ends[0], digits)} to {signed(ends[1], digits)}"


def listed(names: Sequence[str], word: str = "and") -> str:
    """One or more names in a sentence: a, b and c."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {word} {names[-1]}"


def plain_interval(ends: Sequence[float] | None, digits: int = 3) -> str:
    """Low to high end of an interval of figures that have no sign."""
    return "–" if ends is None else f"{number(ends[0], digits)} to {number(ends[1], digits)}"
