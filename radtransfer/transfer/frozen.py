"""Cached features: the outputs of the frozen layers for every image, computed once and stored on disk.

Frozen layers run in inference mode; without augmentation they give the same features in every epoch, fold, seed and
scheme with the same weights. The files are memory-mapped, so that only the current batch is in memory.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from radtransfer.images.pipeline import Batches, epoch_order, filled_rows
from radtransfer.models.classifier import Cut
from radtransfer.process import onednn_in_use
from radtransfer.runs.cache import ArrayCache

Batch = tuple[list[tf.Tensor], tf.Tensor, tf.Tensor]
"""Features, each float32 (batch, …); targets (batch, classes); weights (batch,)."""

FEATURES = ArrayCache(
    "features", limit=20_000_000_000, title="Features of the frozen layers", instead="--no-cache-features"
)


@dataclass(frozen=True)
class FeatureEpoch:
    """One pass over features as `Batch`es, padded like those of images."""

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
    """Epochs of cached features, in the same order as images from `pipeline.Batches`."""

    features: Sequence[np.ndarray]  # for each tensor at the cut, float32 (images, …)
    targets: np.ndarray  # float32 (images, classes)
    batch_size: int

    def shuffled(self, epoch: int, *, rows: np.ndarray, seed: int, fold: int) -> FeatureEpoch:
        """Training epoch number `epoch` over the images numbered `rows`."""
        return self.in_order(rows[epoch_order(len(rows), seed=seed, fold=fold, epoch=epoch)])

    def in_order(self, rows: np.ndarray) -> FeatureEpoch:
        return FeatureEpoch(self.features, self.targets, rows, self.batch_size)


@dataclass(frozen=True)
class UncachedFeatures:
    """Epochs of features that are computed again in each epoch."""

    cut: Cut
    batches: Batches

    def shuffled(self, epoch: int, *, rows: np.ndarray, seed: int, fold: int) -> Iterator[Batch]:
        return self._features(self.batches.shuffled(epoch, rows=rows, seed=seed, fold=fold))

    def in_order(self, rows: np.ndarray) -> Iterator[Batch]:
        return self._features(self.batches.in_order(rows))

    def _features(self, epoch: Iterable[tuple[tf.Tensor, tf.Tensor, tf.Tensor]]) -> Iterator[Batch]:
        for images, targets, weights in epoch:
            yield [tf.cast(x, tf.float32) for x in self.cut.traced_features(images)], targets, weights


def cached_features(
    cut: Cut, batches: Batches, targets: np.ndarray, *, batch_size: int, count: Callable[[int, int], None]
) -> FeatureBatches:
    """The features of all images, computed unless the cache has those of the same layers and images.

    `targets` are float32 (images, classes). Raises DiskError if the features do not fit on the disk.
    """

    def compute(arrays: Sequence[np.ndarray]) -> None:
        epoch = batches.in_order()
        for step, (images, _, weights) in enumerate(epoch):
            kept, start = int(weights.numpy().sum()), step * batch_size
            for array, x in zip(arrays, cut.traced_features(images), strict=True):
                array[start : start + kept] = tf.cast(x[:kept], tf.float32).numpy()
            count(step + 1, len(epoch))

    shapes = [(len(batches), *x.shape[1:]) for x in cut.trunk.outputs]
    features = FEATURES.get(_cache_key(cut.trunk, batches), shapes, dtype=np.float32, fill=compute)
    return FeatureBatches(features, np.asarray(targets, np.float32), batch_size)


def _cache_key(trunk: keras.Model, batches: Batches) -> str:
    """A hash of layers, weights and arithmetic, and of path, size and time of the images."""
    # The config of an operation that is not a layer contains a running number, so only its type is used.
    parts = [
        [type(operation).__name__, operation.get_config() if isinstance(operation, keras.Layer) else None]
        for operation in trunk.operations
    ]
    parts.append(["oneDNN", onednn_in_use()])  # changes the last digits
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode())
    for weight in trunk.get_weights():
        digest.update(weight.tobytes())
    for fingerprint in batches.fingerprints():
        digest.update(fingerprint.encode())
    return digest.hexdigest()[:32]
