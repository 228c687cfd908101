"""What the sums of one layer tell: which channels live, how many directions, and a basis of them."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from radtransfer.errors import SimilarityError


@dataclass(frozen=True, eq=False)
class Whitening:
    """A map from centred rows to uncorrelated columns of unit length.

    Attributes:
        basis: float64 (channels, rank); rows of dead channels are zero.
        spectrum: Relative eigenvalues that were kept, float64 (rank,), descending, the first is 1.
    """

    basis: np.ndarray
    spectrum: np.ndarray

    @property
    def rank(self) -> int:
        return self.basis.shape[1]

    @property
    def condition(self) -> float:
        """The largest singular value of the standardized rows over the smallest that was kept."""
        return float(1 / np.sqrt(self.spectrum[-1]))


@dataclass(frozen=True, eq=False)
class LayerSums:
    """Sums over the rows of one layer, all about a pivot so that large offsets do not cancel.

    Attributes:
        name: The layer, for messages.
        rows: How many rows were added.
        pivot: What is subtracted from each row first, float64 (channels,).
        total: Sum of the shifted rows, float64 (channels,).
        products: Sum of their outer products, float64 (channels, channels).
        tolerance: Below this share of the largest, an eigenvalue is rounding error.
        constant: The constant channels of a layer whose columns are mixtures of its channels; else None.
    """

    name: str
    rows: int
    pivot: np.ndarray
    total: np.ndarray
    products: np.ndarray
    tolerance: float
    constant: tuple[int, ...] | None = None

    def __add__(self, other: "LayerSums") -> "LayerSums":
        """The sums over the rows of both, which must share their pivot."""
        total, products = self.total + other.total, self.products + other.products
        return LayerSums(self.name, self.rows + other.rows, self.pivot, total, products, self.tolerance)

    @property
    def channels(self) -> int:
        return self.total.size

    @cached_property
    def shift(self) -> np.ndarray:
        """The mean of the shifted rows, float64 (channels,)."""
        return self.total / self.rows

    @property
    def mean(self) -> np.ndarray:
        """The mean of the rows, float64 (channels,)."""
        return self.pivot + self.shift

    @cached_property
    def scatter(self) -> np.ndarray:
        """Sum of the outer products of the centred rows, float64 (channels, channels)."""
        return self.products - np.outer(self.total, self.shift)

    @cached_property
    def live(self) -> np.ndarray:
        """Which channels vary by more than rounding error, bool (channels,)."""
        spread, power = np.diag(self.scatter), np.diag(self.products)
        jitter = self.rows * (4 * np.finfo(np.float64).eps * self.mean) ** 2
        return spread > np.maximum(self.tolerance * power, jitter)

    @property
    def dead(self) -> tuple[int, ...]:
        """Indices of the constant channels."""
        if self.constant is not None:
            return self.constant
        return tuple(np.flatnonzero(~self.live).tolist())

    @cached_property
    def whitening(self) -> Whitening:
        """A basis of every direction that exists, found at unit variance.

        CCA does not depend on the channels' scales, and standardized channels keep a small one from being
        mistaken for rounding error.
        """
        live = self.check_live()
        scale = np.sqrt(np.diag(self.scatter)[live])
        values, vectors = np.linalg.eigh(self.scatter[np.ix_(live, live)] / np.outer(scale, scale))
        return self._whitening(values, vectors / scale[:, None])

    @cached_property
    def principal(self) -> tuple[np.ndarray, np.ndarray]:
        """Eigenvalues of the scatter, descending, and its eigenvectors: the principal components."""
        self.check_live()
        values, vectors = np.linalg.eigh(self.scatter)
        kept = values > self.tolerance * values[-1]
        return values[kept][::-1], vectors[:, kept][:, ::-1]

    def check_live(self) -> np.ndarray:
        """`live`.

        Raises:
            SimilarityError: No channel lives; a similarity is not defined.
        """
        if not self.live.any():
            raise SimilarityError(
                f"{self.name}: expected at least one channel that varies, received {self.channels} constant "
                f"channels over {self.rows} rows. Use more or other images, or leave this layer out."
            )
        return self.live

    def _whitening(self, values: np.ndarray, directions: np.ndarray) -> Whitening:
        kept = np.flatnonzero(values > self.tolerance * values[-1])[::-1]
        basis = np.zeros((self.channels, kept.size))
        basis[self.live] = directions[:, kept] / np.sqrt(values[kept])
        return Whitening(basis, values[kept] / values[-1])
