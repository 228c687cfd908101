"""Other measures than canonical correlation: CKA, orthogonal Procrustes, linear regression, RBF CKA and RSA.

The first three need only moments; RBF CKA and RSA need all rows in memory.
"""

import warnings
from dataclasses import replace
from functools import partial

import numpy as np

from radtransfer.errors import SimilarityError
from radtransfer.similarity.measure import (
    Measure,
    Similarity,
    chance_explained,
    chance_rotated,
    check_rows,
    moments_of,
    refined,
    rotated_moments,
    similarity_of,
)
from radtransfer.similarity.moments import CrossMoments, check_choice

_FEWEST_ROWS = 4
_MOST_ROWS = 10_000  # A (rows, rows) matrix then takes 800 MB


def cka(x: np.ndarray, y: np.ndarray, *, debiased: bool = True) -> Similarity:
    """Linear CKA; invariant to rotations and to one common scale of x or of y.

    Args:
        x: Real (rows, channels).
        y: The same rows of another layer, real (rows, channels); the numbers of channels may differ.
        debiased: Use the unbiased estimate of each term. It is 0 on average for unrelated layers and can be slightly
            negative; biased CKA is high for any two layers with few rows and many channels.

    Raises:
        SimilarityError: Fewer than 4 rows, values that are not finite, or only constant channels.

    References:
        Kornblith, Norouzi, Lee and Hinton 2019, section 3.
    """
    return cka_of_sums(rotated_moments(x, y, norms=debiased), debiased=debiased)


def cka_of_sums(pair: CrossMoments, *, debiased: bool = True) -> Similarity:
    if pair.rows < _FEWEST_ROWS:
        raise SimilarityError(f"Expected at least {_FEWEST_ROWS} rows for CKA, received {pair.rows}.")
    if debiased and pair.quartic is None:
        raise SimilarityError("Expected sums with norms for debiased CKA; collect them with `norms=True`.")
    pair.x.check_varying()
    pair.y.check_varying()
    dependence = _debiased_dependence if debiased else _dependence
    own = [
        dependence(CrossMoments(layer, layer, layer.products, layer.quartic, layer.cubic, layer.cubic))
        for layer in (pair.x, pair.y)
    ]
    if min(own) <= 0:
        raise SimilarityError(
            f"{pair.x.name} and {pair.y.name}: debiased CKA is undefined, because {pair.rows} rows are too noisy. "
            "Use more rows, or biased CKA."
        )
    return similarity_of(pair, dependence(pair) / np.sqrt(own[0]) / np.sqrt(own[1]))


def _dependence(pair: CrossMoments) -> float:
    """The Hilbert-Schmidt independence criterion of linear kernels, times (rows - 1)²."""
    return float(np.sum(pair.scatter**2))


def _debiased_dependence(pair: CrossMoments) -> float:
    """Its unbiased estimate, times rows (rows - 3), without a (rows, rows) kernel.

    For linear kernels of centered rows, each term of equation 5 follows from the scatter, its traces and q, the sum of
    |u|²|v|² over rows u of x and v of y.

    References:
        Song, Smola, Gretton, Bedo and Borgwardt 2012, JMLR 13, equation 5.
    """
    # q of centered rows from sums about the pivots: |u - m|² = |u|² - 2 m·u + |m|², the same for v, multiplied out.
    m, k = pair.x.shift, pair.y.shift
    mm, kk = m @ m, k @ k
    squares_x, squares_y = np.trace(pair.x.products), np.trace(pair.y.products)
    crossed = pair.quartic - 2 * k @ pair.cubic_y - 2 * m @ pair.cubic_x + 4 * m @ pair.products @ k
    q, n = crossed + kk * squares_x + mm * squares_y - 3 * pair.rows * mm * kk, pair.rows
    traces = np.trace(pair.x.scatter) * np.trace(pair.y.scatter)
    return float(np.sum(pair.scatter**2) - q * n / (n - 2) + traces / ((n - 1) * (n - 2)))


def _chance_biased(pair: CrossMoments) -> float:
    """The value for unrelated Gaussian rows (exact), from the traces of the scatters and rows - 1 directions."""
    x, y = pair.x.scatter, pair.y.scatter
    return float(np.trace(x) * np.trace(y) / (pair.rows - 1) / np.linalg.norm(x) / np.linalg.norm(y))


CKA = Measure("debiased linear CKA", cka, cka_of_sums, lambda rows, rank_x, rank_y: 0.0, fits=False)
CKA_BIASED = Measure(
    "biased linear CKA",
    partial(cka, debiased=False),
    partial(cka_of_sums, debiased=False),
    fits=False,
    chance_of_sums=_chance_biased,
)


def procrustes(x: np.ndarray, y: np.ndarray) -> Similarity:
    """The cosine between centered x and y after the best rotation.

    Invariant to rotations, shifts and one common scale of x or of y. It works with any number of rows, but with few
    rows per channel any two layers fit well: compare it with `chance` of the result. With fewer rows than channels it
    warns.

    Args:
        x: Real (rows, channels).
        y: The same rows of another layer; the one with fewer channels is padded with zeros.

    Raises:
        SimilarityError: Values that are not finite, or only constant channels.

    References:
        Schönemann 1966, Psychometrika 31; as a similarity of networks:
        Williams, Kunz, Kornblith and Linderman 2021, Generalized shape metrics, section 2.
    """
    pair = rotated_moments(x, y)
    found = replace(procrustes_of_sums(pair), chance=_chance(pair))
    channels = max(np.shape(x)[1], np.shape(y)[1])
    if found.rows < channels:
        warnings.warn(
            f"{found.rows} rows of {channels} channels make any two layers look similar: unrelated ones score "
            f"{found.chance:.3f} by chance, these {found.value:.3f}. Use more rows, fewer channels, or debiased CKA.",
            stacklevel=2,
        )
    return found


def procrustes_of_sums(pair: CrossMoments) -> Similarity:
    pair.x.check_varying()
    pair.y.check_varying()
    lengths = np.sqrt(np.trace(pair.x.scatter)) * np.sqrt(np.trace(pair.y.scatter))
    shares = np.linalg.svd(pair.scatter / lengths, compute_uv=False)
    return similarity_of(pair, shares.sum(), shares)


def _chance(pair: CrossMoments) -> float:
    return chance_rotated(pair.rows, pair.x.principal[0], pair.y.principal[0])


PROCRUSTES = Measure("orthogonal Procrustes", procrustes, procrustes_of_sums, fits=False, chance_of_sums=_chance)


def linear_regression(x: np.ndarray, y: np.ndarray, *, allow_few_rows: bool = False) -> Similarity:
    """R² of the least-squares fit of all channels of y from those of x, summed over the channels of y.

    Invariant to invertible linear maps of x, and to rotations and one common scale of y.

    Args:
        x: Real (rows, channels).
        y: The same rows of another layer, real (rows, channels); the numbers of channels may differ.
        allow_few_rows: Accept fewer than two rows per direction.

    Raises:
        SimilarityError: As in `cca`.

    References:
        Kornblith, Norouzi, Lee and Hinton 2019, Table 1, with x and y swapped.
    """
    pair = moments_of(x, y)
    better, _ = refined(x, y, pair, keep_y=True)
    result = similarity_of(pair, _explained(better))
    if not allow_few_rows:
        check_rows(result, pair)
    return result


def _explained(pair: CrossMoments) -> float:
    pair.y.check_varying()
    return np.sum((pair.x.basis.T @ pair.scatter) ** 2) / np.trace(pair.y.scatter)


LINEAR_REGRESSION = Measure(
    "linear regression R²", linear_regression, lambda pair: similarity_of(pair, _explained(pair)), chance_explained
)


def _checked_moments(x: np.ndarray, y: np.ndarray) -> CrossMoments:
    rows = len(x)
    if not _FEWEST_ROWS <= rows <= _MOST_ROWS:
        raise SimilarityError(
            f"Expected {_FEWEST_ROWS} to {_MOST_ROWS} rows for a measure with a (rows, rows) matrix, received {rows}. "
            "Pass a random sample of the rows."
        )
    pair = rotated_moments(x, y)
    pair.x.check_varying()
    pair.y.check_varying()
    return pair


def _squared_distances(rows: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances between all rows, float64 (rows, rows), the diagonal exactly 0."""
    centred = rows - np.mean(rows, axis=0, dtype=np.float64)
    lengths = np.einsum("ij,ij->i", centred, centred)
    squares = np.maximum(lengths[:, None] + lengths - 2 * centred @ centred.T, 0)
    np.fill_diagonal(squares, 0)
    return squares


def rbf_cka(x: np.ndarray, y: np.ndarray, *, bandwidth: float = 1.0, debiased: bool = True) -> Similarity:
    """CKA of Gaussian kernels; invariant to rotations and to one common scale of x or of y.

    Args:
        x: Real (rows, channels), 4 to 10 000 rows; time and memory grow with the square of the rows.
        y: The same rows of another layer, real (rows, channels).
        bandwidth: Standard deviation of the kernel, in units of the median distance between rows.
        debiased: As in `cka`.

    Raises:
        SimilarityError: As in `cka`; too many rows; more than half of the distances are 0.

    References:
        Kornblith, Norouzi, Lee and Hinton 2019, section 3; centering of the debiased kernel:
        Székely and Rizzo 2014, Annals of Statistics 42, definition 2.
    """
    if not bandwidth > 0:
        raise SimilarityError(f"Expected a bandwidth above 0, received {bandwidth:g}.")
    pair = _checked_moments(x, y)
    kernels, n = [], pair.rows
    for name, rows in (("x", x), ("y", y)):
        squares = _squared_distances(rows)
        median = np.median(squares[np.triu_indices(n, 1)])
        if median == 0:
            raise SimilarityError(f"{name}: expected rows that differ, but more than half of all pairs are identical.")
        kernel = np.exp(-squares / (2 * bandwidth**2 * median))
        if debiased:
            np.fill_diagonal(kernel, 0)
            sums = kernel.sum(axis=0)
            kernel = kernel - (sums + sums[:, None]) / (n - 2) + sums.sum() / ((n - 1) * (n - 2))
            np.fill_diagonal(kernel, 0)
        else:
            means = kernel.mean(axis=0)
            kernel = kernel - means - means[:, None] + means.mean()
        kernels.append(kernel)
    lengths = [np.linalg.norm(kernel) for kernel in kernels]
    return similarity_of(pair, np.sum(kernels[0] * kernels[1]) / (lengths[0] * lengths[1]))


RBF_CKA = Measure("debiased RBF CKA", rbf_cka, fits=False)


def rsa(
    x: np.ndarray, y: np.ndarray, *, dissimilarity: str = "correlation", comparison: str = "spearman"
) -> Similarity:
    """The correlation between the dissimilarities of all pairs of rows in x and in y, -1–1.

    Args:
        x: Real (rows, channels), 4 to 10 000 rows; time and memory grow with the square of the rows.
        y: The same rows of another layer, real (rows, channels).
        dissimilarity: `"correlation"`: 1 minus Pearson's over channels; `"euclidean"`: distance.
        comparison: `"spearman"` or `"pearson"`.

    Raises:
        SimilarityError: Too few or too many rows; values that are not finite; a row with the same value in every
            channel, whose correlations are undefined; dissimilarities that are all equal.

    References:
        Kriegeskorte, Mur and Bandettini 2008, Frontiers in Systems Neuroscience 2.
    """
    check_choice("dissimilarity", dissimilarity, ("correlation", "euclidean"))
    check_choice("comparison", comparison, ("spearman", "pearson"))
    pair = _checked_moments(x, y)
    entries, unit = {}, []
    for name, rows in (("x", x), ("y", y)):
        distances = (
            _correlation_distances(name, rows) if dissimilarity == "correlation" else np.sqrt(_squared_distances(rows))
        )
        entries[name] = distances[np.triu_indices(pair.rows, 1)]
    for name, values in entries.items():
        if comparison == "spearman":  # ranks from 0, mean rank for ties
            _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
            values = (np.cumsum(counts) - (counts + 1) / 2)[inverse]
        centred = values - values.mean()
        length = np.linalg.norm(centred)
        if length == 0:
            raise SimilarityError(f"{name}: expected dissimilarities that differ, but all pairs of rows have the same.")
        unit.append(centred / length)
    return similarity_of(pair, unit[0] @ unit[1])


def _correlation_distances(name: str, rows: np.ndarray) -> np.ndarray:
    centred = rows - np.mean(rows, axis=1, keepdims=True, dtype=np.float64)
    constant = np.flatnonzero(np.ptp(rows, axis=1) == 0)
    if constant.size:
        raise SimilarityError(
            f"{name}: expected rows that vary over channels, received {constant.size} that do not (first: row "
            f"{constant[0]}). Use dissimilarity='euclidean'."
        )
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    return 1 - centred @ centred.T


RSA = Measure("representational similarity analysis", rsa, fits=False)
