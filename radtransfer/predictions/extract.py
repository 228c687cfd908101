"""What a layer of a trained network makes of images: features, pooled over positions or whole."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from radtransfer.backbones import BACKBONES
from radtransfer.comparisons.activations import FeatureMaps
from radtransfer.environment import keras_defaults
from radtransfer.errors import ConfigError, UnknownNameError
from radtransfer.predictions.forward import Forward
from radtransfer.predictions.image_stream import ImageStream
from radtransfer.predictions.saved_layers import saved_layer
from radtransfer.predictions.trained_model import TrainedModel, check_one


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
