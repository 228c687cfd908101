"""A folder of `train_fold1.csv, val_fold1.csv, test_fold1.csv, …`, or of `train.csv, val.csv, test.csv`.

File names may share a prefix (`breast_train_fold1.csv`). A table without number (`test.csv`) is in all folds.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from radtransfer.datasets.csv_table import table_from_sheet
from radtransfer.datasets.image_files import is_dangling
from radtransfer.datasets.image_table import ImageTable
from radtransfer.datasets.labels import listed
from radtransfer.datasets.sheet import Sheet, read_sheet
from radtransfer.datasets.splits import EVALUATION, SPLIT_WORDS, split_names
from radtransfer.errors import DataError
from radtransfer.near_path import near_path
from radtransfer.settings import DataSettings

_WORDS = "|".join([*(word for words in SPLIT_WORDS.values() for word in words), *EVALUATION])
_FILE_NAME = re.compile(
    rf"(?:(?P<prefix>.+)[_-])?(?P<split>{_WORDS})(?:[_-]?fold[_-]?(?P<fold>\d+))?\.(?:csv|tsv|txt)", re.IGNORECASE
)

_FOLD, _SPLIT = "fold of the file", "split of the file"
"""Columns that say what the file names do."""


@dataclass(frozen=True)
class SplitTable:
    """A file that holds one split of one fold, or of all folds (fold None)."""

    file: Path
    prefix: str
    split: str
    fold: int | None


def read(settings: DataSettings, location: str | None = None) -> ImageTable:
    """The images of all tables in the folder `location`, with a split per fold.

    Raises:
        DataError: No such tables, one is missing, or they contradict each other.
    """
    sheet, folder = open_sheet(location)
    table = table_from_sheet(sheet, own_columns(settings), folder=folder)
    return replace(table, notes=_notes(folder, find_split_tables(folder)) + table.notes)


def open_sheet(location: str | None) -> tuple[Sheet, Path]:
    """The rows of all tables in the folder `location`, with their fold and split, and the folder.

    Raises:
        DataError: No such tables, or one is missing.
    """
    folder = Path(location or "").expanduser()
    if not location or not folder.is_dir():
        found = location or "no folder given"
        raise DataError(
            f"fold_directory: {found} is not a folder; expected one with train_fold1.csv ….{near_path(folder)}"
        )
    tables = find_split_tables(folder)
    return _combined(folder, tables, _check_tables(folder, tables)), folder


def own_columns(settings: DataSettings) -> DataSettings:
    """The settings that read the sheet of `open_sheet`: the file names give fold and split."""
    return replace(settings, fold_column=_FOLD, split_column=_SPLIT)


def find_split_tables(folder: Path) -> list[SplitTable]:
    """The files directly in `folder` whose names say that they hold a split, sorted."""
    matches = {file: _FILE_NAME.fullmatch(file.name) for file in sorted(folder.iterdir()) if file.name[0] != "."}
    found = {file: match for file, match in matches.items() if match and (file.is_file() or is_dangling(file))}
    splits = split_names(match["split"] for match in found.values())
    return [
        SplitTable(
            file, (match["prefix"] or "").lower(), splits[match["split"]], int(match["fold"]) if match["fold"] else None
        )
        for file, match in found.items()
    ]


def _check_tables(folder: Path, tables: Sequence[SplitTable]) -> list[int]:
    """The numbers of the folds, sorted; one 1 where files have no numbers.

    Raises:
        DataError: No train table, tables of several data sets, a table missing or one too many.
    """
    if not any(table.split == "train" for table in tables):
        raise DataError(f"{folder} has no train_fold1.csv or train.csv.")
    prefixes = sorted({table.prefix for table in tables})
    if len(prefixes) > 1:
        names = listed(prefix or "(no prefix)" for prefix in prefixes)
        raise DataError(f"{folder} holds tables of several data sets: {names}. Give each its own folder.")
    folds = sorted({table.fold for table in tables if table.fold is not None}) or [1]
    splits = {table.split for table in tables}
    for fold in folds:
        for split in sorted(splits):
            _check_one(folder, tables, split, fold)
    return folds


def _check_one(folder: Path, tables: Sequence[SplitTable], split: str, fold: int) -> None:
    """Each fold has one table for each split that any fold has."""
    found = [table.file.name for table in tables if table.split == split and table.fold in (fold, None)]
    if not found:
        raise DataError(
            f"{folder} has {split} tables, but none for fold {fold}. Add {split}_fold{fold}.csv, or remove the fold."
        )
    if len(found) > 1:
        raise DataError(f"{folder} has several {split} tables for fold {fold}: {', '.join(found)}. Keep one.")


def _combined(folder: Path, tables: Sequence[SplitTable], folds: Sequence[int]) -> Sheet:
    """One sheet of the columns that all tables have, and a column each for fold and split."""
    sheets = [read_sheet(table.file) for table in tables]
    positions_in = [_positions(sheet.columns) for sheet in sheets]
    common = [key for key in positions_in[0] if all(key in positions for positions in positions_in)]
    rows, places = [], []
    for table, sheet, position in zip(tables, sheets, positions_in, strict=True):
        positions = [position[key] for key in common]
        for fold in folds if table.fold is None else [table.fold]:
            rows += [[*(row[i] for i in positions), str(fold), table.split] for row in sheet.rows]
            places += sheet.places
    alike = len({sheet.columns for sheet in sheets}) == 1
    name = sheets[0].name if alike else f"what all tables in {folder} share"
    return Sheet(name, (*(column for column, _ in common), _FOLD, _SPLIT), rows, places)


def _positions(columns: Sequence[str]) -> dict[tuple[str, int], int]:
    """Where each column stands, by its name and by which of those of that name it is."""
    seen: Counter[str] = Counter()
    positions = {}
    for position, name in enumerate(columns):
        positions[name, seen[name]] = position
        seen[name] += 1
    return positions


def _notes(folder: Path, tables: Sequence[SplitTable]) -> tuple[str, ...]:
    names = split_names(entry.name for entry in sorted(folder.iterdir()) if entry.is_dir())
    classes = [name for name, split in names.items() if split]
    if not classes:
        return ()
    read_files = listed(table.file.name for table in tables)
    other = f"to take classes from the folders {listed(classes)}, use --data image_folder:{folder}"
    return (f"read {read_files}; {other}",)
