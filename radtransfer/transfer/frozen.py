"""Features once: what a frozen trunk makes of every image, computed once and kept on disk.

A trunk runs in inference mode; on images without augmentation it gives the same features in every epoch, and in
every fold, seed and scheme that shares its weights. They are memory-mapped files: however many images there are,
only what a batch needs is in memory.
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
from radtransfer.runs.cache import KeptArrays

Batch = tuple[list[tf.Tensor], tf.Tensor, tf.Tensor]
"""Features, each float32 (batch, …); targets (batch, classes); weights (batch,)."""

FEATURES = KeptArrays(
    "features",
    limit=20_000_000_000,
    title="The frozen part's features",
    instead="--no-cache-features",
)


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
    """Epochs of features, in the very order in which `pipeline.Batches` gives the images."""

    features: Sequence[np.ndarray]  # for each tensor that crosses the cut, float32 (images, …)
    targets: np.ndarray  # float32 (images, classes)
    batch_size: int

    def shuffled(self, epoch: int, *, rows: np.ndarray, seed: int, fold: int) -> FeatureEpoch:
        """Training epoch number `epoch` over the images numbered `rows`."""
        return self.in_order(rows[epoch_order(len(rows), seed=seed, fold=fold, epoch=epoch)])

    def in_order(self, rows: np.ndarray) -> FeatureEpoch:
        return FeatureEpoch(self.features, self.targets, rows, self.batch_size)


@dataclass(frozen=True)
class UncachedFeatures:
    """The same epochs, of features that are computed again in each."""

    cut: Cut
    batches: Batches

    def shuffled(self, epoch: int, *, rows: np.ndarray, seed: int, fold: int) -> Iterator[Batch]:
        return self._of(self.batches.shuffled(epoch, rows=rows, seed=seed, fold=fold))

    def in_order(self, rows: np.ndarray) -> Iterator[Batch]:
        return self._of(self.batches.in_order(rows))

    def _of(self, epoch: Iterable[tuple[tf.Tensor, tf.Tensor, tf.Tensor]]) -> Iterator[Batch]:
        for images, targets, weights in epoch:
            yield [tf.cast(x, tf.float32) for x in self.cut.traced_features(images)], targets, weights


def features_once(
    cut: Cut, batches: Batches, targets: np.ndarray, *, batch_size: int, count: Callable[[int, int], None]
) -> FeatureBatches:
    """The features of all images, computed unless the same trunk has seen the same images before.

    `targets` are float32 (images, classes). DiskError: The features do not fit on the disk.
    """

    def compute(arrays: Sequence[np.ndarray]) -> None:
        epoch = batches.in_order()
        for step, (images, _, weights) in enumerate(epoch):
            kept, start = int(weights.numpy().sum()), step * batch_size
            for array, x in zip(arrays, cut.traced_features(images), strict=True):
                array[start : start + kept] = tf.cast(x[:kept], tf.float32).numpy()
            count(step + 1, len(epoch))

    shapes = [(len(batches), *x.shape[1:]) for x in cut.trunk.outputs]
    features = FEATURES.get(_key(cut.trunk, batches), shapes, dtype=np.float32, fill=compute)
    return FeatureBatches(features, np.asarray(targets, np.float32), batch_size)


def _key(trunk: keras.Model, batches: Batches) -> str:
    """Of the trunk's layers, weights and arithmetic, and of the images, by place, size and time of change."""
    # Operations that are no layers are numbered by what the process built before; their kind is enough.
    parts = [
        [type(operation).__name__, operation.get_config() if isinstance(operation, keras.Layer) else None]
        for operation in trunk.operations
    ]
    parts.append(["oneDNN", onednn_in_use()])  # its results differ in the last digits
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode())
    for weight in trunk.get_weights():
        digest.update(weight.tobytes())
    for fingerprint in batches.fingerprints():
        digest.update(fingerprint.encode())
    return digest.hexdigest()[:32]
