"""Tables of images: a CSV with a row per image, or per image and fold, and folders with a CSV per split.

`sheet.py` finds the columns of path, label, patient, fold and split. A split column alone is one fixed split; a fold
column alone is the fold in which an image is tested; both together are folds as in a run's `folds.csv`, unless every
image has one fold: then the column named by the user is used, else the split. Several 0/1 columns, or several labels in
one cell, are a multi-label set. A missing value (`labels.is_missing`) means no label, fold or split, and an image that
is its own patient.

A folder contains `train_fold1.csv, val_fold1.csv, test_fold1.csv, …`, or `train.csv, val.csv, test.csv`, optionally
with a common prefix (`breast_train_fold1.csv`). A table without a number (`test.csv`) belongs to all folds.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from radtransfer.config.schema import DataSettings
from radtransfer.data.image_files import find_files, is_dangling
from radtransfer.data.labels import (
    BINARY,
    NO_FINDING,
    RowsError,
    binary_cell,
    cell_value,
    check_values,
    clean_cell,
    is_missing,
    joined_labels,
    listed,
    missing_words,
    multilabel_targets,
    one_hot,
    sorted_names,
    split_labels,
)
from radtransfer.data.sheet import EVALUATION, SPLIT_WORDS, Sheet, find_columns, fold_splits, read_sheet, split_names
from radtransfer.data.table import SPELLING_ADVICE, ImageTable, patient_key
from radtransfer.errors import DataError, suggest_path

Labels = tuple[str, ...]


def read_csv(settings: DataSettings, location: str | None = None) -> ImageTable:
    """The images of the CSV file `location`."""
    sheet, folder = open_csv(location)
    return table_from_sheet(sheet, settings, folder=folder)


def open_csv(location: str | None) -> tuple[Sheet, Path]:
    """The rows of the CSV file `location`, and its folder."""
    file = Path(location or "").expanduser()
    if not location or not (file.is_file() or is_dangling(file)):
        found = location or "no file given"
        raise DataError(f"csv_table: {found} is not a file; expected a CSV with a row per image.")
    return read_sheet(file), file.parent


def table_from_sheet(sheet: Sheet, settings: DataSettings, *, folder: Path) -> ImageTable:
    """The table of a sheet whose file is in `folder`."""
    reader = _SheetReader(sheet, settings)
    columns = reader.columns
    label_notes = reader.leave_out_missing()
    patients, patient_notes = reader.patients()
    reader.check_agreement()
    paths = list(reader.rows_of)
    targets, classes, class_notes = reader.targets()
    files, file_notes = find_files(
        paths, image_root=settings.image_root, table_folder=folder, outside=settings.outside_root
    )
    index, splits, split_notes = reader.splits()
    return ImageTable(
        paths=tuple(paths[i] for i in index),
        files=tuple(files[i] for i in index),
        targets=targets[index],
        classes=classes,
        task="multilabel" if columns.form in ("several", "separated") else "multiclass",
        patients=None if patients is None else tuple(patients[i] for i in index),
        patients_from="the data set" if columns.patient is None else f"column {sheet.columns[columns.patient]!r}",
        splits=splits,
        notes=(*columns.notes, *label_notes, *class_notes, *patient_notes, *split_notes, *file_notes),
    )


class _SheetReader:
    """A sheet with its columns, the rows of each path, and the labels of each row."""

    def __init__(self, sheet: Sheet, settings: DataSettings):
        self.sheet, self.settings = sheet, settings
        self.columns = find_columns(sheet, settings)
        self.rows_of: dict[str, list[int]] = {}
        for number, row in enumerate(sheet.rows):
            self.rows_of.setdefault(row[self.columns.path].strip(), []).append(number)
        missing = [number for path, numbers in self.rows_of.items() if is_missing(path) for number in numbers]
        if missing:
            found = rows_message(sheet, missing, "have no image path", [self.columns.path])
            raise RowsError(f"{found} Fill them in or remove the rows.", missing)
        self.labels = self._read_labels()

    def _cell_error(self, rows: Sequence[int], column: int | str, what: str, advice: str = "") -> RowsError:
        """The error of invalid cells, with the first of the rows as example."""
        name = repr(self.sheet.columns[column]) if isinstance(column, int) else column
        more = f" {len(rows)} rows have this problem." if len(rows) > 1 else ""
        return RowsError(f"{self.sheet.location(rows[0])}, column {name}: {what}.{more}{advice}", rows)

    def _read_labels(self) -> list[Labels | None]:
        """The labels of each row as a comparable tuple; None if missing."""
        sheet, columns = self.sheet, self.columns
        if columns.form in ("class", "separated"):
            labels, one = [], columns.form == "class"
            for row in sheet.rows:
                cell = row[columns.labels[0]]
                parts = [clean_cell(cell)] if one else split_labels(cell, self.settings.label_separator)
                if self.settings.missing_values == "class":
                    parts = [part or "missing" for part in parts or [""]]
                elif not parts or any(map(is_missing, parts)):
                    labels.append(None)
                    continue
                labels.append(tuple(sorted(part for part in parts if one or part.casefold() not in NO_FINDING)))
            return labels
        rows = [tuple(binary_cell(row[column]) for column in columns.labels) for row in sheet.rows]
        if wrong := [number for number, cells in enumerate(rows) if not BINARY.issuperset(cells)]:
            column = next(i for i, cell in zip(columns.labels, rows[wrong[0]], strict=True) if cell not in BINARY)
            joined = " Several labels in one cell need --label-separator." if len(columns.labels) == 1 else ""
            received = f"expected 1, 0, -1 (uncertain) or nothing, received {sheet.rows[wrong[0]][column]!r}"
            raise self._cell_error(wrong, column, received, joined)
        if columns.form == "several":
            return rows
        names = [sheet.columns[column] for column in columns.labels]
        wrong = [number for number, cells in enumerate(rows) if any(cells) and (cells.count("1") != 1 or "-1" in cells)]
        if wrong:
            cells = rows[wrong[0]]
            more = f" {len(wrong)} rows have this problem." if len(wrong) > 1 else ""
            raise RowsError(
                f"{sheet.location(wrong[0])}: expected 1 in exactly one of the columns {listed(names)}, received "
                f"{cells.count('1')} ones{' and -1' if '-1' in cells else ''}.{more} Correct them, name the "
                "columns with --label-column, or use --task multilabel.",
                wrong,
            )
        return [(names[cells.index("1")],) if any(cells) else None for cells in rows]

    def leave_out_missing(self) -> list[str]:
        """Drop images without a label from `rows_of` if the settings say so, else raise; returns a note."""
        missing = [row for row, label in enumerate(self.labels) if label is None]
        if not missing:
            return []
        if self.settings.missing_values != "drop":
            one_hot = self.columns.form == "one_hot"
            words = "" if one_hot else ", or make a class of them with --missing-values class"
            raise RowsError(
                f"{rows_message(self.sheet, missing, 'have no label', self.columns.labels)} Fill them in, drop "
                f"these images with --missing-values drop{words}.",
                missing,
                kind="missing_labels",
            )
        images = len(self.rows_of)
        self.rows_of = {
            path: rows for path, rows in self.rows_of.items() if any(self.labels[row] is not None for row in rows)
        }
        words = missing_words(self.sheet.rows[row][self.columns.labels[0]] for row in missing)
        if not self.rows_of:
            raise DataError(
                f"No image of {self.sheet.name} has a label ({words}), so --missing-values drop leaves none."
            )
        return [f"missing labels: {images - len(self.rows_of)} images without a label are left out ({words})"]

    def patients(self) -> tuple[Labels | None, list[str]]:
        """The patient of each image, perhaps missing; None without a column or if a guessed column is empty."""
        column = self.columns.patient
        if column is None:
            return None, []
        cells = [row[column] for row in self.sheet.rows]
        if not any(cell.strip() for cell in cells) and self.settings.patient_column is None:
            return None, [f"column {self.sheet.columns[column]!r} is empty and not used"]
        check_patients(self.sheet, column, self.settings)
        of_images = ([cells[row] for row in rows] for rows in self.rows_of.values())
        return tuple(clean_cell(next((c for c in found if not is_missing(c)), found[0])) for found in of_images), []

    def check_agreement(self) -> None:
        """Check that all rows of an image agree on its label and its patient."""
        column, patients = self.columns.patient, []
        if column is not None:
            patients = [(text,) if (text := cell_value(row[column])) else None for row in self.sheet.rows]
        for name, values in (("labels", self.labels), ("patients", patients)):
            clashes = {
                path: rows
                for path, rows in (self.rows_of.items() if values else ())
                if len(rows) > 1 and len({values[row] for row in rows} - {None}) > 1
            }
            if not clashes:
                continue
            what, kind, advice = f"contradictory {name}", f"contradictory_{name}", "Correct the wrong rows."
            if name == "patients" and not self.settings.allow_alike_patients:
                keys = ({patient_key(*values[row]) for row in found if values[row]} for found in clashes.values())
                if all(len(found) == 1 for found in keys):
                    what, kind, advice = "several spellings of one patient", "patients_alike", SPELLING_ADVICE
            path, rows = next(iter(clashes.items()))
            first = {values[row]: row for row in reversed(rows) if values[row] is not None}
            sides = [f"{','.join(value) or 'nothing'} in {self.sheet.location(row)}" for value, row in first.items()]
            count = "1 image has" if len(clashes) == 1 else f"{len(clashes)} images have"
            raise RowsError(
                f"{count} {what}, such as {path!r}: {', '.join(reversed(sides))}. {advice}",
                [row for found in clashes.values() for row in found],
                kind=kind,
            )

    def targets(self) -> tuple[np.ndarray, Labels, Iterable[str]]:
        """Targets, classes, and notes on labels that may be misread."""
        sheet, form = self.sheet, self.columns.form
        rows = [next(row for row in rows if self.labels[row] is not None) for rows in self.rows_of.values()]
        names = [sheet.columns[column] for column in self.columns.labels]
        found = [self.labels[row] for row in rows]
        if form == "several":
            targets, classes = multilabel_targets(
                names,
                found,
                self.settings,
                error=lambda i, what: RowsError(f"{sheet.location(rows[i])}, {what}", [rows[i]]),
            )
            exclusive = len(names) > 1 and all(label.count("1") == 1 and "-1" not in label for label in found)
            note = (
                f"one-hot columns: every image has exactly one of {listed(names)}; if they are mutually exclusive, "
                "use --task multiclass"
            )
            return targets, classes, [note] if exclusive and self.settings.task == "auto" else []
        notes = check_values([name for label in found for name in label] or [""], names[0]) if len(names) == 1 else ()
        if form != "separated":
            joined = joined_labels({label[0] for label in found})
            return *one_hot([label[0] for label in found]), (*notes, *([joined] if joined else ()))
        classes = sorted_names(name for label in found for name in label)
        if not classes:
            raise DataError(f"Column {names[0]!r} of {sheet.name} has no labels: every image has none.")
        targets = np.array([[name in label for name in classes] for label in found], "float32")
        if not any(len(label) > 1 for label in found):
            notes = (*notes, f"no image has several labels separated by {self.settings.label_separator!r}")
        return targets, classes, notes

    def splits(self) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
        """The image of each row of the table, the splits of the rows, and notes."""
        sheet, fold_column, split_columns = self.sheet, self.columns.fold, self.columns.splits
        folds = [""] * len(sheet.rows)
        if fold_column is not None:
            folds = [
                None if fold in ("", "-1") else fold for fold in (cell_value(row[fold_column]) for row in sheet.rows)
            ]
        pairs = list(zip(folds, self._split_cells(), strict=True))
        entries = [[pairs[row] for row in rows] for rows in self.rows_of.values()]
        repeated = sum(len(entry) - len(set(entry)) for entry in entries)
        notes = [f"{repeated} repeated rows of one image with one label counted once"] if repeated else []
        if fold_column is None and not split_columns:
            return np.arange(len(entries)), None, notes
        if fold_column is not None and split_columns:
            notes += self._choose_fold_or_split(entries)
        assigned = [[entry for entry in image if None not in entry] for image in entries]
        names = listed(repr(sheet.columns[i]) for i in (fold_column, *split_columns.values()) if i is not None)
        if not any(assigned):
            raise DataError(f"No image of {sheet.name} has a fold or split (column {names}). Fill it in or remove it.")
        if free := assigned.count([]):
            notes.append(
                f"not assigned: {free} of {len(assigned)} images have no fold or split (column {names}), not used"
            )
        index, splits, folds = fold_splits(assigned)
        if not any(split for image in assigned for _, split in image) and len(folds) < 2:
            raise DataError(
                f"Column {sheet.columns[fold_column]!r} of {sheet.name} has only one fold ({folds[0]}). Expected "
                "two or more: the fold in which each image is tested. Correct or remove it."
            )
        note = "one fixed split, given with the data" if len(folds) == 1 else f"{len(folds)} folds, given with the data"
        if len(folds) > 1 and list(folds) != [str(i + 1) for i in range(len(folds))]:
            note += f" as {listed(folds)}, numbered from 1 in that order"
        return index, splits, [*notes, note]

    def _choose_fold_or_split(self, entries: list[list[tuple]]) -> list[str]:
        """If every image has one fold, keep in `entries` either fold or split: the named one, else the split."""
        settings, columns = self.settings, self.sheet.columns
        folds = {fold for image in entries for fold, _ in image} - {None}
        if len(folds) < 2 or any(len({fold for fold, _ in image} - {None}) > 1 for image in entries):
            return []
        if not {"train", "test"} <= {split for image in entries for _, split in image}:
            return []
        if settings.fold_column and settings.split_column:
            return []
        by_fold = settings.fold_column is not None
        for image in entries:
            image[:] = [(fold, "") if by_fold else ("", split) for fold, split in image]
        used, other = repr(columns[self.columns.fold]), listed(repr(columns[i]) for i in self.columns.splits.values())
        used, other, option = (used, other, "--split-column") if by_fold else (other, used, "--fold-column")
        return [f"split ignored: column {other} is not used, because column {used} is; choose it with {option}"]

    def _split_cells(self) -> list[str | None]:
        """The split of each row: "" without a split column, None if missing."""
        sheet, rows, flags = self.sheet, self.sheet.rows, self.columns.splits
        if not flags:
            return [""] * len(rows)
        if "" in flags:
            column = flags[""]
            cells = [row[column].strip() for row in rows]
            splits = {cell: None if is_missing(cell) else split for cell, split in split_names(set(cells)).items()}
            if wrong := [row for row, cell in enumerate(cells) if splits[cell] is None and not is_missing(cell)]:
                is_fold = cell_value(cells[wrong[0]]).isdigit()
                fold = " If it is a fold, name the column with --fold-column." if is_fold else ""
                received = f"expected train, val or test, received {rows[wrong[0]][column]!r}"
                raise self._cell_error(wrong, column, received, fold)
            return [splits[cell] for cell in cells]
        # Columns such as `is_test`.
        names, columns = list(flags), list(flags.values())
        other = next((split for split in ("train", "test", "val") if split not in flags), None)
        cells = [[binary_cell(row[column]) for column in columns] for row in rows]
        if wrong := [row for row, flags in enumerate(cells) if flags.count("1") > 1 or set(flags) - {"0", "1", ""}]:
            found = listed(repr(rows[wrong[0]][column]) for column in columns)
            expected = f"expected true or false, and true for at most one split, received {found}"
            raise self._cell_error(wrong, listed(repr(sheet.columns[column]) for column in columns), expected)
        return [names[row.index("1")] if "1" in row else other if all(row) else None for row in cells]


def rows_message(sheet: Sheet, rows: Sequence[int], what: str, columns: Sequence[int]) -> str:
    """Rows with a missing value in the columns: how many, which words, and where."""
    places = listed((sheet.location(row) for row in rows), limit=3)
    words = missing_words(sheet.rows[row][columns[0]] for row in rows)
    names = listed((repr(sheet.columns[column]) for column in columns), limit=3)
    return f"{len(rows)} rows {what} (column {names}: {words}): {places}."


def check_patients(sheet: Sheet, column: int, settings: DataSettings) -> None:
    """Raises RowsError for rows without a patient if `settings.missing_patients` is "error"."""
    missing = [row for row, cells in enumerate(sheet.rows) if is_missing(cells[column])]
    if missing and settings.missing_patients == "error":
        raise RowsError(
            f"{rows_message(sheet, missing, 'have no patient', [column])} Fill them in, or let each of these images "
            "be its own patient with --missing-patients own.",
            missing,
            kind="missing_patients",
        )


_WORDS = "|".join([*(word for words in SPLIT_WORDS.values() for word in words), *EVALUATION])
_FILE_NAME = re.compile(
    rf"(?:(?P<prefix>.+)[_-])?(?P<split>{_WORDS})(?:[_-]?fold[_-]?(?P<fold>\d+))?\.(?:csv|tsv|txt)", re.IGNORECASE
)

_FOLD, _SPLIT = "fold of the file", "split of the file"  # columns with fold and split from the file names


class SplitTable(NamedTuple):
    """A file with one split of one fold, or of all folds (`fold` None)."""

    file: Path
    prefix: str
    split: str
    fold: int | None


def read_fold_tables(settings: DataSettings, location: str | None = None) -> ImageTable:
    """The images of all split tables in the folder `location`."""
    sheet, folder = open_fold_tables(location)
    table = table_from_sheet(sheet, fold_columns(settings), folder=folder)
    names = split_names(entry.name for entry in sorted(folder.iterdir()) if entry.is_dir())
    if classes := [name for name, split in names.items() if split]:
        read_files = listed(found.file.name for found in find_split_tables(folder))
        other = f"for the class folders in {listed(classes)}, use --data image_folder:{folder}"
        table = replace(table, notes=(f"read {read_files}; {other}", *table.notes))
    return table


def open_fold_tables(location: str | None) -> tuple[Sheet, Path]:
    """The rows of all split tables in the folder `location` with columns for fold and split, and the folder."""
    folder = Path(location or "").expanduser()
    if not location or not folder.is_dir():
        found = location or "no folder given"
        raise DataError(
            f"fold_directory: {found} is not a folder; expected one with train_fold1.csv ….{suggest_path(folder)}"
        )
    tables = find_split_tables(folder)
    folds = _folds_of(folder, tables)
    sheets = [read_sheet(table.file) for table in tables]
    positions_in = []  # of each column by name and occurrence, since names may repeat
    for sheet in sheets:
        seen: Counter[str] = Counter()
        positions_in.append({})
        for position, name in enumerate(sheet.columns):
            positions_in[-1][name, seen[name]] = position
            seen[name] += 1
    common = [key for key in positions_in[0] if all(key in positions for positions in positions_in)]
    rows, locations = [], []
    for table, sheet, positions in zip(tables, sheets, positions_in, strict=True):
        for fold in folds if table.fold is None else [table.fold]:
            rows += [[*(row[positions[key]] for key in common), str(fold), table.split] for row in sheet.rows]
            locations += sheet.locations
    same = len({sheet.columns for sheet in sheets}) == 1
    name = sheets[0].name if same else f"the common columns of the tables in {folder}"
    return Sheet(name, (*(column for column, _ in common), _FOLD, _SPLIT), rows, locations), folder


def fold_columns(settings: DataSettings) -> DataSettings:
    """`settings` with the columns that `open_fold_tables` adds for fold and split."""
    return replace(settings, fold_column=_FOLD, split_column=_SPLIT)


def find_split_tables(folder: Path) -> list[SplitTable]:
    """The files directly in `folder` that are named after a split, sorted."""
    matches = {file: _FILE_NAME.fullmatch(file.name) for file in sorted(folder.iterdir()) if file.name[0] != "."}
    found = {file: match for file, match in matches.items() if match and (file.is_file() or is_dangling(file))}
    splits = split_names(match["split"] for match in found.values())
    return [
        SplitTable(file, (match["prefix"] or "").lower(), splits[match["split"]], match["fold"] and int(match["fold"]))
        for file, match in found.items()
    ]


def _folds_of(folder: Path, tables: Sequence[SplitTable]) -> list[int]:
    """The sorted fold numbers ([1] without numbers), checked to have one table per split each."""
    if not any(table.split == "train" for table in tables):
        raise DataError(f"{folder} has no train_fold1.csv or train.csv.")
    prefixes = sorted({table.prefix for table in tables})
    if len(prefixes) > 1:
        names = listed(prefix or "(no prefix)" for prefix in prefixes)
        raise DataError(f"{folder} has tables of several data sets: {names}. Put each into its own folder.")
    folds = sorted({table.fold for table in tables if table.fold is not None}) or [1]
    splits = sorted({table.split for table in tables})
    for fold, split in ((fold, split) for fold in folds for split in splits):
        found = [table.file.name for table in tables if table.split == split and table.fold in (fold, None)]
        if not found:
            add = f"Add {split}_fold{fold}.csv, or remove the fold."
            raise DataError(f"{folder} has {split} tables, but none for fold {fold}. {add}")
        if len(found) > 1:
            raise DataError(f"{folder} has several {split} tables for fold {fold}: {', '.join(found)}. Keep one.")
    return folds
