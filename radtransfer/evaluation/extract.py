"""What a layer of a trained network makes of images: features, pooled over positions or whole.

Files of features, written batch by batch, whole or not at all: .npz for NumPy, .parquet for tables.

x.npz      paths (images,), features float32 (images, …), layer (): `numpy.load("x.npz")`
x.parquet  path, features (a list of float32, in row-major order); the shape and the layer in the metadata
"""

import contextlib
import json
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from radtransfer.errors import ConfigError, UnknownNameError
from radtransfer.evaluation.predict import Forward, ImageStream
from radtransfer.evaluation.trained_model import TrainedModel, check_one, saved_layer
from radtransfer.models.activations import FeatureMaps
from radtransfer.models.backbone import BACKBONES
from radtransfer.process import keras_defaults
from radtransfer.runs.folder import whole_file


@dataclass(frozen=True)
class Extractor:
    """One layer of one network.

    Attributes:
        layer: Its name.
        shape: Of the features of an image: (channels,) where pooled, else as the layer gives it.
        features: float32 images (batch, size, size, 3), RGB, 0–255, to float32 (batch, *shape).
    """

    layer: str
    shape: tuple[int, ...]
    features: Callable[[tf.Tensor], tf.Tensor]

    def __call__(
        self, stream: ImageStream, *, batch_size: int, notify: Callable[[str], None]
    ) -> Iterator[tuple[list[str], np.ndarray]]:
        """Paths and features of every batch of images that can be read; errors as of `Forward` and `ImageStream`."""
        forward = Forward([self.features], batch_size=batch_size, notify=notify)
        for paths, images in stream:
            yield paths, forward(images)[0]


@keras_defaults()
def make_extractor(model: TrainedModel, layer: str, *, pool: Literal["avg", "none"] = "avg") -> Extractor:
    """The extractor of a layer.

    Args:
        model: One fold of a run, or an export.
        layer: Name of a stage (its last layer is meant) or of a layer.
        pool: "avg" takes the mean over positions, "none" the whole output.

    Raises:
        RunError: Several folds, whose features have nothing in common.
        UnknownNameError: No such stage or layer.
        WeightsError: The model cannot be loaded.
    """
    check_one(model)
    if model.kind == "savedmodel":
        name = _layer_name(model, layer)
        function, shape = saved_layer(model.path, name, known=_stages(model))
    else:
        (network,) = model.keras_models()
        name = _layer_name(model, layer, network)
        function, shape = _keras_layer(network, name)
    if pool == "none" or len(shape) == 1:
        return Extractor(name, shape, function)
    return Extractor(name, shape[-1:], lambda images: tf.reduce_mean(function(images), axis=range(1, len(shape))))


def _keras_layer(network: keras.Model, name: str) -> tuple[Callable[[tf.Tensor], tf.Tensor], tuple[int, ...]]:
    maps = FeatureMaps(network, [name])
    shape = tuple(network.get_layer(name).output.shape[1:])
    if None in shape:
        raise ConfigError(f"Layer {name} gives outputs of no fixed shape: {shape}. Choose another.")
    return lambda images: tf.reshape(tf.cast(maps.of(images)[name], tf.float32), (-1, *shape)), shape


def _layer_name(model: TrainedModel, layer: str, network: Any = None) -> str:
    stages = _stages(model)
    if layer in stages:
        return stages[layer]
    if network is None:
        return layer
    known = [item.name for item in network.layers]
    if layer not in known:
        see = f"radtransfer backbones {model.backbone}" if stages else None
        raise UnknownNameError("stage or layer", layer, [*stages, *known], see=see)
    return layer


def _stages(model: TrainedModel) -> dict[str, str]:
    """Stage to last layer; empty where the backbone is not known."""
    return dict(BACKBONES[model.backbone].stages) if model.backbone in BACKBONES else {}


SUFFIXES = (".npz", ".parquet")

Writer = Callable[[Sequence[str], np.ndarray], None]
"""Adds the paths and features, float32 (images, …), of a batch."""


def check_feature_file(path: Path) -> None:
    """See that features can be written in the format that the name of a file asks for.

    Raises:
        ConfigError: There is no such format, or its library is not installed.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"--out takes a file that ends in {' or '.join(SUFFIXES)}. Received: {path}.")
    if path.suffix.lower() == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError:
            raise ConfigError(
                "A .parquet file needs pyarrow: pip install 'radtransfer[parquet]'. Or write a .npz file."
            ) from None


@contextlib.contextmanager
def feature_file(path: Path, *, layer: str, shape: tuple[int, ...]) -> Iterator[Writer]:
    """A writer of `path`, which appears when the block succeeds.

    Args:
        path: Ends in one of `SUFFIXES`.
        layer: Name, kept in the file.
        shape: Of the features of one image.
    """
    make = _npz if path.suffix.lower() == ".npz" else _parquet
    with whole_file(path) as part, make(part, layer, shape) as write:
        yield write


@contextlib.contextmanager
def _npz(part: Path, layer: str, shape: tuple[int, ...]) -> Iterator[Writer]:
    """The numbers go to a temporary file first: how many there are is written before them."""
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
