"""Orthogonal Procrustes similarity: how well one layer fits the other after the best rotation."""

import warnings
from dataclasses import replace

import numpy as np

from radtransfer.similarity.chance import chance_rotated
from radtransfer.similarity.measure import Measure, Similarity, similarity_of
from radtransfer.similarity.pair_sums import PairSums
from radtransfer.similarity.rows import compact_sums


def procrustes(x: np.ndarray, y: np.ndarray) -> Similarity:
    """The cosine between centred x and y after the best rotation.

    Rotations, shifts and one common scale of x or of y do not change it. It needs no number of rows, but the fewer
    there are for each channel, the better any two layers fit: read it against `chance` of the result. On fewer rows
    than channels it warns.

    Args:
        x: Real (rows, channels).
        y: The same rows of another layer; the one with fewer channels is filled up with zeros.

    Raises:
        SimilarityError: Values that are not finite, or nothing but constants.

    References:
        Schönemann 1966, Psychometrika 31; as a similarity of networks:
        Williams, Kunz, Kornblith and Linderman 2021, Generalized shape metrics, section 2.
    """
    pair = compact_sums(x, y)
    found = replace(procrustes_of_sums(pair), chance=_chance(pair))
    channels = max(np.shape(x)[1], np.shape(y)[1])
    if found.rows < channels:
        warnings.warn(
            f"{found.rows} rows of {channels} channels make any two layers look alike: unrelated ones score "
            f"{found.chance:.3f} by chance, these {found.value:.3f}. Use more rows, fewer channels, or debiased CKA.",
            stacklevel=2,
        )
    return found


def procrustes_of_sums(pair: PairSums) -> Similarity:
    """The same from sums: the nuclear norm of the scatter between x and y, over their lengths."""
    pair.x.check_live()
    pair.y.check_live()
    lengths = np.sqrt(np.trace(pair.x.scatter)) * np.sqrt(np.trace(pair.y.scatter))
    shares = np.linalg.svd(pair.scatter / lengths, compute_uv=False)
    return similarity_of(pair, shares.sum(), shares)


def _chance(pair: PairSums) -> float:
    return chance_rotated(pair.rows, pair.x.principal[0], pair.y.principal[0])


PROCRUSTES = Measure("orthogonal Procrustes", procrustes, procrustes_of_sums, fits=False, chance_of_sums=_chance)
