"""Mean canonical correlation (CCA), and its mean square."""

import numpy as np

from radtransfer.similarity.canonical import canonical_coefficients
from radtransfer.similarity.chance import chance_cca, chance_cca_squared
from radtransfer.similarity.checks import check_choice, check_compat
from radtransfer.similarity.google_compat import google_cca, google_cca_of_rows
from radtransfer.similarity.measure import Measure, Similarity, check_rows, similarity_of
from radtransfer.similarity.pair_sums import PairSums
from radtransfer.similarity.rows import refined, sums_of_rows


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
