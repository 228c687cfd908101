"""Weights of other programs, written as a Keras file that every command takes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from radtransfer.backbones import BACKBONES
from radtransfer.environment import keras_defaults, require_keras
from radtransfer.errors import ConfigError, WeightsError, WeightsMismatchError
from radtransfer.pretrained.recognition import mismatch, recognize
from radtransfer.pretrained.torch_conversion import Converted, convert_torch, torch_backbone
from radtransfer.weight_formats.matching import match_layers, weighted_layers
from radtransfer.weight_formats.pytorch import StateDict, is_pytorch, read_pytorch
from radtransfer.weight_formats.reading import read_weight_file, sha256_of
from radtransfer.weight_formats.saved_model import is_saved_model, read_saved_model
from radtransfer.weight_formats.weight_file import WeightFile
from radtransfer.whole_file import part_folder

if TYPE_CHECKING:
    import keras

SUFFIX = ".weights.h5"


@dataclass(frozen=True)
class Conversion:
    """What was written.

    Attributes:
        source: The file or folder that was read.
        out: The Keras file.
        backbone: Network it is for.
        layers: With weights, all of them read back and found equal.
        parameters: All numbers in them.
        notes: What differs from the source, one sentence each.
        left_out: Parts of the source that are not the backbone's.
        sha256: Of the file that was written.
    """

    source: str
    out: str
    backbone: str
    layers: int
    parameters: int
    notes: tuple[str, ...]
    left_out: tuple[str, ...]
    sha256: str


def convert_weights(source: Path, out: Path, *, backbone: str | None = None, overwrite: bool = False) -> Conversion:
    """Write the weights of `source` to `out`, a `.weights.h5` file, and read them back.

    Args:
        source: A PyTorch state dict (`.pt`, `.pth`, `.safetensors`), a SavedModel folder, or any Keras file.
        out: Its name ends with `.weights.h5`.
        backbone: Network; None to recognize it.
        overwrite: Replace `out` if it exists.

    Raises:
        ConfigError: `out` exists or is called otherwise.
        WeightsError: `source` cannot be read, or what was written differs.
        WeightsMismatchError: It is of no known network, or of another than `backbone`.
    """
    if not out.name.endswith(SUFFIX):
        raise ConfigError(
            f"The converted weights are a Keras file: expected a name that ends with {SUFFIX}. Received: {out}."
        )
    if out.exists() and not overwrite:
        raise ConfigError(f"{out} exists. Use --overwrite to replace it, or another name.")
    if not out.parent.is_dir():
        raise ConfigError(f"There is no folder {out.parent}.")
    if backbone is not None:
        BACKBONES.check(backbone)
    is_torch = source.is_file() and is_pytorch(source)
    file = read_pytorch(source) if is_torch else _keras_file(source)
    with keras_defaults():
        from radtransfer.backbones.architecture import build_architecture

        found = _from_torch(file, backbone) if is_torch else _from_keras(file, source, backbone)
        model = build_architecture(found.backbone, image_size=None, pooling=None)
        for name, arrays in found.layers.items():
            model.get_layer(name).set_weights(arrays)
        with part_folder(out.parent) as folder:
            part = folder / out.name
            model.save_weights(part)
            _check_equal(part, model, found.layers)
            part.replace(out)
    return Conversion(
        source=str(source),
        out=str(out),
        backbone=found.backbone,
        layers=len(found.layers),
        parameters=model.count_params(),
        notes=found.notes,
        left_out=found.left_out,
        sha256=sha256_of(out),
    )


def _from_torch(file: StateDict, asked: str | None) -> Converted:
    from keras import layers

    from radtransfer.backbones.architecture import build_architecture

    name = torch_backbone(file, asked)
    model = build_architecture(name, image_size=None, pooling=None)
    epsilon = next(layer.epsilon for layer in model.layers if isinstance(layer, layers.BatchNormalization))
    return convert_torch(file, name, weighted_layers(model), epsilon)


def _from_keras(file: WeightFile, source: Path, asked: str | None) -> Converted:
    from radtransfer.backbones.architecture import build_architecture

    if asked is not None:
        model = build_architecture(asked, image_size=None, pooling=None)
        match = match_layers(file, model)
        if not match.complete:
            raise WeightsMismatchError(mismatch(file, match, backbone=asked, model=model))
        return Converted(asked, match.arrays, (), match.extra)
    found = recognize(file)
    if found is None:
        raise WeightsMismatchError(
            f"{source} holds {len(file.layers)} weighted layers that are not those of a known backbone. "
            "Name the network with --backbone to see what is missing."
        )
    if found.channels != 3:
        raise WeightsMismatchError(f"{source} is for images of {found.channels} channels; only three can be converted.")
    return Converted(found.backbone, found.match.arrays, (), found.match.extra)


def _keras_file(source: Path) -> WeightFile:
    if source.is_dir():
        if not is_saved_model(source):
            raise WeightsError(f"{source} is a folder without saved_model.pb and variables/: no SavedModel.")
        require_keras()
        return read_saved_model(source)
    return read_weight_file(source)


def _check_equal(path: Path, model: "keras.Model", layers: Mapping[str, tuple[np.ndarray, ...]]) -> None:
    """Raises WeightsError unless `path` holds exactly `layers`."""
    written = match_layers(read_weight_file(path), model)
    equal = written.complete and all(
        all(map(np.array_equal, written.arrays[name], arrays)) for name, arrays in layers.items()
    )
    if not equal:
        raise WeightsError("The written file does not hold what was read. Nothing was kept; is the disk full?")
