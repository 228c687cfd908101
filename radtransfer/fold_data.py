"""What one fold trains and validates on, whatever its batches hold: images, or kept features of them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from radtransfer.curve import HeldOut

Batches = Iterable[tuple[tf.Tensor, tf.Tensor, tf.Tensor]]
"""(images, targets, weights) of one fixed shape; a row of weight 0 only fills the batch."""


@dataclass(frozen=True)
class FoldData:
    """What one fold trains and validates on.

    Attributes:
        epoch: The training batches of an epoch (from 1), shuffled and augmented for it.
        plain: Some training images as they are, for batch-norm statistics.
        validation: The validation batches, in table order.
        steps: Batches in an epoch.
        images: Training images.
        auc: Exact AUC of validation probabilities (images, classes); None where it is not defined.
        accuracy: Their accuracy.
        watched: What the curve is drawn on.
    """

    epoch: Callable[[int], Batches]
    plain: Callable[[], Batches]
    validation: Callable[[], Batches]
    steps: int
    images: int
    auc: Callable[[np.ndarray], float | None]
    accuracy: Callable[[np.ndarray], float | None]
    watched: Sequence[HeldOut] = ()
