"""Canonical correlations from sums: what CCA, SVCCA and PWCCA average, each in its way."""

import numpy as np

from radtransfer.errors import SimilarityError
from radtransfer.similarity.pair_sums import PairSums

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
