"""One draw of positions and channels: the sums of pairs of layers, of groups of images and of mismatched images.

Batches come in one order of images; what is measured does not depend on where they are cut.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

from radtransfer.comparisons.activations import Reading, read_rows
from radtransfer.comparisons.sampling import Positions
from radtransfer.errors import SimilarityError
from radtransfer.similarity.checks import check_finite
from radtransfer.similarity.pair_sums import PairSums
from radtransfer.similarity.streamed_sums import StreamedSums

Maps = Mapping[str, tf.Tensor]
Rows = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class PairedReadings:
    """What is read of two networks at the same positions.

    Attributes:
        positions: Where.
        a: Name of each comparison to what is read of the first network for it.
        b: The same for the second.
        not_finite: "a" or "b" and the name of a comparison to what is wrong with the values that were read of it.
    """

    positions: Positions
    a: Mapping[str, Reading]
    b: Mapping[str, Reading]
    not_finite: dict[tuple[str, str], str] = field(default_factory=dict)

    def rows(self, side: str, maps: Maps, cells: np.ndarray, images: np.ndarray) -> Rows:
        """The rows of one network by name of the comparison; in messages the name tells the network and layer.

        A layer with values that are not finite is remembered, and read as zeros: the others can be compared.
        """
        found = {}
        for name, reading in (self.a if side == "a" else self.b).items():
            title = f"{name} of {side.upper()} ({reading.layer})"
            rows = read_rows(maps[reading.layer], cells, images, grid=self.positions.grid, channels=reading.channels)
            try:
                with np.errstate(invalid="ignore"):
                    check_finite(title, rows.sum(axis=0, dtype=np.float64))
            except SimilarityError as error:
                self.not_finite.setdefault((side, name), str(error))
                rows = np.zeros_like(rows)
            found[title] = rows
        return found

    def undefined(self, a: str, b: str) -> str:
        """Why the comparisons of these names in the two networks cannot be computed; empty where they can."""
        return self.not_finite.get(("a", a)) or self.not_finite.get(("b", b), "")


class GroupedSums:
    """Sums of the same-named layers for each group of images, for the value and its jackknife interval.

    Args:
        readings: What is read.
        groups: The group of each image, ascending, int (images,).
        norms: Whether debiased CKA is asked for.
    """

    def __init__(self, readings: PairedReadings, groups: np.ndarray, *, norms: bool):
        self.readings, self._groups, self._norms = readings, groups, norms
        self._sums: dict[int, StreamedSums] = {}

    def add(self, first: int, last: int, a: Maps, b: Maps) -> None:
        """Add the images `first` to `last` - 1, whose maps are given."""
        cells, images = self.readings.positions.between(first, last)
        x, y = self.readings.rows("a", a, cells, images), self.readings.rows("b", b, cells, images)
        of_row = self._groups[first:last][images]
        for group in np.unique(of_row).tolist():
            chosen = of_row == group
            self._of_group(group).add(_chosen(x, chosen), _chosen(y, chosen))

    @property
    def images(self) -> int:
        """How many images are read."""
        return int(np.count_nonzero(self.readings.positions.counts))

    def pairs(self) -> Iterator[tuple[str, list[PairSums]]]:
        """Each comparison with the sums of the groups that have rows."""
        sums = list(self._sums.values())
        for name, (x, y) in zip(self.readings.a, sums[0].names(), strict=True):
            yield name, [part.pair(x, y) for part in sums]

    def _of_group(self, group: int) -> StreamedSums:
        if group not in self._sums:
            like = next(iter(self._sums.values()), None)
            self._sums[group] = StreamedSums(pairs="same", norms=self._norms, like=like)
        return self._sums[group]


class MismatchedSums:
    """Sums of rows of A with rows of B at the same positions of the image before: what chance alone gives.

    Args:
        readings: What is read.
        norms: Whether debiased CKA is asked for.
    """

    def __init__(self, readings: PairedReadings, *, norms: bool):
        self._readings, self._following = readings, readings.positions.rolled()
        self._sums = StreamedSums(pairs="same", norms=norms)
        self._first: Rows | None = None
        self._waiting: Rows | None = None

    def add(self, first: int, last: int, a: Maps, b: Maps) -> None:
        """Add the images `first` to `last` - 1, whose maps are given."""
        x = self._readings.rows("a", a, *self._readings.positions.between(first, last))
        # Rows of B at the positions of the image that comes next; those of the last one wait for the next batch.
        y = self._readings.rows("b", b, *self._following.between(first, last))
        held = self._following.counts[last - 1]
        ready = {name: rows[: len(rows) - held] for name, rows in y.items()}
        if self._first is None:
            count = self._readings.positions.counts[first]
            self._first = {name: rows[:count] for name, rows in x.items()}
            x = {name: rows[count:] for name, rows in x.items()}
        else:
            ready = {name: np.concatenate([self._waiting[name], rows]) for name, rows in ready.items()}
        self._waiting = {name: rows[len(rows) - held :] for name, rows in y.items()}
        self._add(x, ready)

    def pairs(self) -> Iterator[tuple[str, PairSums]]:
        """Each comparison with its sums; call it once, after all images."""
        self._add(self._first, self._waiting)
        return zip(self._readings.a, (self._sums.pair(x, y) for x, y in self._sums.names()), strict=True)

    def _add(self, x: Rows, y: Rows) -> None:
        if len(next(iter(x.values()))):
            self._sums.add(x, y)


class CrossedSums:
    """Sums of every layer of A with every layer of B.

    Args:
        readings: What is read.
        norms: Whether debiased CKA is asked for.
    """

    def __init__(self, readings: PairedReadings, *, norms: bool):
        self.readings = readings
        self._sums = StreamedSums(pairs="all", norms=norms)

    def add(self, first: int, last: int, a: Maps, b: Maps) -> None:
        """Add the images `first` to `last` - 1, whose maps are given."""
        cells, images = self.readings.positions.between(first, last)
        if cells.size:
            self._sums.add(self.readings.rows("a", a, cells, images), self.readings.rows("b", b, cells, images))

    def pairs(self) -> Iterator[tuple[str, str, PairSums]]:
        """The names of each pair with its sums."""
        names = ((mine, its) for mine in self.readings.a for its in self.readings.b)
        for (mine, its), (x, y) in zip(names, self._sums.names(), strict=True):
            yield mine, its, self._sums.pair(x, y)


def _chosen(rows: Rows, which: np.ndarray) -> Rows:
    return {name: values[which] for name, values in rows.items()}
