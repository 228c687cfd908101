"""Images as the network sees them, and as the augmentation varies them in training."""

import tempfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from radtransfer.augmentations import AUGMENTATIONS
from radtransfer.datasets import read_table
from radtransfer.datasets.image_table import ImageTable
from radtransfer.device import usable_cores
from radtransfer.environment import keras_defaults
from radtransfer.examination.image_check import CheckedImages, check_images
from radtransfer.figures.contact_sheet import SheetRow, draw_contact_sheet, shortened
from radtransfer.progress import Progress
from radtransfer.settings import Config

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from radtransfer.pipeline.batches import Epoch


def preview_data(config: Config, *, images: int, copies: int, progress: Progress | None = None) -> "Figure":
    """A contact sheet: each image as the network sees it, then `copies` random variations of it.

    Args:
        config: Of which `data`, `images`, `model.image_size`, `training.augmentation` and the seed count.
        images: Rows; the classes take turns.
        copies: Variations; there are none where the augmentation is none.
        progress: Hears of images that cannot be read.

    Raises:
        ConfigError: Settings that contradict each other, or no such augmentation.
        DataError: The table cannot be used, or none of the images can be read.
    """
    augmentation, size = config.training.augmentation, config.model.image_size
    AUGMENTATIONS.check(augmentation)
    table = read_table(config.data, progress=progress)
    checked = _checked(table.select(chosen_rows(table, images, config.seed)), config, progress or Progress())
    copies = 0 if augmentation == "none" else copies
    with keras_defaults():
        from radtransfer.pipeline.batches import make_batches

        batches = make_batches(
            checked.table.paths,
            checked.table.files,
            checked.facts,
            checked.table.targets,
            image_size=size,
            reading=config.images,
            batch_size=len(checked.table),
            workers=usable_cores(),
            augmentation=augmentation,
        )
        epochs = [batches.in_order(), *(batches.shuffled(number, seed=config.seed) for number in range(1, copies + 1))]
        pictures = list(zip(*(_pictures(epoch) for epoch in epochs), strict=True))
    return draw_contact_sheet(
        [
            SheetRow(PurePosixPath(path.replace("\\", "/")).name, label, row)
            for path, label, row in zip(checked.table.paths, checked.table.labels, pictures, strict=True)
        ],
        heads=["as the network sees it", *(f"variation {number}" for number in range(1, copies + 1))],
        classes=table.classes,
        title=f"{shortened(config.data.source, 60)}, {size} px, augmentation {augmentation}, seed {config.seed}",
    )


def chosen_rows(table: ImageTable, images: int, seed: int) -> np.ndarray:
    """Up to `images` rows, in random order of each class or label, which take turns; sorted by class, then by draw."""
    rng = np.random.Generator(np.random.PCG64(seed))
    of_class = [rng.permutation(np.flatnonzero(column == 1)).tolist() for column in table.targets.T]
    of_class.append(rng.permutation(np.flatnonzero(~(table.targets == 1).any(axis=1))).tolist())
    taken: dict[int, tuple[int, int]] = {}
    for turn in range(max(map(len, of_class))):
        for number, rows in enumerate(of_class):
            if turn < len(rows) and len(taken) < images:
                taken.setdefault(rows[turn], (number, turn))
    return np.array(sorted(taken, key=taken.get))


def _checked(table: ImageTable, config: Config, progress: Progress) -> CheckedImages:
    """The images that can be read; the others are named in a note."""
    with tempfile.TemporaryDirectory() as folder:
        checked = check_images(
            table,
            workers=usable_cores(),
            on_bad_image="skip",
            reading=config.images,
            report_file=Path(folder) / "bad_images.txt",
        )
    for image in checked.bad:
        progress.note(f"{image.path} cannot be read and is left out ({image.reason})")
    return checked


def _pictures(epoch: "Epoch") -> list[np.ndarray]:
    """The images of one pass in table order, uint8 (height, width, 3)."""
    (batch,) = epoch
    images = np.clip(np.rint(batch[0].numpy()), 0, 255).astype(np.uint8)
    return [images[place] for place in np.argsort(epoch.rows[0])]
