"""What stands beside a score: an interval, by leaving out one group of images at a time, and what chance gives."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from radtransfer.errors import SimilarityError
from radtransfer.similarity.measure import Similarity
from radtransfer.similarity.moments import CrossMoments

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


def jackknife_interval(groups: Sequence[CrossMoments], of_sums: Callable[[CrossMoments], Similarity]) -> Interval:
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


def total_sums(groups: Sequence[CrossMoments]) -> CrossMoments:
    """The sums of all groups together."""
    *_, total = accumulate(groups)
    return total


def leaving_one_out(groups: Sequence[CrossMoments]) -> Iterator[CrossMoments]:
    """The sums of all groups but one, leaving out each in turn."""
    # Added up, not subtracted from the total: a channel that lives in one group alone must be dead without
    # it, not left with rounding errors.
    before, after = list(accumulate(groups[:-1])), list(accumulate(groups[:0:-1]))[::-1]
    yield after[0]
    for left, right in zip(before, after[1:], strict=False):
        yield left + right
    yield before[-1]


_NODES = 256
_ROTATED_DIRECTIONS = 200


def chance_cca(rows: int, rank_x: int, rank_y: int) -> float:
    """The mean canonical correlation to expect of unrelated layers with independent Gaussian rows.

    Rows that are neighbours in an image make unrelated layers more alike than this. The limit of many
    directions is a little high for few: by 1.5 % of itself for 8, by 0.5 % for 32; a single direction is exact.

    Args:
        rows: More than `rank_x + rank_y`.
        rank_x: Directions of x.
        rank_y: Directions of y.

    Raises:
        SimilarityError: Too few rows.

    References:
        Wachter 1980, Annals of Statistics 8: limit of the squared canonical correlations;
        Johnstone 2008, Annals of Statistics 36, section 2.
    """
    few, many, degrees = _degrees(rows, rank_x, rank_y)
    if few == 1:
        return _single(many, degrees)
    # As angles, the ends of the density lose no digits where they are close to 0.
    sines = np.arcsin(np.sqrt([few / degrees, many / degrees]))
    low, high = np.sin(sines[1] - sines[0]) ** 2, np.sin(sines[1] + sines[0]) ** 2
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    angles = np.pi / 2 * (nodes + 1)
    squared = low + (high - low) * np.sin(angles / 2) ** 2
    density = ((high - low) * np.sin(angles)) ** 2 / (squared * (1 - squared)) * weights
    return float(density @ np.sqrt(squared) / density.sum())


def chance_cca_squared(rows: int, rank_x: int, rank_y: int) -> float:
    """The mean squared canonical correlation to expect of unrelated layers; exact for Gaussian rows.

    Raises:
        SimilarityError: As `chance_cca`.
    """
    _, many, degrees = _degrees(rows, rank_x, rank_y)
    return many / degrees


def chance_explained(rows: int, rank_x: int, rank_y: int) -> float:
    """The share of y that x explains by chance: the dimension x spans over the dimension there is.

    Raises:
        SimilarityError: As `chance_cca`.
    """
    return rank_x / _degrees(rows, rank_x, rank_y)[2]


def chance_debiased(rows: int, rank_x: int, rank_y: int) -> float:
    """Debiased CKA of unrelated layers is 0 whatever their sizes."""
    return 0.0


def chance_rotated(rows: int, variances_x: np.ndarray, variances_y: np.ndarray) -> float:
    """The Procrustes similarity to expect of unrelated layers with these spectra and Gaussian rows.

    The rows of unrelated layers point in directions that have nothing to do with each other: the mean is taken over
    random rotations of one against the other, always the same ones. With fewer rows than channels it comes close to 1.

    Args:
        rows: At least 2.
        variances_x: Eigenvalues of the scatter of x, all above 0, float64 (rank of x,).
        variances_y: Those of y.
    """
    few, many = sorted((np.sqrt(values[: rows - 1]) for values in (variances_x, variances_y)), key=len)
    rng, total = np.random.default_rng(0), 0.0
    rotations = -(-_ROTATED_DIRECTIONS // few.size)  # of many directions, one is as good as their mean
    for _ in range(rotations):
        cosines = np.linalg.qr(rng.normal(size=(rows - 1, few.size)))[0][: many.size]
        total += np.linalg.svd(many[:, None] * cosines * few, compute_uv=False).sum()
    return float(total / rotations / (np.linalg.norm(few) * np.linalg.norm(many)))


def _degrees(rows: int, rank_x: int, rank_y: int) -> tuple[int, int, int]:
    """The smaller rank, the larger, and the dimension of centred rows."""
    if min(rank_x, rank_y) < 1 or rows - 1 <= rank_x + rank_y:
        raise SimilarityError(
            f"Expected ranks of at least 1 and more than {rank_x + rank_y + 1} rows, received ranks {rank_x} "
            f"and {rank_y} with {rows} rows."
        )
    return min(rank_x, rank_y), max(rank_x, rank_y), rows - 1


def _single(many: int, degrees: int) -> float:
    """The mean multiple correlation: the root of a Beta(many/2, (degrees - many)/2) variable."""
    logs = math.lgamma((many + 1) / 2) - math.lgamma(many / 2)
    return math.exp(logs + math.lgamma(degrees / 2) - math.lgamma((degrees + 1) / 2))
