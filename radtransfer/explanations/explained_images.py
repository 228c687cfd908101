"""The images that are explained: a run's test images, a data set, or files; and what is known of their labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from radtransfer.comparisons.comparison_images import given_images, images_of_table, tested_images
from radtransfer.comparisons.run_predictions import read_predictions
from radtransfer.datasets.image_list import read_images
from radtransfer.device import usable_cores
from radtransfer.errors import DataError
from radtransfer.image_formats import ImageFacts
from radtransfer.image_place import ImagePlace
from radtransfer.progress import Progress
from radtransfer.settings import DataSettings, ImageSettings

if TYPE_CHECKING:
    from radtransfer.pipeline.batches import Batches


@dataclass(frozen=True, eq=False)
class ExplainedImages:
    """Images on disk.

    Attributes:
        what: What they are, for a sentence.
        paths: The identity of each.
        places: Where each lies.
        facts: How each is decoded.
        reading: How it becomes a square.
        truth: float32 (images, classes of the network), 0 or 1, NaN where not known; None without labels.
        task: Of the labels; None without.
        classes: Names of the columns of `truth`; None without.
    """

    what: str
    paths: tuple[str, ...]
    places: tuple[ImagePlace, ...]
    facts: tuple[ImageFacts, ...]
    reading: ImageSettings
    truth: np.ndarray | None = None
    task: str | None = None
    classes: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def batches(self, rows: Sequence[int], *, image_size: int, batch_size: int) -> "Batches":
        """Those numbered `rows`, as the network sees them."""
        from radtransfer.pipeline.batches import make_batches

        return make_batches(
            [self.paths[row] for row in rows],
            [self.places[row] for row in rows],
            [self.facts[row] for row in rows],
            np.zeros((len(rows), 1), np.float32),
            image_size=image_size,
            reading=self.reading,
            batch_size=min(batch_size, len(rows)),
            workers=usable_cores(),
        )


def images_of_run(run: Path, fold: int) -> ExplainedImages:
    """The test images of a fold, with their labels.

    Raises:
        RunError: The run has no such fold, or lacks a file.
        DataError: The images are not there any more.
    """
    images, found = tested_images(run, fold), read_predictions(str(run / f"fold_{fold}"))
    row_of = {path: row for row, path in enumerate(found.paths)}
    return ExplainedImages(
        what=f"test images of fold {fold}",
        paths=images.paths,
        places=images.places,
        facts=images.facts,
        reading=images.reading,
        truth=found.targets[[row_of[path] for path in images.paths]],
        task=found.scoring.task,
        classes=found.scoring.classes,
    )


def images_of_data(
    data: DataSettings, reading: ImageSettings, classes: Sequence[str] | None, progress: Progress
) -> ExplainedImages:
    """Every image of a data set; its labels, if it has any, are matched with the network's classes by name.

    Args:
        data: Where they are.
        reading: How the network's images are read.
        classes: Of the network; None where they are not known, and taken to be those of the data.
        progress: Hears why there are no labels.

    Raises:
        DataError: An image is missing, or a class is not the network's.
    """
    table = read_images(data, progress=progress)
    images = images_of_table(table, table.paths, reading)
    what = f"images of {Path(str(data.source)).name}"
    if not table.classes:
        for note in table.notes:
            progress.note(note)
        return ExplainedImages(what, images.paths, images.places, images.facts, reading)
    classes = classes or table.classes
    strange = [name for name in table.classes if name not in classes]
    if strange:
        raise DataError(
            f"The network knows the classes {', '.join(classes)}. Received, in {data.source}: {', '.join(strange)}. "
            "Rename the labels, or leave these images out."
        )
    truth = np.full((len(table), len(classes)), 0 if table.task == "multiclass" else np.nan, np.float32)
    for column, name in enumerate(table.classes):
        truth[:, list(classes).index(name)] = table.targets[:, column]
    return ExplainedImages(
        what=what,
        paths=images.paths,
        places=images.places,
        facts=images.facts,
        reading=reading,
        truth=truth,
        task=table.task,
        classes=tuple(classes),
    )


def images_of_files(
    files: Sequence[Path], data: DataSettings, reading: ImageSettings, progress: Progress
) -> ExplainedImages:
    """Files, those of folders and those of tables, without labels.

    Raises:
        DataError: One is missing, or no image.
    """
    images = given_images(tuple(map(str, files)), data, reading, progress)
    return ExplainedImages("files", images.paths, images.places, images.facts, reading)
