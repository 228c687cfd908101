"""From images to batches of fixed shape, in a reproducible order.

    ref -> image (`decode.ImageSource`) -> augmented -> batch, prefetched

Everything random depends only on (seed, fold, epoch, image), not on the number of workers, a resume, or earlier epochs.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import numpy as np
import tensorflow as tf

from radtransfer.config.schema import ImageSettings
from radtransfer.errors import BadImageError, ConfigError, DataError
from radtransfer.images.augment import AUGMENTATIONS
from radtransfer.images.decode import ImageSource
from radtransfer.images.formats import ImageFacts
from radtransfer.images.refs import ImageRef
from radtransfer.process import derive_seed
from radtransfer.runs.cache import ArrayCache


def epoch_order(images: int, *, seed: int, fold: int, epoch: int) -> np.ndarray:
    """The order of `images` images in a training epoch, a permutation."""
    return np.random.default_rng(derive_seed(seed, "order", fold, epoch)).permutation(images)


def path_keys(paths: Sequence[str]) -> np.ndarray:
    """A platform-independent number for each path, uint64."""
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
    """`order` as full batches, the last filled up from the start, int32, and weights (0 for filling), float32.

    Both are (steps, batch_size).
    """
    steps = -(-len(order) // batch_size)
    rows = np.resize(order, (steps, batch_size)).astype(np.int32)
    weights = np.arange(steps * batch_size) < len(order)
    return rows, weights.reshape(steps, batch_size).astype(np.float32)


Batch = tuple[tf.Tensor, tf.Tensor, tf.Tensor]
"""Images (batch, height, width, 3), RGB, 0–255; targets (batch, classes); weights (batch,); all float32."""


@dataclass(frozen=True)
class Epoch:
    """One pass over a set of images; iterating gives every `Batch`.

    The last batch is filled up with the first images of the pass at weight 0, so that batch norm sees real images only.
    Every image has weight 1 exactly once.
    """

    dataset: tf.data.Dataset  # the batches, for Keras' loops; its errors do not name the file
    rows: np.ndarray  # (steps, batch size): number of each image
    source: ImageSource

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Batch]:
        """Every batch; DataError with the file name if an image cannot be decoded."""
        batches = iter(self.dataset)
        for step in range(len(self)):
            try:
                batch = next(batches)
            except tf.errors.OpError:
                self._check_images(step)
                raise
            yield batch

    def _check_images(self, step: int) -> None:
        """Decode the images of one batch one by one to find the damaged one."""
        for row in self.rows[step]:
            ref = self.source.refs[row]
            try:
                self.source.image(row)
            except (tf.errors.OpError, BadImageError) as error:
                if isinstance(error, BadImageError):
                    reason = error.reason
                else:  # the first line, without path and names of graph nodes
                    text = re.sub(r"\{\{.*?\}\}|\[Op:.*?\]| name:.*", "", str(error)).strip().splitlines()[0]
                    reason = text.replace(str(ref), "").strip(" ;:")
                raise DataError(
                    f"Expected an image that can be decoded. Received: {ref} ({reason}). "
                    "Replace it, or run with --on-bad-image skip."
                ) from error


class Batches:
    """Epochs of one set of images (see `make_batches`); functions for tf.data are traced once, so epochs start fast."""

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
        self._at_once = _batch_function(source, targets, batch_size) if source.is_raw else None

    def __len__(self) -> int:
        return len(self._keys)

    def fingerprints(self) -> Iterator[str]:
        return map(self.source.fingerprint, range(len(self)))

    def reading_from(self, source: ImageSource) -> "Batches":
        return self._like(source, self._batch_size, self._part)

    def part(self, number: int, count: int) -> "Batches":
        """Part `number` (from 0) of `count` equal parts of every batch; other images are not read."""
        return self if count == 1 else self._like(self.source, self._batch_size // count, (number, count))

    def _like(self, source: ImageSource, batch_size: int, part: tuple[int, int]) -> "Batches":
        settings = {"batch_size": batch_size, "workers": self._workers, "augmentation": self._augmentation}
        return Batches(source, self._targets, self._keys, part=part, **settings)

    def shuffled(self, epoch: int, *, rows: np.ndarray | None = None, seed: int = 0, fold: int = 0) -> Epoch:
        """Training epoch `epoch` over all images or `rows`, shuffled and augmented by (seed, fold, epoch, image)."""
        rows = np.arange(len(self)) if rows is None else rows
        order = rows[epoch_order(len(rows), seed=seed, fold=fold, epoch=epoch)]
        if self._augmentation == "none":
            return self.in_order(order)
        return self._epoch(order, image_seeds(self._keys, seed=seed, fold=fold, epoch=epoch))

    def to_dataset(self, *, shuffle: bool, seed: int) -> tf.data.Dataset:
        """Images and targets, augmented, in a new order each pass if `shuffle`; the last batch may be smaller."""
        rows = tf.data.Dataset.range(len(self), output_type=tf.int32)
        if shuffle:
            rows = rows.shuffle(len(self), seed=seed, reshuffle_each_iteration=True)
        seeds = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True).batch(2)

        def example(row: tf.Tensor, drawn: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return self._augmented(row, tf.cast(drawn % (2**31 - 1), tf.int32), 1.0)[:2]

        dataset = tf.data.Dataset.zip(rows, seeds).map(example, num_parallel_calls=self._workers, deterministic=True)
        return _read_ahead(dataset.batch(self._batch_size))

    def in_order(self, rows: np.ndarray | None = None) -> Epoch:
        """All images, or `rows`, in this order and without augmentation."""
        rows = np.arange(len(self)) if rows is None else rows
        return self._epoch(rows)

    def _epoch(self, order: np.ndarray, seeds: np.ndarray | None = None) -> Epoch:
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
        return Epoch(_read_ahead(dataset), rows, self.source)


def _read_ahead(dataset: tf.data.Dataset) -> tf.data.Dataset:
    options = tf.data.Options()
    options.autotune.enabled = False  # deleting an autotuned iterator may block for seconds
    options.deterministic = True
    return dataset.prefetch(2).with_options(options)


def make_batches(
    paths: Sequence[str],
    refs: Sequence[ImageRef],
    facts: Sequence[ImageFacts],
    targets: np.ndarray,
    *,
    image_size: int,
    reading: ImageSettings | None = None,
    batch_size: int,
    workers: int,
    augmentation: str = "none",
) -> Batches:
    """Epochs over the images `refs`; `paths` only determine their augmentation.

    `targets` is float32 (images, classes), `image_size` in pixels. UnknownNameError for an unknown augmentation.
    """
    source = ImageSource(refs, facts, image_size=image_size, reading=reading or ImageSettings())
    settings = {"batch_size": batch_size, "workers": workers, "augmentation": augmentation}
    return Batches(source, targets, path_keys(paths), **settings)


def _example_function(source: ImageSource, targets: np.ndarray, augmentation: str) -> Callable:
    augment, targets = AUGMENTATIONS[augmentation].build(), tf.constant(targets, tf.float32)
    signature = [tf.TensorSpec((), tf.int32), tf.TensorSpec((2,), tf.int32), tf.TensorSpec((), tf.float32)]

    @tf.function(input_signature=signature)
    def example(row: tf.Tensor, seed: tf.Tensor, weight: tf.Tensor) -> Batch:
        return augment(source.image(row), seed), targets[row], weight

    return example


def _batch_function(source: ImageSource, targets: np.ndarray, batch_size: int) -> Callable:
    targets = tf.constant(targets, tf.float32)
    signature = [tf.TensorSpec((batch_size,), tf.int32), tf.TensorSpec((batch_size,), tf.float32)]

    @tf.function(input_signature=signature)
    def batch(rows: tf.Tensor, weights: tf.Tensor) -> Batch:
        return source.images(rows), tf.gather(targets, rows), weights

    return batch


IMAGES = ArrayCache("images", limit=200_000_000_000, title="The decoded images", instead="--cache none")


def cache_images(batches: Batches, where: Literal["ram", "disk"], *, count: Callable[[int, int], None]) -> Batches:
    """The same batches from an image cache in memory or on disk, which is filled first if necessary.

    Raises ConfigError for too little memory, DiskError for a full disk, DataError if an image cannot be decoded.
    """
    source = batches.source
    shape = (len(batches), source.image_size, source.image_size, 3)
    dtype = np.float32 if source.deep else np.uint8

    def fill(array: np.ndarray) -> None:
        done = 0
        for images, _, weights in batches.in_order():
            kept = int(weights.numpy().sum())
            array[done : done + kept] = images.numpy()[:kept]
            done += kept
            count(done, len(array))

    if where == "disk":
        key = hashlib.sha256("".join(batches.fingerprints()).encode()).hexdigest()[:32]
        (array,) = IMAGES.get(key, [shape], dtype=dtype, fill=lambda arrays: fill(arrays[0]))
    else:
        needed, free = int(np.prod(shape)) * np.dtype(dtype).itemsize, _free_memory()
        if free is not None and needed > 0.8 * free:
            raise ConfigError(
                f"--cache ram: the images need {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB of memory are free. "
                "Use --cache disk."
            )
        array = np.empty(shape, dtype)
        fill(array)
    return batches.reading_from(source.from_array(array))


def _free_memory() -> int | None:
    """Bytes of available memory on Linux; None elsewhere."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    kilobytes = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return 1024 * kilobytes[0] if kilobytes else None
