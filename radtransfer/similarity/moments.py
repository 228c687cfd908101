"""The sums of two arrays, and better ones where a layer is nearly dependent.

What is wrong with arguments, said before anything is computed.

What the sums of one layer tell: which channels live, how many directions, and a basis of them.

The sums of two layers over the same rows: all that most measures need.

Sums over batches of rows, for many layers of two networks in one pass.

The layers of one network side by side, so that one matrix product serves many of them.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from radtransfer.errors import SimilarityError, UnknownNameError


def check_choice(what: str, value: str, known: Iterable[str]) -> None:
    """See that an option has one of its values.

    Raises:
        UnknownNameError: It has not.
    """
    if value not in known:
        raise UnknownNameError(what, value, known)


def check_array(name: str, values: np.ndarray) -> np.ndarray:
    """Activations as a real array (rows, channels).

    Raises:
        SimilarityError: Another shape or kind of number.
    """
    array = np.asarray(values)
    if array.ndim != 2 or 0 in array.shape:
        raise SimilarityError(
            f"{name}: expected activations of shape (rows, channels), received {array.shape}. "
            "Make each position of a feature map a row: `maps.reshape(-1, maps.shape[-1])`."
        )
    if array.dtype.kind not in "fiub":
        raise SimilarityError(f"{name}: expected real numbers, received {array.dtype}.")
    # Half precision cannot hold a sum, and integers and booleans cannot be shifted.
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)


def check_layers(
    x: Mapping[str, np.ndarray], y: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], int]:
    """The batches as arrays, and the number of rows they share.

    Raises:
        SimilarityError: No layer, a wrong shape, or different numbers of rows.
    """
    x = {name: check_array(name, batch) for name, batch in x.items()}
    y = {name: check_array(name, batch) for name, batch in y.items()}
    if not x or not y:
        raise SimilarityError("Expected at least one layer of x and one of y, received none.")
    first = next(iter(x))
    for name, batch in (*x.items(), *y.items()):
        if len(batch) != len(x[first]):
            raise SimilarityError(
                f"{name}: expected the same rows as {first} ({len(x[first])}), received {len(batch)}. "
                "Row i of every layer must come from the same image and position."
            )
    return x, y, len(x[first])


def check_compat(compat: str | None, epsilon: float | None) -> None:
    """See that `epsilon` is given only where it means something, and is not negative.

    Raises:
        UnknownNameError: No such `compat`.
        SimilarityError: An epsilon that cannot be used.
    """
    if compat is not None:
        check_choice("compat", compat, ("google",))
    if epsilon is None:
        return
    if compat is None:
        raise SimilarityError(f"Received epsilon={epsilon:g} without compat='google'; the exact measures have none.")
    if not epsilon >= 0:
        raise SimilarityError(f"Expected epsilon of 0 or more, received {epsilon:g}.")


def check_finite(name: str, sums: np.ndarray) -> None:
    """See that the sums over rows, (channels,), of a layer are finite.

    Raises:
        SimilarityError: They are not; names the layer and its channels.
    """
    bad = np.flatnonzero(~np.isfinite(sums))
    if bad.size:
        listed = ", ".join(map(str, bad[:5].tolist())) + (", …" if bad.size > 5 else "")
        raise SimilarityError(
            f"{name}: expected finite activations, received NaN or infinity in {bad.size} of {sums.size} "
            f"channels ({listed}). Check that training did not diverge and that no image holds NaN."
        )


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


# The error of a covariance grows with the square of the condition: 1e-16 times (1e3)² is still 1e-10.
_SAFE_CONDITION = 1e3
_STEP = 4096


def sums_of_rows(x: np.ndarray, y: np.ndarray, *, norms: bool = False) -> PairSums:
    """The sums of x and y, real (rows, channels), read in chunks.

    Raises:
        SimilarityError: Shapes that do not fit, or values that are not finite.
    """
    sums = StreamedSums(pairs="same", norms=norms)
    sums.add({"x": x}, {"y": y})
    return sums.pair("x", "y")


def refined(
    x: np.ndarray, y: np.ndarray, pair: PairSums, *, keep_y: bool = False
) -> tuple[PairSums, np.ndarray | None]:
    """Sums in whitened coordinates if x or y is nearly dependent; CCA is the same in all coordinates.

    The rows are mapped to the coordinates that their first sums gave, and summed again: what rounding made
    wrong in the first whitening is then measured on columns that are nearly orthogonal.

    Args:
        x: The array of x that `pair` was made from.
        y: That of y.
        pair: Their sums.
        keep_y: Whether y stays as it is, for measures that do depend on its coordinates.

    Returns:
        The new sums and the map from centred rows of x to its coordinates, float64 (channels, rank); the
        given sums and None where they are good enough.

    References:
        Yamamoto, Nakatsukasa, Yanagisawa and Fukaya 2015, ETNA 44: CholeskyQR2 repeats a factorization in
        the same way and for the same reason.
    """
    changed = (pair.x,) if keep_y else (pair.x, pair.y)
    if max(layer.whitening.condition for layer in changed) < _SAFE_CONDITION:
        return pair, None
    x, y = np.asarray(x), np.asarray(y)
    sums = StreamedSums(pairs="same", norms=False)
    for start in range(0, pair.rows, _STEP):
        part = slice(start, start + _STEP)
        sums.add({"x": _whitened(x[part], pair.x)}, {"y": y[part] if keep_y else _whitened(y[part], pair.y)})
    return sums.pair("x", "y"), pair.x.whitening.basis


def _whitened(rows: np.ndarray, layer: LayerSums) -> np.ndarray:
    # Standardized first: with channels of very different size, the small ones would drown in the product.
    scale = np.where(layer.live, np.sqrt(np.diag(layer.scatter)), 1.0)
    return ((rows - layer.mean) / scale) @ (layer.whitening.basis * scale[:, None])


def compact_sums(x: np.ndarray, y: np.ndarray, *, norms: bool = False) -> PairSums:
    """As `sums_of_rows`, for measures that a rotation does not change.

    Layers with more channels than rows are rotated into as many coordinates as rows, so that flattened
    feature maps need no (channels, channels) sums.
    """
    arrays = [check_array(name, rows) for name, rows in (("x", x), ("y", y))]
    pair = sums_of_rows(*map(_compact, ("x", "y"), arrays), norms=norms)
    mine, its = (
        replace(layer, constant=_constant(rows)) if _is_wide(rows) else layer
        for layer, rows in zip((pair.x, pair.y), arrays, strict=True)
    )
    return replace(pair, x=mine, y=its)


def _is_wide(rows: np.ndarray) -> bool:
    return rows.shape[1] > rows.shape[0]


def _constant(rows: np.ndarray) -> tuple[int, ...]:
    return tuple(np.flatnonzero((rows == rows[0]).all(axis=0)).tolist())


def _compact(name: str, rows: np.ndarray) -> np.ndarray:
    if not _is_wide(rows):
        return rows
    with np.errstate(invalid="ignore"):
        mean = rows.mean(axis=0, dtype=np.float64)
    check_finite(name, mean)
    return np.linalg.qr((rows - mean).T, mode="r").T
