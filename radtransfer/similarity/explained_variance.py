"""Linear regression: the share of y's variance that a linear map of x explains."""

import numpy as np

from radtransfer.similarity.chance import chance_explained
from radtransfer.similarity.measure import Measure, Similarity, check_rows, similarity_of
from radtransfer.similarity.pair_sums import PairSums
from radtransfer.similarity.rows import refined, sums_of_rows


def linear_regression(x: np.ndarray, y: np.ndarray, *, allow_few_rows: bool = False) -> Similarity:
    """R² of the least-squares fit of all channels of y from those of x, summed over the channels of y.

    No invertible linear map of x changes it; of y, only rotations and one common scale do not.

    Args:
        x: Real (rows, channels).
        y: The same rows of another layer, real (rows, channels); the numbers of channels may differ.
        allow_few_rows: Accept fewer than two rows per direction.

    Raises:
        SimilarityError: As in `cca`.

    References:
        Kornblith, Norouzi, Lee and Hinton 2019, Table 1, with x and y swapped.
    """
    pair = sums_of_rows(x, y)
    better, _ = refined(x, y, pair, keep_y=True)
    result = similarity_of(pair, _explained(better))
    if not allow_few_rows:
        check_rows(result, pair)
    return result


def linear_regression_of_sums(pair: PairSums) -> Similarity:
    """The same from sums."""
    return similarity_of(pair, _explained(pair))


def _explained(pair: PairSums) -> float:
    pair.y.check_live()
    return np.sum((pair.x.whitening.basis.T @ pair.scatter) ** 2) / np.trace(pair.y.scatter)


LINEAR_REGRESSION = Measure("linear regression R²", linear_regression, linear_regression_of_sums, chance_explained)
