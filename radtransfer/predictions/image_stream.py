"""Any number of images as batches, a few hundred decoded at a time; those that cannot be read are set aside."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from radtransfer.datasets.image_table import ImageTable
from radtransfer.environment import require_keras
from radtransfer.errors import BadImageError
from radtransfer.examination.image_check import BadImage
from radtransfer.examination.image_examination import examine_image
from radtransfer.image_formats import ImageFacts
from radtransfer.image_place import ImagePlace
from radtransfer.parallel import all_in_parallel
from radtransfer.settings import ImageSettings

if TYPE_CHECKING:
    import tensorflow as tf

_CHUNK = 512
"""Images that are looked at together: what is in memory does not grow with their number."""


@dataclass
class ImageStream:
    """The images of a list in order, as the training of a run reads them.

    Attributes:
        images: The list.
        image_size: Side of the square that every image becomes, pixels.
        reading: How it becomes one.
        batch_size: Images that come together, at most.
        workers: Images decoded at the same time.
        count: Hears how many of how many images are done.
        bad: Those that could not be read so far.
    """

    images: ImageTable
    image_size: int
    reading: ImageSettings
    batch_size: int
    workers: int
    count: Callable[[int, int], None] = lambda done, total: None
    bad: list[BadImage] = field(default_factory=list)

    def __iter__(self) -> Iterator[tuple[list[str], "tf.Tensor"]]:
        """Paths, and images, float32 (batch, image_size, image_size, 3), RGB, 0–255.

        Raises:
            DataError: An image that could be read a moment ago cannot be decoded.
        """
        require_keras()  # images are decoded by TensorFlow, in threads
        for start in range(0, len(self.images), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            yield from self._chunk(self.images.paths[chunk], self.images.files[chunk], start)

    def _chunk(
        self, paths: Sequence[str], places: Sequence[ImagePlace | None], start: int
    ) -> Iterator[tuple[list[str], "tf.Tensor"]]:
        from radtransfer.pipeline.batches import make_batches

        looks = all_in_parallel(self._look, places, workers=self.workers)
        readable = [row for row, look in enumerate(looks) if isinstance(look, ImageFacts)]
        self.bad += [
            BadImage(path, look) for path, look in zip(paths, looks, strict=True) if not isinstance(look, ImageFacts)
        ]
        if readable:
            kept = [paths[row] for row in readable]
            batches = make_batches(
                kept,
                [places[row] for row in readable],
                [looks[row] for row in readable],
                np.zeros((len(readable), 1), np.float32),
                image_size=self.image_size,
                reading=self.reading,
                batch_size=min(self.batch_size, len(readable)),
                workers=self.workers,
            )
            done = 0
            for images, _, weights in batches.in_order():
                size = int(weights.numpy().sum())
                yield kept[done : done + size], images[:size]
                done += size
                self.count(start + readable[done - 1] + 1, len(self.images))
        self.count(min(start + len(paths), len(self.images)), len(self.images))

    def _look(self, place: ImagePlace | None) -> ImageFacts | str:
        """How an image is stored, or why it cannot be read."""
        if place is None:
            return "not found"
        try:
            return examine_image(place, self.reading)[0]
        except BadImageError as error:
            return error.reason
