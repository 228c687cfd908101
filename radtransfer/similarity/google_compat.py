"""The steps of google/svcca on sums, to reproduce numbers that were published with it.

Differs from the exact measures: channels are dropped and coefficients shrunk according to `epsilon`, and
dependent channels can make it fail. https://github.com/google/svcca, commit 1f3fbf1, 2019.
"""

from dataclasses import dataclass

import numpy as np

from radtransfer.errors import SimilarityError
from radtransfer.similarity.pair_sums import PairSums

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
