"""What the checks look at, and what they give."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from radtransfer.datasets.image_table import ImageTable
from radtransfer.examination.image_survey import ImageRecord
from radtransfer.splits.folds import Fold

SEVERITIES = ("error", "warning", "note")
"""An error makes results invalid or stops training, a warning may mislead, a note is good to know."""


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        kind: What it is, such as "leak"; one word for all findings of the same sort.
        severity: One of `SEVERITIES`.
        message: One sentence for people, with numbers.
        files: The images it is about, by their paths in the table; none where it is about the whole.
        patients: The patients it is about, if it is about patients.
    """

    kind: str
    severity: Literal["error", "warning", "note"]
    message: str
    files: tuple[str, ...] = ()
    patients: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known of a data set.

    Attributes:
        table: The images.
        records: What each is like, in the order of `table`.
        folds: Those that training would have, given or drawn; none where there can be none.
        image_size: Side of the square that training makes of an image, pixels.
        skip_bad: Whether training would go on without the images that cannot be read.
        window: The setting `images.window`.
        positive_from: The lowest of ordered grades that counts as positive; None where each class counts by itself.
    """

    table: ImageTable
    records: Sequence[ImageRecord]
    folds: Sequence[Fold]
    image_size: int
    skip_bad: bool = False
    window: str = "auto"
    positive_from: int | None = None

    @cached_property
    def readable(self) -> list[int]:
        """Rows of the images that can be read."""
        return [row for row, record in enumerate(self.records) if not record.problem]

    @cached_property
    def _splits(self) -> np.ndarray:
        return np.array([fold.split for fold in self.folds], dtype="U5").reshape(len(self.folds), len(self.table))

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Path to a row."""
        return {path: row for row, path in enumerate(self.table.paths)}

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The label of each row as text."""
        return self.table.labels

    @cached_property
    def class_modes(self) -> dict[str, dict[str, int]]:
        """Class or label to how many of its images are stored in which mode, the commonest mode first."""
        modes = np.array([record.mode for record in self.records], dtype=object)
        order = [mode for mode, _ in Counter(modes[self.readable].tolist()).most_common()]
        return {
            name: {mode: int(((modes == mode) & (column == 1)).sum()) for mode in order}
            for name, column in zip(self.table.classes, self.table.targets.T, strict=True)
        }

    def files(self, rows: Iterable[int]) -> tuple[str, ...]:
        """The paths of some rows, each once."""
        return tuple(dict.fromkeys(self.table.paths[row] for row in rows))

    def crossed(self, rows: Sequence[int]) -> str:
        """In which splits of which folds the rows stand, where they stand in several of one fold; else ""."""
        found: dict[str, list[int]] = {}
        for fold, split in zip(self.folds, self._splits[:, list(rows)], strict=True):
            names = [name for name in ("train", "val", "test") if (split == name).any()]
            if len(names) > 1:
                found.setdefault(" and ".join(names), []).append(fold.number)
        return "; ".join(
            f"{names} of fold{'s' * (len(numbers) > 1)} {shortened(map(str, numbers), 6)}"
            for names, numbers in found.items()
        )

    def contradiction(self, rows: Sequence[int]) -> str:
        """How the labels of images which are one contradict each other, in words; "" where they do not."""
        targets = self.table.targets[list(rows)]
        clashing = ((targets == 0).any(axis=0) & (targets == 1).any(axis=0)).nonzero()[0]
        names = shortened((self.table.classes[column] for column in clashing), 6)
        if not names:
            return ""
        return f"with and without the label {names}" if self.table.task == "multilabel" else f"labelled {names}"


def shortened(names: Iterable[str], limit: int = 3) -> str:
    """Names for a message, the first `limit` of them."""
    names = list(dict.fromkeys(names))
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def counted(number: int, what: str) -> str:
    """A number and its noun: 1 image, 2 images."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
