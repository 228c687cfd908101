"""An encoded image of which nothing is known beforehand, as the square that the network sees: all in one graph.

What `framing.py` and `ImageSource` do for files whose headers were read before; a test holds both to the same pixels.
"""

from collections.abc import Callable

import tensorflow as tf

from radtransfer.intensity_window import SIXTEEN_BITS, parse_window
from radtransfer.pipeline.decoding import cut, decode_jpeg, padded, resized, upright
from radtransfer.pipeline.exif import exif_orientation
from radtransfer.pipeline.framing import DISPLACED, FACTOR, JPEG_RATIOS, LARGE
from radtransfer.settings import ImageSettings

_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"


def can_read_encoded(reading: ImageSettings) -> bool:
    """Whether `encoded_image` can read as `reading` says: the disc of a retina is looked for outside a graph."""
    return not reading.fundus_crop


def encoded_image(contents: tf.Tensor, *, image_size: int, reading: ImageSettings) -> tf.Tensor:
    """A JPEG or PNG, decoded, framed, resized and turned as in training: float32 (size, size, 3), RGB, 0–255.

    Args:
        contents: The file, a string scalar. Anything but a PNG, or a JPEG in grey or colour, fails with
            `InvalidArgumentError`.
        image_size: Side of the square, pixels.
        reading: How it becomes one; see `can_read_encoded`.
    """
    is_jpeg = tf.strings.substr(contents, 0, len(_JPEG)) == _JPEG
    is_png = tf.strings.substr(contents, 0, len(_PNG)) == _PNG
    with tf.control_dependencies([_check(is_jpeg | is_png, "Expected an encoded JPEG or PNG.")]):
        contents = tf.identity(contents)
    image = tf.cond(
        is_jpeg,
        lambda: _from_jpeg(contents, image_size, reading),
        lambda: _from_png(contents, image_size, reading),
    )
    image = upright(image, exif_orientation(contents))
    if reading.aspect == "pad":
        image = padded(image, image_size)
    return tf.ensure_shape(image, (image_size, image_size, 3))


def _from_jpeg(contents: tf.Tensor, size: int, reading: ImageSettings) -> tf.Tensor:
    height, width, channels = tf.unstack(tf.io.extract_jpeg_shape(contents, output_type=tf.int32))
    wrong = "Expected a JPEG in grey or colour; this one is CMYK, of which the colours would be inverted."
    with tf.control_dependencies([_check((channels == 1) | (channels == 3), wrong)]):
        place, (rows, columns), large = _place(height, width, size, reading)
    fits = [_fits(ratio, place, rows, columns, large) for ratio in JPEG_RATIOS]
    way = tf.reduce_max(tf.where(fits, range(len(JPEG_RATIOS)), 0))

    def decoded(ratio: int) -> Callable[[], tf.Tensor]:
        def decode() -> tf.Tensor:
            window, seen = _covering(place, ratio)
            return _framed(decode_jpeg(contents, window, ratio=ratio), seen, (rows, columns), large)

        return decode

    return tf.switch_case(way, [decoded(ratio) for ratio in JPEG_RATIOS])


def _from_png(contents: tf.Tensor, size: int, reading: ImageSettings) -> tf.Tensor:
    deep = tf.strings.substr(contents, 24, 1) == b"\x10"  # bits of a value, in the header

    def framed(image: tf.Tensor, *, whole: bool) -> tf.Tensor:
        height, width = tf.shape(image)[0], tf.shape(image)[1]
        place, target, large = _place(height, width, size, reading)
        window, seen = _covering(place, 1)
        return _framed(cut(image, window), seen, target, large, whole=whole)

    return tf.cond(
        deep,
        lambda: framed(_levelled(tf.io.decode_png(contents, channels=3, dtype=tf.uint16), reading), whole=False),
        lambda: framed(tf.io.decode_png(contents, channels=3), whole=True),
    )


def _levelled(image: tf.Tensor, reading: ImageSettings) -> tf.Tensor:
    """16-bit values as float32, 0–255, by the setting `images.window`."""
    image, window = tf.cast(image, tf.float32), parse_window(reading.window)
    if window.name == "minmax":
        low, high = tf.reduce_min(image), tf.reduce_max(image)
        high = tf.where(high > low, high, low + 1)
    else:
        low, high = window.levels(*SIXTEEN_BITS)
    return tf.clip_by_value((image - low) * (255.0 / (high - low)), 0.0, 255.0)


def _place(height: tf.Tensor, width: tf.Tensor, size: int, reading: ImageSettings) -> tuple:
    """What is seen of the image (top, left, height, width), what it becomes (rows, columns), and if it is large."""
    top, left, rows, columns = (tf.constant(value) for value in (0, 0, size, size))
    if reading.aspect == "crop":
        side = tf.minimum(height, width)
        top, left, height, width = (height - side) // 2, (width - side) // 2, side, side
    elif reading.aspect == "pad":
        longest = tf.maximum(height, width)
        # int / int is float64, and both round halves to even, as Python does.
        rows, columns = (tf.maximum(1, tf.cast(tf.round(size * side / longest), tf.int32)) for side in (height, width))
    large = tf.cast(height, tf.int64) * tf.cast(width, tf.int64) > LARGE
    return (top, left, height, width), (rows, columns), large


def _fits(ratio: int, place: tuple, rows: tf.Tensor, columns: tf.Tensor, large: tf.Tensor) -> tf.Tensor:
    spare = tf.where(large, 1, 2) * ratio
    return (place[2] >= spare * rows) & (place[3] >= spare * columns)


def _covering(place: tuple, ratio: int) -> tuple[tf.Tensor, tf.Tensor]:
    """What to decode at 1/ratio, int32 (4,), and what is seen of that, float64 (4,)."""
    top, left, height, width = place
    row, column = top // ratio, left // ratio
    rows, columns = -(-(top + height) // ratio) - row, -(-(left + width) // ratio) - column
    parts = [tf.cast(value, tf.float64) / ratio for value in place]
    seen = tf.stack([parts[0] - tf.cast(row, tf.float64), parts[1] - tf.cast(column, tf.float64), parts[2], parts[3]])
    return tf.stack([row, column, rows, columns]), seen


def _framed(image: tf.Tensor, seen: tf.Tensor, target: tuple, large: tf.Tensor, *, whole: bool = True) -> tf.Tensor:
    """The decoded part, resized where its size is another; rounded where its values are `whole` numbers."""
    shape, size = tf.shape(image)[:2], tf.stack(target)
    by_area = large & tf.reduce_all(_fits_area(seen, tf.cast(shape, tf.float64), tf.cast(size, tf.float64)))
    plain = tf.cast(seen, tf.float32)

    def resize() -> tf.Tensor:
        result = tf.cond(
            by_area,
            lambda: resized(image, plain, size, by_area=True),
            lambda: resized(image, plain, size, by_area=False),
        )
        return tf.round(result) if whole else result

    return tf.cond(tf.reduce_all(shape == size), lambda: tf.cast(image, tf.float32), resize)


def _fits_area(seen: tf.Tensor, decoded: tf.Tensor, pixels: tf.Tensor) -> tf.Tensor:
    """As `framing` decides it, for rows and columns."""
    displaced = tf.maximum(seen[:2], decoded - seen[:2] - seen[2:]) / decoded
    return (pixels <= decoded) & (decoded <= FACTOR * pixels) & (displaced <= DISPLACED)


def _check(condition: tf.Tensor, message: str) -> tf.Operation:
    return tf.debugging.Assert(condition, [message])
