"""The images of a set as tensors: each read, decoded, resized and turned inside the TensorFlow graph.

The graph holds only what the set needs: a way of decoding that no image asks for is never built.
"""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from radtransfer.image_formats import ImageFacts, decode_outside
from radtransfer.image_place import FilePart, ImagePlace, as_part, read_contents
from radtransfer.pipeline.decoding import (
    cut,
    decode_deep_png,
    decode_jpeg,
    decode_png,
    outside_graph,
    padded,
    resized,
    upright,
)
from radtransfer.pipeline.framing import Framing, frame_image
from radtransfer.pipeline.stored_pixels import StoredPixels, lie_ready, pixels_of_files, read_pixels_into
from radtransfer.settings import ImageSettings

_VERSION = 3
"""Raised whenever an image is decoded or resized otherwise, so that no older pixels are taken for it."""


class ImageSource:
    """The images of one set, and how one of them becomes a square of `image_size` pixels."""

    def __init__(
        self,
        places: Sequence[ImagePlace],
        facts: Sequence[ImageFacts],
        *,
        image_size: int,
        reading: ImageSettings,
    ):
        self.places, self.facts, self.image_size, self.reading = tuple(places), tuple(facts), image_size, reading
        framings = [frame_image(fact, size=image_size, aspect=reading.aspect) for fact in facts]
        ways = [_way(fact, framing) for fact, framing in zip(facts, framings, strict=True)]
        self._ways = sorted(set(ways))
        self._framed = tf.constant([_numbers(framing) for framing in framings], tf.int32)
        self._seen = tf.constant([framing.seen for framing in framings], tf.float32)
        self._orientations = tf.constant([fact.orientation for fact in facts], tf.int32)
        self._levels = tf.constant([fact.levels for fact in facts], tf.float32)
        self._way_of = tf.constant([self._ways.index(way) for way in ways], tf.int32)
        self._files = tf.constant([str(as_part(place).path) for place in places])
        self._in_parts = [isinstance(place, FilePart) for place in places]
        self._turned = any(fact.orientation != 1 for fact in facts)

    def __len__(self) -> int:
        return len(self.places)

    @property
    def deep(self) -> bool:
        """Whether an image has more than 8 bits; values of all others are whole numbers."""
        return any(fact.deep for fact in self.facts)

    @property
    def ready(self) -> StoredPixels | None:
        """The images as plain pixels, where nothing is left to do but to read them; else None."""
        whole = lie_ready(self.facts, image_size=self.image_size)
        return pixels_of_files(self.places, image_size=self.image_size) if whole else None

    def image(self, row: tf.Tensor) -> tf.Tensor:
        """Image number `row`, float32 (image_size, image_size, 3), RGB, 0–255.

        Images of 8 bits are rounded to whole numbers, so that whatever keeps them as bytes loses nothing.
        """
        branches = [self._branch(way, row) for way in self._ways]
        image = branches[0]() if len(branches) == 1 else tf.switch_case(self._way_of[row], branches)
        if self._turned:
            image = upright(image, self._orientations[row])
        if self.reading.aspect == "pad":
            image = padded(image, self.image_size)
        return tf.ensure_shape(image, (self.image_size, self.image_size, 3))

    def fingerprint(self, row: int) -> str:
        """What identifies an image as it is read: place, size in bytes, time of change, and how it is framed."""
        place, facts = self.places[row], self.facts[row]
        status = as_part(place).path.stat()
        how = f"{facts.orientation} {facts.disc} {facts.levels} {self.reading} {self.image_size}"
        return f"{_VERSION} {place} {status.st_size} {status.st_mtime_ns} {how}\n"

    def _branch(self, way: tuple, row: tf.Tensor) -> Callable[[], tf.Tensor]:
        """A function that gives image number `row`, of which it is known that it is decoded in this `way`."""
        decoder, deep, ratio, by_area, resizes = way

        def branch() -> tf.Tensor:
            window, size = self._framed[row, :4], self._framed[row, 4:]
            image = self._decoded(decoder, ratio, row, window)
            image = resized(image, self._seen[row], size, by_area=by_area) if resizes else tf.cast(image, tf.float32)
            return image if deep or not resizes else tf.round(image)

        return branch

    def _decoded(self, decoder: str, ratio: int, row: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
        if decoder == "jpeg":
            return decode_jpeg(self._contents(row), window, ratio=ratio)
        if decoder == "png8":
            return decode_png(self._contents(row), window)
        if decoder == "png16":
            return decode_deep_png(self._contents(row), window, self._levels[row])
        if decoder == "pixels":
            return cut(outside_graph(self._read_pixels, row, dtype=tf.uint8), window)
        return cut(outside_graph(self._read_outside, row, dtype=tf.float32), window)

    def _contents(self, row: tf.Tensor) -> tf.Tensor:
        """The bytes of the image, from its own file without a step in Python."""
        if not any(self._in_parts):
            return tf.io.read_file(self._files[row])
        part = tf.numpy_function(lambda number: read_contents(self.places[number]), [row], tf.string, stateful=False)
        return tf.ensure_shape(part, ())

    def _read_outside(self, row: int) -> np.ndarray:
        return decode_outside(self.places[row], self.facts[row], self.reading.window)

    def _read_pixels(self, row: int) -> np.ndarray:
        image = np.empty((self.facts[row].height, self.facts[row].width, 3), np.uint8)
        read_pixels_into(image, self.places[row])
        return image


def _way(facts: ImageFacts, framing: Framing) -> tuple:
    """What decides the operations of the graph: images that agree in it share them."""
    decoder = "outside" if facts.decoder in ("pillow", "dicom") else facts.decoder
    return decoder, facts.deep, framing.ratio, framing.by_area, framing.resizes


def _numbers(framing: Framing) -> tuple[int, ...]:
    return framing.top, framing.left, framing.height, framing.width, framing.rows, framing.columns
