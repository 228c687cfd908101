"""A stored image as a tensor, inside the TensorFlow graph: what is seen of it is decoded, resized and turned."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf


def decode_jpeg(contents: tf.Tensor, window: tf.Tensor, *, ratio: int) -> tf.Tensor:
    """The part of a JPEG in `window`, uint8 (height, width, 3), RGB; no more of it is computed.

    Args:
        contents: The file, a string scalar.
        window: Top, left, height and width, int32, in pixels of the decoding.
        ratio: 1, 2, 4 or 8: the image is decoded at 1/ratio of its size, each pixel the mean of those it stands for.
    """
    return tf.io.decode_and_crop_jpeg(contents, window, channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE")


def decode_png(contents: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    """The part of a PNG of up to 8 bits in `window`, uint8 (height, width, 3), RGB."""
    return cut(tf.io.decode_png(contents, channels=3), window)


def decode_deep_png(contents: tf.Tensor, window: tf.Tensor, levels: tf.Tensor) -> tf.Tensor:
    """The part of a 16-bit PNG in `window`, float32 (height, width, 3), RGB, 0–255.

    Args:
        contents: The file, a string scalar.
        window: Top, left, height and width, int32.
        levels: The values that become 0 and 255, float32 (2,); what lies outside becomes the nearer of them.
    """
    image = tf.cast(cut(tf.io.decode_png(contents, channels=3, dtype=tf.uint16), window), tf.float32)
    return tf.clip_by_value((image - levels[0]) * (255.0 / (levels[1] - levels[0])), 0.0, 255.0)


def outside_graph(read: Callable[[int], np.ndarray], row: tf.Tensor, *, dtype: tf.DType) -> tf.Tensor:
    """What `read` gives for `row`, `dtype` (height, width, 3): NumPy inside a graph."""
    image = tf.numpy_function(lambda number: read(int(number)), [row], dtype, stateful=False)
    return tf.ensure_shape(image, (None, None, 3))


def cut(image: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    """The part of `image` in `window`: top, left, height and width, int32."""
    return tf.slice(image, [window[0], window[1], 0], [window[2], window[3], 3])


def resized(image: tf.Tensor, seen: tf.Tensor, size: tf.Tensor, *, by_area: bool) -> tf.Tensor:
    """What is seen of `image`, stretched to `size`, float32 in the range of the image.

    Args:
        image: (height, width, 3).
        seen: Top, left, height and width, float32, in pixels and parts of them; taken for all where `by_area`.
        size: Height and width, int32.
        by_area: See `framing.Framing`.
    """
    if by_area:
        return tf.image.resize(image, size, method="area")
    # What `tf.image.resize` does with antialias, of a window that need not begin or end with a pixel.
    scale = tf.cast(size, tf.float32) / seen[2:]
    return tf.raw_ops.ScaleAndTranslate(
        images=image[tf.newaxis], size=size, scale=scale, translation=-seen[:2] * scale, kernel_type="triangle"
    )[0]


def upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """`image` turned and mirrored as its EXIF orientation, 1–8, asks for."""
    return tf.cond(orientation == 1, lambda: image, lambda: _turned(image, orientation))


def padded(image: tf.Tensor, size: int) -> tf.Tensor:
    """`image` in the middle of a black square of `size` pixels."""
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    return tf.image.pad_to_bounding_box(image, (size - height) // 2, (size - width) // 2, size, size)


def _turned(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Orientations 5–8 are 1–4 of the transposed image; of each four, two are mirrored, two upside down."""
    quarter = (orientation - 1) % 4
    image = tf.cond(orientation > 4, lambda: tf.transpose(image, (1, 0, 2)), lambda: image)
    image = tf.cond((quarter == 1) | (quarter == 2), lambda: image[:, ::-1], lambda: image)
    return tf.cond(quarter >= 2, lambda: image[::-1], lambda: image)
