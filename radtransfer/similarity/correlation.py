"""Canonical correlations from sums: what CCA, SVCCA and PWCCA average, each in its way.

Mean canonical correlation (CCA), and its mean square.

Projection weighted canonical correlation (PWCCA).

Singular vector canonical correlation (SVCCA): CCA of the leading principal components.

The steps of google/svcca on sums, to reproduce numbers that were published with it.

Differs from the exact measures: channels are dropped and coefficients shrunk according to `epsilon`, and
dependent channels can make it fail. https://github.com/google/svcca, commit 1f3fbf1, 2019.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

from radtransfer.errors import SimilarityError
from radtransfer.similarity.jackknife import chance_cca, chance_cca_squared
from radtransfer.similarity.measure import Measure, Similarity, check_rows, similarity_of
from radtransfer.similarity.moments import LayerSums, PairSums, check_choice, check_compat, refined, sums_of_rows

_EXCESS = 1e-6


def canonical_coefficients(pair: PairSums) -> np.ndarray:
    """The canonical correlations, descending, 0–1, float64 (min of the ranks,).

    Raises:
        SimilarityError: Rounding made them meaningless.

    References:
        Björck and Golub 1973, Mathematics of Computation 27: singular values between orthonormal bases.
    """
    between = pair.between(pair.x.whitening.basis, pair.y.whitening.basis)
    return _clipped(pair, np.linalg.svd(between, compute_uv=False))


def canonical_variates(pair: PairSums) -> tuple[np.ndarray, np.ndarray]:
    """The coefficients, and the map from centred rows of x to canonical variates of unit length.

    Returns:
        float64 (k,) and (channels, k), k being the smaller rank.

    Raises:
        SimilarityError: As `canonical_coefficients`.
    """
    basis = pair.x.whitening.basis
    left, coefficients, _ = np.linalg.svd(pair.between(basis, pair.y.whitening.basis), full_matrices=False)
    return _clipped(pair, coefficients), basis @ left


def _clipped(pair: PairSums, coefficients: np.ndarray) -> np.ndarray:
    """Without what rounding adds above 1, which grows with the square of the condition."""
    condition = max(pair.x.whitening.condition, pair.y.whitening.condition)
    if coefficients[0] > 1 + max(_EXCESS, 10 * pair.x.tolerance, 1e-15 * condition**2):
        raise SimilarityError(
            f"{pair.x.name} and {pair.y.name}: expected canonical correlations up to 1, received "
            f"{coefficients[0]:.6g} at condition {condition:.1e}, which is beyond rounding error. "
            "Use precision float64, or whole arrays instead of sums."
        )
    return np.clip(coefficients, 0, 1)


# Eigenvalues of a pseudo-inverse below this share of the largest, negative ones above all, are rounding
# error around 0; further below 0 the original takes the root of a negative number and stops.
_ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class GoogleCCA:
    """What `cca_core.get_cca_similarity` finds.

    Attributes:
        coefficients: Descending, not clipped, float64 (k,): k is the smaller number of kept channels.
        kept_x, kept_y: The channels that were not dropped, bool (channels,).
        left, right: Singular vectors as columns, in whitened coordinates of the kept channels.
    """

    coefficients: np.ndarray
    kept_x: np.ndarray
    kept_y: np.ndarray
    left: np.ndarray
    right: np.ndarray

    @property
    def ranks(self) -> tuple[int, int]:
        return int(self.kept_x.sum()), int(self.kept_y.sum())


def google_cca(xx: np.ndarray, xy: np.ndarray, yy: np.ndarray, epsilon: float) -> GoogleCCA:
    """Canonical correlations as google/svcca finds them.

    Args:
        xx: Scatter of x, in any unit.
        xy: Scatter between x and y.
        yy: Scatter of y.
        epsilon: In units of the layer's largest variance: channels below it are dropped, and it is added to
            the variances of the others.

    Raises:
        SimilarityError: google/svcca fails on this input.
    """
    size_x, size_y = np.abs(xx).max(), np.abs(yy).max()
    if size_x == 0 or size_y == 0:
        raise SimilarityError("google/svcca cannot compare a layer in which every channel is constant.")
    xx, yy, xy = xx / size_x, yy / size_y, xy / np.sqrt(size_x * size_y)
    kept_x, kept_y = np.diag(xx) >= epsilon, np.diag(yy) >= epsilon
    root_x = _inverse_root("x", xx[np.ix_(kept_x, kept_x)], epsilon)
    root_y = _inverse_root("y", yy[np.ix_(kept_y, kept_y)], epsilon)
    left, coefficients, right = np.linalg.svd(root_x @ xy[np.ix_(kept_x, kept_y)] @ root_y)
    return GoogleCCA(coefficients, kept_x, kept_y, left, right.T)


def google_cca_of_rows(x: np.ndarray, y: np.ndarray, epsilon: float) -> GoogleCCA:
    """As `google_cca`, of the covariance that google/svcca forms, to the last bit.

    With dependent channels and a small epsilon, rounding errors reach the fifth digit of its coefficients;
    they come out alike only from the same operations.
    """
    covariance = np.cov(x, y, rowvar=False)
    split = np.shape(x)[1]
    return google_cca(covariance[:split, :split], covariance[:split, split:], covariance[split:, split:], epsilon)


def google_projection_weights(pair: PairSums, google: GoogleCCA) -> np.ndarray:
    """The weights of `pwcca.compute_pwcca`, which add up to 1, float64 (coefficients,).

    Differs from the paper: its directions are not whitened, and means are added to them. Differs from
    google/svcca where x has more channels than y: that code then takes the rows of the wrong layer.
    """
    fewer_x = google.ranks[0] <= google.ranks[1]
    layer, kept, vectors = (pair.x, google.kept_x, google.left) if fewer_x else (pair.y, google.kept_y, google.right)
    values, axes = np.linalg.eigh(layer.scatter[np.ix_(kept, kept)])
    root = (axes * np.sqrt(np.clip(values, 0, None))) @ axes.T
    mean = np.sqrt(layer.rows) * layer.mean[kept]
    # Both the rows and the directions stand in coordinates of orthonormal columns, the last one constant.
    directions, _ = np.linalg.qr(np.vstack([root @ vectors, mean]))
    weights = np.abs(directions.T @ np.vstack([root, mean])).sum(axis=1)
    return weights / weights.sum()


def _inverse_root(name: str, scatter: np.ndarray, epsilon: float) -> np.ndarray:
    inverse = np.linalg.pinv(scatter + epsilon * np.eye(len(scatter)))
    values, vectors = np.linalg.eigh(inverse)
    if values[0] < -_ROUNDING * values[-1]:
        raise SimilarityError(
            f"google/svcca fails on {name}: its channels are linearly dependent, and epsilon={epsilon:g} does "
            "not hide it. Use compat=None, which is exact, or a larger epsilon."
        )
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T


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
    """The mean canonical correlation of two layers; no invertible linear map of x or of y changes it.

    Args:
        x: Real (rows, channels).
        y: The same rows of another layer, real (rows, channels); the numbers of channels may differ.
        squared: Whether to average the squares of the coefficients.
        normalize: `"rank"`: the mean over as many coefficients as directions exist in both; `"channels"`:
            their sum over the smaller number of channels, so that dead channels count as 0.
        compat: `"google"` repeats the steps of google/svcca, with their shrinkage; None is exact.
        epsilon: What google/svcca adds to the covariance, 0 unless given; only with `compat`.
        allow_few_rows: Accept fewer than two rows per direction.

    Raises:
        SimilarityError: Too few rows, values that are not finite, or nothing but constants.

    References:
        Raghu, Zhang, Kleinberg and Bengio 2019, Transfusion, Appendix C; the squares:
        Kornblith, Norouzi, Lee and Hinton 2019, section 3.
    """
    check_choice("normalize", normalize, ("rank", "channels"))
    check_compat(compat, epsilon)
    pair = sums_of_rows(x, y)
    if compat:
        google = google_cca_of_rows(x, y, epsilon or 0.0)
        result = _mean(pair, google.coefficients, squared, normalize, google.ranks)
    else:
        better, _ = refined(x, y, pair)
        result = _mean(pair, canonical_coefficients(better), squared, normalize)
    if not compat and not allow_few_rows:
        check_rows(result, pair)
    return result


def cca_of_sums(pair: PairSums) -> Similarity:
    """The mean canonical correlation, from sums."""
    return _mean(pair, canonical_coefficients(pair))


def google_cca_of_sums(pair: PairSums, *, epsilon: float) -> Similarity:
    """The mean canonical correlation as google/svcca finds it, from sums.

    Raises:
        SimilarityError: google/svcca fails on these layers.
    """
    google = google_cca(pair.x.scatter, pair.scatter, pair.y.scatter, epsilon)
    return _mean(pair, google.coefficients, ranks=google.ranks)


def cca_squared_of_sums(pair: PairSums) -> Similarity:
    """The mean squared canonical correlation, from sums."""
    return _mean(pair, canonical_coefficients(pair), squared=True)


def _cca_squared(x: np.ndarray, y: np.ndarray) -> Similarity:
    return cca(x, y, squared=True)


def _mean(
    pair: PairSums,
    coefficients: np.ndarray,
    squared: bool = False,
    normalize: str = "rank",
    ranks: tuple[int, int] | None = None,
) -> Similarity:
    over = coefficients.size if normalize == "rank" else min(pair.x.channels, pair.y.channels)
    return similarity_of(pair, np.sum(coefficients ** (1 + squared)) / over, coefficients, ranks=ranks)


CCA = Measure("mean CCA", cca, cca_of_sums, chance_cca)
CCA_SQUARED = Measure("mean squared CCA", _cca_squared, cca_squared_of_sums, chance_cca_squared)


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

    The weight of a variate h of x is the sum over the channels of x of |h · channel|, channels centred. Swapping
    x and y gives another value, and so does a rotation of x; a linear map of y does not.

    Args:
        x: Real (rows, channels).
        y: The same rows of another layer, real (rows, channels); the numbers of channels may differ.
        weights: `"paper"`, or `"google"` for those of google/svcca's `pwcca.py`, which are not the paper's.
        compat: `"google"` is the same as `weights="google"`; both repeat google/svcca's coefficients too.
        epsilon: As in `cca`; only with google's.
        allow_few_rows: Accept fewer than two rows per direction.

    Raises:
        SimilarityError: As in `cca`.

    References:
        Morcos, Raghu and Bengio 2018, Insights on representational similarity, section 3, equation 2.
    """
    check_choice("weights", weights, ("paper", "google"))
    compat = compat or ("google" if weights == "google" else None)
    check_compat(compat, epsilon)
    pair = sums_of_rows(x, y)
    if compat:
        return _google(pair, google_cca_of_rows(x, y, epsilon or 0.0))
    result = _weighted(pair, *refined(x, y, pair))
    if not allow_few_rows:
        check_rows(result, pair)
    return result


def pwcca_of_sums(pair: PairSums) -> Similarity:
    """PWCCA as the paper defines it, from sums."""
    return _weighted(pair, pair, None)


def google_pwcca_of_sums(pair: PairSums, *, epsilon: float = 1e-10) -> Similarity:
    """PWCCA as google/svcca computes it, from sums.

    Args:
        pair: The sums.
        epsilon: As in `cca`; the default is that of google/svcca's examples.
    """
    return _google(pair, google_cca(pair.x.scatter, pair.scatter, pair.y.scatter, epsilon))


def _google(pair: PairSums, google: GoogleCCA) -> Similarity:
    value = google_projection_weights(pair, google) @ google.coefficients
    return similarity_of(pair, value, google.coefficients, ranks=google.ranks)


def _weighted(pair: PairSums, better: PairSums, coordinates: np.ndarray | None) -> Similarity:
    """PWCCA with coefficients and variates from the better sums of the two."""
    coefficients, directions = canonical_variates(better)
    if coordinates is not None:
        directions = coordinates @ directions
    weights = np.abs(directions.T @ pair.x.scatter).sum(axis=1)
    return similarity_of(pair, weights @ coefficients / weights.sum(), coefficients)


PWCCA = Measure("PWCCA", pwcca, pwcca_of_sums, chance_cca)
PWCCA_GOOGLE = Measure(
    "PWCCA as in google/svcca", partial(pwcca, weights="google", epsilon=1e-10), google_pwcca_of_sums
)


_POWERS = {"variance": 1.0, "singular_values": 0.5}


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
    """The mean canonical correlation of the principal components that make up 99 % of each layer.

    Args:
        x: Real (rows, channels).
        y: The same rows of another layer, real (rows, channels); the numbers of channels may differ.
        rule: What must add up to `threshold`: `"variance"`, the squared singular values, as the paper says,
            or `"singular_values"` themselves, as other code does; the latter keeps more.
        threshold: Share to keep, above 0, up to 1.
        compat: As in `cca`, applied to the components.
        epsilon: As in `cca`.
        allow_few_rows: Accept fewer than two rows per component.

    Raises:
        SimilarityError: As in `cca`.

    References:
        Raghu, Gilmer, Yosinski and Sohl-Dickstein 2017, SVCCA, section 2.1.
    """
    check_compat(compat, epsilon)
    pair = sums_of_rows(x, y)
    result = svcca_of_sums(pair, rule=rule, threshold=threshold, compat=compat, epsilon=epsilon)
    if not compat and not allow_few_rows:
        check_rows(result, pair)
    return result


def svcca_of_sums(
    pair: PairSums,
    *,
    rule: str = "variance",
    threshold: float = 0.99,
    compat: str | None = None,
    epsilon: float | None = None,
) -> Similarity:
    """The same from sums, with the same options."""
    check_choice("rule", rule, _POWERS)
    if not 0 < threshold <= 1:
        raise SimilarityError(f"Expected a threshold above 0 and up to 1, received {threshold:g}.")
    lengths_x, axes_x = _components(pair.x, _POWERS[rule], threshold)
    lengths_y, axes_y = _components(pair.y, _POWERS[rule], threshold)
    between = pair.between(axes_x, axes_y)
    if compat:
        coefficients = google_cca(np.diag(lengths_x), between, np.diag(lengths_y), epsilon or 0.0).coefficients
    else:
        whitened = between / np.sqrt(np.outer(lengths_x, lengths_y))
        coefficients = np.clip(np.linalg.svd(whitened, compute_uv=False), 0, 1)
    return similarity_of(pair, coefficients.mean(), coefficients, ranks=(lengths_x.size, lengths_y.size))


def _components(layer: LayerSums, power: float, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Squared singular values and axes of the fewest components that reach the threshold."""
    values, axes = layer.principal
    shares = np.cumsum(values**power)
    count = 1 + np.searchsorted(shares[:-1], threshold * shares[-1])
    return values[:count], axes[:, :count]


_BY_SINGULAR_VALUES = {"rule": "singular_values"}
SVCCA = Measure("SVCCA, 99 % of the variance", svcca, svcca_of_sums, chance_cca)
SVCCA_SINGULAR_VALUES = Measure(
    "SVCCA, 99 % of the singular values",
    partial(svcca, **_BY_SINGULAR_VALUES),
    partial(svcca_of_sums, **_BY_SINGULAR_VALUES),
    chance_cca,
)
