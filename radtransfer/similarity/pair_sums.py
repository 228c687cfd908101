"""The sums of two layers over the same rows: all that most measures need."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from radtransfer.similarity.layer_sums import LayerSums


@dataclass(frozen=True, eq=False)
class NormSums:
    """Sums with squared lengths of shifted rows u of x and v of y; what debiasing CKA takes.

    Attributes:
        both: Sum of |u|²|v|².
        x: Sum of |v|² u, float64 (channels of x,).
        y: Sum of |u|² v, float64 (channels of y,).
    """

    both: float
    x: np.ndarray
    y: np.ndarray

    def __add__(self, other: "NormSums") -> "NormSums":
        return NormSums(self.both + other.both, self.x + other.x, self.y + other.y)


@dataclass(frozen=True, eq=False)
class PairSums:
    """Sums over rows that two layers share.

    Attributes:
        x, y: The sums of each layer.
        products: Sum of outer products of shifted rows of x and y, float64 (channels of x, channels of y).
        norms: Of x with y, of x with itself and of y with itself; None if they were not collected.
    """

    x: LayerSums
    y: LayerSums
    products: np.ndarray
    norms: tuple[NormSums, NormSums, NormSums] | None = None

    def __add__(self, other: "PairSums") -> "PairSums":
        """The sums over the rows of both, which must share their pivots."""
        norms = None
        if self.norms and other.norms:
            norms = tuple(mine + theirs for mine, theirs in zip(self.norms, other.norms, strict=True))
        return PairSums(self.x + other.x, self.y + other.y, self.products + other.products, norms)

    @property
    def rows(self) -> int:
        return self.x.rows

    @cached_property
    def scatter(self) -> np.ndarray:
        """Sum of outer products of centred rows of x and y, float64 (channels of x, channels of y)."""
        return self.products - np.outer(self.x.total, self.y.shift)

    @property
    def itself(self) -> tuple["PairSums", "PairSums"]:
        """Each layer paired with itself."""
        norms = self.norms or (None, None, None)
        return tuple(
            PairSums(layer, layer, layer.products, own and (own, own, own))
            for layer, own in ((self.x, norms[1]), (self.y, norms[2]))
        )

    def between(self, map_x: np.ndarray, map_y: np.ndarray) -> np.ndarray:
        """The scatter between linear combinations (columns of the maps) of x and of y."""
        return map_x.T @ self.scatter @ map_y

    def named(self, x: str, y: str) -> "PairSums":
        """The same sums with other names in messages."""
        return replace(self, x=replace(self.x, name=x), y=replace(self.y, name=y))
