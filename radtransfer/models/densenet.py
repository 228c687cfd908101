"""DenseNet121, also a RadImageNet network: that of `keras.applications`, and slim.

References:
    Huang, Liu, van der Maaten, Weinberger 2017, Densely Connected Networks (arXiv 1608.06993), section 3.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from radtransfer.models.backbone import Backbone, keras_application, narrowed

if TYPE_CHECKING:
    import keras

_EPSILON = 1.001e-5
_BOTTLENECK = 4
"""Channels of a layer's 1×1 convolution over the growth rate."""


def build_slim_densenet121(
    image: "keras.KerasTensor", pooling: str | None, widths: Mapping[str, float]
) -> "keras.Model":
    """DenseNet121 with fractions of its growth rate of 32 and of the 64 channels of its stem.

    Transitions still halve their input, and a stage also passes on its input, so that a narrow stage has a little more
    than its fraction of output channels. At full width it is Keras' DenseNet121.
    """
    from keras import Model, layers

    x = layers.ZeroPadding2D(3)(image)
    x = layers.Conv2D(narrowed(64, widths["stem"]), 7, strides=2, use_bias=False, name="conv1_conv")(x)
    x = _norm_relu(x, name="conv1")
    x = layers.ZeroPadding2D(1)(x)
    x = layers.MaxPooling2D(3, strides=2, name="pool1")(x)
    for number, blocks in ((1, 6), (2, 12), (3, 24), (4, 16)):
        if number > 1:
            x = _transition(x, name=f"pool{number}")
        growth = narrowed(32, widths[f"stage{number}"])
        for block in range(1, blocks + 1):
            x = _dense_layer(x, growth, name=f"conv{number + 1}_block{block}")
    x = layers.BatchNormalization(epsilon=_EPSILON, name="bn")(x)
    x = layers.Activation("relu", name="relu")(x)
    if pooling == "avg":
        x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    return Model(image, x)


def _norm_relu(x: "keras.KerasTensor", *, name: str) -> "keras.KerasTensor":
    """Batch norm and ReLU, which precede a convolution in DenseNet."""
    from keras import layers

    x = layers.BatchNormalization(epsilon=_EPSILON, name=f"{name}_bn")(x)
    return layers.Activation("relu", name=f"{name}_relu")(x)


def _transition(x: "keras.KerasTensor", *, name: str) -> "keras.KerasTensor":
    """Halve channels, height and width."""
    from keras import layers

    x = _norm_relu(x, name=name)
    x = layers.Conv2D(x.shape[-1] // 2, 1, use_bias=False, name=f"{name}_conv")(x)
    return layers.AveragePooling2D(2, strides=2, name=f"{name}_pool")(x)


def _dense_layer(x: "keras.KerasTensor", growth: int, *, name: str) -> "keras.KerasTensor":
    """Append `growth` channels, computed by two convolutions, to `x`."""
    from keras import layers

    new = _norm_relu(x, name=f"{name}_0")
    new = layers.Conv2D(_BOTTLENECK * growth, 1, use_bias=False, name=f"{name}_1_conv")(new)
    new = _norm_relu(new, name=f"{name}_1")
    new = layers.Conv2D(growth, 3, padding="same", use_bias=False, name=f"{name}_2_conv")(new)
    return layers.Concatenate(name=f"{name}_concat")([x, new])


DENSENET121 = Backbone(
    name="densenet121",
    build=keras_application("DenseNet121"),
    build_slim=build_slim_densenet121,
    stages={
        "stem": "conv1_relu",
        "stage1": "conv2_block6_concat",
        "stage2": "conv3_block12_concat",
        "stage3": "conv4_block24_concat",
        "stage4": "relu",
    },
    preprocessing="torch",
    parameters=7_037_504,
    minimum_size=32,
    batch_norm_momentum=0.99,
    description="DenseNet121: dense connections; ImageNet and RadImageNet weights exist",
    application="DenseNet121",
)
