"""Which rows and channels of feature maps are compared: pure functions of a seed.

A row is the vector of channels at one position of one image's feature map. Two layers share rows when both are
read at the same places of the same images; places are cells of a grid, and a finer map is read where the middle
of the cell lies.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from radtransfer.seeds import derive_seed

Grid = tuple[int, int]
"""Height and width of a feature map, or of what several maps have in common."""


@dataclass(frozen=True, eq=False)
class Positions:
    """The cells that are read of each image.

    Attributes:
        grid: The cells are numbered row by row in it.
        cells: int64 (rows,), image after image; no cell of an image twice.
        starts: int64 (images + 1,): those of image i are `cells[starts[i]:starts[i + 1]]`.
    """

    grid: Grid
    cells: np.ndarray
    starts: np.ndarray

    @property
    def rows(self) -> int:
        return self.cells.size

    @property
    def counts(self) -> np.ndarray:
        """How many cells are read of each image, int64 (images,)."""
        return np.diff(self.starts)

    def rolled(self) -> "Positions":
        """The cells of image i + 1 for image i, and of the first for the last."""
        return Positions(self.grid, np.roll(self.cells, -self.starts[1]), np.cumsum([0, *np.roll(self.counts, -1)]))

    def between(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """The cells of images `first` to `last` - 1, and the image of each, counted from `first`."""
        owners = np.repeat(np.arange(last - first), self.counts[first:last])
        return self.cells[self.starts[first] : self.starts[last]], owners


def spread_positions(grid: Grid, *, images: int, rows: int, rng: np.random.Generator) -> Positions:
    """As many cells of every image, give or take one, `rows` in all or every one there is.

    The score varies much less between draws than with the same number of rows of few whole images.
    """
    cells = grid[0] * grid[1]
    rows = min(rows, images * cells)
    counts = np.full(images, rows // images)
    counts[rng.permutation(images)[: rows % images]] += 1
    return _positions(grid, [rng.choice(cells, count, replace=False, shuffle=False) for count in counts])


def whole_image_positions(grid: Grid, *, images: int, rows: int, rng: np.random.Generator) -> Positions:
    """Every cell of a few images, so many that images · height · width comes closest to `rows`.

    References:
        Raghu, Zhang, Kleinberg and Bengio 2019, Transfusion, Appendix C; rounded as in Juodelyte et al. 2023.
    """
    cells = grid[0] * grid[1]
    sizes = np.zeros(images, np.int64)
    sizes[rng.permutation(images)[: max(1, round(rows / cells))]] = cells
    return _positions(grid, [np.arange(size) for size in sizes])


SAMPLINGS = {"spread": spread_positions, "transfusion": whole_image_positions}
"""Name to how the positions are drawn."""


def sample_channels(width: int, dims: int, *, seed: int, side: str = "") -> np.ndarray:
    """`dims` of `width` channels in ascending order, or all there are.

    The draw depends on the seed, the width and the side alone, so that layers of one width are given the same
    channels unless their sides differ.
    """
    rng = np.random.default_rng(derive_seed(seed, "channels", width, side))
    return np.sort(rng.permutation(width)[:dims])


def places(cells: np.ndarray, grid: Grid, shape: Grid) -> tuple[np.ndarray, np.ndarray]:
    """The row and column of a map of `shape`, at least as fine as `grid`, where the middle of each cell lies."""
    y, x = np.divmod(cells, grid[1])
    return (2 * y + 1) * shape[0] // (2 * grid[0]), (2 * x + 1) * shape[1] // (2 * grid[1])


def image_order(clusters: Sequence[str], *, groups: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """An order of the images in groups of about equal size, and the group of each place in it.

    Images of one cluster (a patient) are in one group, but not next to each other if the group has another.

    Args:
        clusters: That of each image.
        groups: At most as many.
        seed: Of the order.

    Returns:
        int64 (images,) each: which image comes where, and its group, ascending from 0.
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
    order = np.lexsort((rank[codes], _repetition(codes), group_of[codes]))
    return order, group_of[codes][order]


def _repetition(codes: np.ndarray) -> np.ndarray:
    """How often each code has occurred before."""
    seen: dict[int, int] = {}
    before = np.empty(codes.size, np.int64)
    for place, code in enumerate(codes.tolist()):
        before[place] = seen.get(code, 0)
        seen[code] = before[place] + 1
    return before


def _positions(grid: Grid, cells: list[np.ndarray]) -> Positions:
    starts = np.cumsum([0, *map(len, cells)])
    return Positions(grid, np.concatenate(cells).astype(np.int64), starts)
