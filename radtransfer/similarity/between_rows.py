"""What the measures share that compare rows with rows, and so take one batch in memory."""

import numpy as np

from radtransfer.errors import SimilarityError
from radtransfer.similarity.pair_sums import PairSums
from radtransfer.similarity.rows import compact_sums

FEWEST_ROWS = 4
MOST_ROWS = 10_000
"""Each (rows, rows) matrix takes 800 MB then."""


def batch_sums(x: np.ndarray, y: np.ndarray) -> PairSums:
    """The sums of a batch that is neither too small to compare nor too large for memory.

    Raises:
        SimilarityError: Too few or too many rows, wrong shapes, values that are not finite, or only constants.
    """
    rows = len(x)
    if not FEWEST_ROWS <= rows <= MOST_ROWS:
        raise SimilarityError(
            f"Expected {FEWEST_ROWS} to {MOST_ROWS} rows for a measure that compares rows with rows, received "
            f"{rows}. Pass a random sample of them."
        )
    pair = compact_sums(x, y)
    pair.x.check_live()
    pair.y.check_live()
    return pair


def squared_distances(rows: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances between all rows, float64 (rows, rows), the diagonal exactly 0."""
    centred = rows - np.mean(rows, axis=0, dtype=np.float64)
    lengths = np.einsum("ij,ij->i", centred, centred)
    squares = np.maximum(lengths[:, None] + lengths - 2 * centred @ centred.T, 0)
    np.fill_diagonal(squares, 0)
    return squares


def upper(matrix: np.ndarray) -> np.ndarray:
    """The entries above the diagonal."""
    return matrix[np.triu_indices(len(matrix), 1)]
