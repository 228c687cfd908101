"""What each preprocessing mode makes of the user's images at the batch-norm layers of a network."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from radtransfer.preprocessing import MODES, preprocess

_BATCH = 8


@dataclass(frozen=True)
class StoredStatistics:
    """What one batch-norm layer remembers of its training.

    Attributes:
        name: Of the layer.
        mean: (channels,).
        variance: (channels,), the layer's epsilon added.
        epsilon: Of the layer.
    """

    name: str
    mean: np.ndarray
    variance: np.ndarray
    epsilon: float


@dataclass(frozen=True)
class ImageMoments:
    """What enters one layer, image by image.

    Attributes:
        mean: (images, channels), over positions.
        square: (images, channels), mean of the squares.
    """

    mean: np.ndarray
    square: np.ndarray


@dataclass(frozen=True)
class StemResponse:
    """What the first layer's channels are given for images of one colour.

    Attributes:
        black: (channels,).
        gain: (channels, 3), what red, green and blue at full brightness add.
        linear: Whether a white image gives the sum of these.
    """

    black: np.ndarray
    gain: np.ndarray
    linear: bool


def batch_norm_layers(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    """Those that were trained, in the model's order; a layer that still holds means 0 and variances 1 was not."""
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    return [layer for layer in layers if _trained(layer)]


def stored_statistics(layers: Sequence[keras.layers.BatchNormalization]) -> list[StoredStatistics]:
    """What `layers` hold, float64."""
    return [
        StoredStatistics(
            layer.name,
            _numbers(layer.moving_mean),
            _numbers(layer.moving_variance) + layer.epsilon,
            float(layer.epsilon),
        )
        for layer in layers
    ]


class Probe:
    """A network, looked at where its batch-norm layers take their input, at inference."""

    def __init__(self, model: keras.Model, layers: Sequence[keras.layers.BatchNormalization]):
        self._stem = _moments_of(keras.Model(model.input, [layers[0].input]))
        self._all = _moments_of(keras.Model(model.input, [layer.input for layer in layers]))

    def moments(self, images: np.ndarray, mode: str, *, heard: Callable[[int], None]) -> list[ImageMoments]:
        """What enters each layer.

        Args:
            images: float32 (images, height, width, 3), RGB, 0–255.
            mode: Key of `MODES`.
            heard: Told of each batch how many images it had.
        """
        parts = []
        for start in range(0, len(images), _BATCH):
            batch = images[start : start + _BATCH]
            missing = _BATCH - len(batch)  # a batch of another size would be traced anew
            filled = np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)]) if missing else batch
            given = self._all(preprocess(tf.constant(filled), mode))
            parts.append([[part.numpy()[: len(batch)] for part in pair] for pair in given])
            heard(len(batch))
        return [
            ImageMoments(*(np.concatenate([part[layer][kind] for part in parts]).astype(float) for kind in (0, 1)))
            for layer in range(len(parts[0]))
        ]

    def stem_response(self, size: int, mode: str) -> StemResponse:
        """What images of `size` pixels in black, red, green, blue and white give in `mode`."""
        colours = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]], np.float32) * 255
        images = np.broadcast_to(colours[:, np.newaxis, np.newaxis], (5, size, size, 3))
        ((means, _),) = self._stem(preprocess(tf.constant(images), mode))
        black, *primaries, white = means.numpy().astype(float)
        gain = np.stack(primaries, axis=1) - black[:, np.newaxis]
        rest = np.abs(black + gain.sum(axis=1) - white).max()
        return StemResponse(black, gain, linear=bool(rest <= 1e-2 * np.abs(means).max() + 1e-6))


def mode_scale(mode: str) -> np.ndarray:
    """(3,): how many units of the network full brightness is, for red, green and blue."""
    card = MODES[mode]
    scale = 255 * card.scale / np.array(card.std)
    return scale[::-1] if card.order == "BGR" else scale


def _moments_of(model: keras.Model) -> Callable:
    @tf.function(reduce_retracing=True)
    def moments(images: tf.Tensor) -> list[tuple[tf.Tensor, tf.Tensor]]:
        outputs = model(images, training=False)
        outputs = list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]
        return [(tf.reduce_mean(x, (1, 2)), tf.reduce_mean(tf.square(x), (1, 2))) for x in outputs]

    return moments


def _trained(layer: keras.layers.BatchNormalization) -> bool:
    return bool(np.any(_numbers(layer.moving_mean) != 0) and np.any(_numbers(layer.moving_variance) != 1))


def _numbers(variable: keras.Variable) -> np.ndarray:
    return keras.ops.convert_to_numpy(variable).astype(float)
