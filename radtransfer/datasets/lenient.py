"""Read what can be read of a data set whose table has mistakes, and say what they are.

`read_table` stops at the first mistake, as training must; a check wants them all.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from radtransfer.datasets import (
    DATASETS,
    check_column_settings,
    check_folder,
    check_patient_settings,
    check_places,
    csv_table,
    find_dataset,
    fold_directory,
)
from radtransfer.datasets.columns import find_columns
from radtransfer.datasets.csv_table import table_from_sheet
from radtransfer.datasets.frames import with_frames
from radtransfer.datasets.header_patients import with_header_patients
from radtransfer.datasets.image_files import find_files
from radtransfer.datasets.image_table import ImageTable
from radtransfer.datasets.labels import check_labels
from radtransfer.datasets.patients import patient_id_errors, with_patients
from radtransfer.datasets.sheet import RowsError, Sheet
from radtransfer.errors import DataError
from radtransfer.image_place import ImagePlace
from radtransfer.progress import Progress
from radtransfer.settings import DataSettings

_SHEETS: dict[str, Callable[[str | None], tuple[Sheet, Path]]] = {
    "csv_table": csv_table.open_sheet,
    "fold_directory": fold_directory.open_sheet,
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
            own = fold_directory.own_columns(settings) if name == "fold_directory" else settings
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
