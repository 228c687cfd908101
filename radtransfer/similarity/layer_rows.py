"""Sampling of rows and channels of feature maps, and the sums over them.

A row is the vector of channels at one position of the feature map of one image. Layers are compared on rows at the same
positions of the same images. Positions are cells of a grid; a finer map is read at the centers of the cells. All draws
are deterministic functions of a seed, and sums do not depend on the batches.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from radtransfer.errors import SimilarityError
from radtransfer.process import derive_seed
from radtransfer.similarity.moments import CrossMoments, StreamedSums, check_finite

if TYPE_CHECKING:
    import tensorflow as tf

    from radtransfer.models.activations import FeatureMaps

    Maps = Mapping[str, tf.Tensor]

CHANNELS = ("auto", "paired", "independent", "all")
"""The same channels in both networks if their numbers are equal; the same; different ones in each; all."""

Grid = tuple[int, int]
"""Height and width of a feature map, or of the common grid of several."""
Rows = dict[str, np.ndarray]


class LayerPair(NamedTuple):
    """Two layers to compare: a name for both, and the name of each in its network."""

    name: str
    a: str
    b: str


@dataclass(frozen=True, eq=False)
class Positions:
    """The sampled cells of each image.

    Attributes:
        grid: Cells are numbered row by row.
        cells: int64 (rows,), image after image, without duplicates in an image.
        starts: int64 (images + 1,): the cells of image i are `cells[starts[i]:starts[i + 1]]`.
    """

    grid: Grid
    cells: np.ndarray
    starts: np.ndarray

    @classmethod
    def of_images(cls, grid: Grid, cells: list[np.ndarray]) -> "Positions":
        return cls(grid, np.concatenate(cells).astype(np.int64), np.cumsum([0, *map(len, cells)]))

    @property
    def rows(self) -> int:
        return self.cells.size

    @property
    def counts(self) -> np.ndarray:
        return np.diff(self.starts)

    def rolled(self) -> "Positions":
        """The cells of image i + 1 for image i, and of the first for the last."""
        return Positions(self.grid, np.roll(self.cells, -self.starts[1]), np.cumsum([0, *np.roll(self.counts, -1)]))

    def between(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """The cells of images `first` to `last` - 1, and the image of each, counted from `first`."""
        owners = np.repeat(np.arange(last - first), self.counts[first:last])
        return self.cells[self.starts[first] : self.starts[last]], owners


def spread_positions(grid: Grid, *, images: int, rows: int, rng: np.random.Generator) -> Positions:
    """The same number of cells (±1) of every image, `rows` in total or all cells.

    Scores vary much less between draws than with the same number of rows from a few whole images.
    """
    cells = grid[0] * grid[1]
    rows = min(rows, images * cells)
    counts = np.full(images, rows // images)
    counts[rng.permutation(images)[: rows % images]] += 1
    return Positions.of_images(grid, [rng.choice(cells, count, replace=False, shuffle=False) for count in counts])


def whole_image_positions(grid: Grid, *, images: int, rows: int, rng: np.random.Generator) -> Positions:
    """All cells of a few images, so many that images · height · width is closest to `rows`.

    References:
        Raghu, Zhang, Kleinberg and Bengio 2019, Transfusion, Appendix C; rounded as in Juodelyte et al. 2023.
    """
    cells = grid[0] * grid[1]
    sizes = np.zeros(images, np.int64)
    sizes[rng.permutation(images)[: max(1, round(rows / cells))]] = cells
    return Positions.of_images(grid, [np.arange(size) for size in sizes])


SAMPLINGS = {"spread": spread_positions, "transfusion": whole_image_positions}  # name to sampling function


@dataclass(frozen=True)
class Sampling:
    """`repeats` draws of at most `rows` positions and `dims` channels per layer.

    `sampling` is a key of `SAMPLINGS`, `channels` one of `CHANNELS`.
    """

    rows: int = 10_000
    dims: int = 64
    repeats: int = 5
    sampling: str = "spread"
    channels: str = "auto"
    seed: int = 0

    def seed_of(self, repeat: int) -> int:
        return derive_seed(self.seed, "draw", repeat)

    def positions(self, grid: Grid, *, images: int, repeat: int) -> Positions:
        rng = np.random.default_rng(derive_seed(self.seed_of(repeat), "positions", *grid))
        return SAMPLINGS[self.sampling](grid, images=images, rows=self.rows, rng=rng)

    def channels_of(self, width: int, *, repeat: int, side: str) -> np.ndarray:
        dims = width if self.channels == "all" else self.dims
        side = side if self.channels == "independent" else ""
        return sample_channels(width, dims, seed=self.seed_of(repeat), side=side)


def sample_channels(width: int, dims: int, *, seed: int, side: str = "") -> np.ndarray:
    """`dims` of `width` channels in ascending order, or all; the same for the same width and `side`."""
    rng = np.random.default_rng(derive_seed(seed, "channels", width, side))
    return np.sort(rng.permutation(width)[:dims])


def image_order(clusters: Sequence[str], *, groups: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """An order of the images in at most `groups` groups of about equal size, and their groups, ascending from 0.

    int64 (images,) each. Images of one cluster (patient) are in one group, but not adjacent if the group has others.
    """
    rng = np.random.default_rng(derive_seed(seed, "images"))
    names, codes, sizes = np.unique(np.asarray(clusters, dtype=object), return_inverse=True, return_counts=True)
    shuffled = rng.permutation(names.size)
    group_of, filled = np.empty(names.size, np.int64), np.zeros(min(groups, names.size), np.int64)
    for code in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
        group_of[code] = filled.argmin()
        filled[group_of[code]] += sizes[code]
    rank = np.empty(names.size, np.int64)
    rank[shuffled] = np.arange(names.size)
    seen, repetition = [0] * names.size, []  # how often each cluster has occurred before
    for code in codes.tolist():
        repetition.append(seen[code])
        seen[code] += 1
    order = np.lexsort((rank[codes], repetition, group_of[codes]))
    return order, group_of[codes][order]


def read_rows(
    maps: "tf.Tensor", cells: np.ndarray, images: np.ndarray, *, grid: Grid, channels: np.ndarray
) -> np.ndarray:
    """Some positions and channels of a batch of maps, float32 (rows, channels), gathered on the device of the maps.

    `maps` is float32 (images, height, width, channels); `cells` and `images`, int (rows,), are the position of each row
    in `grid`, which is not finer than the maps.
    """
    import tensorflow as tf

    _, height, width, depth = maps.shape
    # The center of each cell.
    y, x = np.divmod(cells, grid[1])
    y, x = (2 * y + 1) * height // (2 * grid[0]), (2 * x + 1) * width // (2 * grid[1])
    rows = tf.gather(tf.reshape(maps, (-1, depth)), (images * height + y) * width + x)
    return tf.gather(rows, channels, axis=1).numpy()


@dataclass(frozen=True, eq=False)
class Draw:
    """The rows of two networks at the same positions.

    Attributes:
        a, b: Name of each comparison to its layer in that network and the channels.
        not_finite: "a" or "b" and the name of a comparison to an error message.
    """

    positions: Positions
    a: Mapping[str, tuple[str, np.ndarray]]
    b: Mapping[str, tuple[str, np.ndarray]]
    not_finite: dict[tuple[str, str], str] = field(default_factory=dict)

    def dims(self, name: str) -> tuple[int, int]:
        return self.a[name][1].size, self.b[name][1].size

    def rows(self, side: str, maps: "Maps", cells: np.ndarray, images: np.ndarray) -> Rows:
        """The rows of one network by the title of the comparison, for messages.

        A layer with values that are not finite is recorded and set to zeros, so that the others can be compared.
        """
        found = {}
        for name, (layer, channels) in (self.a if side == "a" else self.b).items():
            title = f"{name} of {side.upper()} ({layer})"
            rows = read_rows(maps[layer], cells, images, grid=self.positions.grid, channels=channels)
            try:
                with np.errstate(invalid="ignore"):
                    check_finite(title, rows.sum(axis=0, dtype=np.float64))
            except SimilarityError as error:
                self.not_finite.setdefault((side, name), str(error))
                rows = np.zeros_like(rows)
            found[title] = rows
        return found

    def undefined(self, a: str, b: str) -> str:
        """Why two layers cannot be compared, or an empty string."""
        return self.not_finite.get(("a", a)) or self.not_finite.get(("b", b), "")


def draws(
    a: "FeatureMaps",
    b: "FeatureMaps",
    pairs: Sequence[LayerPair],
    *,
    images: int,
    sampling: Sampling,
    repeat: int,
    all_pairs: bool = False,
) -> list[Draw]:
    """One draw of the pairs, or of every layer of A with every layer of B: a `Draw` per common grid.

    The grid of a pair is the finest that is not finer than either map; it does not depend on other pairs.
    """

    def common(grid_a: Grid, grid_b: Grid) -> Grid:
        return min(grid_a[0], grid_b[0]), min(grid_a[1], grid_b[1])

    def grouped(grid: Callable[[LayerPair], Grid]) -> dict[Grid, list[LayerPair]]:
        groups: dict[Grid, list[LayerPair]] = defaultdict(list)
        for pair in pairs:
            groups[grid(pair)].append(pair)
        return groups

    if all_pairs:
        by_a, by_b = grouped(lambda pair: a.grid(pair.a)), grouped(lambda pair: b.grid(pair.b))
        sets = [(common(x, y), by_a[x], by_b[y]) for x in by_a for y in by_b]
    else:
        by_grid = grouped(lambda pair: common(a.grid(pair.a), b.grid(pair.b)))
        sets = [(grid, members, members) for grid, members in by_grid.items()]
    return [
        Draw(
            sampling.positions(grid, images=images, repeat=repeat),
            {p.name: (p.a, sampling.channels_of(a.width(p.a), repeat=repeat, side="a")) for p in mine},
            {p.name: (p.b, sampling.channels_of(b.width(p.b), repeat=repeat, side="b")) for p in its},
        )
        for grid, mine, its in sets
    ]


class PairedSums:
    """Sums of pairs of layers for each group of images, for the value and its jackknife interval.

    With `mismatched`, also of rows of A with rows of B at the same positions of the next image: the value by chance.
    `groups` is the group of each image, ascending, int (images,); debiased CKA needs `norms`.
    """

    def __init__(self, draw: Draw, groups: np.ndarray, *, norms: bool, mismatched: bool = False):
        self.draw, self._groups, self._norms = draw, groups, norms
        self._of_group: dict[int, StreamedSums] = {}
        self._following = draw.positions.rolled()
        self._mismatched = StreamedSums(pairs="same", norms=norms) if mismatched else None
        self._first: Rows | None = None
        self._waiting: Rows | None = None

    def add(self, first: int, last: int, a: "Maps", b: "Maps") -> None:
        """Add the maps of images `first` to `last` - 1."""
        cells, images = self.draw.positions.between(first, last)
        x, y = self.draw.rows("a", a, cells, images), self.draw.rows("b", b, cells, images)
        of_row = self._groups[first:last][images]
        for group in np.unique(of_row).tolist():
            chosen = of_row == group
            if group not in self._of_group:
                like = next(iter(self._of_group.values()), None)
                self._of_group[group] = StreamedSums(pairs="same", norms=self._norms, like=like)
            self._of_group[group].add(*({name: rows[chosen] for name, rows in side.items()} for side in (x, y)))
        if self._mismatched is not None:
            self._exchange(first, last, x, self.draw.rows("b", b, *self._following.between(first, last)))

    def _exchange(self, first: int, last: int, x: Rows, y: Rows) -> None:
        """Add rows of B at the positions of the next image; those of the last image wait for the next batch."""
        held = self._following.counts[last - 1]
        ready = {name: rows[: len(rows) - held] for name, rows in y.items()}
        if self._first is None:
            count = self.draw.positions.counts[first]
            self._first = {name: rows[:count] for name, rows in x.items()}
            x = {name: rows[count:] for name, rows in x.items()}
        else:
            ready = {name: np.concatenate([self._waiting[name], rows]) for name, rows in ready.items()}
        self._waiting = {name: rows[len(rows) - held :] for name, rows in y.items()}
        self._add_mismatched(x, ready)

    def _add_mismatched(self, x: Rows, y: Rows) -> None:
        if len(next(iter(x.values()))):
            self._mismatched.add(x, y)

    def pairs(self) -> Iterator[tuple[str, list[CrossMoments], CrossMoments | None]]:
        """Each comparison with the moments of its groups and of mismatched images; call it once, at the end."""
        if self._mismatched is not None:
            self._add_mismatched(self._first, self._waiting)
        sums = list(self._of_group.values())
        for name, (x, y) in zip(self.draw.a, sums[0].names(), strict=True):
            yield name, [part.pair(x, y) for part in sums], self._mismatched and self._mismatched.pair(x, y)


class AllPairsSums:
    """Sums of every layer of A with every layer of B that a draw reads."""

    def __init__(self, draw: Draw, *, norms: bool):
        self.draw = draw
        self._sums = StreamedSums(pairs="all", norms=norms)

    def add(self, first: int, last: int, a: "Maps", b: "Maps") -> None:
        cells, images = self.draw.positions.between(first, last)
        if cells.size:
            self._sums.add(self.draw.rows("a", a, cells, images), self.draw.rows("b", b, cells, images))

    def pairs(self) -> Iterator[tuple[str, str, CrossMoments]]:
        names = ((mine, its) for mine in self.draw.a for its in self.draw.b)
        for (mine, its), (x, y) in zip(names, self._sums.names(), strict=True):
            yield mine, its, self._sums.pair(x, y)
