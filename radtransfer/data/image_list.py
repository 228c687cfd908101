"""A folder of `train_fold1.csv, val_fold1.csv, test_fold1.csv, …`, or of `train.csv, val.csv, test.csv`.

File names may share a prefix (`breast_train_fold1.csv`). A table without number (`test.csv`) is in all folds.

Images for what needs no labels: named one by one, by folders or by tables.

Read what can be read of a data set whose table has mistakes, and say what they are.

`read_table` stops at the first mistake, as training must; a check wants them all.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from radtransfer.config.schema import DataSettings
from radtransfer.data import csv as csv_table
from radtransfer.data.csv import table_from_sheet, with_frames
from radtransfer.data.image_files import find_files, is_dangling, is_dicom_file, is_image_name, unread_note, walk_files
from radtransfer.data.labels import RowsError, check_labels, listed, plain
from radtransfer.data.readers import (
    DATASETS,
    check_column_settings,
    check_folder,
    check_patient_settings,
    check_places,
    find_dataset,
    read_table,
)
from radtransfer.data.sheet import (
    EVALUATION,
    SPLIT_WORDS,
    Sheet,
    find_columns,
    find_image_columns,
    read_sheet,
    split_names,
)
from radtransfer.data.table import ImageTable, patient_id_errors, with_header_patients, with_patients
from radtransfer.errors import DataError, near_path
from radtransfer.images.files import format_by_name
from radtransfer.images.refs import ImagePlace
from radtransfer.process import Progress

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


TABLES = (".csv", ".tsv")
"""How the name of a table ends."""

_Image = tuple[str, ImagePlace | None, str]
"""Path as it was named or as the table writes it, place, and patient; "" where that is not known."""


def list_images(names: Sequence[str], settings: DataSettings, *, unread: bool = True) -> ImageTable:
    """Every image of the files, folders and tables in `names`, each path once; a table without classes.

    Args:
        names: Images, folders that are searched with all below them, and CSV files with a column of paths.
        settings: Of which those count that say how paths, patients and frames are found.
        unread: Whether files of folders in a format that is known and not read are listed, to fail by name; else a note
            counts them.

    Raises:
        DataError: A name is neither, a folder holds no image, or a table has no column of paths.
    """
    notes: list[str] = []
    images = [image for name in names for image in _images_of(name, settings, notes, unread=unread)]
    return _table(images, notes, settings)


def read_images(settings: DataSettings, *, progress: Progress | None = None) -> ImageTable:
    """Every image of the data set that `settings.source` names; without classes where its labels cannot be read.

    Raises:
        ConfigError: No source, or settings that contradict each other.
        DataError: Nothing usable is there, or labels that the settings ask for.
    """
    try:
        return read_table(settings, progress=progress)
    except DataError as error:
        refused = error
    name, location = find_dataset(settings.source, progress)
    of_more = any(word in getattr(refused, "kind", "") for word in ("patients", "links"))
    if settings.label_column or of_more or name not in ("csv_table", "fold_directory", "image_folder"):
        raise refused
    reason = str(refused).split(". ")[0].removesuffix(".")
    notes, origin = [f"read without labels: {reason}"], "the data set"
    try:
        if name == "image_folder" or _is_image(Path(location)):
            images = list(_images_of(location, settings, notes, unread=False))
        else:
            opened = csv_table.open_sheet if name == "csv_table" else open_sheet
            sheet, folder = opened(location)
            images = list(_in_sheet(sheet, folder, settings, notes))
            column = find_image_columns(sheet, settings)[1]
            origin = origin if column is None else f"column {sheet.columns[column]!r}"
        table = _table(images, notes, settings)
        table = replace(table, patients_from=origin, alike_patients=settings.allow_alike_patients)
        table = with_patients(with_header_patients(table, settings), settings)
        for error in patient_id_errors(table):
            raise error
    except DataError as error:
        raise (error if "patients" in getattr(error, "kind", "") else refused) from None
    return table


def _table(images: Iterable[_Image], notes: Sequence[str], settings: DataSettings) -> ImageTable:
    found: dict[str, _Image] = {}
    for image in images:
        found.setdefault(image[0], image)
    _check_names(found)
    paths, files, patients = zip(*found.values(), strict=True)
    own = tuple(patient or path for path, patient in zip(paths, patients, strict=True))
    table = ImageTable(
        paths=paths,
        files=files,
        targets=np.zeros((len(paths), 0), "float32"),
        classes=(),
        task="multiclass",
        patients=own if any(patients) else None,
        notes=tuple(notes),
    )
    return with_frames(table, settings)


def _check_names(paths: Iterable[str]) -> None:
    """Every output is UTF-8 and holds the path."""
    for path in paths:
        try:
            path.encode()
        except UnicodeEncodeError:
            raise DataError(f"The file name {path!r} is not valid Unicode. Rename it.") from None


def _images_of(name: str, settings: DataSettings, notes: list[str], *, unread: bool) -> Iterator[_Image]:
    path = Path(name).expanduser()
    if path.is_dir():
        yield from _in_folder(name, path, settings, notes, unread=unread)
    elif path.suffix.lower() in TABLES and path.is_file():
        yield from _in_sheet(read_sheet(path), path.parent, settings, notes)
    else:
        (place,), _ = (
            find_files([str(path)], image_root=None, table_folder=Path()) if _is_there(path) else ((None,), ())
        )
        if place is None:
            raise DataError(f"No image at {name}. Expected images, folders of images, or a CSV with a column of paths.")
        yield name, place, ""


def _is_there(path: Path) -> bool:
    """Whether the file, or a link to it, is there, or that of which `path` names a frame (`x.dcm#3`)."""
    return path.is_file() or is_dangling(path) or Path(str(path).rpartition("#")[0]).is_file()


def _is_image(path: Path) -> bool:
    return is_image_name(path.name) or is_dicom_file(path)


def _in_sheet(sheet: Sheet, folder: Path, settings: DataSettings, notes: list[str]) -> Iterator[_Image]:
    """The images of a table, each with the patient that its first row gives it."""
    column, patient = find_image_columns(sheet, settings)
    if patient is not None:
        csv_table.check_patients(sheet, patient, settings)
    patients = {row[column].strip(): plain(row[patient]) if patient is not None else "" for row in reversed(sheet.rows)}
    paths = [path for path in dict.fromkeys(row[column].strip() for row in sheet.rows) if path]
    places, found = find_files(
        paths, image_root=settings.image_root, table_folder=folder, outside=settings.outside_root
    )
    notes += found
    yield from ((path, place, patients[path]) for path, place in zip(paths, places, strict=True))


def _in_folder(name: str, folder: Path, settings: DataSettings, notes: list[str], *, unread: bool) -> Iterator[_Image]:
    files = walk_files(folder, outside=settings.outside_root)
    others = [file for file in files if format_by_name(file.rpartition("/")[2])]
    images = [file for file in files if is_image_name(file.rpartition("/")[2]) or is_dicom_file(folder / file)]
    note = unread_note(others)
    if unread:
        images = sorted({*images, *others})
    elif note:
        notes.append(note)
    if not images:
        found = f" Found: {note}." if note else ""
        raise DataError(f"{name} holds no images. Expected image files in it or in folders below it.{found}")
    for file in images:
        path = folder / file
        yield (str(Path(name) / file)), path.absolute(), ""


_SHEETS: dict[str, Callable[[str | None], tuple[Sheet, Path]]] = {
    "csv_table": csv_table.open_sheet,
    "fold_directory": open_sheet,
}


@dataclass(frozen=True)
class Mistake:
    """What `read_table` would refuse.

    Attributes:
        message: In words.
        kind: "table", or more exactly "contradictory_labels", "contradictory_patients", "missing_labels",
            "missing_patients", "label_column", "patients_alike" or "patients_rounded".
        paths: Of the images it is about, if it is about some.
        places: Where each of them is, None where it was not found.
    """

    message: str
    kind: str = "table"
    paths: tuple[str, ...] = ()
    places: tuple[ImagePlace | None, ...] = ()


def read_leniently(
    settings: DataSettings, *, progress: Progress | None = None
) -> tuple[ImageTable | None, list[Mistake]]:
    """The images of a data set without the rows that are mistaken; None where nothing can be made of it.

    Raises:
        ConfigError: No source, or settings that contradict each other.
    """
    check_patient_settings(settings)
    mistakes: list[Mistake] = []
    try:
        name, location = find_dataset(settings.source, progress)
        check_column_settings(settings, name)
        check_folder(name, location, settings)
        if name in _SHEETS:
            own = own_columns(settings) if name == "fold_directory" else settings
            table = _without_mistaken_rows(*_SHEETS[name](location), own, mistakes)
        else:
            table = DATASETS[name](settings, location)
        check_places(table, name, location, settings)
    except DataError as error:
        return None, [*mistakes, Mistake(str(error), getattr(error, "kind", "table"))]
    try:
        table = replace(table, notes=table.notes + check_labels(table, settings))
    except DataError as error:
        mistakes.append(Mistake(str(error)))
    table = with_header_patients(replace(table, alike_patients=settings.allow_alike_patients), settings)
    try:
        table = with_patients(table, settings)
    except DataError as error:
        mistakes.append(Mistake(str(error)))
    places = dict(zip(table.paths, table.files, strict=True))
    for error in patient_id_errors(table):
        mistakes.append(Mistake(str(error), error.kind, error.paths, tuple(places[path] for path in error.paths)))
    return with_frames(table, settings), mistakes


def _without_mistaken_rows(sheet: Sheet, folder: Path, settings: DataSettings, mistakes: list[Mistake]) -> ImageTable:
    """The table of the other rows; adds to `mistakes`.

    Raises:
        DataError: It is the table that is mistaken, or all of its rows.
    """
    while True:
        try:
            return table_from_sheet(sheet, settings, folder=folder)
        except RowsError as error:
            if not error.rows:
                raise
            paths = _paths(sheet, settings, error.rows)
            mistakes.append(Mistake(str(error), error.kind, paths, _places(paths, folder, settings)))
            sheet = sheet.without(set(error.rows))
            if not sheet.rows:
                raise DataError(f"No row of {sheet.name} is left: each has a mistake.") from None


def _paths(sheet: Sheet, settings: DataSettings, rows: tuple[int, ...]) -> tuple[str, ...]:
    """The paths in some rows, each once."""
    column = find_columns(sheet, settings).path
    paths = dict.fromkeys(sheet.rows[row][column].strip() for row in rows)
    return tuple(path for path in paths if path)


def _places(paths: tuple[str, ...], folder: Path, settings: DataSettings) -> tuple[ImagePlace | None, ...]:
    try:
        where = {"image_root": settings.image_root, "table_folder": folder, "outside": settings.outside_root}
        return tuple(find_files(paths, **where)[0])
    except DataError:  # ambiguous, and said so when the other rows are read
        return (None,) * len(paths)
