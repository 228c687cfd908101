"""The layers of one network side by side, so that one matrix product serves many of them."""

from collections.abc import Mapping

import numpy as np

from radtransfer.errors import SimilarityError, UnknownNameError
from radtransfer.similarity.checks import check_finite
from radtransfer.similarity.layer_sums import LayerSums
from radtransfer.similarity.pair_sums import NormSums

_PIVOT_ROWS = 1024
_GROUP_WIDTH = 256


class StackedLayers:
    """Sums of each layer of one network with itself.

    Args:
        first: The first batch, name of each layer to its activations, real (rows, channels).
        dtype: Of the shifted rows.
        tolerance: Of the `LayerSums`.
        norms: Whether to collect squared lengths.
        pivots: Those of other sums, to be used again; None takes means over the first batch.
    """

    def __init__(
        self,
        first: Mapping[str, np.ndarray],
        *,
        dtype: type,
        tolerance: float,
        norms: bool,
        pivots: Mapping[str, np.ndarray] | None = None,
    ):
        self.names = tuple(first)
        self.pivots = pivots or {name: _pivot(name, batch) for name, batch in first.items()}
        edges = np.cumsum([0, *(batch.shape[1] for batch in first.values())]).tolist()
        self.slices = [slice(low, high) for low, high in zip(edges, edges[1:], strict=False)]
        self.width = edges[-1]
        self._groups = _grouped(self.slices)
        self._dtype, self._tolerance, self._norms = dtype, tolerance, norms
        self._total = np.zeros(self.width)
        self._products = [np.zeros((part.stop - part.start,) * 2) for part in self.slices]
        self._quartic = np.zeros(len(self.names))
        self._cubic = np.zeros(self.width)

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in (self._total, self._cubic, self._quartic, *self._products))

    def index(self, name: str) -> int:
        """Where the layer stands.

        Raises:
            UnknownNameError: No such layer.
        """
        if name not in self.names:
            raise UnknownNameError("layer", name, self.names)
        return self.names.index(name)

    def check_like(self, batch: Mapping[str, np.ndarray]) -> None:
        """See that a batch has the layers and channels of the first one.

        Raises:
            SimilarityError: It has not; names the layer.
        """
        if tuple(batch) != self.names:
            raise SimilarityError(f"Expected the layers {', '.join(self.names)}, received {', '.join(batch)}.")
        for name, rows in batch.items():
            if rows.shape[1] != self.pivots[name].size:
                raise SimilarityError(
                    f"{name}: expected {self.pivots[name].size} channels as in the first batch, "
                    f"received {rows.shape[1]}."
                )

    def chunk(self, batch: Mapping[str, np.ndarray], rows: slice) -> np.ndarray:
        """Some rows of all layers less their pivots, (rows, width)."""
        count = len(range(*rows.indices(len(batch[self.names[0]]))))
        stacked = np.empty((count, self.width), self._dtype)
        for name, part in zip(self.names, self.slices, strict=True):
            np.subtract(batch[name][rows], self.pivots[name], out=stacked[:, part], casting="same_kind")
        return stacked

    def add(self, stacked: np.ndarray) -> np.ndarray | None:
        """Add a chunk; gives the squared length of each row in each layer, float64 (rows, layers).

        Raises:
            SimilarityError: Values that are not finite; names the layer.
        """
        # A sum is finite only if all its terms are, so the rows need not be looked at again.
        total = stacked.sum(axis=0, dtype=np.float64)
        for name, part in zip(self.names, self.slices, strict=True):
            check_finite(name, total[part])
        self._total += total
        for group in self._groups:
            self._add_products(stacked, group)
        return self._add_norms(stacked) if self._norms else None

    def layer(self, index: int, rows: int) -> LayerSums:
        """The sums of one layer."""
        name, part, products = self.names[index], self.slices[index], self._products[index].copy()
        # Finite values can still be too large to square.
        check_finite(name, products.diagonal())
        return LayerSums(name, rows, self.pivots[name], self._total[part].copy(), products, self._tolerance)

    def own_norms(self, index: int) -> NormSums:
        """The norm sums of one layer with itself."""
        cubic = self._cubic[self.slices[index]].copy()
        return NormSums(self._quartic[index], cubic, cubic)

    def _add_products(self, stacked: np.ndarray, group: list[int]) -> None:
        start = self.slices[group[0]].start
        columns = stacked[:, start : self.slices[group[-1]].stop]
        products = columns.T @ columns
        for index in group:
            part = slice(self.slices[index].start - start, self.slices[index].stop - start)
            self._products[index] += products[part, part]

    def _add_norms(self, stacked: np.ndarray) -> np.ndarray:
        blocks = [stacked[:, part] for part in self.slices]
        lengths = np.stack([np.einsum("ij,ij->i", b, b, dtype=np.float64) for b in blocks], axis=1)
        self._quartic += np.einsum("ij,ij->j", lengths, lengths)
        cubic = stacked.T @ lengths.astype(self._dtype, copy=False)
        for index, part in enumerate(self.slices):
            self._cubic[part] += cubic[part, index]
        return lengths


def _grouped(slices: list[slice]) -> list[list[int]]:
    """Neighbouring layers whose products are formed together, and those between them thrown away.

    A few large products are faster than many small ones wherever the matrix library uses threads, and very
    much so on a busy machine.
    """
    groups: list[list[int]] = [[]]
    for index, part in enumerate(slices):
        if groups[-1] and part.stop - slices[groups[-1][0]].start > _GROUP_WIDTH:
            groups.append([])
        groups[-1].append(index)
    return groups


def _pivot(name: str, batch: np.ndarray) -> np.ndarray:
    """About the mean of each channel; the value itself where it is constant, so that dead channels become 0."""
    first = batch[:_PIVOT_ROWS]
    with np.errstate(invalid="ignore"):
        mean = first.mean(axis=0, dtype=np.float64)
    check_finite(name, mean)
    return np.where((first == first[0]).all(axis=0), first[0], mean)
