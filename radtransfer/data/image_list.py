"""Image folders, lists of images without labels, and lenient reading of tables with mistakes.

An image folder has one sub-folder per class, or `train`, `val` and `test` folders with class folders (one fixed split).
Deeper sub-folders belong to their class; other files are ignored.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from radtransfer.config.schema import DataSettings
from radtransfer.data.csv import check_patients, fold_columns, open_csv, open_fold_tables, table_from_sheet
from radtransfer.data.image_files import (
    check_names,
    find_files,
    images_below,
    is_dangling,
    is_dicom_file,
    is_image_name,
    unread_note,
)
from radtransfer.data.labels import RowsError, cell_value, check_labels, is_missing, listed, one_hot
from radtransfer.data.readers import DATASETS, check_image_links, find_dataset, open_source, read_table
from radtransfer.data.sheet import Sheet, find_columns, find_image_columns, read_sheet, split_names
from radtransfer.data.table import ImageTable, patient_id_errors, with_frames, with_header_patients, with_patients
from radtransfer.errors import DataError, suggest_path
from radtransfer.images.files import format_by_name
from radtransfer.images.refs import ImageRef
from radtransfer.process import Progress

TABLES = (".csv", ".tsv")  # suffixes of tables

_EXPECTED = "expected one sub-folder of images per class, or train/ val/ test/ folders with such sub-folders"


def read(settings: DataSettings, location: str | None = None) -> ImageTable:
    """The images of the folder `location`, their paths relative to it."""
    root = Path(location or "").expanduser().absolute()
    if not location or not root.is_dir():
        raise DataError(
            f"image_folder: {location or 'no folder given'} is not a folder; {_EXPECTED}.{suggest_path(root)}"
        )
    for name in ("path_column", "label_column", "patient_column"):
        if getattr(settings, name):
            raise DataError(
                f"--{name.replace('_', '-')} names a column, but {root} is a folder of images and has none: "
                "its sub-folders are the classes, and --patient-regex finds the patient in the path.",
                settings=(name,),
            )
    images, others = images_below(root, outside=settings.outside_root)
    check_names(images)
    # Top folders with names of splits count as splits if `train` is one of two or more.
    names = split_names({file.split("/")[0] for file in images if file.count("/") > 1})
    splits = {folder: split for folder, split in names.items() if split}
    if "train" not in splits.values() or len(set(splits.values())) < 2:
        splits = {}
    depth = 1 if splits else 0
    kept = [file for file in images if file.count("/") > depth and (not splits or file.split("/")[0] in splits)]
    labels = [file.split("/")[depth] for file in kept]
    tops = [root / name for name in splits] or [root]
    folders = {entry.name for top in tops for entry in top.iterdir() if entry.is_dir()}
    empty = sorted(name for name in folders - set(labels) if not name.startswith((".", "__")))
    unread = [file for file in others if format_by_name(file.rpartition("/")[2])]
    links = [file for file in set(others) - set(unread) if is_dangling(root / file)]
    ignored_notes = [note] if (note := unread_note(unread)) else []
    if links:
        ignored_notes.append(f"broken links, ignored: {len(links)}, such as {min(links)!r}")
    if ignored := len(others) - len(unread) - len(links):
        ignored_notes.append(f"files that are not images, ignored: {ignored}")
    if empty:
        ignored_notes.append(f"folders without images, ignored: {listed(map(repr, empty))}")
    if len(set(labels)) < 2:
        found = f"found one class: {labels[0]} ({len(labels)} images)" if labels else ""
        if not labels:
            count = sum(map(is_image_name, [*images, *others]))
            found = f"found {count} images in the folder itself and none in sub-folders"
            tables = sorted(file for file in [*images, *others] if file.endswith(TABLES) and "/" not in file)
            ignored_notes += [f"to read the table, use --data {root / tables[0]}"] if tables else []
        raise DataError("; ".join([f"{root}: {_EXPECTED}; {found}", *ignored_notes]) + ".")
    targets, classes = one_hot(labels)
    notes = [f"one fixed split from the folders {listed(sorted(splits))}"] if splits else []
    if outside := sorted(set(images) - set(kept)):
        notes.append(f"images outside the class folders, ignored: {len(outside)}, such as {outside[0]!r}")
    if words := [repr(name) for name in classes if is_missing(name)]:
        notes.append(f"the folders {listed(words)} are used as classes; move them if they are not")
    return ImageTable(
        paths=tuple(kept),
        files=tuple(root / file for file in kept),
        targets=targets,
        classes=classes,
        task="multiclass",
        splits=np.array([[splits[file.split("/")[0]] for file in kept]], dtype="U5") if splits else None,
        notes=(*notes, *ignored_notes),
    )


_OPENED = {"csv_table": open_csv, "fold_directory": open_fold_tables}


def list_images(names: Sequence[str], settings: DataSettings, *, unread: bool = True) -> ImageTable:
    """Every image of the files, folders (searched recursively) and CSV tables in `names`; a table without classes.

    With `unread`, files in unsupported formats are included, so that they fail by name; else a note counts them.
    Raises DataError for other names, folders without images, and tables without a path column.
    """
    return _ImageList(settings).add(*names, unread=unread).table()


def read_images(settings: DataSettings, *, progress: Progress | None = None) -> ImageTable:
    """Every image of the data set `settings.source`, without classes if its labels cannot be read.

    Raises as `read_table`, for labels only if the settings name a label column.
    """
    try:
        return read_table(settings, progress=progress)
    except DataError as error:
        refused = error
    name, location = find_dataset(settings.source, progress)
    not_labels = any(word in getattr(refused, "kind", "") for word in ("patients", "links"))
    if settings.label_column or not_labels or name not in (*_OPENED, "image_folder"):
        raise refused
    reason = str(refused).split(". ")[0].removesuffix(".")
    images, origin = _ImageList(settings, f"read without labels: {reason}"), "the data set"
    try:
        path = Path(location)
        if name == "image_folder" or is_image_name(path.name) or is_dicom_file(path):
            images.add(location, unread=False)
        else:
            sheet, folder = _OPENED[name](location)
            if (column := images.add_sheet(sheet, folder)) is not None:
                origin = f"column {sheet.columns[column]!r}"
        table = replace(images.table(), patients_from=origin, exact_patient_ids=settings.allow_alike_patients)
        table = with_patients(with_header_patients(table, settings), settings)
        for error in patient_id_errors(table):
            raise error
    except DataError as error:
        raise (error if "patients" in getattr(error, "kind", "") else refused) from None
    return table


class _ImageList:
    """Collects images by path, each with its `ImageRef` and its patient or ""."""

    def __init__(self, settings: DataSettings, *notes: str):
        self._settings, self._notes = settings, list(notes)
        self._images: dict[str, tuple[ImageRef | None, str]] = {}

    def add(self, *names: str, unread: bool) -> "_ImageList":
        for name in names:
            path = Path(name).expanduser()
            if path.is_dir():
                images, others = images_below(path, outside=self._settings.outside_root)
                others = [file for file in others if format_by_name(file.rpartition("/")[2])]
                note = unread_note(others)
                if unread:
                    images = sorted({*images, *others})
                elif note:
                    self._notes.append(note)
                if not images:
                    found = f" Found: {note}." if note else ""
                    raise DataError(
                        f"{name} contains no images. Expected image files in it or in folders below it.{found}"
                    )
                for file in images:
                    self._images.setdefault(str(Path(name) / file), ((path / file).absolute(), ""))
            elif path.suffix.lower() in TABLES and path.is_file():
                self.add_sheet(read_sheet(path), path.parent)
            else:
                # A file, a link, or a frame of a file (`x.dcm#3`).
                exists = path.is_file() or is_dangling(path) or Path(str(path).rpartition("#")[0]).is_file()
                ref = find_files([str(path)], image_root=None, table_folder=Path())[0][0] if exists else None
                if ref is None:
                    expected = "Expected images, folders of images, or a CSV with a column of paths."
                    raise DataError(f"No image at {name}. {expected}")
                self._images.setdefault(name, (ref, ""))
        return self

    def add_sheet(self, sheet: Sheet, folder: Path) -> int | None:
        """Add the images of a table, each with the patient of its first row; returns the patient column."""
        settings = self._settings
        column, patient = find_image_columns(sheet, settings)
        if patient is not None:
            check_patients(sheet, patient, settings)
        known = ["" if patient is None else cell_value(row[patient]) for row in sheet.rows]
        patients = {row[column].strip(): name for row, name in zip(sheet.rows[::-1], known[::-1], strict=True)}
        paths = [path for path in dict.fromkeys(row[column].strip() for row in sheet.rows) if path]
        refs, found = find_files(
            paths, image_root=settings.image_root, table_folder=folder, outside=settings.outside_root
        )
        self._notes += found
        for path, ref in zip(paths, refs, strict=True):
            self._images.setdefault(path, (ref, patients[path]))
        return patient

    def table(self) -> ImageTable:
        check_names(self._images)
        refs, patients = zip(*self._images.values(), strict=True)
        own = tuple(patient or path for path, patient in zip(self._images, patients, strict=True))
        table = ImageTable(
            paths=tuple(self._images),
            files=refs,
            targets=np.zeros((len(refs), 0), "float32"),
            classes=(),
            task="multiclass",
            patients=own if any(patients) else None,
            notes=tuple(self._notes),
        )
        return with_frames(table, self._settings)


class Mistake(NamedTuple):
    """An error that `read_table` would raise."""

    message: str
    kind: str = "table"  # kind of finding, such as "contradictory_labels" or "missing_patients"
    paths: tuple[str, ...] = ()  # images with this mistake
    refs: tuple[ImageRef | None, ...] = ()  # their files; None: not found


def read_leniently(
    settings: DataSettings, *, progress: Progress | None = None
) -> tuple[ImageTable | None, list[Mistake]]:
    """The table without its invalid rows (None if it cannot be read at all), and all mistakes found."""
    mistakes: list[Mistake] = []
    try:
        name, location = open_source(settings, progress)
        if name in _OPENED:
            sheet_settings = fold_columns(settings) if name == "fold_directory" else settings
            table = _read_valid_rows(*_OPENED[name](location), sheet_settings, mistakes)
        else:
            table = DATASETS[name](settings, location)
        check_image_links(table, name, location, settings)
    except DataError as error:
        return None, [*mistakes, Mistake(str(error), getattr(error, "kind", "table"))]
    try:
        table = replace(table, notes=table.notes + check_labels(table, settings))
    except DataError as error:
        mistakes.append(Mistake(str(error)))
    table = with_header_patients(replace(table, exact_patient_ids=settings.allow_alike_patients), settings)
    try:
        table = with_patients(table, settings)
    except DataError as error:
        mistakes.append(Mistake(str(error)))
    refs = dict(zip(table.paths, table.files, strict=True))
    for error in patient_id_errors(table):
        mistakes.append(Mistake(str(error), error.kind, error.paths, tuple(refs[path] for path in error.paths)))
    return with_frames(table, settings), mistakes


def _read_valid_rows(sheet: Sheet, folder: Path, settings: DataSettings, mistakes: list[Mistake]) -> ImageTable:
    """The table of the valid rows; adds to `mistakes`. Raises DataError if no row is left."""
    while True:
        try:
            return table_from_sheet(sheet, settings, folder=folder)
        except RowsError as error:
            if not error.rows:
                raise
            column = find_columns(sheet, settings).path
            paths = dict.fromkeys(sheet.rows[row][column].strip() for row in error.rows)
            paths = tuple(filter(None, paths))
            try:
                where = {"image_root": settings.image_root, "table_folder": folder, "outside": settings.outside_root}
                refs = tuple(find_files(paths, **where)[0])
            except DataError:  # ambiguous, reported with the other rows
                refs = (None,) * len(paths)
            mistakes.append(Mistake(str(error), error.kind, paths, refs))
            sheet = sheet.without(set(error.rows))
            if not sheet.rows:
                raise DataError(f"Every row of {sheet.name} is invalid.") from None
