"""The images on which networks are compared: a run's test images, or any others."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from radtransfer.config import load_config
from radtransfer.datasets import read_table
from radtransfer.datasets.image_table import ImageTable
from radtransfer.errors import DataError, RunError
from radtransfer.image_formats import ImageFacts, inspect_image
from radtransfer.runs import read_rows
from radtransfer.settings import DataSettings
from radtransfer.yaml_text import read_yaml


@dataclass(frozen=True)
class ComparisonImages:
    """Images on disk.

    Attributes:
        paths: The identity of each.
        files: Where each lies.
        facts: How each is decoded.
        clusters: Patient of each, or the image itself where patients are not known.
    """

    paths: tuple[str, ...]
    files: tuple[Path, ...]
    facts: tuple[ImageFacts, ...]
    clusters: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)


def data_images(data: DataSettings) -> ComparisonImages:
    """Every image of a data set.

    Raises:
        ConfigError: No data given.
        DataError: Nothing usable is there, or an image is missing or unreadable.
    """
    table = read_table(data)
    return _of_table(table, table.paths)


def tested_images(run: Path, fold: int) -> ComparisonImages:
    """The test images of a fold of a run, which must still be where the run found them.

    Raises:
        RunError: The run has no such fold.
        DataError: They are not there.
    """
    tested = tested_paths(run, fold)
    try:
        table = read_table(run_data(run))
    except DataError as error:
        raise DataError(f"The images of run {run} are not there any more; give --data. {error}") from None
    return _of_table(table, tested)


def run_data(run: Path) -> DataSettings:
    """Where the images of a run come from; its other settings may be those of another version.

    Raises:
        ConfigError: They cannot be read.
    """
    document, _ = read_yaml(run / "config.yaml")
    return load_config(options={f"data.{name}": value for name, value in document["data"].items()}).data


def tested_paths(run: Path, fold: int) -> list[str]:
    """The paths of the test images of a fold, as the run's table writes them.

    Raises:
        RunError: The run has no such fold.
    """
    lines = read_rows(run / "folds.csv")
    tested = [line["path"] for line in lines if int(line["fold"]) == fold and line["split"] == "test"]
    if not tested:
        raise RunError(f"Run {run} has no test images in fold {fold}. Name another fold, or give --data.")
    return tested


def _of_table(table: ImageTable, paths: Sequence[str]) -> ComparisonImages:
    rows = {path: row for row, path in enumerate(table.paths)}
    missing = [path for path in paths if path not in rows or table.files[rows[path]] is None]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(paths)} images were not found, first {missing[0]!r}. Give their folder "
            "with --image-root, or other images with --data."
        )
    files = tuple(table.files[rows[path]] for path in paths)
    return ComparisonImages(
        tuple(paths), files, tuple(map(inspect_image, files)), tuple(table.groups[rows[path]] for path in paths)
    )
