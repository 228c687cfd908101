"""Measures of similarity: their result, their moments, the jackknife interval, and the value by chance."""

import math
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import accumulate

import numpy as np

from radtransfer.errors import SimilarityError
from radtransfer.similarity.moments import CrossMoments, Moments, StreamedSums, check_array, check_finite

ROWS_PER_DIRECTION = 2  # with fewer rows per direction of x and y together, CCA is high for noise

# The error of a covariance grows with the square of the condition: 1e-16 times (1e3)² is still 1e-10.
_SAFE_CONDITION = 1e3
_STEP = 4096

FEWEST_GROUPS = 5
_NORMAL_95 = 1.959963984540054
_NODES = 256
_ROTATED_DIRECTIONS = 200


@dataclass(frozen=True, eq=False)
class Similarity:
    """How similar two layers are over some rows.

    Attributes:
        value: The similarity; 1 is identical.
        coefficients: Of CCA, descending, 0–1, float64; of Procrustes they add up to the value; else empty.
        rows: How many rows it was measured on.
        rank_x, rank_y: How many independent directions were compared.
        constant_x, constant_y: Indices of constant channels, which are ignored.
        condition_x, condition_y: Largest over smallest singular value of the standardized rows, over the kept
            directions; above 1e5, moments give fewer than eight digits.
        chance: `procrustes` of unrelated layers with as many rows and the same spectra; None for the other measures,
            whose value by chance follows from rows and ranks (`chance_cca`).
    """

    value: float
    coefficients: np.ndarray
    rows: int
    rank_x: int
    rank_y: int
    constant_x: tuple[int, ...]
    constant_y: tuple[int, ...]
    condition_x: float
    condition_y: float
    chance: float | None = None


@dataclass(frozen=True)
class Measure:
    """One kind of similarity.

    Attributes:
        title: Name for users.
        of_rows: From x and y of shape (rows, channels), with a check for enough rows.
        of_sums: From moments, without this check; None for a measure that needs the rows.
        chance: The expected value for unrelated layers, from rows, rank_x and rank_y; None if unknown.
        fits: Whether directions are fitted, so that `check_rows` applies.
        chance_of_sums: As `chance`, if it depends on the spectra of the layers.
    """

    title: str
    of_rows: Callable[[np.ndarray, np.ndarray], Similarity]
    of_sums: Callable[[CrossMoments], Similarity] | None = None
    chance: Callable[[int, int, int], float] | None = None
    fits: bool = True
    chance_of_sums: Callable[[CrossMoments], float] | None = None


def similarity_of(
    pair: CrossMoments,
    value: float,
    coefficients: np.ndarray | None = None,
    *,
    ranks: tuple[int, int] | None = None,
) -> Similarity:
    """The result for a pair and its value; by default with the ranks of the pair."""
    x, y = pair.x, pair.y
    rank_x, rank_y = ranks or (x.rank, y.rank)
    coefficients = np.empty(0) if coefficients is None else coefficients
    return Similarity(
        float(value), coefficients, pair.rows, rank_x, rank_y, x.constant, y.constant, x.condition, y.condition
    )


def check_rows(result: Similarity, pair: CrossMoments) -> None:
    """Raise SimilarityError, with the number of rows needed, if they are too few for the fitted directions."""
    # Too few rows do not determine the rank; the varying channels are counted instead.
    directions = sum(
        rank if rank < layer.rows - 1 else int(layer.varying.sum())
        for rank, layer in ((result.rank_x, pair.x), (result.rank_y, pair.y))
    )
    needed = ROWS_PER_DIRECTION * directions
    if pair.rows < needed:
        raise SimilarityError(
            f"{pair.x.name} and {pair.y.name}: expected at least {needed} rows for {directions} directions "
            f"({ROWS_PER_DIRECTION} rows each), received {pair.rows}. Use {needed} images (fewer with several "
            "positions each), sample fewer channels, or take debiased CKA."
        )


def moments_of(x: np.ndarray, y: np.ndarray, *, norms: bool = False) -> CrossMoments:
    """The moments of x and y, real (rows, channels), in float64; raises SimilarityError as `StreamedSums.add`."""
    sums = StreamedSums(pairs="same", norms=norms)
    sums.add({"x": x}, {"y": y})
    return sums.pair("x", "y")


def refined(
    x: np.ndarray, y: np.ndarray, pair: CrossMoments, *, keep_y: bool = False
) -> tuple[CrossMoments, np.ndarray | None]:
    """Moments in whitened coordinates if the channels of x or y are nearly dependent; CCA does not depend on them.

    Rows are mapped to the coordinates from their first moments and summed again, which corrects the rounding errors of
    the first whitening. `keep_y` leaves y unchanged, for measures that depend on its coordinates.

    Returns:
        The new moments and the map from centered rows of x to its coordinates, float64 (channels, rank); the given
        moments and None if these are accurate enough.

    References:
        Yamamoto, Nakatsukasa, Yanagisawa and Fukaya 2015, ETNA 44: CholeskyQR2 repeats a factorization in
        the same way and for the same reason.
    """
    changed = (pair.x,) if keep_y else (pair.x, pair.y)
    if max(layer.condition for layer in changed) < _SAFE_CONDITION:
        return pair, None
    x, y = np.asarray(x), np.asarray(y)
    sums = StreamedSums(pairs="same", norms=False)
    for start in range(0, pair.rows, _STEP):
        part = slice(start, start + _STEP)
        sums.add({"x": _whitened(x[part], pair.x)}, {"y": y[part] if keep_y else _whitened(y[part], pair.y)})
    return sums.pair("x", "y"), pair.x.basis


def _whitened(rows: np.ndarray, layer: Moments) -> np.ndarray:
    # Standardized first: otherwise channels of small scale lose digits in the product.
    scale = np.where(layer.varying, np.sqrt(np.diag(layer.scatter)), 1.0)
    return ((rows - layer.mean) / scale) @ (layer.basis * scale[:, None])


def rotated_moments(x: np.ndarray, y: np.ndarray, *, norms: bool = False) -> CrossMoments:
    """As `moments_of`, for measures that are invariant to rotations.

    Layers with more channels than rows are rotated into as many coordinates as rows, so that flattened feature maps
    need no (channels, channels) sums.
    """
    arrays = {name: check_array(name, rows) for name, rows in (("x", x), ("y", y))}
    constant = {}
    for name, rows in arrays.items():
        if rows.shape[1] > rows.shape[0]:
            with np.errstate(invalid="ignore"):
                mean = rows.mean(axis=0, dtype=np.float64)
            check_finite(name, mean)
            constant[name] = tuple(np.flatnonzero((rows == rows[0]).all(axis=0)).tolist())
            arrays[name] = np.linalg.qr((rows - mean).T, mode="r").T
    pair = moments_of(arrays["x"], arrays["y"], norms=norms)
    layers = {name: replace(getattr(pair, name), known_constant=found) for name, found in constant.items()}
    return replace(pair, **layers)


@dataclass(frozen=True)
class Interval:
    """A similarity, its standard error, and its 95 % interval over groups, which may exceed 0–1."""

    value: float
    error: float
    low: float
    high: float
    groups: int


def jackknife_interval(groups: Sequence[CrossMoments], of_sums: Callable[[CrossMoments], Similarity]) -> Interval:
    """The delete-a-group jackknife interval of a similarity.

    It covers the expected score with as many rows of other images, not the score with infinitely many rows: CCA of few
    rows is too high, by more than the width of its interval. A bootstrap would be worse: duplicate images raise CCA
    further, so that its percentile interval misses both. For PWCCA, whose weights jump between close coefficients, the
    interval is too wide.

    Args:
        groups: The sums of disjoint groups of whole images (or patients) of about equal size, with common pivots; 20
            are enough.
        of_sums: As in `Measure`.

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
    value = of_sums(total_moments(groups)).value
    error = jackknife_error(values)
    return Interval(value, error, *normal_interval(value, error), count)


def jackknife_error(left_out: np.ndarray) -> float:
    """The standard error of a score, from its values without each group, float64 (groups,)."""
    count = left_out.size
    return float(np.sqrt((count - 1) / count * np.sum((left_out - left_out.mean()) ** 2)))


def normal_interval(value: float, error: float) -> tuple[float, float]:
    """The 95 % interval of a normal distribution; it may exceed 0–1."""
    return value - _NORMAL_95 * error, value + _NORMAL_95 * error


def total_moments(groups: Sequence[CrossMoments]) -> CrossMoments:
    return reduce(operator.add, groups)


def leaving_one_out(groups: Sequence[CrossMoments]) -> Iterator[CrossMoments]:
    """The sums of all groups but one, leaving out each in turn."""
    # Added, not subtracted from the total: a channel that varies in only one group has to be constant without it, not
    # left with rounding errors.
    before, after = list(accumulate(groups[:-1])), list(accumulate(groups[:0:-1]))[::-1]
    yield after[0]
    for left, right in zip(before, after[1:], strict=False):
        yield left + right
    yield before[-1]


def chance_cca(rows: int, rank_x: int, rank_y: int) -> float:
    """The expected mean canonical correlation of unrelated layers with independent Gaussian rows.

    Neighboring positions of an image are not independent and give higher values. The formula is a limit for many
    directions: 1.5 % too high for 8, 0.5 % for 32; exact for a single direction.

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
    if few == 1:  # the mean multiple correlation: the root of a Beta(many/2, (degrees - many)/2) variable
        logs = math.lgamma((many + 1) / 2) - math.lgamma(many / 2)
        return math.exp(logs + math.lgamma(degrees / 2) - math.lgamma((degrees + 1) / 2))
    # As angles, the ends of the density keep their digits if they are close to 0.
    sines = np.arcsin(np.sqrt([few / degrees, many / degrees]))
    low, high = np.sin(sines[1] - sines[0]) ** 2, np.sin(sines[1] + sines[0]) ** 2
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    angles = np.pi / 2 * (nodes + 1)
    squared = low + (high - low) * np.sin(angles / 2) ** 2
    density = ((high - low) * np.sin(angles)) ** 2 / (squared * (1 - squared)) * weights
    return float(density @ np.sqrt(squared) / density.sum())


def chance_cca_squared(rows: int, rank_x: int, rank_y: int) -> float:
    """The expected mean squared canonical correlation of unrelated layers; exact for Gaussian rows."""
    _, many, degrees = _degrees(rows, rank_x, rank_y)
    return many / degrees


def chance_explained(rows: int, rank_x: int, rank_y: int) -> float:
    """The share of y that x explains by chance: the dimension of x over that of the centered rows."""
    return rank_x / _degrees(rows, rank_x, rank_y)[2]


def chance_rotated(rows: int, variances_x: np.ndarray, variances_y: np.ndarray) -> float:
    """The expected Procrustes similarity of unrelated layers with these spectra and Gaussian rows.

    The mean over random rotations (with a fixed seed). With fewer rows than channels it is close to 1. The variances
    are the eigenvalues of each scatter, all above 0, float64 (rank,).
    """
    few, many = sorted((np.sqrt(values[: rows - 1]) for values in (variances_x, variances_y)), key=len)
    rng, total = np.random.default_rng(0), 0.0
    rotations = -(-_ROTATED_DIRECTIONS // few.size)  # of many directions, one is as good as their mean
    for _ in range(rotations):
        cosines = np.linalg.qr(rng.normal(size=(rows - 1, few.size)))[0][: many.size]
        total += np.linalg.svd(many[:, None] * cosines * few, compute_uv=False).sum()
    return float(total / rotations / (np.linalg.norm(few) * np.linalg.norm(many)))


def _degrees(rows: int, rank_x: int, rank_y: int) -> tuple[int, int, int]:
    """The smaller rank, the larger rank, and the dimension of centered rows; SimilarityError with too few rows."""
    if min(rank_x, rank_y) < 1 or rows - 1 <= rank_x + rank_y:
        raise SimilarityError(
            f"Expected ranks of at least 1 and more than {rank_x + rank_y + 1} rows, received ranks {rank_x} "
            f"and {rank_y} with {rows} rows."
        )
    return min(rank_x, rank_y), max(rank_x, rank_y), rows - 1
