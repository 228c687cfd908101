"""Features once: what a frozen trunk makes of every image, computed once and kept on disk.

A trunk runs in inference mode; on images without augmentation it gives the same features in every epoch, and in
every fold, seed and scheme that shares its weights. They are memory-mapped files: however many images there are,
only what a batch needs is in memory.
"""

import contextlib
import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from radtransfer.cache import cache_folder
from radtransfer.cut import Cut
from radtransfer.epoch_order import epoch_order, filled_rows
from radtransfer.errors import RunError
from radtransfer.pipeline import Batches

Batch = tuple[list[tf.Tensor], tf.Tensor, tf.Tensor]
"""Features, each float32 (batch, …); targets (batch, classes); weights (batch,)."""

_PART = ".part-"
_ABANDONED = 24 * 3600  # seconds after which an unfinished folder is that of a killed process

LIMIT = 20_000_000_000
"""Bytes that the features of all trunks may take; the least recently used ones make room."""


@dataclass(frozen=True)
class FeatureEpoch:
    """One pass; iterating over it gives every `Batch`, filled up as those of images are."""

    features: Sequence[np.ndarray]
    targets: np.ndarray
    order: np.ndarray
    batch_size: int

    def __iter__(self) -> Iterator[Batch]:
        for rows, weights in zip(*filled_rows(self.order, self.batch_size), strict=True):
            features = [tf.constant(array[rows]) for array in self.features]
            yield features, tf.constant(self.targets[rows]), tf.constant(weights)


@dataclass(frozen=True)
class FeatureBatches:
    """Epochs of features, in the very order in which `pipeline.Batches` gives the images.

    Attributes:
        features: For each tensor that crosses the cut, float32 (images, …).
        targets: float32 (images, classes).
        batch_size: Images per batch, always.
    """

    features: Sequence[np.ndarray]
    targets: np.ndarray
    batch_size: int

    def shuffled(self, epoch: int, *, rows: np.ndarray, seed: int, fold: int) -> FeatureEpoch:
        """Training epoch number `epoch` over the images numbered `rows`."""
        return self.in_order(rows[epoch_order(len(rows), seed=seed, fold=fold, epoch=epoch)])

    def in_order(self, rows: np.ndarray) -> FeatureEpoch:
        """The images numbered `rows`, as these stand."""
        return FeatureEpoch(self.features, self.targets, rows, self.batch_size)


def features_once(
    cut: Cut, batches: Batches, targets: np.ndarray, *, batch_size: int, count: Callable[[int, int], None]
) -> FeatureBatches:
    """The features of all images, computed unless the same trunk has seen the same images before.

    Args:
        cut: Its trunk gives them.
        batches: Of all images.
        targets: float32 (images, classes).
        batch_size: Images per batch.
        count: Hears how many of how many batches are done.

    Raises:
        RunError: There is no room for them, or no folder.
    """
    folder = cache_folder() / "features" / _key(cut.trunk, batches)
    if not (folder / "0.npy").exists():
        _make_room(folder.parent, needed=_size(cut, len(batches)))
        _compute(cut, batches, folder, batch_size=batch_size, count=count)
    folder.touch()
    features = [np.load(folder / f"{i}.npy", mmap_mode="r") for i in range(len(cut.rest.inputs))]
    return FeatureBatches(features, np.asarray(targets, np.float32), batch_size)


def _key(trunk: keras.Model, batches: Batches) -> str:
    """Of the trunk's layers and weights and of the images, by place, size and time of change."""
    # Operations that are no layers are numbered by what the process built before; their kind is enough.
    parts = [
        [type(operation).__name__, operation.get_config() if isinstance(operation, keras.Layer) else None]
        for operation in trunk.operations
    ]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode())
    for weight in trunk.get_weights():
        digest.update(weight.tobytes())
    for fingerprint in batches.fingerprints():
        digest.update(fingerprint.encode())
    return digest.hexdigest()[:32]


def _size(cut: Cut, images: int) -> int:
    """Bytes."""
    return 4 * images * sum(int(np.prod(x.shape[1:])) for x in cut.rest.inputs)


def _compute(cut: Cut, batches: Batches, folder: Path, *, batch_size: int, count: Callable[[int, int], None]) -> None:
    """Fill `folder`, which appears when it is whole."""
    predict = tf.function(cut.features, input_signature=[tf.TensorSpec((batch_size, *cut.trunk.input_shape[1:]))])
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=_PART) as part:
        arrays = [
            np.lib.format.open_memmap(
                Path(part) / f"{i}.npy", mode="w+", dtype=np.float32, shape=(len(batches), *x.shape[1:])
            )
            for i, x in enumerate(cut.trunk.outputs)
        ]
        epoch = batches.in_order()
        for step, (images, _, weights) in enumerate(epoch):
            kept, start = int(weights.numpy().sum()), step * batch_size
            for array, x in zip(arrays, predict(images), strict=True):
                array[start : start + kept] = tf.cast(x[:kept], tf.float32).numpy()
            count(step + 1, len(epoch))
        for array in arrays:
            array.flush()
        with contextlib.suppress(OSError):  # another process was first, with the same features
            Path(part).replace(folder)
            Path(part).mkdir()  # for the context to delete


def _make_room(folder: Path, *, needed: int) -> None:
    """Delete the least recently used features until `needed` bytes fit below `LIMIT` and on the disk."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            f"The frozen part's features cannot be kept in {folder}: {error.strerror}. "
            "Name another folder in RADTRANSFER_CACHE, or run with --no-cache-features."
        ) from None
    kept = sorted((item for item in folder.iterdir() if _may_go(item)), key=lambda item: item.stat().st_mtime)
    sizes = {item: sum(file.stat().st_size for file in item.glob("*.npy")) for item in kept}
    while kept and sum(sizes[item] for item in kept) + needed > LIMIT:
        shutil.rmtree(kept.pop(0), ignore_errors=True)
    if needed > shutil.disk_usage(folder).free:
        raise RunError(
            f"The frozen part's features need {needed / 1e9:.1f} GB in {folder}, which has not that much free. "
            "Free some space, name another folder in RADTRANSFER_CACHE, or run with --no-cache-features."
        )


def _may_go(item: Path) -> bool:
    """Whether `item` holds features that no other process is computing at the moment."""
    return item.is_dir() and not (item.name.startswith(_PART) and time.time() - item.stat().st_mtime < _ABANDONED)
