"""Sums over batches of rows, for many layers of two networks in one pass."""

from collections.abc import Iterator, Mapping

import numpy as np

from radtransfer.errors import SimilarityError, UnknownNameError
from radtransfer.similarity.checks import check_choice, check_layers
from radtransfer.similarity.layer_sums import LayerSums
from radtransfer.similarity.pair_sums import NormSums, PairSums
from radtransfer.similarity.stacked_layers import StackedLayers

# Products of float32 rows carry an error near 1e-7; of float64 rows, near 1e-16.
_PRECISIONS = {"float64": (np.float64, 1e-13), "float32": (np.float32, 1e-6)}
_CHUNK_BYTES = 24 << 20
_BAND = 512


class StreamedSums:
    """Sums of layers of x against layers of y; the memory does not depend on the number of rows.

    Args:
        pairs: `"all"`: every layer of x with every layer of y; `"same"`: the first with the first and so on.
        precision: Of the products within a chunk of rows: `"float64"`, exact to about 1e-13, or `"float32"`,
            twice as fast and exact to about 1e-6. Sums are always float64.
        norms: Whether to collect what debiased CKA takes.
        like: Sums that lend their pivots, so that the pairs of both can be added. It must have rows.

    References:
        Chan, Golub and LeVeque 1983, The American Statistician 37: shifted sums. With the mean of the first
        batch as pivot, the loss is at most a factor rows / (rows in the first batch), whatever the offset.
    """

    def __init__(
        self,
        *,
        pairs: str = "all",
        precision: str = "float64",
        norms: bool = True,
        like: "StreamedSums | None" = None,
    ):
        check_choice("pairs", pairs, ("all", "same"))
        check_choice("precision", precision, _PRECISIONS)
        self.rows = 0
        self._every, self._norms, self._like = pairs == "all", norms, like
        self._dtype, self._tolerance = _PRECISIONS[precision]
        self._x: StackedLayers | None = None
        self._y: StackedLayers | None = None
        self._layers: dict[tuple[int, int], LayerSums] = {}

    def add(self, x: Mapping[str, np.ndarray], y: Mapping[str, np.ndarray]) -> None:
        """Add a batch of rows; after an error the sums are of no use.

        Args:
            x: Name of each layer of x to its activations, real (rows, channels); the same layers every time.
            y: The same of the other network, for the same rows.

        Raises:
            SimilarityError: Shapes that do not fit, or values that are not finite; names the layer.
        """
        x, y, rows = check_layers(x, y)
        if self._x is None:
            self._start(x, y)
        self._x.check_like(x)
        self._y.check_like(y)
        row_bytes = (self._x.width + self._y.width) * np.dtype(self._dtype).itemsize
        step = max(1, _CHUNK_BYTES // row_bytes)
        for start in range(0, rows, step):
            part = slice(start, start + step)
            with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is an error, not a warning
                self._add_chunk(self._x.chunk(x, part), self._y.chunk(y, part))
        self.rows += rows
        self._layers.clear()

    def names(self) -> Iterator[tuple[str, str]]:
        """The names of all pairs, the layers of y running fastest."""
        if self._every:
            return ((x, y) for x in self._x.names for y in self._y.names)
        return zip(self._x.names, self._y.names, strict=True)

    def pair(self, x: str, y: str) -> PairSums:
        """The sums of one layer of x and one of y; each layer's spectrum is found once for all its pairs.

        Raises:
            UnknownNameError: No such layer, or not a pair of these sums.
            SimilarityError: No rows yet, or values too large to square.
        """
        if self._x is None:
            raise SimilarityError("Expected rows before a pair is asked for, received none. Call add() first.")
        i, j = self._x.index(x), self._y.index(y)
        if not self._every and i != j:
            raise UnknownNameError("pair", f"{x}, {y}", [", ".join(names) for names in self.names()])
        mine, its = self._x.slices[i], self._y.slices[j]
        products = self._products[0][mine, its] if self._every else self._products[i]
        norms = self._pair_norms(i, j) if self._norms else None
        return PairSums(self._layer(0, i), self._layer(1, j), products.copy(), norms)

    @property
    def nbytes(self) -> int:
        """Bytes of all sums."""
        arrays = (*self._products, self._both, self._cubic_x, self._cubic_y)
        return self._x.nbytes + self._y.nbytes + sum(array.nbytes for array in arrays)

    def _start(self, x: Mapping[str, np.ndarray], y: Mapping[str, np.ndarray]) -> None:
        if not self._every and len(x) != len(y):
            raise SimilarityError(f"Expected as many layers of x as of y, received {len(x)} and {len(y)}.")
        pivots = (self._like._x.pivots, self._like._y.pivots) if self._like else (None, None)
        self._x, self._y = (
            StackedLayers(batch, dtype=self._dtype, tolerance=self._tolerance, norms=self._norms, pivots=pivot)
            for batch, pivot in zip((x, y), pivots, strict=True)
        )
        whole = (slice(0, self._x.width), slice(0, self._y.width))
        parts = [whole] if self._every else list(zip(self._x.slices, self._y.slices, strict=True))
        self._products = [np.zeros((mine.stop - mine.start, its.stop - its.start)) for mine, its in parts]
        self._parts = parts
        # Of the same layers only, a single column each; of all pairs, one for every layer of the other network.
        columns = (len(y), len(x)) if self._every else (1, 1)
        shapes = ((len(x), columns[0]), (self._x.width, columns[0]), (self._y.width, columns[1]))
        self._both, self._cubic_x, self._cubic_y = (np.zeros(shape if self._norms else 0) for shape in shapes)

    def _add_chunk(self, x: np.ndarray, y: np.ndarray) -> None:
        lengths_x, lengths_y = self._x.add(x), self._y.add(y)
        for products, (mine, its) in zip(self._products, self._parts, strict=True):
            # In bands, so that the product before it is added stays small.
            for start in range(0, len(products), _BAND):
                band = slice(start, start + _BAND)
                products[band] += x[:, mine][:, band].T @ y[:, its]
        if self._norms:
            self._add_norms(x, y, lengths_x, lengths_y)

    def _add_norms(self, x: np.ndarray, y: np.ndarray, lengths_x: np.ndarray, lengths_y: np.ndarray) -> None:
        weights_x, weights_y = (lengths.astype(self._dtype, copy=False) for lengths in (lengths_x, lengths_y))
        if self._every:
            self._both += lengths_x.T @ lengths_y
            self._cubic_x += x.T @ weights_y
            self._cubic_y += y.T @ weights_x
            return
        self._both[:, 0] += np.einsum("ij,ij->j", lengths_x, lengths_y)
        for index, (mine, its) in enumerate(self._parts):
            self._cubic_x[mine, 0] += weights_y[:, index] @ x[:, mine]
            self._cubic_y[its, 0] += weights_x[:, index] @ y[:, its]

    def _layer(self, side: int, index: int) -> LayerSums:
        if (side, index) not in self._layers:
            self._layers[side, index] = (self._x, self._y)[side].layer(index, self.rows)
        return self._layers[side, index]

    def _pair_norms(self, i: int, j: int) -> tuple[NormSums, NormSums, NormSums]:
        column_x, column_y = (j, i) if self._every else (0, 0)
        cubic_x = self._cubic_x[self._x.slices[i], column_x].copy()
        cubic_y = self._cubic_y[self._y.slices[j], column_y].copy()
        both = NormSums(self._both[i, column_x], cubic_x, cubic_y)
        return both, self._x.own_norms(i), self._y.own_norms(j)
