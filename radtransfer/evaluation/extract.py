"""The features of a layer of a trained network, pooled over positions or whole, and their files.

Files are written batch by batch, completely or not at all:

x.npz      paths (images,), features float32 (images, …), layer (): `numpy.load("x.npz")`
x.parquet  path, features (a list of float32, in row-major order); the shape and the layer in the metadata
"""

import contextlib
import json
import os
import re
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from radtransfer.errors import ConfigError, UnknownNameError, WeightsError
from radtransfer.evaluation.trained_model import TrainedModel, check_one, image_signature
from radtransfer.models.backbone import BACKBONES
from radtransfer.models.vit import CLASS_TOKEN, patch_grid, tokens_before_patches
from radtransfer.process import keras_defaults
from radtransfer.runs.folder import atomic_write

if TYPE_CHECKING:
    import tensorflow as tf

Features = Callable[["tf.Tensor"], "tf.Tensor"]
"""float32 images (batch, size, size, 3), RGB, 0–255, to float32 features (batch, …)."""

_NO_LAYER = ("Const", "Identity", "NoOp", "ReadVariableOp")  # operations that are not layers


@keras_defaults()
def layer_features(
    model: TrainedModel, layer: str, *, pool: Literal["avg", "none"] = "avg"
) -> tuple[str, tuple[int, ...], Features]:
    """The name of a layer (of a stage: its last), the shape of its features per image, and the function.

    Pool "avg" takes the mean over positions, shape (channels,); "none" the whole output. Positions of a vision
    transformer are its patches; "cls" is the class token.
    """
    import tensorflow as tf

    check_one(model)
    stages = dict(BACKBONES[model.backbone].stages) if model.backbone in BACKBONES else {}
    name = stages.get(layer, layer)
    if model.kind == "savedmodel" and model.backbone in BACKBONES and BACKBONES[model.backbone].patch:
        raise ConfigError(
            f"Layers of {model.backbone} are read from the run or a .keras export. Received: a SavedModel."
        )
    if model.kind == "savedmodel":
        whole, shape = _saved_layer(model.path, name, stages)
    else:
        whole, shape = _keras_layer(model, name, stages)
    if pool == "none" or len(shape) == 1:
        return name, shape, whole
    return name, shape[-1:], lambda images: tf.reduce_mean(whole(images), axis=range(1, len(shape)))


def _keras_layer(model: TrainedModel, name: str, stages: Mapping[str, str]) -> tuple[Features, tuple[int, ...]]:
    import tensorflow as tf

    from radtransfer.models.activations import FeatureMaps

    (network,) = model.keras_models()
    known = [item.name for item in network.layers]
    is_class = name == CLASS_TOKEN and tokens_before_patches(network) is not None
    if name not in known and not is_class:
        see = f"radtransfer backbones {model.backbone}" if stages else None
        raise UnknownNameError("stage or layer", name, [*stages, *known], see=see)
    maps = FeatureMaps(network, [name])
    if is_class:
        return lambda images: maps.of(images)[name][:, 0, 0], (maps.width(name),)
    output = network.get_layer(name).output
    shape = (*grid, output.shape[-1]) if (grid := patch_grid(network, output)) else tuple(output.shape[1:])
    if None in shape:
        raise ConfigError(f"Expected a layer of fixed output shape. Received: {name}, {shape}. Choose another layer.")
    return lambda images: tf.reshape(tf.cast(maps.of(images)[name], tf.float32), (-1, *shape)), shape


def _saved_layer(path: Path, layer: str, stages: Mapping[str, str]) -> tuple[Features, tuple[int, ...]]:
    """The last operation in the scope of a layer: Keras names the scope after the layer, or `conv1_1` if retraced."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    loaded, function, _ = image_signature(path)
    flat = convert_variables_to_constants_v2(function)  # reads the variables that `loaded` holds
    del loaded
    operations = [
        (operation.name.split("/"), operation.outputs[0])
        for operation in flat.graph.get_operations()
        if operation.outputs and operation.type not in _NO_LAYER and operation.name.count("/") > 1
    ]
    start = len(os.path.commonprefix([parts[:-1] for parts, _ in operations]))
    scopes = {parts[start]: output for parts, output in operations if len(parts) > start + 1}
    if all(re.search(r"_\d+$", scope) for scope in scopes):
        scopes = {re.sub(r"_\d+$", "", scope): output for scope, output in scopes.items()}
    if layer not in scopes:
        raise UnknownNameError("stage or layer", layer, [*stages, *scopes])
    shape = scopes[layer].shape
    if shape.rank is None or None in shape[1:]:
        raise WeightsError(f"{path}: layer {layer} has no fixed output shape. Use the run or a .keras export.")
    return flat.prune(flat.inputs[0], scopes[layer]), tuple(shape[1:])


SUFFIXES = (".npz", ".parquet")

Writer = Callable[[Sequence[str], np.ndarray], None]
"""Adds the paths and features, float32 (images, …), of a batch."""


def check_feature_file(path: Path) -> None:
    """Raise ConfigError if the suffix is unknown or its library is not installed."""
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"--out expects a file that ends in {' or '.join(SUFFIXES)}. Received: {path}.")
    if path.suffix.lower() == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError:
            raise ConfigError(
                "A .parquet file needs pyarrow: pip install 'radtransfer[parquet]'. Or write a .npz file."
            ) from None


@contextlib.contextmanager
def feature_file(path: Path, *, layer: str, shape: tuple[int, ...]) -> Iterator[Writer]:
    """A writer of `path`, which is created when the block succeeds; `shape` is that of one image's features."""
    make = _npz if path.suffix.lower() == ".npz" else _parquet
    with atomic_write(path) as part, make(part, layer, shape) as write:
        yield write


@contextlib.contextmanager
def _npz(part: Path, layer: str, shape: tuple[int, ...]) -> Iterator[Writer]:
    """Features go to a temporary file first, because the file starts with their number."""
    paths: list[str] = []
    with tempfile.TemporaryFile(dir=part.parent) as numbers:

        def write(names: Sequence[str], features: np.ndarray) -> None:
            paths.extend(names)
            numbers.write(np.ascontiguousarray(features, "<f4").tobytes())

        yield write
        numbers.seek(0)
        with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for name, value in (("paths", np.array(paths, dtype=str)), ("layer", np.array(layer))):
                with archive.open(f"{name}.npy", "w") as member:
                    np.lib.format.write_array(member, value, allow_pickle=False)
            with archive.open("features.npy", "w", force_zip64=True) as member:
                header = {"descr": "<f4", "fortran_order": False, "shape": (len(paths), *shape)}
                np.lib.format.write_array_header_2_0(member, header)
                while block := numbers.read(1 << 24):
                    member.write(block)


@contextlib.contextmanager
def _parquet(part: Path, layer: str, shape: tuple[int, ...]) -> Iterator[Writer]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    size = int(np.prod(shape))
    metadata = {"layer": layer, "shape": json.dumps(list(shape))}
    schema = pa.schema([("path", pa.string()), ("features", pa.list_(pa.float32(), size))], metadata=metadata)
    with pq.ParquetWriter(part, schema) as table:

        def write(names: Sequence[str], features: np.ndarray) -> None:
            values = pa.FixedSizeListArray.from_arrays(pa.array(features.reshape(-1), pa.float32()), size)
            table.write_table(pa.table([pa.array(names, pa.string()), values], schema=schema))

        yield write
