"""Linear centred kernel alignment (CKA), biased and exactly debiased."""

from functools import partial

import numpy as np

from radtransfer.errors import SimilarityError
from radtransfer.similarity.chance import chance_debiased
from radtransfer.similarity.measure import Measure, Similarity, similarity_of
from radtransfer.similarity.pair_sums import PairSums
from radtransfer.similarity.rows import compact_sums

_FEWEST_ROWS = 4


def cka(x: np.ndarray, y: np.ndarray, *, debiased: bool = True) -> Similarity:
    """Linear CKA; rotations and one common scale of x or of y do not change it.

    Args:
        x: Real (rows, channels).
        y: The same rows of another layer, real (rows, channels); the numbers of channels may differ.
        debiased: Whether to take the unbiased estimate of each term. It leaves unrelated layers at 0 on
            average, so that it can fall a little below 0; biased CKA of few rows and many channels is high
            for any two layers.

    Raises:
        SimilarityError: Fewer than 4 rows, values that are not finite, or nothing but constants.

    References:
        Kornblith, Norouzi, Lee and Hinton 2019, section 3.
    """
    return cka_of_sums(compact_sums(x, y, norms=debiased), debiased=debiased)


def cka_of_sums(pair: PairSums, *, debiased: bool = True) -> Similarity:
    """The same from sums; debiased only from sums with norms."""
    if pair.rows < _FEWEST_ROWS:
        raise SimilarityError(f"Expected at least {_FEWEST_ROWS} rows for CKA, received {pair.rows}.")
    if debiased and pair.norms is None:
        raise SimilarityError("Expected sums with norms for debiased CKA; collect them with `norms=True`.")
    pair.x.check_live()
    pair.y.check_live()
    dependence = _debiased_dependence if debiased else _dependence
    own = [dependence(layer) for layer in pair.itself]
    if min(own) <= 0:
        raise SimilarityError(
            f"{pair.x.name} and {pair.y.name}: debiased CKA is not defined on {pair.rows} rows this noisy. "
            "Use more rows, or biased CKA."
        )
    return similarity_of(pair, dependence(pair) / np.sqrt(own[0]) / np.sqrt(own[1]))


def _dependence(pair: PairSums) -> float:
    """The Hilbert-Schmidt independence criterion of linear kernels, not divided by (rows - 1)²."""
    return float(np.sum(pair.scatter**2))


def _debiased_dependence(pair: PairSums) -> float:
    """Its unbiased estimate, times rows (rows - 3).

    Equation 5 needs kernels without their diagonal. For linear kernels of centred rows each of its terms
    follows from the scatter, its traces and q, the sum of |u|²|v|² over rows u of x and v of y; so no kernel
    of rows by rows is ever formed.

    References:
        Song, Smola, Gretton, Bedo and Borgwardt 2012, JMLR 13, equation 5.
    """
    n, q = pair.rows, _centred_quartic(pair)
    traces = np.trace(pair.x.scatter) * np.trace(pair.y.scatter)
    return float(np.sum(pair.scatter**2) - q * n / (n - 2) + traces / ((n - 1) * (n - 2)))


def _centred_quartic(pair: PairSums) -> float:
    """Sum of |u - m|²|v - k|², with means m and k, from sums about the pivots.

    |u - m|² = |u|² - 2 m·u + |m|², and the same for v, multiplied out.
    """
    norms, m, k = pair.norms[0], pair.x.shift, pair.y.shift
    mm, kk = m @ m, k @ k
    squares_x, squares_y = np.trace(pair.x.products), np.trace(pair.y.products)
    crossed = norms.both - 2 * k @ norms.y - 2 * m @ norms.x + 4 * m @ pair.products @ k
    return crossed + kk * squares_x + mm * squares_y - 3 * pair.rows * mm * kk


def _chance_biased(pair: PairSums) -> float:
    """Exact for Gaussian rows: the scatter of unrelated rows is what their lengths give, over rows - 1 directions."""
    x, y = pair.x.scatter, pair.y.scatter
    return float(np.trace(x) * np.trace(y) / (pair.rows - 1) / np.linalg.norm(x) / np.linalg.norm(y))


CKA = Measure("debiased linear CKA", cka, cka_of_sums, chance_debiased, fits=False)
CKA_BIASED = Measure(
    "biased linear CKA",
    partial(cka, debiased=False),
    partial(cka_of_sums, debiased=False),
    fits=False,
    chance_of_sums=_chance_biased,
)
