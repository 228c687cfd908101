"""From a stored image to the square input of a model, in the TensorFlow graph.

    file -> visible part, decoded -> antialiased resize -> rounded -> rotated by EXIF -> (padded) -> square

The visible part is the disc of the retina (`images.fundus_crop`), the central square (`images.aspect: crop`), or the
whole image. `frame` computes what to decode and how to resize it: for `ImageSource` in NumPy, for all images from their
headers; for `encoded_image` in the graph.
"""

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import tensorflow as tf

from radtransfer.config.schema import ImageSettings
from radtransfer.errors import BadImageError
from radtransfer.images.formats import ImageFacts, decode_outside
from radtransfer.images.refs import SIXTEEN_BITS, FilePart, ImageRef, as_part, parse_window, read_contents

JPEG_RATIOS = (1, 2, 4, 8)  # a JPEG can be decoded at 1/ratio of its size
LARGE = 1_000_000  # pixels from which an image is large
FACTOR = 3  # largest reduction of a side by area averaging; beyond, it aliases and is not faster
DISPLACED = 0.0008  # largest displacement of an edge by area averaging (whole pixels), as a fraction of the side
_VERSION = 3  # part of the cache key; increase when decoding or resizing changes


class Framing(NamedTuple):
    """Decoding and resizing of images before EXIF rotation; float64, (images, …) or of one image."""

    window: Any  # top, left, height and width of the decoded part, in decoded pixels
    seen: Any  # the same of the visible part, which at 1/ratio may start within a pixel
    size: Any  # height and width after the resize, pixels
    ratio: Any  # a JPEG is decoded at 1/ratio of its size
    # Whether to average areas of whole pixels; else resize bilinearly with antialiasing: slower, exact to parts of a
    # pixel. Both average over all pixels, so that small lesions are not lost.
    by_area: Any


def frame(ops: Any, box: Sequence[Any], *, size: int, aspect: Literal["stretch", "pad", "crop"], jpeg: Any) -> Framing:
    """The framing of images for a square of `size` pixels; `ops` is NumPy or TensorFlow.

    `box` is top, left, height and width of the visible part, float64, (images,) or scalars each; `jpeg` marks JPEGs.
    """
    top, left, height, width = box
    one = ops.ones_like(height)
    rows = columns = one * size
    if aspect == "crop":
        side = ops.minimum(height, width)
        top, left, height, width = top + (height - side) // 2, left + (width - side) // 2, side, side
    elif aspect == "pad":
        longest = ops.maximum(height, width)
        rows, columns = (ops.maximum(ops.round(size * side / longest), 1.0) for side in (height, width))
    large = height * width > LARGE
    # The smallest decoded size with at least one pixel per result pixel, two for small images: the averaging of the
    # decoder is coarser than the resize, and small images are decoded quickly.
    spare, ratio = ops.where(large, one, 2 * one), one
    for smaller in JPEG_RATIOS[1:]:
        fits = (height >= spare * rows * smaller) & (width >= spare * columns * smaller) & jpeg
        ratio = ops.where(fits, smaller * one, ratio)
    window, seen, by_area = [], [], large
    for start, length, pixels in ((top, height, rows), (left, width, columns)):
        first = start // ratio
        decoded = -(-(start + length) // ratio) - first
        start, length = start / ratio - first, length / ratio
        window, seen = [*window, first, decoded], [*seen, start, length]
        displaced = ops.maximum(start, decoded - start - length) / decoded
        by_area = by_area & (pixels <= decoded) & (decoded <= FACTOR * pixels) & (displaced <= DISPLACED)
    order = (0, 2, 1, 3)
    last = len(rows.shape)
    window, seen = (ops.stack([values[index] for index in order], axis=last) for values in (window, seen))
    return Framing(window, seen, ops.stack([rows, columns], axis=last), ratio, by_area)


class ImageSource:
    """The images of a set, decoded as squares of `image_size` pixels; the graph has only the operations they need."""

    def __init__(
        self, refs: Sequence[ImageRef], facts: Sequence[ImageFacts], *, image_size: int, reading: ImageSettings
    ):
        self.refs, self.facts, self.image_size, self.reading = tuple(refs), tuple(facts), image_size, reading
        boxes = np.array([fact.disc or (0, 0, fact.height, fact.width) for fact in facts], np.float64).reshape(-1, 4)
        jpegs = np.array([fact.decoder == "jpeg" for fact in facts], bool)
        framing = frame(np, boxes.T, size=image_size, aspect=reading.aspect, jpeg=jpegs)
        resizes = (framing.size != framing.window[:, 2:]).any(axis=1)
        choices = (framing.ratio.astype(int), framing.by_area, resizes)
        plans = []  # images with the same plan share operations of the graph
        for fact, *row in zip(facts, *choices, strict=True):
            decoder = "outside" if fact.decoder in ("pillow", "dicom") else fact.decoder
            plans.append((decoder, fact.deep, *(item.item() for item in row)))
        self._plans = sorted(set(plans))
        self._plan_of = tf.constant([self._plans.index(plan) for plan in plans], tf.int32)
        self._window, self._size = tf.cast(framing.window, tf.int32), tf.cast(framing.size, tf.int32)
        self._seen = tf.cast(framing.seen, tf.float32)
        self._orientation = tf.constant([fact.orientation for fact in facts], tf.int32)
        self._levels = tf.constant([fact.levels for fact in facts], tf.float32)
        self._file = tf.constant([str(as_part(ref).path) for ref in refs])
        self._in_parts = any(isinstance(ref, FilePart) for ref in refs)
        self._turned = any(fact.orientation != 1 for fact in facts)
        self._array = None
        shape = "pixels", (image_size, image_size), None
        self.is_raw = all((fact.decoder, (fact.height, fact.width), fact.disc) == shape for fact in facts)

    def __len__(self) -> int:
        return len(self.refs)

    @property
    def deep(self) -> bool:
        """Whether some image has more than 8 bits; all others have integer values."""
        return any(fact.deep for fact in self.facts)

    def from_array(self, array: np.ndarray) -> "ImageSource":
        """The same images from an array of decoded ones, (images, size, size, 3), 0–255, uint8 or float32."""
        source = copy.copy(self)
        source._array, source.is_raw = array, True
        return source

    def images(self, rows: tf.Tensor) -> tf.Tensor:
        """Raw images, float32 (images, size, size, 3), RGB, 0–255, in one read; only if `is_raw`."""

        def read(rows: np.ndarray) -> np.ndarray:
            if self._array is not None:
                return self._array[rows]
            images = np.empty((len(rows), self.image_size, self.image_size, 3), np.uint8)
            for image, row in zip(images, rows, strict=True):
                _read_pixels(image, self.refs[row])
            return images

        dtype = tf.uint8 if self._array is None else tf.as_dtype(self._array.dtype)
        found = tf.numpy_function(read, [rows], dtype, stateful=False)
        return tf.cast(tf.ensure_shape(found, (rows.shape[0], self.image_size, self.image_size, 3)), tf.float32)

    def image(self, row: tf.Tensor) -> tf.Tensor:
        """Image number `row`, float32 (size, size, 3), RGB, 0–255; 8-bit images are rounded to integers."""
        if self.is_raw:
            return self.images(tf.reshape(row, [1]))[0]
        branches = [partial(self._framed, plan, row) for plan in self._plans]
        image = branches[0]() if len(branches) == 1 else tf.switch_case(self._plan_of[row], branches)
        if self._turned:
            image = _upright(image, self._orientation[row])
        return _squared(image, self.image_size, self.reading)

    def fingerprint(self, row: int) -> str:
        """A key of the decoded image: reference, file size, modification time, and framing."""
        ref, facts = self.refs[row], self.facts[row]
        status = as_part(ref).path.stat()
        how = f"{facts.orientation} {facts.disc} {facts.levels} {self.reading} {self.image_size}"
        return f"{_VERSION} {ref} {status.st_size} {status.st_mtime_ns} {how}\n"

    def _framed(self, plan: tuple, row: tf.Tensor) -> tf.Tensor:
        """Image number `row` by its plan: decoded, resized and rounded."""
        decoder, deep, ratio, by_area, resizes = plan
        window = self._window[row]
        if decoder == "jpeg":
            image = _decode_jpeg(self._contents(row), window, ratio=ratio)
        elif decoder == "png8":
            image = _cut(tf.io.decode_png(self._contents(row), channels=3), window)
        elif decoder == "png16":
            image = _cut(tf.io.decode_png(self._contents(row), channels=3, dtype=tf.uint16), window)
            image = _levelled(tf.cast(image, tf.float32), *tf.unstack(self._levels[row]))
        else:
            dtype = tf.uint8 if decoder == "pixels" else tf.float32
            image = tf.numpy_function(self._read_outside, [row], dtype, stateful=False)
            image = _cut(tf.ensure_shape(image, (None, None, 3)), window)
        if not resizes:
            return tf.cast(image, tf.float32)
        image = _resized(image, self._seen[row], self._size[row], by_area=by_area)
        return image if deep else tf.round(image)

    def _contents(self, row: tf.Tensor) -> tf.Tensor:
        """The bytes of the image, without Python if it is a whole file."""
        if not self._in_parts:
            return tf.io.read_file(self._file[row])
        part = tf.numpy_function(lambda number: read_contents(self.refs[number]), [row], tf.string, stateful=False)
        return tf.ensure_shape(part, ())

    def _read_outside(self, row: int) -> np.ndarray:
        ref, facts = self.refs[int(row)], self.facts[int(row)]
        if facts.decoder != "pixels":
            return decode_outside(ref, facts, self.reading.window)
        image = np.empty((facts.height, facts.width, 3), np.uint8)
        _read_pixels(image, ref)
        return image


def _read_pixels(image: np.ndarray, ref: FilePart) -> None:
    """Read raw pixels into `image`, uint8 (height, width, 3)."""
    with ref.path.open("rb", buffering=0) as file:
        file.seek(ref.offset)
        if file.readinto(memoryview(image).cast("B")) != image.nbytes:
            raise BadImageError(ref, "the file ends before it")


def can_read_encoded(reading: ImageSettings) -> bool:
    """Whether `encoded_image` supports these settings (not `fundus_crop`, which runs outside the graph)."""
    return not reading.fundus_crop


def encoded_image(contents: tf.Tensor, *, image_size: int, reading: ImageSettings) -> tf.Tensor:
    """Decode a PNG, or a JPEG in grayscale or colour, as `ImageSource` does: float32 (size, size, 3), RGB, 0–255.

    `contents` is the file, a string scalar; other formats fail with `InvalidArgumentError`. See `can_read_encoded`.
    """
    is_jpeg = tf.strings.substr(contents, 0, 3) == b"\xff\xd8\xff"
    is_png = tf.strings.substr(contents, 0, 8) == b"\x89PNG\r\n\x1a\n"
    with tf.control_dependencies([tf.debugging.Assert(is_jpeg | is_png, ["Expected an encoded JPEG or PNG."])]):
        contents = tf.identity(contents)
    image = tf.cond(
        is_jpeg, lambda: _from_jpeg(contents, image_size, reading), lambda: _from_png(contents, image_size, reading)
    )
    return _squared(_upright(image, exif_orientation(contents)), image_size, reading)


def _from_jpeg(contents: tf.Tensor, size: int, reading: ImageSettings) -> tf.Tensor:
    height, width, channels = tf.unstack(tf.io.extract_jpeg_shape(contents, output_type=tf.int32))
    wrong = "Expected a JPEG in grayscale or RGB. Received: CMYK."
    with tf.control_dependencies([tf.debugging.Assert((channels == 1) | (channels == 3), [wrong])]):
        framing = _frame_whole(height, width, size, reading, jpeg=True)
    window = tf.cast(framing.window, tf.int32)
    branches = [partial(_decode_jpeg, contents, window, ratio=ratio) for ratio in JPEG_RATIOS]
    image = tf.switch_case(tf.argmax(framing.ratio == JPEG_RATIOS, output_type=tf.int32), branches)
    return _resized_if_needed(image, framing, rounds=True)


def _from_png(contents: tf.Tensor, size: int, reading: ImageSettings) -> tf.Tensor:
    def framed(image: tf.Tensor, *, rounds: bool) -> tf.Tensor:
        framing = _frame_whole(tf.shape(image)[0], tf.shape(image)[1], size, reading, jpeg=False)
        return _resized_if_needed(_cut(image, tf.cast(framing.window, tf.int32)), framing, rounds=rounds)

    def deep() -> tf.Tensor:
        image = tf.cast(tf.io.decode_png(contents, channels=3, dtype=tf.uint16), tf.float32)
        window = parse_window(reading.window)
        low, high = window.levels(*SIXTEEN_BITS)
        if window.name == "minmax":
            low, high = tf.reduce_min(image), tf.reduce_max(image)
            high = tf.where(high > low, high, low + 1)
        return framed(_levelled(image, low, high), rounds=False)

    bits_of_a_value = tf.strings.substr(contents, 24, 1)
    return tf.cond(
        bits_of_a_value == b"\x10", deep, lambda: framed(tf.io.decode_png(contents, channels=3), rounds=True)
    )


def _frame_whole(height: tf.Tensor, width: tf.Tensor, size: int, reading: ImageSettings, *, jpeg: bool) -> Framing:
    zero = tf.constant(0.0, tf.float64)
    box = (zero, zero, tf.cast(height, tf.float64), tf.cast(width, tf.float64))
    return frame(tf, box, size=size, aspect=reading.aspect, jpeg=jpeg)


def _resized_if_needed(image: tf.Tensor, framing: Framing, *, rounds: bool) -> tf.Tensor:
    seen, size = tf.cast(framing.seen, tf.float32), tf.cast(framing.size, tf.int32)

    def resize() -> tf.Tensor:
        result = tf.cond(
            framing.by_area,
            lambda: _resized(image, seen, size, by_area=True),
            lambda: _resized(image, seen, size, by_area=False),
        )
        return tf.round(result) if rounds else result

    return tf.cond(tf.reduce_all(tf.shape(image)[:2] == size), lambda: tf.cast(image, tf.float32), resize)


def _decode_jpeg(contents: tf.Tensor, window: tf.Tensor, *, ratio: int) -> tf.Tensor:
    """Decode only the part of a JPEG in `window`: uint8 (height, width, 3), RGB."""
    return tf.io.decode_and_crop_jpeg(contents, window, channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE")


def _cut(image: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    return tf.slice(image, [window[0], window[1], 0], [window[2], window[3], 3])


def _levelled(image: tf.Tensor, low: Any, high: Any) -> tf.Tensor:
    return tf.clip_by_value((image - low) * (255.0 / (high - low)), 0.0, 255.0)


def _resized(image: tf.Tensor, seen: tf.Tensor, size: tf.Tensor, *, by_area: bool) -> tf.Tensor:
    """The visible part of `image` resized to `size`, float32; see `Framing`."""
    if by_area:
        return tf.image.resize(image, size, method="area")
    # As `tf.image.resize` with antialias, for a window with fractional edges.
    scale = tf.cast(size, tf.float32) / seen[2:]
    return tf.raw_ops.ScaleAndTranslate(
        images=image[tf.newaxis], size=size, scale=scale, translation=-seen[:2] * scale, kernel_type="triangle"
    )[0]


def _upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    def turned() -> tf.Tensor:
        """Orientations 5–8 are 1–4 of the transposed image; two of each four are mirrored, two upside down."""
        quarter = (orientation - 1) % 4
        result = tf.cond(orientation > 4, lambda: tf.transpose(image, (1, 0, 2)), lambda: image)
        result = tf.cond((quarter == 1) | (quarter == 2), lambda: result[:, ::-1], lambda: result)
        return tf.cond(quarter >= 2, lambda: result[::-1], lambda: result)

    return tf.cond(orientation == 1, lambda: image, turned)


def _squared(image: tf.Tensor, size: int, reading: ImageSettings) -> tf.Tensor:
    if reading.aspect == "pad":
        height, width = tf.shape(image)[0], tf.shape(image)[1]
        image = tf.image.pad_to_bounding_box(image, (size - height) // 2, (size - width) // 2, size, size)
    return tf.ensure_shape(image, (size, size, 3))


_ENTRY = 12  # bytes of an entry of EXIF: tag, type, count and value


def exif_orientation(contents: tf.Tensor) -> tf.Tensor:
    """The EXIF orientation of a JPEG or PNG, 1–8, int32; 1 if missing or invalid. Only the first 256 KB are read."""
    data = tf.cast(tf.io.decode_raw(tf.strings.substr(contents, 0, 1 << 18), tf.uint8), tf.int32)
    segment = (0xFF, 0xE1, None, None, *b"Exif\0\0")  # of a JPEG: marker, length and name
    jpeg, chunk, pixels = (_first(data, pattern) for pattern in (segment, b"eXIf", b"IDAT"))
    is_jpeg = data[0] == 0xFF
    start = tf.where(is_jpeg, jpeg + len(segment), chunk + 4)
    # EXIF after the pixels of a PNG is ignored, as by Pillow.
    found = tf.where(is_jpeg, jpeg >= 0, (chunk >= 0) & (chunk < pixels))
    return tf.cond(found, lambda: _directory_orientation(data[start:]), lambda: tf.constant(1))


def _first(data: tf.Tensor, pattern: Sequence[int | None]) -> tf.Tensor:
    """The first position of `pattern` (None: any byte), int32; -1 if it does not occur."""
    count = tf.maximum(tf.size(data) - len(pattern) + 1, 0)
    same = tf.ones((count,), tf.bool)
    for offset, byte in enumerate(pattern):
        if byte is not None:
            same &= data[offset : offset + count] == byte
    return tf.cond(tf.reduce_any(same), lambda: tf.argmax(same, output_type=tf.int32), lambda: tf.constant(-1))


def _directory_orientation(data: tf.Tensor) -> tf.Tensor:
    """The orientation in a TIFF structure; truncated parts read as zeros."""
    little = data[0] == ord("I")

    def number(data: tf.Tensor) -> tf.Tensor:
        data = tf.cond(little, lambda: tf.reverse(data, [-1]), lambda: data)
        powers = tf.bitwise.left_shift(1, 8 * tf.range(tf.shape(data)[-1] - 1, -1, -1))
        return tf.reduce_sum(data * powers, axis=-1)

    data = tf.pad(data, [[0, _ENTRY]])
    at = number(data[4:8])
    at = tf.where((at < 0) | (at > tf.size(data) - _ENTRY), tf.size(data) - _ENTRY, at)
    entries = data[at + 2 :][: _ENTRY * number(data[at : at + 2])]
    entries = tf.reshape(entries[: tf.size(entries) // _ENTRY * _ENTRY], (-1, _ENTRY))
    kind, short, long = number(entries[:, 2:4]), number(entries[:, 8:10]), number(entries[:, 8:12])
    value = tf.where(kind == 3, short, tf.where(kind == 4, long, 1))
    mine = tf.boolean_mask(value, (number(entries[:, :2]) == 0x0112) & (number(entries[:, 4:8]) == 1))
    value = tf.concat([[1], mine], 0)[-1]
    return tf.where((value >= 1) & (value <= 8), value, 1)
