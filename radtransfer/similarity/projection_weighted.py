"""Projection weighted canonical correlation (PWCCA)."""

from functools import partial

import numpy as np

from radtransfer.similarity.canonical import canonical_variates
from radtransfer.similarity.chance import chance_cca
from radtransfer.similarity.checks import check_choice, check_compat
from radtransfer.similarity.google_compat import GoogleCCA, google_cca, google_cca_of_rows, google_projection_weights
from radtransfer.similarity.measure import Measure, Similarity, check_rows, similarity_of
from radtransfer.similarity.pair_sums import PairSums
from radtransfer.similarity.rows import refined, sums_of_rows


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
