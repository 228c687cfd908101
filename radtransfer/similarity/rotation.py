"""Orthogonal Procrustes similarity: how well one layer fits the other after the best rotation."""

import numpy as np

from radtransfer.similarity.measure import Measure, Similarity, similarity_of
from radtransfer.similarity.pair_sums import PairSums
from radtransfer.similarity.rows import compact_sums


def procrustes(x: np.ndarray, y: np.ndarray) -> Similarity:
    """The cosine between centred x and y after the best rotation.

    Rotations, shifts and one common scale of x or of y do not change it.

    Args:
        x: Real (rows, channels).
        y: The same rows of another layer; the one with fewer channels is filled up with zeros.

    Raises:
        SimilarityError: Values that are not finite, or nothing but constants.

    References:
        Schönemann 1966, Psychometrika 31; as a similarity of networks:
        Williams, Kunz, Kornblith and Linderman 2021, Generalized shape metrics, section 2.
    """
    return procrustes_of_sums(compact_sums(x, y))


def procrustes_of_sums(pair: PairSums) -> Similarity:
    """The same from sums: the nuclear norm of the scatter between x and y, over their lengths."""
    pair.x.check_live()
    pair.y.check_live()
    lengths = np.sqrt(np.trace(pair.x.scatter)) * np.sqrt(np.trace(pair.y.scatter))
    shares = np.linalg.svd(pair.scatter / lengths, compute_uv=False)
    return similarity_of(pair, shares.sum(), shares)


PROCRUSTES = Measure("orthogonal Procrustes", procrustes, procrustes_of_sums, None, fits=False)
