"""Losses per image, computed from logits in float32; unknown labels are ignored."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from radtransfer.errors import ConfigError

if TYPE_CHECKING:
    import tensorflow as tf

Loss = Callable[["tf.Tensor", "tf.Tensor", "tf.Tensor"], "tf.Tensor"]
"""(targets, logits, class weights) → float32 (batch,).

Targets and logits are (batch, classes), targets NaN where unknown. Class weights, float32 (classes,), multiply the
loss of an image of that class (categorical) or its positive term (binary cross-entropy).
"""


def make_loss(name: str, *, activation: str) -> Loss:
    """The loss `name` for a head with `activation`; "auto": categorical for softmax, binary for sigmoid."""
    import tensorflow as tf

    check_loss(name, activation=activation)
    categorical = name == "categorical_crossentropy" or (name == "auto" and activation == "softmax")

    def loss(targets: "tf.Tensor", logits: "tf.Tensor", weights: "tf.Tensor") -> "tf.Tensor":
        is_known = tf.logical_not(tf.math.is_nan(targets))
        logits = tf.cast(logits, tf.float32)
        if activation == "softmax":
            log_p = tf.nn.log_softmax(logits)
            # log(1 - p), clipped as Keras clips probabilities.
            log_not_p = tf.math.log(tf.clip_by_value(1.0 - tf.exp(log_p), 1e-7, 1.0))
        else:
            log_p, log_not_p = tf.math.log_sigmoid(logits), tf.math.log_sigmoid(-logits)
        targets, known = tf.where(is_known, targets, 0.0), tf.cast(is_known, tf.float32)
        if categorical:
            return -tf.reduce_sum(weights * targets * log_p, axis=1)
        terms = -(weights * targets * log_p + (1.0 - targets) * log_not_p) * known
        return tf.reduce_sum(terms, axis=1) / tf.maximum(tf.reduce_sum(known, axis=1), 1.0)

    return loss


def check_loss(name: str, *, activation: str) -> None:
    """Raise ConfigError for categorical cross-entropy with independent sigmoids, which is not a likelihood."""
    if name == "categorical_crossentropy" and activation == "sigmoid":
        raise ConfigError("training.loss: categorical_crossentropy needs model.head softmax. Received: sigmoid.")


def class_weights(
    setting: str | dict[str, float], targets: np.ndarray, *, classes: tuple[str, ...], task: str
) -> np.ndarray:
    """The weight of each class in the loss, float32 (classes,); ConfigError if `setting` is not valid.

    "balanced" is images / (classes · images of the class) with one label per image, and negatives / positives with
    several. Pass the targets of training images only.
    """
    if setting == "none":
        return np.ones(len(classes), np.float32)
    if isinstance(setting, dict):
        if set(setting) != set(classes):
            raise ConfigError(
                f"training.class_weights: expected a factor for each of {', '.join(classes)}. "
                f"Received: {', '.join(setting)}."
            )
        return np.array([setting[name] for name in classes], np.float32)
    if setting != "balanced":
        raise ConfigError(
            f"training.class_weights: expected none, balanced or a factor per class. Received: {setting!r}."
        )
    positives = np.maximum(np.nansum(targets, axis=0), 1)
    if task == "multilabel":
        return ((np.sum(~np.isnan(targets), axis=0) - np.nansum(targets, axis=0)) / positives).astype(np.float32)
    return (len(targets) / (len(classes) * positives)).astype(np.float32)
