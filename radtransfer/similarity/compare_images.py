"""The images on which networks are compared: a run's test images, or any others."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from radtransfer.config.load import load_config
from radtransfer.config.schema import Config, DataSettings, ImageSettings
from radtransfer.data.readers import read_table
from radtransfer.data.run_data import data_changes
from radtransfer.data.table import ImageTable
from radtransfer.errors import DataError, RunError, WeightsError
from radtransfer.images.refs import ImagePlace
from radtransfer.process import Progress
from radtransfer.runs.folder import read_folds
from radtransfer.runs.read import read_settings, reading

if TYPE_CHECKING:
    from radtransfer.images.formats import ImageFacts


@dataclass(frozen=True)
class ComparisonImages:
    """Images on disk.

    Attributes:
        paths: The identity of each.
        places: Where each lies.
        facts: How each is decoded.
        reading: How it becomes a square.
        clusters: Patient of each, or the image itself where patients are not known.
    """

    paths: tuple[str, ...]
    places: tuple[ImagePlace, ...]
    facts: "tuple[ImageFacts, ...]"
    reading: ImageSettings
    clusters: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)


def given_images(
    files: Sequence[str], data: DataSettings, reading: ImageSettings, progress: Progress
) -> ComparisonImages:
    """Every image of the files, or else of a data set, read as `reading` says; neither needs labels.

    Raises:
        ConfigError: Neither is given.
        DataError: Nothing usable is there, or an image is missing or unreadable.
    """
    from radtransfer.data.image_list import list_images, read_images
    from radtransfer.data.table import NO_PATIENTS

    table = list_images(files, data, unread=False) if files else read_images(data, progress=progress)
    for note in table.notes:
        if note != NO_PATIENTS:
            progress.note(note)
    return images_of_table(table, table.paths, reading)


def tested_images(run: Path, fold: int) -> ComparisonImages:
    """The test images of a fold of a run, which must still be where the run found them.

    Raises:
        RunError: The run has no such fold.
        DataError: They are not there.
    """
    tested = tested_paths(run, fold)
    try:
        settings = run_images(run)
        table = read_table(settings.data)
    except DataError as error:
        raise DataError(f"The images of run {run} are not there any more; give --data. {error}") from None
    return images_of_table(table, tested, settings.images)


def note_changes(runs: Sequence[Path], progress: Progress) -> None:
    """Tell of each run whose images or labels are not what they were.

    Raises:
        ConfigError: Its config.yaml cannot be read.
        RunError: Another file of it is not as it was written.
    """
    for run in dict.fromkeys(runs):
        if (run / "config.yaml").is_file():  # a copy of a run may lack its settings
            for change in data_changes(run, run_images(run).data):
                progress.note(change)


def check_input(given: str, shape: Sequence[int | None]) -> None:
    """See that a network takes square RGB images; `shape` is its input's (height, width, channels).

    Raises:
        WeightsError: It takes something else.
    """
    height, width, channels = shape
    if channels != 3 or height != width:
        raise WeightsError(
            f"{given}: expected a network of square images of 3 channels, received an input of {height} x {width} "
            f"x {channels}. Collect its activations with radtransfer.similarity.activations and compare the arrays in "
            "Python."
        )


def run_file(run: Path, name: str) -> Path:
    """A file of a run.

    Raises:
        RunError: It is not there, as in a copy of a part of the run.
    """
    if not (run / name).is_file():
        raise RunError(f"Run {run} lacks {name}, which the comparison needs. Restore it, or compare the original run.")
    return run / name


def run_images(run: Path) -> Config:
    """Where the images of a run come from and how they are read; its other settings may be those of another version.

    Raises:
        ConfigError: They cannot be read.
        RunError: They are not there.
    """
    document = read_settings(run)
    with reading(run):
        sections = {section: dict(document.get(section) or {}) for section in ("data", "images")}
    return load_config(
        options={f"{section}.{name}": value for section, items in sections.items() for name, value in items.items()}
    )


def tested_paths(run: Path, fold: int) -> list[str]:
    """The paths of the test images of a fold, as the run's table writes them.

    Raises:
        RunError: The run has no such fold.
    """
    with reading(run):
        lines = read_folds(run)
        tested = [line["path"] for line in lines if int(line["fold"]) == fold and line["split"] == "test"]
    if not tested:
        raise RunError(f"Run {run} has no test images in fold {fold}. Name another fold, or give --data.")
    return tested


def images_of_table(table: ImageTable, paths: Sequence[str], reading: ImageSettings) -> ComparisonImages:
    """Some images of a table, read as `reading` says.

    Raises:
        DataError: One is missing or unreadable.
    """
    rows = {path: row for row, path in enumerate(table.paths)}
    from radtransfer.data.image_check import examine_images

    missing = [path for path in paths if path not in rows or table.files[rows[path]] is None]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(paths)} images were not found, first {missing[0]!r}. Give their folder "
            "with --image-root, or other images with --data."
        )
    places = tuple(table.files[rows[path]] for path in paths)
    clusters = tuple(table.groups[rows[path]] for path in paths)
    return ComparisonImages(tuple(paths), places, examine_images(places, reading), reading, clusters)
