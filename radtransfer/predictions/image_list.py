"""The images that a command names one by one, by folders or by tables, without labels."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from radtransfer.datasets.columns import find_path_column
from radtransfer.datasets.frames import with_frames
from radtransfer.datasets.image_files import find_files, is_dicom_file, is_image_name, walk_files
from radtransfer.datasets.image_table import ImageTable
from radtransfer.datasets.sheet import read_sheet
from radtransfer.errors import DataError
from radtransfer.image_place import ImagePlace
from radtransfer.settings import DataSettings

TABLES = (".csv", ".tsv")
"""How the name of a table ends."""


@dataclass(frozen=True)
class ImageList:
    """Images that are to be predicted.

    Attributes:
        paths: As they were named, or as the table writes them.
        places: Where each lies; None where a table names what is not there.
        notes: How they were found, one sentence each.
    """

    paths: tuple[str, ...]
    places: tuple[ImagePlace | None, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)


def list_images(names: Sequence[str], settings: DataSettings) -> ImageList:
    """Every image of the files, folders and tables in `names`, each path once.

    Args:
        names: Images, folders that are searched with all below them, and CSV files with a column of paths.
        settings: Of which `image_root`, `path_column` and `frames` count.

    Raises:
        DataError: A name is neither, a folder holds no image, or a table has no column of paths.
    """
    found: dict[str, ImagePlace | None] = {}
    notes: list[str] = []
    for name in names:
        for path, place in _images_of(name, settings, notes):
            found.setdefault(path, place)
    _check_names(found)
    table = ImageTable(tuple(found), tuple(found.values()), np.zeros((len(found), 1), "float32"), ("",), "multiclass")
    table = with_frames(replace(table, notes=tuple(notes)), settings)
    return ImageList(table.paths, table.files, table.notes)


def _check_names(paths: Iterable[str]) -> None:
    """Every output is UTF-8 and holds the path."""
    for path in paths:
        try:
            path.encode()
        except UnicodeEncodeError:
            raise DataError(f"The file name {path!r} is not valid Unicode. Rename it.") from None


def _images_of(name: str, settings: DataSettings, notes: list[str]) -> Iterator[tuple[str, ImagePlace | None]]:
    path = Path(name).expanduser()
    if path.is_dir():
        yield from _in_folder(name, path)
    elif path.suffix.lower() in TABLES and path.is_file():
        sheet = read_sheet(path)
        column = find_path_column(sheet, settings.path_column)
        paths = list(dict.fromkeys(row[column].strip() for row in sheet.rows if row[column].strip()))
        places, found = find_files(paths, image_root=settings.image_root, table_folder=path.parent)
        notes += found
        yield from zip(paths, places, strict=True)
    else:
        (place,), _ = (
            find_files([str(path)], image_root=None, table_folder=Path()) if _is_there(path) else ((None,), ())
        )
        if place is None:
            raise DataError(f"No image at {name}. Expected images, folders of images, or a CSV with a column of paths.")
        yield name, place


def _is_there(path: Path) -> bool:
    """Whether the file is there, or that of which `path` names a frame (`x.dcm#3`)."""
    return path.is_file() or Path(str(path).rpartition("#")[0]).is_file()


def _in_folder(name: str, folder: Path) -> Iterator[tuple[str, ImagePlace]]:
    images = [
        file for file in walk_files(folder) if is_image_name(file.rpartition("/")[2]) or is_dicom_file(folder / file)
    ]
    if not images:
        raise DataError(f"{name} holds no images. Expected image files in it or in folders below it.")
    for file in images:
        path = folder / file
        yield (str(Path(name) / file)), path.absolute()
