"""Representational similarity analysis (RSA), on one batch."""

import numpy as np

from radtransfer.errors import SimilarityError
from radtransfer.similarity.between_rows import batch_sums, squared_distances, upper
from radtransfer.similarity.checks import check_choice
from radtransfer.similarity.measure import Measure, Similarity, similarity_of


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
        SimilarityError: Too few or too many rows; values that are not finite; a row with the same value in
            every channel, whose correlations do not exist; dissimilarities that are all equal.

    References:
        Kriegeskorte, Mur and Bandettini 2008, Frontiers in Systems Neuroscience 2.
    """
    check_choice("dissimilarity", dissimilarity, _DISSIMILARITIES)
    check_choice("comparison", comparison, ("spearman", "pearson"))
    pair = batch_sums(x, y)
    entries = [upper(_DISSIMILARITIES[dissimilarity](name, rows)) for name, rows in (("x", x), ("y", y))]
    if comparison == "spearman":
        entries = [_ranks(values) for values in entries]
    unit = [_unit(name, values) for name, values in zip(("x", "y"), entries, strict=True)]
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


def _euclidean_distances(name: str, rows: np.ndarray) -> np.ndarray:
    return np.sqrt(squared_distances(rows))


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 0, ties sharing the mean of theirs, float64."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + 1) / 2)[inverse]


def _unit(name: str, values: np.ndarray) -> np.ndarray:
    centred = values - values.mean()
    length = np.linalg.norm(centred)
    if length == 0:
        raise SimilarityError(f"{name}: expected dissimilarities that differ, but all pairs of rows have the same.")
    return centred / length


_DISSIMILARITIES = {"correlation": _correlation_distances, "euclidean": _euclidean_distances}

RSA = Measure("representational similarity analysis", rsa, fits=False)
