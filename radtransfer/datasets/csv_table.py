"""A delimited text file: a row per image, or a row per image and fold.

`columns.py` finds the columns for path, label, patient, fold and split. A `split` column is one fixed split;
a `fold` column alone says in which fold an image is test; both together are folds, as in a run's `folds.csv`.
Several 0/1 label columns make a multi-label set.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from radtransfer.datasets.columns import Columns, find_columns
from radtransfer.datasets.image_files import find_files, is_dangling
from radtransfer.datasets.image_table import ImageTable
from radtransfer.datasets.labels import listed, multilabel_targets, one_hot, plain
from radtransfer.datasets.sheet import RowsError, Sheet, read_sheet
from radtransfer.datasets.splits import place_images, split_name
from radtransfer.errors import DataError
from radtransfer.settings import DataSettings


def read(settings: DataSettings, location: str | None = None) -> ImageTable:
    """The images of the file `location`.

    Raises:
        DataError: Not a table of images; says in which line and column.
    """
    sheet, folder = open_sheet(location)
    return table_from_sheet(sheet, settings, folder=folder)


def open_sheet(location: str | None) -> tuple[Sheet, Path]:
    """The rows of the file `location`, and the folder it stands in.

    Raises:
        DataError: Not a table.
    """
    file = Path(location or "").expanduser()
    if not location or not (file.is_file() or is_dangling(file)):
        found = location or "no file given"
        raise DataError(f"csv_table: {found} is not a file; expected a CSV with a row per image.")
    return read_sheet(file), file.parent


def table_from_sheet(sheet: Sheet, settings: DataSettings, *, folder: Path) -> ImageTable:
    """The images of a sheet that stands in `folder`, a row per image.

    Raises:
        DataError: A column is missing, or a cell is empty, contradicts another or holds what it should not.
    """
    columns = find_columns(sheet, settings)
    rows_of = _rows_by_path(sheet, columns)
    _check_agreement(sheet, columns, rows_of)
    paths, firsts = list(rows_of), [rows[0] for rows in rows_of.values()]
    targets, classes = _targets(sheet, columns, firsts, settings)
    patients, patient_notes = _patients(sheet, columns, firsts, named=settings.patient_column is not None)
    files, file_notes = find_files(
        paths, image_root=settings.image_root, table_folder=folder, outside=settings.outside_root
    )
    index, splits, split_notes = _placed(sheet, columns, rows_of)
    return ImageTable(
        paths=tuple(paths[i] for i in index),
        files=tuple(files[i] for i in index),
        targets=targets[index],
        classes=classes,
        task="multilabel" if columns.multilabel else "multiclass",
        patients=None if patients is None else tuple(patients[i] for i in index),
        splits=splits,
        notes=columns.notes + patient_notes + split_notes + file_notes,
    )


def _rows_by_path(sheet: Sheet, columns: Columns) -> dict[str, list[int]]:
    rows_of: dict[str, list[int]] = {}
    for number, row in enumerate(sheet.rows):
        rows_of.setdefault(row[columns.path].strip(), []).append(number)
    if "" in rows_of:
        raise RowsError(_rows_message(sheet, rows_of[""], "have no image path", columns.path), rows_of[""])
    return rows_of


def _rows_message(sheet: Sheet, rows: Sequence[int], what: str, column: int) -> str:
    places = listed((sheet.place(row) for row in rows), limit=3)
    column_name = sheet.columns[column]
    return f"{len(rows)} rows {what} (column {column_name!r}): {places}. Fill them in or remove the rows."


def _check_agreement(sheet: Sheet, columns: Columns, rows_of: dict[str, list[int]]) -> None:
    """All rows of an image give it the same labels and the same patient."""
    held = [("labels", columns.labels)]
    if columns.patient is not None:
        held.append(("patients", (columns.patient,)))
    for what, cells in held:
        clashes = []
        for path, rows in rows_of.items():
            if len(rows) > 1 and len({_cells(sheet, row, cells) for row in rows}) > 1:
                clashes.append((path, rows))
        if clashes:
            rows = [row for _, rows in clashes for row in rows]
            raise RowsError(_clash_message(sheet, cells, what, clashes), rows, kind=f"contradictory_{what}")


def _cells(sheet: Sheet, row: int, columns: Sequence[int]) -> tuple[str, ...]:
    return tuple(plain(sheet.rows[row][column]) for column in columns)


def _clash_message(sheet: Sheet, cells: Sequence[int], what: str, clashes: Sequence[tuple[str, list[int]]]) -> str:
    path, rows = clashes[0]
    values = {_cells(sheet, row, cells): row for row in reversed(rows)}
    sides = [f"{','.join(value) or 'nothing'} in {sheet.place(row)}" for value, row in values.items()]
    count = "1 image has" if len(clashes) == 1 else f"{len(clashes)} images have"
    found = ", ".join(reversed(sides))
    return f"{count} contradictory {what}, such as {path!r}: {found}. Correct the wrong rows."


def _targets(
    sheet: Sheet, columns: Columns, rows: Sequence[int], settings: DataSettings
) -> tuple[np.ndarray, tuple[str, ...]]:
    if columns.multilabel:
        names = [sheet.columns[column] for column in columns.labels]
        cells = [[sheet.rows[row][column] for column in columns.labels] for row in rows]
        return multilabel_targets(
            names, cells, settings, error=lambda i, what: RowsError(f"{sheet.place(rows[i])}, {what}", [rows[i]])
        )
    labels = [plain(sheet.rows[row][columns.labels[0]]) for row in rows]
    empty = [row for row, label in zip(rows, labels, strict=True) if not label]
    if empty:
        raise RowsError(
            _rows_message(sheet, empty, "have no label", columns.labels[0])
            + " In 0/1 columns of --task multilabel they may be empty.",
            empty,
        )
    return one_hot(labels)


def _patients(
    sheet: Sheet, columns: Columns, rows: Sequence[int], *, named: bool
) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """The patients; None where there is no column, or a guessed one is empty (a run's `folds.csv`)."""
    if columns.patient is None:
        return None, ()
    patients = tuple(plain(sheet.rows[row][columns.patient]) for row in rows)
    empty = [row for row, patient in zip(rows, patients, strict=True) if not patient]
    if len(empty) == len(rows) and not named:
        return None, (f"column {sheet.columns[columns.patient]!r} is empty and not used",)
    if empty:
        raise RowsError(_rows_message(sheet, empty, "have no patient", columns.patient), empty)
    return patients, ()


def _placed(
    sheet: Sheet, columns: Columns, rows_of: dict[str, list[int]]
) -> tuple[np.ndarray, np.ndarray | None, tuple[str, ...]]:
    """The image of each row of the table to be, its splits, and notes about them."""
    entries = [[_entry(sheet, columns, row) for row in rows] for rows in rows_of.values()]
    repeated = sum(len(entry) - len(set(entry)) for entry in entries)
    notes = (f"{repeated} repeated rows of one image with one label counted once",) if repeated else ()
    if columns.fold is None and columns.split is None:
        return np.arange(len(rows_of)), None, notes
    index, splits, folds = place_images(entries)
    if columns.fold is not None and columns.split is None and len(folds) < 2:
        raise DataError(
            f"Column {sheet.columns[columns.fold]!r} of {sheet.name} holds one fold only ({folds[0]}); it "
            "says in which fold an image is tested, so two or more are needed. Correct or remove it."
        )
    return index, splits, (*notes, _split_note(folds))


def _entry(sheet: Sheet, columns: Columns, row: int) -> tuple[str, str]:
    """The fold and split that a row names, "" for what it has no column for."""
    fold = plain(sheet.rows[row][columns.fold]) if columns.fold is not None else ""
    if columns.fold is not None and not fold:
        raise RowsError(f"{sheet.place(row)}, column {sheet.columns[columns.fold]!r}: no fold. Fill it in.", [row])
    if columns.split is None:
        return fold, ""
    text = sheet.rows[row][columns.split]
    split = split_name(text)
    if split is None:
        raise RowsError(
            f"{sheet.place(row)}, column {sheet.columns[columns.split]!r}: expected train, val or test, "
            f"received {text!r}.",
            [row],
        )
    return fold, split


def _split_note(folds: Sequence[str]) -> str:
    if len(folds) == 1:
        return "one fixed split, given with the data"
    if list(folds) == [str(i + 1) for i in range(len(folds))]:
        return f"{len(folds)} folds, given with the data"
    return f"{len(folds)} folds, given with the data as {listed(folds)}, numbered from 1 in that order"
