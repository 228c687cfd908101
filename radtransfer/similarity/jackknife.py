"""Intervals by leaving out one group of images at a time."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from radtransfer.errors import SimilarityError
from radtransfer.similarity.measure import Similarity
from radtransfer.similarity.pair_sums import PairSums

FEWEST_GROUPS = 5
_NORMAL_95 = 1.959963984540054


@dataclass(frozen=True)
class Interval:
    """A similarity with its 95 % interval.

    Attributes:
        value: From all rows.
        error: Standard error.
        low, high: Ends of the interval; they may lie outside 0–1.
        groups: How many groups were left out in turn.
    """

    value: float
    error: float
    low: float
    high: float
    groups: int


def jackknife_interval(groups: Sequence[PairSums], of_sums: Callable[[PairSums], Similarity]) -> Interval:
    """The delete-a-group jackknife interval of a similarity.

    It covers the score to expect with as many rows of other images, not the score of infinitely many rows:
    CCA of few rows is too high, by more than its interval is wide. A bootstrap would be worse: the images it
    draws twice make CCA higher still, and its percentile interval then misses both. For PWCCA, whose weights
    jump where coefficients are close, the interval is wider than it need be.

    Args:
        groups: The sums of disjoint groups of whole images (or patients) of about equal size, with common
            pivots; 20 are enough.
        of_sums: That of a `Measure`.

    Raises:
        SimilarityError: Fewer than 5 groups.

    References:
        Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 11, equation 11.5.
    """
    count = len(groups)
    if count < FEWEST_GROUPS:
        raise SimilarityError(
            f"Expected at least {FEWEST_GROUPS} groups of images for an interval, received {count}. "
            "Use more images or smaller groups."
        )
    values = np.array([of_sums(rest).value for rest in leaving_one_out(groups)])
    value = of_sums(total_sums(groups)).value
    error = jackknife_error(values)
    return Interval(value, error, *normal_interval(value, error), count)


def jackknife_error(left_out: np.ndarray) -> float:
    """The standard error of a score, from its values with each group left out in turn, float64 (groups,)."""
    count = left_out.size
    return float(np.sqrt((count - 1) / count * np.sum((left_out - left_out.mean()) ** 2)))


def normal_interval(value: float, error: float) -> tuple[float, float]:
    """The ends of the 95 % interval; they may lie outside 0–1."""
    return value - _NORMAL_95 * error, value + _NORMAL_95 * error


def total_sums(groups: Sequence[PairSums]) -> PairSums:
    """The sums of all groups together."""
    *_, total = accumulate(groups)
    return total


def leaving_one_out(groups: Sequence[PairSums]) -> Iterator[PairSums]:
    """The sums of all groups but one, leaving out each in turn."""
    # Added up, not subtracted from the total: a channel that lives in one group alone must be dead without
    # it, not left with rounding errors.
    before, after = list(accumulate(groups[:-1])), list(accumulate(groups[:0:-1]))[::-1]
    yield after[0]
    for left, right in zip(before, after[1:], strict=False):
        yield left + right
    yield before[-1]
