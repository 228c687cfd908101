"""`radtransfer weights check`: from a file and a table of images to the mode that fits."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from radtransfer.backbones import BACKBONES
from radtransfer.data.preview import chosen_rows
from radtransfer.datasets.image_list import read_images
from radtransfer.device import usable_cores
from radtransfer.environment import keras_defaults
from radtransfer.errors import ConfigError, WeightsMismatchError
from radtransfer.examination.image_check import check_images
from radtransfer.pretrained.loading import assign, load_pretrained
from radtransfer.pretrained.recognition import recognize
from radtransfer.pretrained.weight_sources import Certainty, WeightSource, check_backbone, find_weights
from radtransfer.progress import Progress
from radtransfer.settings import Config
from radtransfer.weight_formats.reading import read_weight_file
from radtransfer.weight_formats.weight_file import WeightFile

if TYPE_CHECKING:
    import keras

    from radtransfer.datasets.image_table import ImageTable
    from radtransfer.input_scale.check import ScaleCheck

FEWEST = 8
"""Images below which nothing is said about their statistics."""


@dataclass(frozen=True)
class FileCheck:
    """What was found about one file.

    Attributes:
        file: Its path.
        backbone: The network in it.
        image_size: Pixels.
        used: Mode that radtransfer uses for the file.
        used_sure: How that is known.
        check: The comparison.
    """

    file: str
    backbone: str
    image_size: int
    used: str
    used_sure: Certainty
    check: "ScaleCheck"


def check_weights(
    weights: str,
    config: Config,
    *,
    backbone: str | None = None,
    images: int = 48,
    layers: int = 12,
    ignore_lambda: bool = False,
    progress: Progress | None = None,
) -> FileCheck:
    """Which preprocessing the weights in a file expect, as seen on images of the user.

    Args:
        weights: A file, a name from `radtransfer weights list`, or RUN[/fold_K].
        config: Of which `data`, `images`, `model.image_size` and the seed count.
        backbone: Name of the network; None to recognize it.
        images: Most images to look at; classes take turns.
        layers: Batch-norm layers to compare, from the stem on.
        ignore_lambda: Take the weights of a file with Lambda layers too.
        progress: Hears the count, and of Lambda layers that were ignored.

    Raises:
        WeightsError: The file cannot be used, is none of the backbones, or takes images of other than three channels.
        DataError: The table cannot be used, or too few images can be read.
    """
    progress = progress or Progress()
    if backbone is not None:
        BACKBONES.check(backbone)
    source = find_weights(weights, backbone=backbone)
    if backbone is not None:
        check_backbone(source, backbone)
    table = read_images(config.data, progress=progress)
    file = read_weight_file(source.file, ignore_lambda=ignore_lambda)
    if file.lambdas:
        progress.note(file.lambda_note)
    with keras_defaults():
        from radtransfer.input_scale.check import check_network

        model = _network(source, file, backbone, config.model.image_size)
        used, sure = source.preprocessing_for(model.name)
        pictures = _pictures(table, config, images, progress)
        found = check_network(model, pictures, layers=layers, seed=config.seed, progress=progress)
    return FileCheck(str(source.file), model.name, config.model.image_size, used, sure, found)


def _network(source: WeightSource, file: WeightFile, backbone: str | None, image_size: int) -> "keras.Model":
    """The network of the file, with its weights."""
    from radtransfer.backbones.architecture import build_architecture

    if backbone is not None:
        model = build_architecture(backbone, image_size=image_size, pooling=None)
        given = str(source.file)
        assign(model, load_pretrained(given, backbone=backbone, model=model, ignore_lambda=bool(file.lambdas)))
        return model
    found = recognize(file)
    if found is None:
        raise WeightsMismatchError(
            f"{file.path} holds {len(file.layers)} weighted layers that are not those of a known backbone. "
            "Name the network with --backbone to see what is missing."
        )
    if found.channels != 3:
        raise WeightsMismatchError(
            f"{file.path} is for images of {found.channels} channels; preprocessing modes are for three."
        )
    model = build_architecture(found.backbone, image_size=image_size, pooling=None)
    for name, arrays in found.match.arrays.items():
        model.get_layer(name).set_weights(arrays)
    return model


def _pictures(table: "ImageTable", config: Config, images: int, progress: Progress) -> np.ndarray:
    """The images as the network sees them before preprocessing, float32 (images, size, size, 3), RGB, 0–255."""
    from radtransfer.pipeline.batches import make_batches

    with tempfile.TemporaryDirectory() as folder:
        checked = check_images(
            table.select(chosen_rows(table, images, config.seed)),
            workers=usable_cores(),
            on_bad_image="skip",
            reading=config.images,
            report_file=Path(folder) / "bad_images.txt",
        )
    for image in checked.bad:
        progress.note(f"{image.path} cannot be read and is left out ({image.reason})")
    if len(checked.table) < FEWEST:
        raise ConfigError(
            f"weights check needs at least {FEWEST} images to know their statistics. Received: {len(checked.table)}."
        )
    batches = make_batches(
        checked.table.paths,
        checked.table.files,
        checked.facts,
        checked.table.targets,
        image_size=config.model.image_size,
        reading=config.images,
        batch_size=len(checked.table),
        workers=usable_cores(),
    )
    epoch = batches.in_order()
    (batch,) = epoch
    return batch[0].numpy()
