"""The sums of two arrays, and better ones where a layer is nearly dependent."""

from dataclasses import replace

import numpy as np

from radtransfer.similarity.checks import check_array, check_finite
from radtransfer.similarity.layer_sums import LayerSums
from radtransfer.similarity.pair_sums import PairSums
from radtransfer.similarity.streamed_sums import StreamedSums

# The error of a covariance grows with the square of the condition: 1e-16 times (1e3)² is still 1e-10.
_SAFE_CONDITION = 1e3
_STEP = 4096


def sums_of_rows(x: np.ndarray, y: np.ndarray, *, norms: bool = False) -> PairSums:
    """The sums of x and y, real (rows, channels), read in chunks.

    Raises:
        SimilarityError: Shapes that do not fit, or values that are not finite.
    """
    sums = StreamedSums(pairs="same", norms=norms)
    sums.add({"x": x}, {"y": y})
    return sums.pair("x", "y")


def refined(
    x: np.ndarray, y: np.ndarray, pair: PairSums, *, keep_y: bool = False
) -> tuple[PairSums, np.ndarray | None]:
    """Sums in whitened coordinates if x or y is nearly dependent; CCA is the same in all coordinates.

    The rows are mapped to the coordinates that their first sums gave, and summed again: what rounding made
    wrong in the first whitening is then measured on columns that are nearly orthogonal.

    Args:
        x: The array of x that `pair` was made from.
        y: That of y.
        pair: Their sums.
        keep_y: Whether y stays as it is, for measures that do depend on its coordinates.

    Returns:
        The new sums and the map from centred rows of x to its coordinates, float64 (channels, rank); the
        given sums and None where they are good enough.

    References:
        Yamamoto, Nakatsukasa, Yanagisawa and Fukaya 2015, ETNA 44: CholeskyQR2 repeats a factorization in
        the same way and for the same reason.
    """
    changed = (pair.x,) if keep_y else (pair.x, pair.y)
    if max(layer.whitening.condition for layer in changed) < _SAFE_CONDITION:
        return pair, None
    x, y = np.asarray(x), np.asarray(y)
    sums = StreamedSums(pairs="same", norms=False)
    for start in range(0, pair.rows, _STEP):
        part = slice(start, start + _STEP)
        sums.add({"x": _whitened(x[part], pair.x)}, {"y": y[part] if keep_y else _whitened(y[part], pair.y)})
    return sums.pair("x", "y"), pair.x.whitening.basis


def _whitened(rows: np.ndarray, layer: LayerSums) -> np.ndarray:
    # Standardized first: with channels of very different size, the small ones would drown in the product.
    scale = np.where(layer.live, np.sqrt(np.diag(layer.scatter)), 1.0)
    return ((rows - layer.mean) / scale) @ (layer.whitening.basis * scale[:, None])


def compact_sums(x: np.ndarray, y: np.ndarray, *, norms: bool = False) -> PairSums:
    """As `sums_of_rows`, for measures that a rotation does not change.

    Layers with more channels than rows are rotated into as many coordinates as rows, so that flattened
    feature maps need no (channels, channels) sums.
    """
    arrays = [check_array(name, rows) for name, rows in (("x", x), ("y", y))]
    pair = sums_of_rows(*map(_compact, ("x", "y"), arrays), norms=norms)
    mine, its = (
        replace(layer, constant=_constant(rows)) if _is_wide(rows) else layer
        for layer, rows in zip((pair.x, pair.y), arrays, strict=True)
    )
    return replace(pair, x=mine, y=its)


def _is_wide(rows: np.ndarray) -> bool:
    return rows.shape[1] > rows.shape[0]


def _constant(rows: np.ndarray) -> tuple[int, ...]:
    return tuple(np.flatnonzero((rows == rows[0]).all(axis=0)).tolist())


def _compact(name: str, rows: np.ndarray) -> np.ndarray:
    if not _is_wide(rows):
        return rows
    with np.errstate(invalid="ignore"):
        mean = rows.mean(axis=0, dtype=np.float64)
    check_finite(name, mean)
    return np.linalg.qr((rows - mean).T, mode="r").T
