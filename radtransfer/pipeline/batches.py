"""From image files to batches of one fixed shape, in an order that can be repeated exactly.

    place -> decode what is seen -> averaging resize -> EXIF orientation -> (augmentation) -> batch

Everything random is a pure function of (seed, fold, epoch, image): an epoch is the same whatever the
number of workers, whether the run was resumed, and whichever epochs came before.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from radtransfer.augmentations import AUGMENTATIONS
from radtransfer.epoch_order import epoch_order, filled_rows, image_seeds, path_keys
from radtransfer.errors import BadImageError, DataError
from radtransfer.image_formats import ImageFacts
from radtransfer.image_place import ImagePlace
from radtransfer.pipeline.image_source import ImageSource
from radtransfer.pipeline.stored_pixels import StoredPixels
from radtransfer.settings import ImageSettings

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
