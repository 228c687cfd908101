"""First and second moments of layers, from which most measures of similarity are computed.

`StreamedSums` adds batches of rows for many layers of two networks in one pass. A pair of its layers is a
`CrossMoments`, with the `Moments` of each layer. All sums are float64, about a pivot, which avoids cancellation for
large offsets.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from radtransfer.errors import SimilarityError, UnknownNameError

# Relative errors of products are about 1e-7 for float32 rows and 1e-16 for float64 rows.
_PRECISIONS = {"float64": (np.float64, 1e-13), "float32": (np.float32, 1e-6)}
_PIVOT_ROWS = 1024
_GROUP_WIDTH = 256
_CHUNK_BYTES = 24 << 20
_BAND = 512


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over the rows of one layer.

    Attributes:
        name: The layer, for messages.
        pivot: Subtracted from each row first, float64 (channels,).
        total: Sum of the shifted rows u, float64 (channels,).
        products: Sum of their outer products, float64 (channels, channels).
        tolerance: An eigenvalue below this share of the largest is a rounding error.
        quartic, cubic: Sums of |u|⁴ and of |u|² u, float64 (channels,), for debiased CKA; else None.
        known_constant: The constant channels of a rotated layer; else None.
    """

    name: str
    rows: int
    pivot: np.ndarray
    total: np.ndarray
    products: np.ndarray
    tolerance: float
    quartic: float | None = None
    cubic: np.ndarray | None = None
    known_constant: tuple[int, ...] | None = None

    def __add__(self, other: "Moments") -> "Moments":
        """The sums over the rows of both, which have to share their pivot."""
        return Moments(
            self.name,
            self.rows + other.rows,
            self.pivot,
            self.total + other.total,
            self.products + other.products,
            self.tolerance,
            _both(self.quartic, other.quartic),
            _both(self.cubic, other.cubic),
        )

    @property
    def channels(self) -> int:
        return self.total.size

    @cached_property
    def shift(self) -> np.ndarray:
        return self.total / self.rows

    @property
    def mean(self) -> np.ndarray:
        return self.pivot + self.shift

    @cached_property
    def scatter(self) -> np.ndarray:
        """Sum of the outer products of the centered rows."""
        return self.products - np.outer(self.total, self.shift)

    @cached_property
    def varying(self) -> np.ndarray:
        """Which channels vary by more than rounding errors, bool (channels,)."""
        spread, power = np.diag(self.scatter), np.diag(self.products)
        jitter = self.rows * (4 * np.finfo(np.float64).eps * self.mean) ** 2
        return spread > np.maximum(self.tolerance * power, jitter)

    @property
    def constant(self) -> tuple[int, ...]:
        if self.known_constant is not None:
            return self.known_constant
        return tuple(np.flatnonzero(~self.varying).tolist())

    def check_varying(self) -> np.ndarray:
        """`varying`; SimilarityError if no channel varies."""
        if not self.varying.any():
            raise SimilarityError(
                f"{self.name}: expected at least one channel that varies, received {self.channels} constant "
                f"channels over {self.rows} rows. Use more or other images, or omit this layer."
            )
        return self.varying

    @cached_property
    def _whitening(self) -> tuple[np.ndarray, float]:
        # CCA does not depend on the scales of channels; standardized, small channels are not taken for rounding errors.
        varying = self.check_varying()
        scale = np.sqrt(np.diag(self.scatter)[varying])
        values, vectors = np.linalg.eigh(self.scatter[np.ix_(varying, varying)] / np.outer(scale, scale))
        kept = np.flatnonzero(values > self.tolerance * values[-1])[::-1]
        basis = np.zeros((self.channels, kept.size))
        basis[varying] = (vectors / scale[:, None])[:, kept] / np.sqrt(values[kept])
        return basis, float(1 / np.sqrt(values[kept[-1]] / values[-1]))

    @property
    def basis(self) -> np.ndarray:
        """A map from centered rows to uncorrelated columns of unit length, float64 (channels, rank)."""
        return self._whitening[0]

    @property
    def rank(self) -> int:
        return self.basis.shape[1]

    @property
    def condition(self) -> float:
        """The largest over the smallest kept singular value of the standardized rows."""
        return self._whitening[1]

    @cached_property
    def principal(self) -> tuple[np.ndarray, np.ndarray]:
        """Eigenvalues of the scatter, descending, and its eigenvectors: the principal components."""
        self.check_varying()
        values, vectors = np.linalg.eigh(self.scatter)
        kept = values > self.tolerance * values[-1]
        return values[kept][::-1], vectors[:, kept][:, ::-1]


@dataclass(frozen=True, eq=False)
class CrossMoments:
    """Sums over the common rows of two layers.

    Attributes:
        products: Sum of outer products of shifted rows u of x and v of y, float64 (channels of x, channels of y).
        quartic: Sum of |u|²|v|², for debiased CKA as the next two; else None.
        cubic_x: Sum of |v|² u, float64 (channels of x,).
        cubic_y: Sum of |u|² v, float64 (channels of y,).
    """

    x: Moments
    y: Moments
    products: np.ndarray
    quartic: float | None = None
    cubic_x: np.ndarray | None = None
    cubic_y: np.ndarray | None = None

    def __add__(self, other: "CrossMoments") -> "CrossMoments":
        return CrossMoments(
            self.x + other.x,
            self.y + other.y,
            self.products + other.products,
            _both(self.quartic, other.quartic),
            _both(self.cubic_x, other.cubic_x),
            _both(self.cubic_y, other.cubic_y),
        )

    @property
    def rows(self) -> int:
        return self.x.rows

    @cached_property
    def scatter(self) -> np.ndarray:
        """Sum of outer products of centered rows of x and y."""
        return self.products - np.outer(self.x.total, self.y.shift)


class StreamedSums:
    """Sums for layers of x with layers of y; memory does not depend on the number of rows.

    Args:
        pairs: `"all"`: every layer of x with every layer of y; `"same"`: the first with the first and so on.
        precision: Of the products within a chunk of rows: `"float64"`, exact to about 1e-13, or `"float32"`, twice as
            fast and exact to about 1e-6. Sums are always float64.
        norms: Collect the sums for debiased CKA.
        like: Non-empty sums whose pivots are reused, so that the pairs of both can be added.

    References:
        Chan, Golub and LeVeque 1983, The American Statistician 37: shifted sums. With the mean of the first batch as
        pivot, the loss is at most a factor rows / (rows in the first batch) for any offset.
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
        self._sides: tuple[_SideBySide, _SideBySide] | None = None
        self._moments: dict[tuple[int, int], Moments] = {}

    def add(self, x: Mapping[str, np.ndarray], y: Mapping[str, np.ndarray]) -> None:
        """Add a batch of rows; after an error, the sums are invalid.

        Args:
            x: Name of each layer of x to its activations, real (rows, channels); the same layers in every batch.
            y: The same for the other network and the same rows.

        Raises:
            SimilarityError: Shapes that do not match, or values that are not finite; names the layer.
        """
        x = {name: check_array(name, batch) for name, batch in x.items()}
        y = {name: check_array(name, batch) for name, batch in y.items()}
        if not x or not y:
            raise SimilarityError("Expected at least one layer of x and one of y, received none.")
        first = next(iter(x))
        rows = len(x[first])
        for name, batch in (*x.items(), *y.items()):
            if len(batch) != rows:
                raise SimilarityError(
                    f"{name}: expected the same rows as {first} ({rows}), received {len(batch)}. "
                    "Row i of every layer must come from the same image and position."
                )
        if self._sides is None:
            self._start(x, y)
        for side, batch in zip(self._sides, (x, y), strict=True):
            side.check_like(batch)
        row_bytes = sum(side.width for side in self._sides) * np.dtype(self._dtype).itemsize
        step = max(1, _CHUNK_BYTES // row_bytes)
        for start in range(0, rows, step):
            part = slice(start, start + step)
            with np.errstate(over="ignore", invalid="ignore"):  # values that are not finite raise an error later
                self._add_chunk(*(s.shifted(batch, part) for s, batch in zip(self._sides, (x, y), strict=True)))
        self.rows += rows
        self._moments.clear()

    def names(self) -> Iterator[tuple[str, str]]:
        """The names of all pairs; the layers of y vary fastest."""
        x, y = (side.names for side in self._sides)
        return ((a, b) for a in x for b in y) if self._every else zip(x, y, strict=True)

    def pair(self, x: str, y: str) -> CrossMoments:
        """The sums of one layer of x and one of y; UnknownNameError without such a layer or pair."""
        if self._sides is None:
            raise SimilarityError("Expected rows, received none. Call add() before pair().")
        indices = []
        for side, name in zip(self._sides, (x, y), strict=True):
            if name not in side.names:
                raise UnknownNameError("layer", name, side.names)
            indices.append(side.names.index(name))
        i, j = indices
        if not self._every and i != j:
            raise UnknownNameError("pair", f"{x}, {y}", [", ".join(names) for names in self.names()])
        moments = []
        for key in ((0, i), (1, j)):
            if key not in self._moments:
                self._moments[key] = self._sides[key[0]].moments(key[1], self.rows)
            moments.append(self._moments[key])
        mine, its = self._sides[0].slices[i], self._sides[1].slices[j]
        products = self._products[0][mine, its] if self._every else self._products[i]
        if not self._norms:
            return CrossMoments(*moments, products.copy())
        column_x, column_y = (j, i) if self._every else (0, 0)
        cubic = self._cubic_x[mine, column_x].copy(), self._cubic_y[its, column_y].copy()
        return CrossMoments(*moments, products.copy(), self._quartic[i, column_x], *cubic)

    @property
    def nbytes(self) -> int:
        """Bytes of all sums."""
        own = (*self._products, self._quartic, self._cubic_x, self._cubic_y)
        return sum(side.nbytes for side in self._sides) + sum(array.nbytes for array in own)

    def _start(self, x: Mapping[str, np.ndarray], y: Mapping[str, np.ndarray]) -> None:
        if not self._every and len(x) != len(y):
            raise SimilarityError(f"Expected as many layers of x as of y, received {len(x)} and {len(y)}.")
        pivots = [side.pivots for side in self._like._sides] if self._like else (None, None)
        self._sides = tuple(
            _SideBySide(batch, dtype=self._dtype, tolerance=self._tolerance, norms=self._norms, pivots=pivot)
            for batch, pivot in zip((x, y), pivots, strict=True)
        )
        a, b = self._sides
        whole = (slice(0, a.width), slice(0, b.width))
        self._parts = [whole] if self._every else list(zip(a.slices, b.slices, strict=True))
        self._products = [np.zeros((mine.stop - mine.start, its.stop - its.start)) for mine, its in self._parts]
        # One column for pairs of the same layers; for all pairs, one for every layer of the other network.
        columns = (len(y), len(x)) if self._every else (1, 1)
        shapes = ((len(x), columns[0]), (a.width, columns[0]), (b.width, columns[1]))
        self._quartic, self._cubic_x, self._cubic_y = (np.zeros(shape if self._norms else 0) for shape in shapes)

    def _add_chunk(self, x: np.ndarray, y: np.ndarray) -> None:
        lengths_x, lengths_y = self._sides[0].add(x), self._sides[1].add(y)
        for products, (mine, its) in zip(self._products, self._parts, strict=True):
            # In bands, to keep the temporary product small.
            for start in range(0, len(products), _BAND):
                band = slice(start, start + _BAND)
                products[band] += x[:, mine][:, band].T @ y[:, its]
        if not self._norms:
            return
        weights_x, weights_y = (lengths.astype(self._dtype, copy=False) for lengths in (lengths_x, lengths_y))
        if self._every:
            self._quartic += lengths_x.T @ lengths_y
            self._cubic_x += x.T @ weights_y
            self._cubic_y += y.T @ weights_x
            return
        self._quartic[:, 0] += np.einsum("ij,ij->j", lengths_x, lengths_y)
        for index, (mine, its) in enumerate(self._parts):
            self._cubic_x[mine, 0] += weights_y[:, index] @ x[:, mine]
            self._cubic_y[its, 0] += weights_x[:, index] @ y[:, its]


class _SideBySide:
    """Sums of each layer of one network with itself; the layers are columns of one array.

    `pivots` are reused from other sums; None takes the means of the first batch.
    """

    def __init__(
        self,
        first: Mapping[str, np.ndarray],
        *,
        dtype: type,
        tolerance: float,
        norms: bool,
        pivots: Mapping[str, np.ndarray] | None,
    ):
        self.names = tuple(first)
        self.pivots = pivots or {name: _pivot(name, batch) for name, batch in first.items()}
        edges = np.cumsum([0, *(batch.shape[1] for batch in first.values())]).tolist()
        self.slices = [slice(low, high) for low, high in zip(edges, edges[1:], strict=False)]
        self.width = edges[-1]
        # A few large products are faster than many small ones with a multithreaded matrix library, especially on a busy
        # machine: neighboring layers are multiplied together, and the products between them are discarded.
        self._groups: list[list[int]] = [[]]
        for index, part in enumerate(self.slices):
            if self._groups[-1] and part.stop - self.slices[self._groups[-1][0]].start > _GROUP_WIDTH:
                self._groups.append([])
            self._groups[-1].append(index)
        self._dtype, self._tolerance, self._norms = dtype, tolerance, norms
        self._total, self._cubic = np.zeros(self.width), np.zeros(self.width)
        self._products = [np.zeros((part.stop - part.start,) * 2) for part in self.slices]
        self._quartic = np.zeros(len(self.names))

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in (self._total, self._cubic, self._quartic, *self._products))

    def check_like(self, batch: Mapping[str, np.ndarray]) -> None:
        if tuple(batch) != self.names:
            raise SimilarityError(f"Expected the layers {', '.join(self.names)}, received {', '.join(batch)}.")
        for name, rows in batch.items():
            if rows.shape[1] != self.pivots[name].size:
                raise SimilarityError(
                    f"{name}: expected {self.pivots[name].size} channels as in the first batch, "
                    f"received {rows.shape[1]}."
                )

    def shifted(self, batch: Mapping[str, np.ndarray], rows: slice) -> np.ndarray:
        """Some rows of all layers less their pivots, (rows, width)."""
        count = len(range(*rows.indices(len(batch[self.names[0]]))))
        stacked = np.empty((count, self.width), self._dtype)
        for name, part in zip(self.names, self.slices, strict=True):
            np.subtract(batch[name][rows], self.pivots[name], out=stacked[:, part], casting="same_kind")
        return stacked

    def add(self, stacked: np.ndarray) -> np.ndarray | None:
        """Add shifted rows; with `norms`, return their squared lengths in each layer, float64 (rows, layers)."""
        # A sum is finite only if all its terms are, so the rows need not be looked at again.
        total = stacked.sum(axis=0, dtype=np.float64)
        for name, part in zip(self.names, self.slices, strict=True):
            check_finite(name, total[part])
        self._total += total
        for group in self._groups:
            start = self.slices[group[0]].start
            columns = stacked[:, start : self.slices[group[-1]].stop]
            products = columns.T @ columns
            for index in group:
                part = slice(self.slices[index].start - start, self.slices[index].stop - start)
                self._products[index] += products[part, part]
        if not self._norms:
            return None
        blocks = [stacked[:, part] for part in self.slices]
        lengths = np.stack([np.einsum("ij,ij->i", b, b, dtype=np.float64) for b in blocks], axis=1)
        self._quartic += np.einsum("ij,ij->j", lengths, lengths)
        cubic = stacked.T @ lengths.astype(self._dtype, copy=False)
        for index, part in enumerate(self.slices):
            self._cubic[part] += cubic[part, index]
        return lengths

    def moments(self, index: int, rows: int) -> Moments:
        name, part, products = self.names[index], self.slices[index], self._products[index].copy()
        # Finite values can still be too large to square.
        check_finite(name, products.diagonal())
        norms = (self._quartic[index], self._cubic[part].copy()) if self._norms else ()
        return Moments(name, rows, self.pivots[name], self._total[part].copy(), products, self._tolerance, *norms)


def check_choice(what: str, value: str, known: Iterable[str]) -> None:
    """Raise UnknownNameError unless an option has one of its values."""
    if value not in known:
        raise UnknownNameError(what, value, known)


def check_array(name: str, values: np.ndarray) -> np.ndarray:
    """Activations as a real array (rows, channels), float32 or float64; SimilarityError if that is not possible."""
    array = np.asarray(values)
    if array.ndim != 2 or 0 in array.shape:
        raise SimilarityError(
            f"{name}: expected activations of shape (rows, channels), received {array.shape}. "
            "Make each position of a feature map a row: `maps.reshape(-1, maps.shape[-1])`."
        )
    if array.dtype.kind not in "fiub":
        raise SimilarityError(f"{name}: expected real numbers, received {array.dtype}.")
    # Half precision is too small for sums; integers and booleans cannot be shifted.
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)


def check_finite(name: str, sums: np.ndarray) -> None:
    """Raise SimilarityError with layer and channels unless the sums over rows are finite."""
    bad = np.flatnonzero(~np.isfinite(sums))
    if bad.size:
        listed = ", ".join(map(str, bad[:5].tolist())) + (", …" if bad.size > 5 else "")
        raise SimilarityError(
            f"{name}: expected finite activations, received NaN or infinity in {bad.size} of {sums.size} "
            f"channels ({listed}). Check that training did not diverge and that no image contains NaN."
        )


def _pivot(name: str, batch: np.ndarray) -> np.ndarray:
    """About the mean of each channel; exactly its value if it is constant, so that the channel becomes 0."""
    first = batch[:_PIVOT_ROWS]
    with np.errstate(invalid="ignore"):
        mean = first.mean(axis=0, dtype=np.float64)
    check_finite(name, mean)
    return np.where((first == first[0]).all(axis=0), first[0], mean)


def _both(mine: "float | np.ndarray | None", its: "float | np.ndarray | None") -> "float | np.ndarray | None":
    return None if mine is None or its is None else mine + its
