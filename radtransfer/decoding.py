"""An image file as a tensor, inside the TensorFlow graph: decoded, upright, resized."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

DECODERS = ("jpeg", "png8", "png16", "pillow")
"""How a file is read, the values of `ImageFacts.decoder`; their place is the index that `decode` takes."""


def decode(file: tf.Tensor, decoder: tf.Tensor, *, with_pillow: Callable[[Path], np.ndarray]) -> tf.Tensor:
    """The image in `file` as it is stored, float32 (height, width, 3), RGB, 0–255.

    Args:
        file: Path, a string scalar.
        decoder: Index into `DECODERS`, int32.
        with_pillow: Reads the files of the decoder "pillow", float32 (height, width, 3).
    """
    branches = {
        "jpeg": lambda: _jpeg(file),
        "png8": lambda: _png8(file),
        "png16": lambda: _png16(file),
        "pillow": lambda: _outside_graph(with_pillow, file),
    }
    image = tf.switch_case(decoder, [branches[name] for name in DECODERS])
    return tf.ensure_shape(image, (None, None, 3))


def upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """`image` turned and mirrored as its EXIF orientation, 1–8, asks for."""
    return tf.cond(orientation == 1, lambda: image, lambda: _turned(image, orientation))


def resize(image: tf.Tensor, size: int) -> tf.Tensor:
    """`image` stretched to (size, size, 3).

    Bilinear and antialiased, on 0–255 values: a small lesion is averaged, not skipped.
    """
    resized = tf.image.resize(image, (size, size), method="bilinear", antialias=True)
    return tf.ensure_shape(resized, (size, size, 3))


def _jpeg(file: tf.Tensor) -> tf.Tensor:
    image = tf.io.decode_jpeg(tf.io.read_file(file), channels=3, dct_method="INTEGER_ACCURATE")
    return tf.cast(image, tf.float32)


def _png8(file: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.io.decode_png(tf.io.read_file(file), channels=3), tf.float32)


def _png16(file: tf.Tensor) -> tf.Tensor:
    image = tf.io.decode_png(tf.io.read_file(file), channels=3, dtype=tf.uint16)
    return tf.cast(image, tf.float32) / 257.0  # 65535 becomes 255; nothing is clipped


def _outside_graph(reader: Callable[[Path], np.ndarray], file: tf.Tensor) -> tf.Tensor:
    def read(name: bytes | np.ndarray) -> np.ndarray:  # an array of no dimensions outside a graph
        return reader(Path(np.asarray(name).item().decode()))

    return tf.numpy_function(read, [file], tf.float32, stateful=False)


def _turned(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Orientations 5–8 are 1–4 of the transposed image; of each four, two are mirrored, two upside down."""
    quarter = (orientation - 1) % 4
    image = tf.cond(orientation > 4, lambda: tf.transpose(image, (1, 0, 2)), lambda: image)
    image = tf.cond((quarter == 1) | (quarter == 2), lambda: image[:, ::-1], lambda: image)
    return tf.cond(quarter >= 2, lambda: image[::-1], lambda: image)
