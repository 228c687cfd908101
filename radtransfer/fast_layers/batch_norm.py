"""Batch norm as one operation.

Keras composes its BatchNormalization of moments, a subtraction, products and a sum, each of which reads and writes the
whole feature map, and again backwards; TensorFlow has a fused operation for it.
"""

import functools

import keras
import tensorflow as tf


def fuse_batch_norms(model: keras.Model) -> None:
    """Let every batch-norm layer of `model` that can compute by the fused operation.

    Batch norm over another axis than the last of (batch, height, width, channels), across replicas or with
    renormalization stays as it is.
    """
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization) and _fits(layer):
            layer.call = functools.partial(_call, layer)


def _fits(layer: keras.layers.BatchNormalization) -> bool:
    composed = layer.synchronized or getattr(layer, "renorm", False)
    return len(layer.input.shape) == 4 and layer.axis in (-1, 3) and not composed


def _call(
    layer: keras.layers.BatchNormalization, inputs: tf.Tensor, training: bool | None = None, mask: None = None
) -> tf.Tensor:
    """As `BatchNormalization.call`: batch statistics if `training` and not frozen, which also move the moving ones."""
    gamma = layer.gamma.value if layer.scale else tf.ones(layer.moving_mean.shape)
    beta = layer.beta.value if layer.center else tf.zeros(layer.moving_mean.shape)
    fused = functools.partial(tf.raw_ops.FusedBatchNormV3, x=inputs, scale=gamma, offset=beta, epsilon=layer.epsilon)
    if not (training and layer.trainable):
        statistics = {"mean": layer.moving_mean.value, "variance": layer.moving_variance.value}
        return fused(**statistics, is_training=False).y
    nothing = tf.zeros([0])
    result = fused(mean=nothing, variance=nothing, is_training=True)
    # The operation gives the unbiased variance of n values; the moving one is of biased ones, as in Keras.
    n = tf.cast(tf.size(inputs) // inputs.shape[-1], tf.float32)
    _move(layer.moving_mean, result.batch_mean, layer.momentum)
    _move(layer.moving_variance, result.batch_variance * ((n - 1.0) / n), layer.momentum)
    return result.y


def _move(moving: keras.Variable, value: tf.Tensor, momentum: float) -> None:
    moving.assign(moving.value * momentum + value * (1.0 - momentum))
