"""The EXIF orientation of an encoded image, read inside the TensorFlow graph."""

from collections.abc import Sequence

import tensorflow as tf

_SEARCHED = 1 << 18
"""Bytes in which it is looked for: it stands near the beginning."""

# A byte, or None where any may stand: marker, length and name of a JPEG's segment; name of a PNG's chunk.
_JPEG_SEGMENT = (0xFF, 0xE1, None, None, *b"Exif\0\0")
_PNG_CHUNK = tuple(b"eXIf")
_PNG_PIXELS = tuple(b"IDAT")

_ORIENTATION, _SHORT, _LONG = 0x0112, 3, 4
_ENTRY = 12
"""Bytes: tag, type, count and value."""


def exif_orientation(contents: tf.Tensor) -> tf.Tensor:
    """How a JPEG or PNG has to be turned, 1–8, int32; 1 where it does not say, or nothing that means anything.

    Args:
        contents: The file, a string scalar.
    """
    data = tf.cast(tf.io.decode_raw(tf.strings.substr(contents, 0, _SEARCHED), tf.uint8), tf.int32)
    jpeg, chunk, pixels = (_first(data, pattern) for pattern in (_JPEG_SEGMENT, _PNG_CHUNK, _PNG_PIXELS))
    is_jpeg = data[0] == 0xFF
    start = tf.where(is_jpeg, jpeg + len(_JPEG_SEGMENT), chunk + len(_PNG_CHUNK))
    # What stands behind a PNG's pixels is not known when these are read.
    found = tf.where(is_jpeg, jpeg >= 0, (chunk >= 0) & (chunk < pixels))
    return tf.cond(found, lambda: _of_directory(data[start:]), lambda: tf.constant(1))


def _of_directory(data: tf.Tensor) -> tf.Tensor:
    """The orientation in a TIFF structure; whatever is cut off reads as zeros."""
    little = data[0] == ord("I")
    data = tf.pad(data, [[0, _ENTRY]])
    at = _number(data[4:8], little)
    at = tf.where((at < 0) | (at > tf.size(data) - _ENTRY), tf.size(data) - _ENTRY, at)
    entries = data[at + 2 :][: _ENTRY * _number(data[at : at + 2], little)]
    entries = tf.reshape(entries[: tf.size(entries) // _ENTRY * _ENTRY], (-1, _ENTRY))
    tag, kind = _number(entries[:, :2], little), _number(entries[:, 2:4], little)
    short, long = _number(entries[:, 8:10], little), _number(entries[:, 8:12], little)
    value = tf.where(kind == _SHORT, short, tf.where(kind == _LONG, long, 1))
    mine = tf.boolean_mask(value, (tag == _ORIENTATION) & (_number(entries[:, 4:8], little) == 1))
    value = tf.concat([[1], mine], 0)[-1]
    return tf.where((value >= 1) & (value <= 8), value, 1)


def _number(data: tf.Tensor, little: tf.Tensor) -> tf.Tensor:
    """The bytes along the last axis as one number, int32."""
    data = tf.cond(little, lambda: tf.reverse(data, [-1]), lambda: data)
    powers = tf.bitwise.left_shift(1, 8 * tf.range(tf.shape(data)[-1] - 1, -1, -1))
    return tf.reduce_sum(data * powers, axis=-1)


def _first(data: tf.Tensor, pattern: Sequence[int | None]) -> tf.Tensor:
    """Where `pattern` stands first, int32; -1 where it does not."""
    places = tf.maximum(tf.size(data) - len(pattern) + 1, 0)
    same = tf.ones((places,), tf.bool)
    for offset, byte in enumerate(pattern):
        if byte is not None:
            same &= data[offset : offset + places] == byte
    return tf.cond(tf.reduce_any(same), lambda: tf.argmax(same, output_type=tf.int32), lambda: tf.constant(-1))
