"""Images for what needs no labels: named one by one, by folders or by tables."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from radtransfer.datasets import csv_table, find_dataset, fold_directory, read_table
from radtransfer.datasets.columns import find_image_columns
from radtransfer.datasets.frames import with_frames
from radtransfer.datasets.header_patients import with_header_patients
from radtransfer.datasets.image_files import (
    find_files,
    is_dangling,
    is_dicom_file,
    is_image_name,
    unread_note,
    walk_files,
)
from radtransfer.datasets.image_table import ImageTable
from radtransfer.datasets.labels import plain
from radtransfer.datasets.patients import patient_id_errors, with_patients
from radtransfer.datasets.sheet import Sheet, read_sheet
from radtransfer.errors import DataError
from radtransfer.image_formats.unread_formats import format_by_name
from radtransfer.image_place import ImagePlace
from radtransfer.progress import Progress
from radtransfer.settings import DataSettings

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
            sheet, folder = {"csv_table": csv_table, "fold_directory": fold_directory}[name].open_sheet(location)
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
