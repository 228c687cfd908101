"""A delimited text file: a row per image, or a row per image and fold.

`columns.py` finds the columns for path, label, patient, fold and split. A `split` column is one fixed split;
a `fold` column alone says in which fold an image is test; both together are folds, as in a run's `folds.csv`, unless
every image has one fold: then the one that the user named counts, else the split.
Several 0/1 label columns make a multi-label set, and so do several labels in one cell.

A cell without a value (`labels.is_missing`) is no label, an image that is its own patient, no fold and no split.

`--frames all`: every frame of a file with several becomes an image of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from radtransfer.config.schema import DataSettings
from radtransfer.data.image_files import find_files, is_dangling, is_dicom_file
from radtransfer.data.labels import (
    BINARY,
    NO_FINDING,
    RowsError,
    check_values,
    is_missing,
    joined_labels,
    listed,
    missing_words,
    multilabel_targets,
    one_hot,
    plain,
    separated,
    sorted_names,
    written,
    zero_one,
)
from radtransfer.data.sheet import Columns, Sheet, find_columns, place_images, read_sheet, split_names
from radtransfer.data.table import ALIKE_ADVICE, ImageTable, patient_key
from radtransfer.errors import BadImageError, DataError
from radtransfer.images.files import MOST_FRAMES
from radtransfer.images.formats import count_frames
from radtransfer.images.refs import FilePart, ImagePlace
from radtransfer.process import all_in_parallel


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
    labels = _labels(sheet, columns, settings)
    label_notes = _leave_out_missing(sheet, columns, labels, rows_of, settings)
    patients, patient_notes = _patients(sheet, columns, rows_of, settings)
    _check_agreement(sheet, columns, rows_of, labels, settings)
    paths = list(rows_of)
    targets, classes, more_notes = _targets(sheet, columns, rows_of, labels, settings)
    files, file_notes = find_files(
        paths, image_root=settings.image_root, table_folder=folder, outside=settings.outside_root
    )
    index, splits, split_notes = _placed(sheet, columns, rows_of, settings)
    return ImageTable(
        paths=tuple(paths[i] for i in index),
        files=tuple(files[i] for i in index),
        targets=targets[index],
        classes=classes,
        task="multilabel" if columns.form in ("several", "separated") else "multiclass",
        patients=None if patients is None else tuple(patients[i] for i in index),
        patients_from="the data set" if columns.patient is None else f"column {sheet.columns[columns.patient]!r}",
        splits=splits,
        notes=columns.notes + label_notes + more_notes + patient_notes + split_notes + file_notes,
    )


def _rows_by_path(sheet: Sheet, columns: Columns) -> dict[str, list[int]]:
    rows_of: dict[str, list[int]] = {}
    for number, row in enumerate(sheet.rows):
        rows_of.setdefault(row[columns.path].strip(), []).append(number)
    missing = [number for path, numbers in rows_of.items() if is_missing(path) for number in numbers]
    if missing:
        raise RowsError(
            f"{_rows_message(sheet, missing, 'have no image path', [columns.path])} Fill them in or remove the rows.",
            missing,
        )
    return rows_of


def _rows_message(sheet: Sheet, rows: Sequence[int], what: str, columns: Sequence[int]) -> str:
    places = listed((sheet.place(row) for row in rows), limit=3)
    words = missing_words(sheet.rows[row][columns[0]] for row in rows)
    names = listed((repr(sheet.columns[column]) for column in columns), limit=3)
    return f"{len(rows)} rows {what} (column {names}: {words}): {places}."


def _labels(sheet: Sheet, columns: Columns, settings: DataSettings) -> list[tuple[str, ...] | None]:
    """What each row says of the labels, comparable between rows; None where the label is missing."""
    if columns.form in ("class", "separated"):
        return [_label(row[columns.labels[0]], columns, settings) for row in sheet.rows]
    rows = [tuple(zero_one(row[column]) for column in columns.labels) for row in sheet.rows]
    for number, (cells, row) in enumerate(zip(rows, sheet.rows, strict=True)):
        if not BINARY.issuperset(cells):
            wrong = [i for i, cells in enumerate(rows) if not BINARY.issuperset(cells)]
            column = next(i for i, cell in zip(columns.labels, cells, strict=True) if cell not in BINARY)
            joined = " Several labels in one cell need --label-separator." if len(columns.labels) == 1 else ""
            raise RowsError(
                f"{sheet.place(number)}, column {sheet.columns[column]!r}: expected 1, 0, -1 (uncertain) or nothing, "
                f"received {row[column]!r}.{_more(wrong)}{joined}",
                wrong,
            )
    if columns.form == "several":
        return rows
    names = [sheet.columns[column] for column in columns.labels]
    wrong = [number for number, cells in enumerate(rows) if any(cells) and (cells.count("1") != 1 or "-1" in cells)]
    if wrong:
        cells = rows[wrong[0]]
        raise RowsError(
            f"{sheet.place(wrong[0])}: expected 1 in exactly one of the columns {listed(names)}, received "
            f"{cells.count('1')} ones{' and -1' if '-1' in cells else ''}.{_more(wrong)} Correct them, name the "
            "columns with --label-column, or use --task multilabel.",
            wrong,
        )
    return [(names[cells.index("1")],) if any(cells) else None for cells in rows]


def _label(cell: str, columns: Columns, settings: DataSettings) -> tuple[str, ...] | None:
    parts = separated(cell, settings.label_separator) if columns.form == "separated" else [written(cell)]
    if settings.missing_values == "class":
        parts = [part or "missing" for part in parts or [""]]
    elif not parts or any(map(is_missing, parts)):
        return None
    return tuple(sorted(part for part in parts if columns.form == "class" or part.casefold() not in NO_FINDING))


def _more(rows: Sequence[int]) -> str:
    return f" {len(rows)} rows are like this." if len(rows) > 1 else ""


def _leave_out_missing(
    sheet: Sheet,
    columns: Columns,
    labels: list[tuple[str, ...] | None],
    rows_of: dict[str, list[int]],
    settings: DataSettings,
) -> tuple[str, ...]:
    """Refuse rows without a label, or take images without any from `rows_of`; gives a note about them."""
    missing = [row for row, label in enumerate(labels) if label is None]
    if not missing:
        return ()
    if settings.missing_values != "drop":
        one_hot = columns.form == "one_hot"
        words = "" if one_hot else ", or let these words be classes with --missing-values class"
        raise RowsError(
            f"{_rows_message(sheet, missing, 'have no label', columns.labels)} Fill them in, or leave these images out "
            f"with --missing-values drop{words}.",
            missing,
            kind="missing_labels",
        )
    unlabelled = [path for path, rows in rows_of.items() if all(labels[row] is None for row in rows)]
    for path in unlabelled:
        del rows_of[path]
    words = missing_words(sheet.rows[row][columns.labels[0]] for row in missing)
    if not rows_of:
        raise DataError(f"No image of {sheet.name} has a label ({words}): none is left after --missing-values drop.")
    return (f"missing labels: {len(unlabelled)} images without a label are left out ({words})",)


def _check_agreement(
    sheet: Sheet,
    columns: Columns,
    rows_of: dict[str, list[int]],
    labels: Sequence[tuple[str, ...] | None],
    settings: DataSettings,
) -> None:
    """All rows of an image that know its label or its patient give it the same."""
    patients = (
        [(text,) if (text := plain(row[columns.patient])) else None for row in sheet.rows]
        if columns.patient is not None
        else []
    )
    for what, said in (("labels", labels), ("patients", patients)):
        clashes = []
        for path, rows in rows_of.items() if said else ():
            if len(rows) > 1 and len({said[row] for row in rows} - {None}) > 1:
                clashes.append((path, rows))
        if clashes:
            rows = [row for _, rows in clashes for row in rows]
            if what == "patients" and not settings.allow_alike_patients and _only_spelt_apart(patients, clashes):
                message = _clash_message(sheet, said, "several spellings of one patient", clashes)
                raise RowsError(f"{message} {ALIKE_ADVICE}", rows, kind="patients_alike")
            message = _clash_message(sheet, said, f"contradictory {what}", clashes)
            raise RowsError(f"{message} Correct the wrong rows.", rows, kind=f"contradictory_{what}")


def _only_spelt_apart(patients: Sequence[tuple[str] | None], clashes: Sequence[tuple[str, list[int]]]) -> bool:
    return all(len({patient_key(*patients[row]) for row in rows if patients[row]}) == 1 for _, rows in clashes)


def _clash_message(
    sheet: Sheet, said: Sequence[tuple[str, ...] | None], what: str, clashes: Sequence[tuple[str, list[int]]]
) -> str:
    path, rows = clashes[0]
    values = {said[row]: row for row in reversed(rows) if said[row] is not None}
    sides = [f"{','.join(value) or 'nothing'} in {sheet.place(row)}" for value, row in values.items()]
    count = "1 image has" if len(clashes) == 1 else f"{len(clashes)} images have"
    found = ", ".join(reversed(sides))
    return f"{count} {what}, such as {path!r}: {found}."


def _targets(
    sheet: Sheet,
    columns: Columns,
    rows_of: dict[str, list[int]],
    labels: Sequence[tuple[str, ...] | None],
    settings: DataSettings,
) -> tuple[np.ndarray, tuple[str, ...], tuple[str, ...]]:
    """Targets, classes, and notes on labels that may mean something else."""
    rows = [next(row for row in rows if labels[row] is not None) for rows in rows_of.values()]
    names = [sheet.columns[column] for column in columns.labels]
    found = [labels[row] for row in rows]
    if columns.form == "several":
        targets, classes = multilabel_targets(
            names, found, settings, error=lambda i, what: RowsError(f"{sheet.place(rows[i])}, {what}", [rows[i]])
        )
        exclusive = len(names) > 1 and all(label.count("1") == 1 and "-1" not in label for label in found)
        note = (
            f"one-hot columns: every image has exactly one of {listed(names)}, as if they excluded each other; "
            "--task multiclass makes them the classes of one label"
        )
        return targets, classes, (note,) if exclusive and settings.task == "auto" else ()
    notes = check_values([name for label in found for name in label] or [""], names[0]) if len(names) == 1 else ()
    if columns.form == "separated":
        classes = sorted_names(name for label in found for name in label)
        if not classes:
            raise DataError(f"Column {names[0]!r} of {sheet.name} holds no label: every image has none of them.")
        place = {name: number for number, name in enumerate(classes)}
        targets = np.zeros((len(found), len(classes)), "float32")
        for row, label in enumerate(found):
            targets[row, [place[name] for name in label]] = 1
        if not any(len(label) > 1 for label in found):
            notes = (
                *notes,
                f"no image has several labels: {settings.label_separator!r} (--label-separator) parts none",
            )
        return targets, classes, notes
    joined = joined_labels({label[0] for label in found})
    return *one_hot([label[0] for label in found]), (*notes, *([joined] if joined else ()))


def _patients(
    sheet: Sheet, columns: Columns, rows_of: dict[str, list[int]], settings: DataSettings
) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """The patients, of some images perhaps a missing one; None where there is no column, or a guessed one is empty."""
    if columns.patient is None:
        return None, ()
    name, cells = sheet.columns[columns.patient], [row[columns.patient] for row in sheet.rows]
    if not any(cell.strip() for cell in cells) and settings.patient_column is None:
        return None, (f"column {name!r} is empty and not used",)
    check_patients(sheet, columns.patient, settings)
    known = [
        next((cells[row] for row in rows if not is_missing(cells[row])), cells[rows[0]]) for rows in rows_of.values()
    ]
    return tuple(map(written, known)), ()


def check_patients(sheet: Sheet, column: int, settings: DataSettings) -> None:
    """Raises RowsError if the column has no patient in some rows, and the settings say that this is an error."""
    missing = [row for row, cells in enumerate(sheet.rows) if is_missing(cells[column])]
    if missing and settings.missing_patients == "error":
        raise RowsError(
            f"{_rows_message(sheet, missing, 'have no patient', [column])} Fill them in, or let each of these images "
            "be its own patient with --missing-patients own.",
            missing,
            kind="missing_patients",
        )


def _placed(
    sheet: Sheet, columns: Columns, rows_of: dict[str, list[int]], settings: DataSettings
) -> tuple[np.ndarray, np.ndarray | None, tuple[str, ...]]:
    """The image of each row of the table to be, its splits, and notes about them."""
    said = [_entry(sheet, columns, row, split) for row, split in enumerate(_splits(sheet, columns))]
    entries = [[said[row] for row in rows] for rows in rows_of.values()]
    repeated = sum(len(entry) - len(set(entry)) for entry in entries)
    notes = [f"{repeated} repeated rows of one image with one label counted once"] if repeated else []
    if columns.fold is None and not columns.splits:
        return np.arange(len(rows_of)), None, tuple(notes)
    if columns.fold is not None and columns.splits:
        notes += _choose_fold_or_split(sheet, columns, entries, settings)
    placed = [[entry for entry in image if None not in entry] for image in entries]
    names = listed(repr(sheet.columns[i]) for i in (columns.fold, *columns.splits.values()) if i is not None)
    if not any(placed):
        raise DataError(f"No image of {sheet.name} has a fold or split (column {names}). Fill it in or remove it.")
    if free := placed.count([]):
        notes.append(
            f"not assigned: {free} of {len(placed)} images have no fold or split (column {names}) and take no part"
        )
    index, splits, folds = place_images(placed)
    if not any(split for image in placed for _, split in image) and len(folds) < 2:
        raise DataError(
            f"Column {sheet.columns[columns.fold]!r} of {sheet.name} holds one fold only ({folds[0]}); it "
            "says in which fold an image is tested, so two or more are needed. Correct or remove it."
        )
    return index, splits, (*notes, _split_note(folds))


def _choose_fold_or_split(
    sheet: Sheet, columns: Columns, entries: list[list[tuple]], settings: DataSettings
) -> list[str]:
    """Where every image has one fold, a column of folds and one of splits are two ways to split: keep one in `entries`.

    That is the one that the user named, or else the split; with both named, they are splits within folds.
    """
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
    fold, split = sheet.columns[columns.fold], listed(repr(sheet.columns[i]) for i in columns.splits.values())
    used, other, option = (repr(fold), split, "--split-column") if by_fold else (split, repr(fold), "--fold-column")
    return [f"split ignored: column {other} is not used, because column {used} is; {option} chooses it instead"]


def _splits(sheet: Sheet, columns: Columns) -> list[str | None]:
    """The split of each row: "" without a split column, None where the cell is missing."""
    if not columns.splits:
        return [""] * len(sheet.rows)
    if "" not in columns.splits:
        return _flagged(sheet, columns.splits)
    column = columns.splits[""]
    cells = [row[column].strip() for row in sheet.rows]
    splits = {cell: None if is_missing(cell) else split for cell, split in split_names(set(cells)).items()}
    wrong = [row for row, cell in enumerate(cells) if splits[cell] is None and not is_missing(cell)]
    if wrong:
        row = wrong[0]
        fold = " If it is a fold, name the column with --fold-column." if plain(cells[row]).isdigit() else ""
        raise RowsError(
            f"{sheet.place(row)}, column {sheet.columns[column]!r}: expected train, val or test, received "
            f"{sheet.rows[row][column]!r}.{_more(wrong)}{fold}",
            wrong,
        )
    return [splits[cell] for cell in cells]


def _flagged(sheet: Sheet, flags: Mapping[str, int]) -> list[str | None]:
    """The split of each row by the columns that say whether it is in one."""
    other = next((split for split in ("train", "test", "val") if split not in flags), None)
    rows = [[zero_one(row[column]) for column in flags.values()] for row in sheet.rows]
    wrong = [number for number, cells in enumerate(rows) if cells.count("1") > 1 or set(cells) - {"0", "1", ""}]
    if wrong:
        names = listed(repr(sheet.columns[column]) for column in flags.values())
        found = listed(repr(sheet.rows[wrong[0]][column]) for column in flags.values())
        raise RowsError(
            f"{sheet.place(wrong[0])}, column {names}: expected true or false, and true for one split at most, "
            f"received {found}.{_more(wrong)}",
            wrong,
        )
    splits = list(flags)
    return [splits[cells.index("1")] if "1" in cells else other if all(cells) else None for cells in rows]


def _entry(sheet: Sheet, columns: Columns, row: int, split: str | None) -> tuple[str | None, str | None]:
    """The fold and split that a row names, "" for what it has no column for, None for what is not assigned."""
    if columns.fold is None:
        return "", split
    fold = plain(sheet.rows[row][columns.fold])
    return None if fold in ("", "-1") else fold, split


def _split_note(folds: Sequence[str]) -> str:
    if len(folds) == 1:
        return "one fixed split, given with the data"
    if list(folds) == [str(i + 1) for i in range(len(folds))]:
        return f"{len(folds)} folds, given with the data"
    return f"{len(folds)} folds, given with the data as {listed(folds)}, numbered from 1 in that order"


_READERS = 4
"""Files opened at the same time."""

_SEVERAL = frozenset([".tif", ".tiff", ".gif"])
"""Names of files that hold several images at times, DICOM apart."""


def with_frames(table: ImageTable, settings: DataSettings) -> ImageTable:
    """`table` with a row per frame, if the settings ask for it.

    Frame 3 of `x.dcm` is called `x.dcm#3`, from 1. It has the label, the splits and the patient of its file; where
    there are no patients, the file is the patient, so that its frames are never split between sets.

    Raises:
        DataError: A file has more than `MOST_FRAMES`.
    """
    if settings.frames == "first":
        return table
    counts = _counts(table.files)
    if (counts > MOST_FRAMES).any():
        file = table.files[int(np.argmax(counts > MOST_FRAMES))]
        raise DataError(
            f"--frames all: {file} holds more than {MOST_FRAMES:,} frames. Store it in several files, or use "
            "--frames first."
        )
    several, damaged = counts > 1, np.flatnonzero(counts == 0)
    notes = table.notes
    if len(damaged):
        what = f"the frames of {len(damaged)} damaged files cannot be counted, such as {table.paths[damaged[0]]}"
        notes += (f"--frames all: {what}; at most the first of each is used",)
    if not several.any():
        return replace(table, notes=(*notes, "--frames all: no file holds further frames"))
    counts = np.maximum(counts, 1)
    rows = np.repeat(np.arange(len(table)), counts)
    frames = np.concatenate([np.arange(count) for count in counts])
    note = f"{several.sum()} files with several frames give {counts[several].sum()} images"
    if table.patients is None:
        note += "; frames of one file stay together"
    wide = table.select(rows)
    return replace(
        wide,
        paths=tuple(
            f"{path}#{frame + 1}" if several[row] else path
            for path, row, frame in zip(wide.paths, rows, frames, strict=True)
        ),
        files=tuple(
            FilePart(file, frame=int(frame)) if several[row] else file
            for file, row, frame in zip(wide.files, rows, frames, strict=True)
        ),
        patients=wide.patients or wide.paths,
        notes=(*notes, note),
    )


def _counts(files: Sequence[ImagePlace | None]) -> np.ndarray:
    """Frames of each file, int; 1 for one that is not there, which is found later, and 0 for one that is damaged."""
    return np.array(all_in_parallel(_count, files, workers=_READERS), int)


def _count(file: ImagePlace | None) -> int:
    if not isinstance(file, Path) or not (file.suffix.lower() in _SEVERAL or is_dicom_file(file)):
        return 1
    try:
        return count_frames(file)
    except BadImageError:
        return 0
