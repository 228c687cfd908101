"""Layers of Keras computed by faster operations of TensorFlow.

The layers stay what they are: the same weights, the same saved model, the same results but for rounding.

Batch norm as one operation.

Keras composes its BatchNormalization of moments, a subtraction, products and a sum, each of which reads and writes the
whole feature map, and again backwards; TensorFlow has a fused operation for it.

Convolutions of one channel each as depthwise ones.

ConvNeXt of Keras has them as `Conv2D` with as many groups as channels, which TensorFlow computes group by group on a
CPU. By the depthwise operation a training step of ConvNeXt-Tiny takes a quarter of the time or less
(`python tests/benchmarks --only step --backbones convnext_tiny`).
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


def compute_depthwise(model: keras.Model) -> None:
    """Let every convolution of `model` with a group for each channel compute as a depthwise one, on a CPU.

    A GPU has kernels of its own for groups, and keeps them.
    """
    if tf.config.list_physical_devices("GPU"):
        return
    for layer in model.layers:
        if type(layer) is keras.layers.Conv2D and _fits_depthwise(layer):
            layer.call = functools.partial(_call_depthwise, layer)


def _fits_depthwise(layer: keras.layers.Conv2D) -> bool:
    one_each = layer.groups == layer.filters == layer.input.shape[-1] > 1
    even = len(set(layer.strides)) == 1 and (layer.strides == (1, 1) or layer.dilation_rate == (1, 1))
    return one_each and even and layer.data_format == "channels_last" and layer.padding in ("same", "valid")


def _call_depthwise(layer: keras.layers.Conv2D, inputs: tf.Tensor) -> tf.Tensor:
    """As `Conv2D.call`."""
    # (height, width, 1, channels) to (height, width, channels, 1): the same numbers in the same order.
    kernel = tf.reshape(layer.kernel.value, [*layer.kernel_size, layer.filters, 1])
    outputs = tf.nn.depthwise_conv2d(
        inputs, kernel, [1, *layer.strides, 1], layer.padding.upper(), dilations=layer.dilation_rate
    )
    if layer.use_bias:
        outputs = tf.nn.bias_add(outputs, layer.bias.value)
    return layer.activation(outputs) if layer.activation is not None else outputs


def use_fast_operations(model: keras.Model) -> None:
    """Let the layers of `model` that can compute by faster operations, from its next trace on."""
    fuse_batch_norms(model)
    compute_depthwise(model)
