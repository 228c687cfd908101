"""Images that lie ready as plain pixels of the right size: a whole batch of them is one read."""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from radtransfer.errors import BadImageError
from radtransfer.image_formats import ImageFacts
from radtransfer.image_place import FilePart, ImagePlace


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
