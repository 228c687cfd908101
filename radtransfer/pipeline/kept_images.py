"""Images kept as they are after decoding and resizing, in memory or on disk, so that this is done once."""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

import numpy as np

from radtransfer.errors import ConfigError
from radtransfer.kept_arrays import KeptArrays
from radtransfer.pipeline.batches import Batches
from radtransfer.pipeline.image_source import ImageSource
from radtransfer.pipeline.stored_pixels import pixels_of_array

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
