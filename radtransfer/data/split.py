"""Folds without training: grouped by patient, stratified, and written so that training takes exactly these."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from radtransfer.data.summary import class_counts, split_counts
from radtransfer.datasets import read_table
from radtransfer.datasets.image_table import ImageTable, tell_notes
from radtransfer.datasets.labels import positive_class
from radtransfer.errors import ConfigError
from radtransfer.image_place import FilePart, ImagePlace, file_of
from radtransfer.progress import Progress
from radtransfer.runs import write_rows
from radtransfer.settings import Config
from radtransfer.splits.folds import FOLD_COLUMNS, Fold, assign_folds, fold_notes, fold_rows
from radtransfer.system_errors import writing


@dataclass(frozen=True)
class DataSplit:
    """The folds of a data set.

    Attributes:
        table: The images.
        folds: As training would have them.
        positive_class: Of two classes.
    """

    table: ImageTable
    folds: tuple[Fold, ...]
    positive_class: str | None = None

    @property
    def image_root(self) -> Path | None:
        """The folder below which all paths lead to their images; None where there is no such folder."""
        roots = {_root(path, place) for path, place in zip(self.table.paths, self.table.files, strict=True)}
        return roots.pop() if len(roots) == 1 else None

    @property
    def in_records(self) -> bool:
        """Whether images are parts of larger files, which no path leads to: a CSV needs the files they were made of."""
        return any(isinstance(place, FilePart) and place.length is not None for place in self.table.files)

    def to_dict(self) -> dict[str, Any]:
        """`images`, `patients`, `classes`, `positive_class` and `folds`, as in the report of a data check."""
        patients = None if self.table.patients is None else len(set(self.table.patients))
        return {
            "images": len(set(self.table.paths)),
            "patients": patients,
            "classes": class_counts(self.table),
            "positive_class": self.positive_class,
            "folds": split_counts(self.table, self.folds),
        }


def split_data(config: Config, *, progress: Progress | None = None) -> DataSplit:
    """The folds that `finetune` has with the same settings; images are not decoded.

    Args:
        config: Of which `data`, `splits` and the seed count.
        progress: Hears what is noticed.

    Raises:
        ConfigError: Settings that contradict each other.
        DataError: The table or its splits cannot be used.
    """
    progress = progress or Progress()
    table = read_table(config.data, progress=progress)
    tell_notes(table.notes, progress)
    folds = assign_folds(table, config.splits, seed=config.seed, allow_leakage=config.data.allow_leakage)
    notes = fold_notes(table, config.splits, folds, folds_given="splits.folds" in config.given)
    tell_notes(notes, progress)
    return DataSplit(table, folds, positive_class(table, config.data))


def write_split(split: DataSplit, path: Path) -> None:
    """Write a CSV that training reads as exactly these folds, whole or not at all.

    It has the columns of a run's `folds.csv`: path, label, patient, fold and split; in place of `label`, a table with
    several labels has a column of 1, 0 and -1 (not known) for each. Folds of all repeats are numbered through; a run
    that reads them takes them for one repeat.

    Raises:
        ConfigError: A label is named like another column.
        DiskError, RunError: It cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if split.table.task == "multilabel":
            write_rows(path, _label_header(split.table), _label_rows(split))
        else:
            write_rows(path, FOLD_COLUMNS, fold_rows(split.table, split.folds))


def _label_header(table: ImageTable) -> tuple[str, ...]:
    taken = [name for name in table.classes if name in FOLD_COLUMNS]
    if taken:
        raise ConfigError(f"A label is called {taken[0]!r}, like a column of folds.csv. Rename it in the table.")
    return ("path", *table.classes, "patient", "fold", "split")


def _label_rows(split: DataSplit) -> Iterator[tuple[Any, ...]]:
    table = split.table
    patients = table.patients or ("",) * len(table)
    labels = np.where(np.isnan(table.targets), -1, table.targets).astype(int).tolist()
    for fold in split.folds:
        for path, values, patient, name in zip(table.paths, labels, patients, fold.split, strict=True):
            if name:
                yield path, *values, patient, fold.number, str(name)


def _root(path: str, place: ImagePlace | None) -> Path | None:
    if place is None:
        return None
    if isinstance(place, FilePart) and place.length is None:
        path = path.rpartition("#")[0] or path  # the number of a frame
    file, end = str(file_of(place)), os.path.normpath(path)
    if os.path.isabs(path) or not file.endswith(os.sep + end):  # noqa: PTH117
        return None
    return Path(file[: -len(end) - 1])
