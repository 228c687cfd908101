"""Bottleneck residual blocks of any width.

Layer names, order and configuration are those of `keras.applications`, which builds only the full
width: weights of its networks fit layer by layer wherever the widths agree.

References:
    He, Zhang, Ren, Sun 2016, Deep Residual Learning for Image Recognition (arXiv 1512.03385), Figure 5.
"""

import keras
from keras import layers

EPSILON = 1.001e-5
"""Of batch norm, as in `keras.applications`."""

EXPANSION = 4
"""Channels out of a bottleneck over the channels inside it, whatever the width."""


def residual_stage(x: keras.KerasTensor, *, blocks: int, width: int, stride: int, name: str) -> keras.KerasTensor:
    """`blocks` bottlenecks in a row; the first one strides, and projects its shortcut to the new width.

    Returns:
        (batch, height / stride, width / stride, 4 · `width`).
    """
    x = bottleneck(x, width=width, stride=stride, project=True, name=f"{name}_block1")
    for block in range(2, blocks + 1):
        x = bottleneck(x, width=width, stride=1, project=False, name=f"{name}_block{block}")
    return x


def bottleneck(x: keras.KerasTensor, *, width: int, stride: int, project: bool, name: str) -> keras.KerasTensor:
    """1×1, 3×3, 1×1 convolutions beside a shortcut: `x` itself, or its projection by a 1×1 convolution."""
    out = EXPANSION * width
    shortcut = _convolution(x, out, 1, stride=stride, name=f"{name}_0") if project else x
    x = _convolution(x, width, 1, stride=stride, name=f"{name}_1")
    x = layers.Activation("relu", name=f"{name}_1_relu")(x)
    x = _convolution(x, width, 3, padding="same", name=f"{name}_2")
    x = layers.Activation("relu", name=f"{name}_2_relu")(x)
    x = _convolution(x, out, 1, name=f"{name}_3")
    x = layers.Add(name=f"{name}_add")([shortcut, x])
    return layers.Activation("relu", name=f"{name}_out")(x)


def _convolution(
    x: keras.KerasTensor, channels: int, kernel: int, *, name: str, stride: int = 1, padding: str = "valid"
) -> keras.KerasTensor:
    """A convolution, with bias as in `keras.applications`, and its batch norm."""
    x = layers.Conv2D(channels, kernel, strides=stride, padding=padding, name=f"{name}_conv")(x)
    return layers.BatchNormalization(epsilon=EPSILON, name=f"{name}_bn")(x)
