"""Densely connected blocks of any growth rate.

Layer names, order and configuration are those of `keras.applications`, which builds only the full
width: weights of its networks fit layer by layer wherever the widths agree.

References:
    Huang, Liu, van der Maaten, Weinberger 2017, Densely Connected Networks (arXiv 1608.06993), section 3.
"""

import keras
from keras import layers

EPSILON = 1.001e-5
"""Of batch norm, as in `keras.applications`."""

BOTTLENECK = 4
"""Channels of a layer's 1×1 convolution over the growth rate, whatever the growth rate."""


def dense_stage(x: keras.KerasTensor, *, blocks: int, growth: int, name: str) -> keras.KerasTensor:
    """`blocks` pairs of convolutions, each adding `growth` channels to all that came before."""
    for block in range(1, blocks + 1):
        x = _grown(x, growth, f"{name}_block{block}")
    return x


def transition(x: keras.KerasTensor, *, name: str) -> keras.KerasTensor:
    """Half the channels, whatever their number, and half the height and width."""
    x = norm_relu(x, name=name)
    x = layers.Conv2D(x.shape[-1] // 2, 1, use_bias=False, name=f"{name}_conv")(x)
    return layers.AveragePooling2D(2, strides=2, name=f"{name}_pool")(x)


def norm_relu(x: keras.KerasTensor, *, name: str) -> keras.KerasTensor:
    """Batch norm and ReLU, which stand before a convolution here."""
    x = layers.BatchNormalization(epsilon=EPSILON, name=f"{name}_bn")(x)
    return layers.Activation("relu", name=f"{name}_relu")(x)


def _grown(x: keras.KerasTensor, growth: int, name: str) -> keras.KerasTensor:
    new = norm_relu(x, name=f"{name}_0")
    new = layers.Conv2D(BOTTLENECK * growth, 1, use_bias=False, name=f"{name}_1_conv")(new)
    new = norm_relu(new, name=f"{name}_1")
    new = layers.Conv2D(growth, 3, padding="same", use_bias=False, name=f"{name}_2_conv")(new)
    return layers.Concatenate(name=f"{name}_concat")([x, new])
