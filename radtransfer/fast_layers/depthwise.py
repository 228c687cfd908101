"""Convolutions of one channel each as depthwise ones.

ConvNeXt of Keras has them as `Conv2D` with as many groups as channels, which TensorFlow computes group by group on a
CPU. By the depthwise operation a training step of ConvNeXt-Tiny takes a quarter of the time or less
(`python tests/benchmarks --only step --backbones convnext_tiny`).
"""

import functools

import keras
import tensorflow as tf


def compute_depthwise(model: keras.Model) -> None:
    """Let every convolution of `model` with a group for each channel compute as a depthwise one, on a CPU.

    A GPU has kernels of its own for groups, and keeps them.
    """
    if tf.config.list_physical_devices("GPU"):
        return
    for layer in model.layers:
        if type(layer) is keras.layers.Conv2D and _fits(layer):
            layer.call = functools.partial(_call, layer)


def _fits(layer: keras.layers.Conv2D) -> bool:
    one_each = layer.groups == layer.filters == layer.input.shape[-1] > 1
    even = len(set(layer.strides)) == 1 and (layer.strides == (1, 1) or layer.dilation_rate == (1, 1))
    return one_each and even and layer.data_format == "channels_last" and layer.padding in ("same", "valid")


def _call(layer: keras.layers.Conv2D, inputs: tf.Tensor) -> tf.Tensor:
    """As `Conv2D.call`."""
    # (height, width, 1, channels) to (height, width, channels, 1): the same numbers in the same order.
    kernel = tf.reshape(layer.kernel.value, [*layer.kernel_size, layer.filters, 1])
    outputs = tf.nn.depthwise_conv2d(
        inputs, kernel, [1, *layer.strides, 1], layer.padding.upper(), dilations=layer.dilation_rate
    )
    if layer.use_bias:
        outputs = tf.nn.bias_add(outputs, layer.bias.value)
    return layer.activation(outputs) if layer.activation is not None else outputs
