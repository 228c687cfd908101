"""From image files to batches.

From image files to batches of one fixed shape, in an order that can be repeated exactly.

    place -> decode what is seen -> averaging resize -> EXIF orientation -> (augmentation) -> batch

Everything random is a pure function of (seed, fold, epoch, image): an epoch is the same whatever the
number of workers, whether the run was resumed, and whichever epochs came before.

The images of a set as tensors: each read, decoded, resized and turned inside the TensorFlow graph.

The graph holds only what the set needs: a way of decoding that no image asks for is never built.

Images kept as they are after decoding and resizing, in memory or on disk, so that this is done once.

Which image stands where in an epoch, and the seed of its augmentation: pure functions, no state.

An epoch follows from (seed, fold, epoch) alone, never from the epochs before it, so that a resumed run
sees the very batches of an uninterrupted one.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import numpy as np
import tensorflow as tf

from radtransfer.config.schema import ImageSettings
from radtransfer.errors import BadImageError, ConfigError, DataError
from radtransfer.images.decode import (
    Framing,
    StoredPixels,
    cut,
    decode_deep_png,
    decode_jpeg,
    decode_png,
    frame_image,
    lie_ready,
    outside_graph,
    padded,
    pixels_of_array,
    pixels_of_files,
    read_pixels_into,
    resized,
    upright,
)
from radtransfer.images.formats import ImageFacts, decode_outside
from radtransfer.images.preprocessing import AUGMENTATIONS
from radtransfer.images.refs import FilePart, ImagePlace, as_part, read_contents
from radtransfer.process import derive_seed
from radtransfer.runs.array_cache import KeptArrays

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


def epoch_order(images: int, *, seed: int, fold: int, epoch: int) -> np.ndarray:
    """The order in which a training epoch visits `images` images, a permutation."""
    return np.random.default_rng(derive_seed(seed, "order", fold, epoch)).permutation(images)


def path_keys(paths: Sequence[str]) -> np.ndarray:
    """A number for each path, uint64, the same on every platform."""
    digests = b"".join(blake2b(path.encode(), digest_size=8).digest() for path in paths)
    return np.frombuffer(digests, "<u8").astype(np.uint64)


def image_seeds(keys: np.ndarray, *, seed: int, fold: int, epoch: int) -> np.ndarray:
    """The augmentation seed of every image, int32 (images, 2), from its key and the epoch.

    References:
        Steele, Lea and Flood 2014, Fast splittable pseudorandom number generators, Fig. 16 (the mixing).
    """
    start = (derive_seed(seed, "augmentation", fold, epoch) * 0x9E3779B97F4A7C15) % 2**64
    mixed = keys ^ np.uint64(start)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed.astype("<u8").view("<i4").reshape(-1, 2).astype(np.int32)


def filled_rows(order: np.ndarray, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """`order` as whole batches, begun anew to fill the last, and weights, 0 for the filling.

    Both are (steps, batch_size): int32 and float32.
    """
    steps = -(-len(order) // batch_size)
    rows = np.resize(order, (steps, batch_size)).astype(np.int32)
    weights = np.arange(steps * batch_size) < len(order)
    return rows, weights.reshape(steps, batch_size).astype(np.float32)


Batch = tuple[tf.Tensor, tf.Tensor, tf.Tensor]
"""Images (batch, height, width, 3), RGB, 0–255; targets (batch, classes); weights (batch,); all float32."""

_PREFETCHED_BATCHES = 2


@dataclass(frozen=True)
class Epoch:
    """One pass over a set of images; iterating over it gives every `Batch`.

    The last batch is filled up from the first images of the pass, with weight 0: real images, so that
    batch norm sees nothing else. Every image has weight 1 exactly once.

    Attributes:
        dataset: The batches, for Keras' own loops; the errors it raises do not name the file.
        rows: (steps, batch size): which image stands where.
        source: Where the images come from.
    """

    dataset: tf.data.Dataset
    rows: np.ndarray
    source: ImageSource

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Batch]:
        """Every batch in turn.

        Raises:
            DataError: An image cannot be decoded; names its file.
        """
        batches = iter(self.dataset)
        for step in range(len(self)):
            try:
                batch = next(batches)
            except tf.errors.OpError:
                self._check_images(step)
                raise
            yield batch

    def _check_images(self, step: int) -> None:
        """Decode the images of one batch again, one by one, to find out which of them failed."""
        for row in self.rows[step]:
            try:
                self.source.image(row)
            except (tf.errors.OpError, BadImageError) as error:
                place = self.source.places[row]
                raise DataError(
                    f"Expected an image that can be decoded. Received: {place} ({_reason(error, str(place))}). "
                    "Replace it, or run with --on-bad-image skip."
                ) from error


class Batches:
    """Epochs of one set of images; `make_batches` makes it.

    The functions that tf.data runs are traced once here, so that a new epoch costs milliseconds.
    """

    def __init__(
        self,
        source: ImageSource,
        targets: np.ndarray,
        keys: np.ndarray,
        *,
        batch_size: int,
        workers: int,
        augmentation: str,
        part: tuple[int, int] = (0, 1),
    ):
        self.source, self._targets, self._keys, self._part = source, targets, keys, part
        self._batch_size, self._workers, self._augmentation = batch_size, workers, augmentation
        self._augmented = _example_function(source, targets, augmentation)
        self._plain = _example_function(source, targets, "none")
        self._at_once = source.ready and _batch_function(source.ready, targets, batch_size)

    def __len__(self) -> int:
        """How many images there are."""
        return len(self._keys)

    def fingerprints(self) -> Iterator[str]:
        """What identifies each image as it is read; see `ImageSource.fingerprint`."""
        return map(self.source.fingerprint, range(len(self)))

    def reading_from(self, source: ImageSource) -> "Batches":
        """The same batches of the same images, taken from another place."""
        return self._like(source, self._batch_size, self._part)

    def part(self, number: int, count: int) -> "Batches":
        """Of every batch the `number`-th, from 0, of `count` equal parts; the other images are not read."""
        return self if count == 1 else self._like(self.source, self._batch_size // count, (number, count))

    def _like(self, source: ImageSource, batch_size: int, part: tuple[int, int]) -> "Batches":
        return Batches(
            source,
            self._targets,
            self._keys,
            batch_size=batch_size,
            workers=self._workers,
            augmentation=self._augmentation,
            part=part,
        )

    def shuffled(self, epoch: int, *, rows: np.ndarray | None = None, seed: int = 0, fold: int = 0) -> Epoch:
        """Training epoch number `epoch` over all images or those numbered `rows`: in its own order, augmented.

        An image's place and its augmentation follow from (seed, fold, epoch, image).
        """
        rows = np.arange(len(self)) if rows is None else rows
        order = rows[epoch_order(len(rows), seed=seed, fold=fold, epoch=epoch)]
        if self._augmentation == "none":
            return self.in_order(order)
        return self._epoch(order, image_seeds(self._keys, seed=seed, fold=fold, epoch=epoch))

    def in_order(self, rows: np.ndarray | None = None) -> Epoch:
        """The images as they are, in table order, or those numbered `rows` as these stand."""
        rows = np.arange(len(self)) if rows is None else rows
        return self._epoch(rows)

    def _epoch(self, order: np.ndarray, seeds: np.ndarray | None = None) -> Epoch:
        """The images in `order`; with a seed for each image of the set they are augmented."""
        number, count = self._part
        mine = slice(number * self._batch_size, (number + 1) * self._batch_size)
        rows, weights = (array[:, mine] for array in filled_rows(order, self._batch_size * count))
        if seeds is None and self._at_once is not None:
            dataset = tf.data.Dataset.from_tensor_slices((rows, weights))
            dataset = dataset.map(self._at_once, num_parallel_calls=self._workers, deterministic=True)
        else:
            example = self._plain if seeds is None else self._augmented
            seeds = np.zeros((len(self), 2), np.int32) if seeds is None else seeds
            dataset = tf.data.Dataset.from_tensor_slices((rows.ravel(), seeds[rows.ravel()], weights.ravel()))
            dataset = dataset.map(example, num_parallel_calls=self._workers, deterministic=True)
            dataset = dataset.batch(self._batch_size, drop_remainder=True)
        return Epoch(dataset.prefetch(_PREFETCHED_BATCHES).with_options(_options()), rows, self.source)


def make_batches(
    paths: Sequence[str],
    places: Sequence[ImagePlace],
    facts: Sequence[ImageFacts],
    targets: np.ndarray,
    *,
    image_size: int,
    reading: ImageSettings | None = None,
    batch_size: int,
    workers: int,
    augmentation: str = "none",
) -> Batches:
    """Epochs over one set of images.

    Args:
        paths: The identity of each image, from which its augmentation follows; not where it lies.
        places: Where each image lies.
        facts: How each is decoded.
        targets: float32 (images, classes).
        image_size: Side of the square that every image becomes, pixels.
        reading: How it becomes one; default: stretched.
        batch_size: Images per batch, in every batch.
        workers: Images decoded at the same time.
        augmentation: Name in `AUGMENTATIONS`, for shuffled epochs.

    Raises:
        UnknownNameError: No such augmentation.
    """
    source = ImageSource(places, facts, image_size=image_size, reading=reading or ImageSettings())
    return Batches(
        source,
        targets,
        path_keys(paths),
        batch_size=batch_size,
        workers=workers,
        augmentation=augmentation,
    )


def _example_function(source: ImageSource, targets: np.ndarray, augmentation: str) -> Callable:
    augment, targets = AUGMENTATIONS[augmentation].build(), tf.constant(targets, tf.float32)
    place = [tf.TensorSpec((), tf.int32), tf.TensorSpec((2,), tf.int32), tf.TensorSpec((), tf.float32)]

    @tf.function(input_signature=place)
    def example(row: tf.Tensor, seed: tf.Tensor, weight: tf.Tensor) -> Batch:
        return augment(source.image(row), seed), targets[row], weight

    return example


def _batch_function(pixels: StoredPixels, targets: np.ndarray, batch_size: int) -> Callable:
    targets = tf.constant(targets, tf.float32)
    place = [tf.TensorSpec((batch_size,), tf.int32), tf.TensorSpec((batch_size,), tf.float32)]

    @tf.function(input_signature=place)
    def batch(rows: tf.Tensor, weights: tf.Tensor) -> Batch:
        return pixels.images(rows), tf.gather(targets, rows), weights

    return batch


def _options() -> tf.data.Options:
    """Autotune off: freeing an autotuned iterator was seen to block for seconds."""
    options = tf.data.Options()
    options.autotune.enabled = False
    options.deterministic = True
    return options


def _reason(error: Exception, place: str) -> str:
    """What is wrong with an image; of TensorFlow's message the first line, without place and names of graph nodes."""
    if isinstance(error, BadImageError):
        return error.reason
    text = re.sub(r"\{\{.*?\}\}|\[Op:.*?\]| name:.*", "", str(error)).strip().splitlines()[0]
    return text.replace(place, "").strip(" ;:")


IMAGES = KeptArrays("images", limit=200_000_000_000, title="The decoded images", instead="--cache none")

_SHARE = 0.8
"""Of the free memory that the images may take, a fraction."""


class KeptSource:
    """The images of `source`, taken from an array instead: (images, size, size, 3), 0–255, uint8 or float32."""

    def __init__(self, source: ImageSource, array: np.ndarray):
        self.places, self.image_size, self.fingerprint = source.places, source.image_size, source.fingerprint
        self.ready = pixels_of_array(array)
        self.image = self.ready.image


def keep_images(batches: Batches, where: Literal["ram", "disk"], *, count: Callable[[int, int], None]) -> Batches:
    """The same batches, bit by bit, from images that are decoded here and now, unless the disk has them.

    Args:
        batches: Of all images.
        where: In memory, or in the cache folder, where later runs find them.
        count: Hears how many of how many images are done.

    Raises:
        ConfigError: Memory is too small for them.
        DiskError: The disk is, or there is no folder.
        DataError: An image cannot be decoded.
    """
    source = batches.source
    shape = (len(batches), source.image_size, source.image_size, 3)
    dtype = np.float32 if source.deep else np.uint8
    if where == "disk":
        key = hashlib.sha256("".join(batches.fingerprints()).encode()).hexdigest()[:32]
        (array,) = IMAGES.get(key, [shape], dtype=dtype, fill=lambda arrays: _fill(arrays[0], batches, count))
    else:
        _check_memory(int(np.prod(shape)) * np.dtype(dtype).itemsize)
        array = np.empty(shape, dtype)
        _fill(array, batches, count)
    return batches.reading_from(KeptSource(source, array))


def _fill(array: np.ndarray, batches: Batches, count: Callable[[int, int], None]) -> None:
    done = 0
    for images, weights in _images(batches):
        kept = int(weights.sum())
        array[done : done + kept] = images[:kept]
        done += kept
        count(done, len(array))


def _images(batches: Batches) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    return ((images.numpy(), weights.numpy()) for images, _, weights in batches.in_order())


def _check_memory(needed: int) -> None:
    """See that the images fit into the memory that is free, where the system tells it."""
    free = _free_memory()
    if free is not None and needed > _SHARE * free:
        raise ConfigError(
            f"--cache ram: the images need {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB of memory are free. "
            "Use --cache disk."
        )


def _free_memory() -> int | None:
    """Bytes that programs can still get, as Linux tells it; None elsewhere."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    kilobytes = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return 1024 * kilobytes[0] if kilobytes else None
