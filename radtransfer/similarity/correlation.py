"""Canonical correlations: their mean (CCA), of leading components (SVCCA), and projection-weighted (PWCCA).

`compat="google"` repeats the steps of google/svcca, to reproduce published numbers: channels are dropped and
coefficients shrunk according to `epsilon`, and it can fail for dependent channels. https://github.com/google/svcca,
commit 1f3fbf1, 2019.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

from radtransfer.errors import SimilarityError
from radtransfer.similarity.measure import (
    Measure,
    Similarity,
    chance_cca,
    chance_cca_squared,
    check_rows,
    moments_of,
    refined,
    similarity_of,
)
from radtransfer.similarity.moments import CrossMoments, Moments, check_choice

_EXCESS = 1e-6
# Eigenvalues of a pseudo-inverse below this share of the largest are rounding errors; if more negative, google/svcca
# takes the root of a negative number and fails.
_ROUNDING = 1e-9
_POWERS = {"variance": 1.0, "singular_values": 0.5}


def cca(
    x: np.ndarray,
    y: np.ndarray,
    *,
    squared: bool = False,
    normalize: str = "rank",
    compat: str | None = None,
    epsilon: float | None = None,
    allow_few_rows: bool = False,
) -> Similarity:
    """The mean canonical correlation of two layers; invariant to invertible linear maps of x and of y.

    Args:
        x: Real (rows, channels).
        y: The same rows of another layer, real (rows, channels); the numbers of channels may differ.
        squared: Average the squares of the coefficients.
        normalize: `"rank"`: mean over the smaller rank; `"channels"`: sum over the smaller number of channels, so that
            constant channels count as 0.
        compat: `"google"` repeats the steps of google/svcca, with its shrinkage; None is exact.
        epsilon: What google/svcca adds to the covariance, by default 0; only with `compat`.
        allow_few_rows: Accept fewer than two rows per direction.

    Raises:
        SimilarityError: Too few rows, values that are not finite, or only constant channels.

    References:
        Raghu, Zhang, Kleinberg and Bengio 2019, Transfusion, Appendix C; the squares:
        Kornblith, Norouzi, Lee and Hinton 2019, section 3.
    """
    check_choice("normalize", normalize, ("rank", "channels"))
    _check_compat(compat, epsilon)
    pair = moments_of(x, y)
    if compat:
        google = _google_of_rows(x, y, epsilon or 0.0)
        return _mean(pair, google.coefficients, squared, normalize, google.ranks)
    better, _ = refined(x, y, pair)
    result = _mean(pair, _coefficients(better), squared, normalize)
    if not allow_few_rows:
        check_rows(result, pair)
    return result


def cca_of_sums(pair: CrossMoments, *, squared: bool = False) -> Similarity:
    return _mean(pair, _coefficients(pair), squared)


def google_cca_of_sums(pair: CrossMoments, *, epsilon: float) -> Similarity:
    """The mean canonical correlation as in google/svcca, from moments."""
    google = _google(pair.x.scatter, pair.scatter, pair.y.scatter, epsilon)
    return _mean(pair, google.coefficients, ranks=google.ranks)


def _mean(
    pair: CrossMoments,
    coefficients: np.ndarray,
    squared: bool = False,
    normalize: str = "rank",
    ranks: tuple[int, int] | None = None,
) -> Similarity:
    over = coefficients.size if normalize == "rank" else min(pair.x.channels, pair.y.channels)
    return similarity_of(pair, np.sum(coefficients ** (1 + squared)) / over, coefficients, ranks=ranks)


def _coefficients(pair: CrossMoments) -> np.ndarray:
    """The canonical correlations, descending, 0–1, float64 (the smaller rank,).

    References:
        Björck and Golub 1973, Mathematics of Computation 27: singular values between orthonormal bases.
    """
    return _clipped(pair, np.linalg.svd(pair.x.basis.T @ pair.scatter @ pair.y.basis, compute_uv=False))


def _clipped(pair: CrossMoments, coefficients: np.ndarray) -> np.ndarray:
    """Coefficients clipped to 0–1; the rounding error grows with the square of the condition."""
    condition = max(pair.x.condition, pair.y.condition)
    if coefficients[0] > 1 + max(_EXCESS, 10 * pair.x.tolerance, 1e-15 * condition**2):
        raise SimilarityError(
            f"{pair.x.name} and {pair.y.name}: expected canonical correlations up to 1, received "
            f"{coefficients[0]:.6g} at condition {condition:.1e}, which is beyond rounding error. "
            "Use precision float64, or whole arrays instead of sums."
        )
    return np.clip(coefficients, 0, 1)


def pwcca(
    x: np.ndarray,
    y: np.ndarray,
    *,
    weights: str = "paper",
    compat: str | None = None,
    epsilon: float | None = None,
    allow_few_rows: bool = False,
) -> Similarity:
    """The mean of the canonical correlations, each weighted by how much of x lies along its variate.

    The weight of a variate h of x is the sum of |h · channel| over the centered channels of x. The value changes if x
    and y are swapped and with rotations of x; it is invariant to linear maps of y.

    Args:
        x: Real (rows, channels).
        y: The same rows of another layer, real (rows, channels); the numbers of channels may differ.
        weights: `"paper"`, or `"google"` for those of `pwcca.py` in google/svcca, which differ from the paper.
        compat: `"google"` is the same as `weights="google"`; both also use the coefficients of google/svcca.
        epsilon: As in `cca`; only with `"google"`.
        allow_few_rows: Accept fewer than two rows per direction.

    Raises:
        SimilarityError: As in `cca`.

    References:
        Morcos, Raghu and Bengio 2018, Insights on representational similarity, section 3, equation 2.
    """
    check_choice("weights", weights, ("paper", "google"))
    compat = compat or ("google" if weights == "google" else None)
    _check_compat(compat, epsilon)
    pair = moments_of(x, y)
    if compat:
        return _google_weighted(pair, _google_of_rows(x, y, epsilon or 0.0))
    result = _weighted(pair, *refined(x, y, pair))
    if not allow_few_rows:
        check_rows(result, pair)
    return result


def _weighted(pair: CrossMoments, better: CrossMoments, coordinates: np.ndarray | None) -> Similarity:
    """PWCCA with the coefficients and variates of `better`; `coordinates` maps the rows of x to its coordinates."""
    left, coefficients, _ = np.linalg.svd(better.x.basis.T @ better.scatter @ better.y.basis, full_matrices=False)
    coefficients, directions = _clipped(better, coefficients), better.x.basis @ left
    if coordinates is not None:
        directions = coordinates @ directions
    weights = np.abs(directions.T @ pair.x.scatter).sum(axis=1)
    return similarity_of(pair, weights @ coefficients / weights.sum(), coefficients)


def svcca(
    x: np.ndarray,
    y: np.ndarray,
    *,
    rule: str = "variance",
    threshold: float = 0.99,
    compat: str | None = None,
    epsilon: float | None = None,
    allow_few_rows: bool = False,
) -> Similarity:
    """The mean canonical correlation of the principal components with 99 % of the variance of each layer.

    Args:
        x: Real (rows, channels).
        y: The same rows of another layer, real (rows, channels); the numbers of channels may differ.
        rule: What has to add up to `threshold`: `"variance"`, the squared singular values, as in the paper, or
            `"singular_values"`, as in other code, which keeps more components.
        threshold: Share to keep, above 0, up to 1.
        compat: As in `cca`, applied to the components.
        epsilon: As in `cca`.
        allow_few_rows: Accept fewer than two rows per component.

    Raises:
        SimilarityError: As in `cca`.

    References:
        Raghu, Gilmer, Yosinski and Sohl-Dickstein 2017, SVCCA, section 2.1.
    """
    _check_compat(compat, epsilon)
    pair = moments_of(x, y)
    result = svcca_of_sums(pair, rule=rule, threshold=threshold, compat=compat, epsilon=epsilon)
    if not compat and not allow_few_rows:
        check_rows(result, pair)
    return result


def svcca_of_sums(
    pair: CrossMoments,
    *,
    rule: str = "variance",
    threshold: float = 0.99,
    compat: str | None = None,
    epsilon: float | None = None,
) -> Similarity:
    check_choice("rule", rule, _POWERS)
    if not 0 < threshold <= 1:
        raise SimilarityError(f"Expected a threshold above 0 and up to 1, received {threshold:g}.")
    lengths_x, axes_x = _components(pair.x, _POWERS[rule], threshold)
    lengths_y, axes_y = _components(pair.y, _POWERS[rule], threshold)
    between = axes_x.T @ pair.scatter @ axes_y
    if compat:
        coefficients = _google(np.diag(lengths_x), between, np.diag(lengths_y), epsilon or 0.0).coefficients
    else:
        whitened = between / np.sqrt(np.outer(lengths_x, lengths_y))
        coefficients = np.clip(np.linalg.svd(whitened, compute_uv=False), 0, 1)
    return similarity_of(pair, coefficients.mean(), coefficients, ranks=(lengths_x.size, lengths_y.size))


def _components(layer: Moments, power: float, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Squared singular values and axes of the smallest number of components that reach the threshold."""
    values, axes = layer.principal
    shares = np.cumsum(values**power)
    count = 1 + np.searchsorted(shares[:-1], threshold * shares[-1])
    return values[:count], axes[:, :count]


CCA = Measure("mean CCA", cca, cca_of_sums, chance_cca)
CCA_SQUARED = Measure(
    "mean squared CCA", partial(cca, squared=True), partial(cca_of_sums, squared=True), chance_cca_squared
)
PWCCA = Measure("PWCCA", pwcca, lambda pair: _weighted(pair, pair, None), chance_cca)
_EXAMPLE_EPSILON = 1e-10  # of google/svcca's examples
PWCCA_GOOGLE = Measure(
    "PWCCA as in google/svcca",
    partial(pwcca, weights="google", epsilon=_EXAMPLE_EPSILON),
    lambda pair: _google_weighted(pair, _google(pair.x.scatter, pair.scatter, pair.y.scatter, _EXAMPLE_EPSILON)),
)
SVCCA = Measure("SVCCA, 99 % of the variance", svcca, svcca_of_sums, chance_cca)
SVCCA_SINGULAR_VALUES = Measure(
    "SVCCA, 99 % of the singular values",
    partial(svcca, rule="singular_values"),
    partial(svcca_of_sums, rule="singular_values"),
    chance_cca,
)


@dataclass(frozen=True, eq=False)
class _GoogleCCA:
    """The result of `cca_core.get_cca_similarity`.

    Attributes:
        coefficients: Descending, not clipped, float64 (k,): k is the smaller number of kept channels.
        kept_x, kept_y: The channels that were not dropped, bool (channels,).
    """

    coefficients: np.ndarray
    kept_x: np.ndarray
    kept_y: np.ndarray
    left: np.ndarray
    right: np.ndarray

    @property
    def ranks(self) -> tuple[int, int]:
        return int(self.kept_x.sum()), int(self.kept_y.sum())


def _google(xx: np.ndarray, xy: np.ndarray, yy: np.ndarray, epsilon: float) -> _GoogleCCA:
    """Canonical correlations as in google/svcca, from the scatter of x, between x and y, and of y.

    `epsilon` is relative to the largest variance of the layer: channels below it are dropped, and it is added to the
    other variances. Raises SimilarityError if google/svcca fails.
    """
    size_x, size_y = np.abs(xx).max(), np.abs(yy).max()
    if size_x == 0 or size_y == 0:
        raise SimilarityError("google/svcca cannot compare a layer in which every channel is constant.")
    xx, yy, xy = xx / size_x, yy / size_y, xy / np.sqrt(size_x * size_y)
    kept_x, kept_y = np.diag(xx) >= epsilon, np.diag(yy) >= epsilon
    root_x = _inverse_root("x", xx[np.ix_(kept_x, kept_x)], epsilon)
    root_y = _inverse_root("y", yy[np.ix_(kept_y, kept_y)], epsilon)
    left, coefficients, right = np.linalg.svd(root_x @ xy[np.ix_(kept_x, kept_y)] @ root_y)
    return _GoogleCCA(coefficients, kept_x, kept_y, left, right.T)


def _inverse_root(name: str, scatter: np.ndarray, epsilon: float) -> np.ndarray:
    inverse = np.linalg.pinv(scatter + epsilon * np.eye(len(scatter)))
    values, vectors = np.linalg.eigh(inverse)
    if values[0] < -_ROUNDING * values[-1]:
        raise SimilarityError(
            f"google/svcca fails on {name}: its channels are linearly dependent, and epsilon={epsilon:g} is too small. "
            "Use compat=None, which is exact, or a larger epsilon."
        )
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T


def _google_of_rows(x: np.ndarray, y: np.ndarray, epsilon: float) -> _GoogleCCA:
    """The same, bit by bit, from the covariance as google/svcca computes it.

    With dependent channels and a small epsilon, rounding errors reach the fifth digit of its coefficients.
    """
    covariance = np.cov(x, y, rowvar=False)
    split = np.shape(x)[1]
    return _google(covariance[:split, :split], covariance[:split, split:], covariance[split:, split:], epsilon)


def _google_weighted(pair: CrossMoments, google: _GoogleCCA) -> Similarity:
    """The result of `pwcca.compute_pwcca`.

    Differs from the paper: directions are not whitened, and means are added. Differs from google/svcca if x has more
    channels than y: that code then uses the rows of the wrong layer.
    """
    fewer_x = google.ranks[0] <= google.ranks[1]
    layer, kept, vectors = (pair.x, google.kept_x, google.left) if fewer_x else (pair.y, google.kept_y, google.right)
    values, axes = np.linalg.eigh(layer.scatter[np.ix_(kept, kept)])
    root = (axes * np.sqrt(np.clip(values, 0, None))) @ axes.T
    mean = np.sqrt(layer.rows) * layer.mean[kept]
    # Rows and directions are in coordinates of orthonormal columns, the last one constant.
    directions, _ = np.linalg.qr(np.vstack([root @ vectors, mean]))
    weights = np.abs(directions.T @ np.vstack([root, mean])).sum(axis=1)
    value = weights / weights.sum() @ google.coefficients
    return similarity_of(pair, value, google.coefficients, ranks=google.ranks)


def _check_compat(compat: str | None, epsilon: float | None) -> None:
    if compat is not None:
        check_choice("compat", compat, ("google",))
    if epsilon is None:
        return
    if compat is None:
        raise SimilarityError(f"Received epsilon={epsilon:g} without compat='google'; the exact measures have none.")
    if not epsilon >= 0:
        raise SimilarityError(f"Expected epsilon of 0 or more, received {epsilon:g}.")
