"""Centred kernel alignment with a Gaussian kernel (RBF CKA), on one batch."""

import numpy as np

from radtransfer.errors import SimilarityError
from radtransfer.similarity.between_rows import batch_sums, squared_distances, upper
from radtransfer.similarity.measure import Measure, Similarity, similarity_of


def rbf_cka(x: np.ndarray, y: np.ndarray, *, bandwidth: float = 1.0, debiased: bool = True) -> Similarity:
    """CKA of Gaussian kernels; rotations and one common scale of x or of y do not change it.

    Args:
        x: Real (rows, channels), 4 to 10 000 rows; time and memory grow with the square of the rows.
        y: The same rows of another layer, real (rows, channels).
        bandwidth: Standard deviation of the kernel, in units of the median distance between rows.
        debiased: As in `cka`.

    Raises:
        SimilarityError: As in `cka`; too many rows; more than half of the distances are 0.

    References:
        Kornblith, Norouzi, Lee and Hinton 2019, section 3; centring of the debiased kernel:
        Székely and Rizzo 2014, Annals of Statistics 42, definition 2.
    """
    if not bandwidth > 0:
        raise SimilarityError(f"Expected a bandwidth above 0, received {bandwidth:g}.")
    pair = batch_sums(x, y)
    centre = _centred_without_diagonal if debiased else _centred
    kernels = [centre(_gaussian(name, rows, bandwidth)) for name, rows in (("x", x), ("y", y))]
    lengths = [np.linalg.norm(kernel) for kernel in kernels]
    return similarity_of(pair, np.sum(kernels[0] * kernels[1]) / (lengths[0] * lengths[1]))


def _gaussian(name: str, rows: np.ndarray, bandwidth: float) -> np.ndarray:
    squares = squared_distances(rows)
    median = np.median(upper(squares))
    if median == 0:
        raise SimilarityError(f"{name}: expected rows that differ, but more than half of all pairs are identical.")
    return np.exp(-squares / (2 * bandwidth**2 * median))


def _centred(kernel: np.ndarray) -> np.ndarray:
    means = kernel.mean(axis=0)
    return kernel - means - means[:, None] + means.mean()


def _centred_without_diagonal(kernel: np.ndarray) -> np.ndarray:
    n = len(kernel)
    np.fill_diagonal(kernel, 0)
    sums = kernel.sum(axis=0)
    centred = kernel - (sums + sums[:, None]) / (n - 2) + sums.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(centred, 0)
    return centred


RBF_CKA = Measure("debiased RBF CKA", rbf_cka, fits=False)
