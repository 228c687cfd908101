"""A stored image as a tensor, inside the TensorFlow graph: what is seen of it is decoded, resized and turned.

An encoded image of which nothing is known beforehand, as the square that the network sees: all in one graph.

What `framing.py` and `ImageSource` do for files whose headers were read before; a test holds both to the same pixels.

The EXIF orientation of an encoded image, read inside the TensorFlow graph.

Images that lie ready as plain pixels of the right size: a whole batch of them is one read.

Which part of a stored image is seen, and how large it becomes.

    stored image -> (the retina's disc) -> (its central square) -> resized -> turned -> (padded) -> square

Arithmetic on sizes that are known before an image is decoded, so that no more is decoded than is seen.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import tensorflow as tf

from radtransfer.config.schema import ImageSettings
from radtransfer.errors import BadImageError
from radtransfer.images.formats import ImageFacts
from radtransfer.images.refs import SIXTEEN_BITS, FilePart, ImagePlace, parse_window


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


class StoredPixels:
    """Reads images by their numbers into tensors.

    Attributes:
        dtype: uint8, or float32 where an image has more than 8 bits.
        image_size: Side in pixels.
    """

    def __init__(self, read: Callable[[np.ndarray], np.ndarray], *, dtype: type, image_size: int):
        """`read` gives (images, image_size, image_size, 3), RGB, 0–255, for the numbers of images."""
        self._read, self.dtype, self.image_size = read, tf.as_dtype(dtype), image_size

    def images(self, rows: tf.Tensor) -> tf.Tensor:
        """The images of these numbers, float32 (images, image_size, image_size, 3), RGB, 0–255."""
        found = tf.numpy_function(self._read, [rows], self.dtype, stateful=False)
        return tf.cast(tf.ensure_shape(found, (rows.shape[0], self.image_size, self.image_size, 3)), tf.float32)

    def image(self, row: tf.Tensor) -> tf.Tensor:
        """Image number `row`, float32 (image_size, image_size, 3), RGB, 0–255."""
        return self.images(row[tf.newaxis])[0]


def pixels_of_array(array: np.ndarray) -> StoredPixels:
    """The images of an array (images, size, size, 3), in memory or memory-mapped."""
    return StoredPixels(array.__getitem__, dtype=array.dtype, image_size=array.shape[1])


def pixels_of_files(places: Sequence[ImagePlace], *, image_size: int) -> StoredPixels:
    """The images of files that hold plain pixels.

    Args:
        places: Of each image.
        image_size: Side in pixels.
    """

    def read(rows: np.ndarray) -> np.ndarray:
        images = np.empty((len(rows), image_size, image_size, 3), np.uint8)
        for image, row in zip(images, rows, strict=True):
            read_pixels_into(image, places[row])
        return images

    return StoredPixels(read, dtype=np.uint8, image_size=image_size)


def read_pixels_into(image: np.ndarray, place: FilePart) -> None:
    """Fill `image`, uint8 (height, width, 3), from the bytes at `place`.

    Raises:
        BadImageError: The file ends before them.
        OSError: It cannot be read.
    """
    with place.path.open("rb", buffering=0) as file:
        file.seek(place.offset)
        if file.readinto(memoryview(image).cast("B")) != image.nbytes:
            raise BadImageError(place, "the file ends before it")


def lie_ready(facts: Sequence[ImageFacts], *, image_size: int) -> bool:
    """Whether all images are plain pixels of this size, so that nothing is to be done but to read them."""
    return all(
        fact.decoder == "pixels" and (fact.height, fact.width) == (image_size, image_size) and fact.disc is None
        for fact in facts
    )


JPEG_RATIOS = (1, 2, 4, 8)
"""Sizes at which a JPEG can be decoded, as divisors."""

LARGE = 1_000_000
"""Pixels from which an image is large."""

FACTOR = 3
"""Up to how much smaller averaging by area makes a side: beyond, it aliases, and saves no time."""

DISPLACED = 0.0008
"""Of a side, by which averaging by area may displace an edge: it knows whole pixels only."""


@dataclass(frozen=True, slots=True)
class Framing:
    """How one stored image, before it is turned upright, becomes a picture.

    Attributes:
        top: First row that is decoded, in pixels as decoded.
        left: First column, likewise.
        height: Rows that are decoded.
        width: Columns.
        ratio: A JPEG is decoded at 1/ratio of its size; `top` to `width` count these pixels.
        seen: Top, left, height and width of what is seen of them: at 1/ratio an edge may lie within a pixel.
        rows: Height after the resize, pixels.
        columns: Width after it.
        by_area: Whether the resize averages areas, of whole pixels. Otherwise it is bilinear and antialiased: slower,
            and exact to parts of a pixel. Both average over every pixel, so that a small lesion is never skipped.
    """

    top: int
    left: int
    height: int
    width: int
    ratio: int
    seen: tuple[float, float, float, float]
    rows: int
    columns: int
    by_area: bool

    @property
    def resizes(self) -> bool:
        """Whether the size changes after decoding."""
        return (self.rows, self.columns) != (self.height, self.width)


def frame_image(facts: ImageFacts, *, size: int, aspect: Literal["stretch", "pad", "crop"]) -> Framing:
    """The framing of an image that is to fill, or to fit into, a square of `size` pixels."""
    top, left, height, width = facts.disc or (0, 0, facts.height, facts.width)
    rows = columns = size
    if aspect == "crop":
        side = min(height, width)
        top, left, height, width = top + (height - side) // 2, left + (width - side) // 2, side, side
    elif aspect == "pad":
        rows, columns = (max(1, round(size * side / max(height, width))) for side in (height, width))
    large = height * width > LARGE
    ratio = _ratio(height, width, rows, columns, large=large) if facts.decoder == "jpeg" else 1
    first_row, decoded_rows = _covering(top, height, ratio)
    first_column, decoded_columns = _covering(left, width, ratio)
    seen = top / ratio - first_row, left / ratio - first_column, height / ratio, width / ratio
    sides = ((seen[0], seen[2], decoded_rows, rows), (seen[1], seen[3], decoded_columns, columns))
    by_area = large and all(_fits_area(*side) for side in sides)
    return Framing(first_row, first_column, decoded_rows, decoded_columns, ratio, seen, rows, columns, by_area=by_area)


def _ratio(height: int, width: int, rows: int, columns: int, *, large: bool) -> int:
    """The smallest decoding that still has a pixel for each of the result, or two in small images.

    The decoder's own averaging is coarser than the resize; in a small image, which is decoded soon, more is left
    to the resize.
    """
    spare = 1 if large else 2
    fitting = [ratio for ratio in JPEG_RATIOS if height >= spare * rows * ratio and width >= spare * columns * ratio]
    return max(fitting, default=1)


def _covering(start: int, length: int, ratio: int) -> tuple[int, int]:
    """First pixel, and how many, of the decoding at 1/ratio that hold everything from `start` on."""
    first = start // ratio
    return first, -(-(start + length) // ratio) - first


def _fits_area(start: float, length: float, decoded: int, pixels: int) -> bool:
    """Whether `decoded` pixels averaged by area are near to what is seen of them, becoming `pixels`."""
    displaced = max(start, decoded - start - length) / decoded
    return pixels <= decoded <= FACTOR * pixels and displaced <= DISPLACED


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
            window, seen = _covering_encoded_image(place, ratio)
            return _framed(decode_jpeg(contents, window, ratio=ratio), seen, (rows, columns), large)

        return decode

    return tf.switch_case(way, [decoded(ratio) for ratio in JPEG_RATIOS])


def _from_png(contents: tf.Tensor, size: int, reading: ImageSettings) -> tf.Tensor:
    deep = tf.strings.substr(contents, 24, 1) == b"\x10"  # bits of a value, in the header

    def framed(image: tf.Tensor, *, whole: bool) -> tf.Tensor:
        height, width = tf.shape(image)[0], tf.shape(image)[1]
        place, target, large = _place(height, width, size, reading)
        window, seen = _covering_encoded_image(place, 1)
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


def _covering_encoded_image(place: tuple, ratio: int) -> tuple[tf.Tensor, tf.Tensor]:
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
    by_area = large & tf.reduce_all(
        _fits_area_encoded_image(seen, tf.cast(shape, tf.float64), tf.cast(size, tf.float64))
    )
    plain = tf.cast(seen, tf.float32)

    def resize() -> tf.Tensor:
        result = tf.cond(
            by_area,
            lambda: resized(image, plain, size, by_area=True),
            lambda: resized(image, plain, size, by_area=False),
        )
        return tf.round(result) if whole else result

    return tf.cond(tf.reduce_all(shape == size), lambda: tf.cast(image, tf.float32), resize)


def _fits_area_encoded_image(seen: tf.Tensor, decoded: tf.Tensor, pixels: tf.Tensor) -> tf.Tensor:
    """As `framing` decides it, for rows and columns."""
    displaced = tf.maximum(seen[:2], decoded - seen[:2] - seen[2:]) / decoded
    return (pixels <= decoded) & (decoded <= FACTOR * pixels) & (displaced <= DISPLACED)


def _check(condition: tf.Tensor, message: str) -> tf.Operation:
    return tf.debugging.Assert(condition, [message])
