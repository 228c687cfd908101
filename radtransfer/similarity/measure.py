"""What a measure of similarity is and what it returns, and the moments of arrays in memory that it is computed from."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from radtransfer.errors import SimilarityError
from radtransfer.similarity.moments import CrossMoments, Moments, StreamedSums, check_array, check_finite

ROWS_PER_DIRECTION = 2
"""With fewer rows than this for each direction of x and y together, CCA finds likeness in noise."""

# The error of a covariance grows with the square of the condition: 1e-16 times (1e3)² is still 1e-10.
_SAFE_CONDITION = 1e3
_STEP = 4096


@dataclass(frozen=True, eq=False)
class Similarity:
    """How similar two layers are over some rows.

    Attributes:
        value: The similarity; 1 is identical.
        coefficients: Of CCA, descending, 0–1, float64; of Procrustes they add up to the value; else empty.
        rows: How many rows it was measured on.
        rank_x, rank_y: How many independent directions were compared.
        dead_x, dead_y: Indices of constant channels, which take no part.
        condition_x, condition_y: Largest over smallest singular value of the standardized rows, over the
            directions that were kept; above 1e5, sums alone give fewer than eight digits.
        chance: What `procrustes` gives of unrelated layers with as many rows and the same spectra; None of the other
            measures, whose chance follows from rows and ranks (`chance_cca`).
    """

    value: float
    coefficients: np.ndarray
    rows: int
    rank_x: int
    rank_y: int
    dead_x: tuple[int, ...]
    dead_y: tuple[int, ...]
    condition_x: float
    condition_y: float
    chance: float | None = None


@dataclass(frozen=True)
class Measure:
    """One kind of similarity.

    Attributes:
        title: As it is shown to users.
        of_rows: From x and y of shape (rows, channels), checked for enough rows.
        of_sums: From moments alone, unchecked; None for a measure that needs the rows.
        chance: The value to expect of unrelated layers, from rows, rank_x and rank_y; None if unknown.
        fits: Whether directions are fitted, so that `check_rows` applies.
        chance_of_sums: The same as `chance` where it depends on the layers' spectra; None where it does not.
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
    """The result for a pair whose value is known; ranks are those of its directions unless given."""
    x, y = pair.x, pair.y
    rank_x, rank_y = ranks or (x.rank, y.rank)
    coefficients = np.empty(0) if coefficients is None else coefficients
    return Similarity(
        float(value), coefficients, pair.rows, rank_x, rank_y, x.constant, y.constant, x.condition, y.condition
    )


def check_rows(result: Similarity, pair: CrossMoments) -> None:
    """Raises SimilarityError, which says how many would do, where rows are too few for the directions fitted."""
    # Rows that are too few do not tell the rank: the channels that vary are counted then.
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
    """The moments of x and y, real (rows, channels), read in chunks; `norms` as of `StreamedSums`.

    Raises:
        SimilarityError: Shapes that do not fit, or values that are not finite.
    """
    sums = StreamedSums(pairs="same", norms=norms)
    sums.add({"x": x}, {"y": y})
    return sums.pair("x", "y")


def refined(
    x: np.ndarray, y: np.ndarray, pair: CrossMoments, *, keep_y: bool = False
) -> tuple[CrossMoments, np.ndarray | None]:
    """Moments in whitened coordinates if x or y is nearly dependent; CCA is the same in all coordinates.

    The rows are mapped to the coordinates that their first moments gave, and summed again: what rounding made
    wrong in the first whitening is then measured on columns that are nearly orthogonal.

    Args:
        x: The array that `pair` was made from.
        y: The other.
        pair: Their moments.
        keep_y: Whether y stays as it is, for measures that do depend on its coordinates.

    Returns:
        The new moments and the map from centred rows of x to its coordinates, float64 (channels, rank); the
        given moments and None where they are good enough.

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
    # Standardized first: with channels of very different size, the small ones would drown in the product.
    scale = np.where(layer.varying, np.sqrt(np.diag(layer.scatter)), 1.0)
    return ((rows - layer.mean) / scale) @ (layer.basis * scale[:, None])


def rotated_moments(x: np.ndarray, y: np.ndarray, *, norms: bool = False) -> CrossMoments:
    """As `moments_of`, for measures that a rotation does not change.

    Layers with more channels than rows are rotated into as many coordinates as rows, so that flattened
    feature maps need no (channels, channels) sums.
    """
    arrays = [check_array(name, rows) for name, rows in (("x", x), ("y", y))]
    pair = moments_of(*map(_rotated, ("x", "y"), arrays), norms=norms)
    wide = [rows if rows.shape[1] > rows.shape[0] else None for rows in arrays]
    return replace(pair, x=_with_constant(pair.x, wide[0]), y=_with_constant(pair.y, wide[1]))


def _rotated(name: str, rows: np.ndarray) -> np.ndarray:
    if rows.shape[1] <= rows.shape[0]:
        return rows
    with np.errstate(invalid="ignore"):
        mean = rows.mean(axis=0, dtype=np.float64)
    check_finite(name, mean)
    return np.linalg.qr((rows - mean).T, mode="r").T


def _with_constant(layer: Moments, wide: np.ndarray | None) -> Moments:
    """The moments, knowing the constant channels of the rows that were rotated."""
    if wide is None:
        return layer
    return replace(layer, known_constant=tuple(np.flatnonzero((wide == wide[0]).all(axis=0)).tolist()))
