"""ResNet50, the network of both papers and of RadImageNet.

References:
    He, Zhang, Ren, Sun 2016, Deep Residual Learning for Image Recognition (arXiv 1512.03385).

ResNet50 as PyTorch builds it ("v1.5"): for weights converted from torchvision and RadImageNet's `.pt`.

Differs from `resnet50`: where a stage halves the image, the 3×3 convolution strides, not the 1×1 before it; no biases
beside batch norm; epsilon 1e-5. Layer names are the same.

References:
    He, Zhang, Ren, Sun 2016, Deep Residual Learning for Image Recognition (arXiv 1512.03385).
    `torchvision.models.resnet`, note on the place of the stride.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from radtransfer.models.backbone import Backbone, narrowed

if TYPE_CHECKING:
    import keras

_CHANNELS = {"stem": 64, "stage1": 64, "stage2": 128, "stage3": 256, "stage4": 512}


def build_resnet50(image: "keras.KerasTensor", pooling: str | None) -> "keras.Model":
    from keras import applications

    return applications.ResNet50(weights=None, include_top=False, input_tensor=image, pooling=pooling)


def build_slim_resnet50(image: "keras.KerasTensor", pooling: str | None, widths: Mapping[str, float]) -> "keras.Model":
    """ResNet50 whose bottlenecks and stem have a fraction of their channels.

    What a stage puts out is exactly four times that. At full width it is Keras' ResNet50.
    """
    from keras import Model, layers

    from radtransfer.models.architecture import EPSILON, residual_stage

    width = {stage: narrowed(channels, widths[stage]) for stage, channels in _CHANNELS.items()}
    x = layers.ZeroPadding2D(3, name="conv1_pad")(image)
    x = layers.Conv2D(width["stem"], 7, strides=2, name="conv1_conv")(x)
    x = layers.BatchNormalization(epsilon=EPSILON, name="conv1_bn")(x)
    x = layers.Activation("relu", name="conv1_relu")(x)
    x = layers.ZeroPadding2D(1, name="pool1_pad")(x)
    x = layers.MaxPooling2D(3, strides=2, name="pool1_pool")(x)
    x = residual_stage(x, blocks=3, width=width["stage1"], stride=1, name="conv2")
    x = residual_stage(x, blocks=4, width=width["stage2"], stride=2, name="conv3")
    x = residual_stage(x, blocks=6, width=width["stage3"], stride=2, name="conv4")
    x = residual_stage(x, blocks=3, width=width["stage4"], stride=2, name="conv5")
    if pooling == "avg":
        x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    return Model(image, x)


RESNET50 = Backbone(
    name="resnet50",
    build=build_resnet50,
    stages={
        "stem": "conv1_relu",
        "stage1": "conv2_block3_out",
        "stage2": "conv3_block4_out",
        "stage3": "conv4_block6_out",
        "stage4": "conv5_block3_out",
    },
    preprocessing="caffe",
    parameters=23_587_712,
    minimum_size=32,
    batch_norm_momentum=0.99,
    description="ResNet50: residual bottlenecks; ImageNet and RadImageNet weights exist",
    application="ResNet50",
    build_slim=build_slim_resnet50,
)


if TYPE_CHECKING:
    import keras

_EPSILON = 1e-5
_STAGES = (("conv2", 3, 64, 1), ("conv3", 4, 128, 2), ("conv4", 6, 256, 2), ("conv5", 3, 512, 2))


def build_resnet50_v1_5(image: "keras.KerasTensor", pooling: str | None) -> "keras.Model":
    from keras import Model, layers

    x = _convolution(image, 64, 7, stride=2, name="conv1")
    x = layers.Activation("relu", name="conv1_relu")(x)
    x = layers.ZeroPadding2D(1, name="pool1_pad")(x)
    x = layers.MaxPooling2D(3, strides=2, name="pool1_pool")(x)
    for name, blocks, width, stride in _STAGES:
        for block in range(1, blocks + 1):
            x = _bottleneck(x, width, stride=stride if block == 1 else 1, first=block == 1, name=f"{name}_block{block}")
    if pooling == "avg":
        x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    return Model(image, x)


def _bottleneck(x: "keras.KerasTensor", width: int, *, stride: int, first: bool, name: str) -> "keras.KerasTensor":
    from keras import layers

    shortcut = _convolution(x, 4 * width, 1, stride=stride, name=f"{name}_0") if first else x
    x = _convolution(x, width, 1, name=f"{name}_1")
    x = layers.Activation("relu", name=f"{name}_1_relu")(x)
    x = _convolution(x, width, 3, stride=stride, name=f"{name}_2")
    x = layers.Activation("relu", name=f"{name}_2_relu")(x)
    x = _convolution(x, 4 * width, 1, name=f"{name}_3")
    x = layers.Add(name=f"{name}_add")([shortcut, x])
    return layers.Activation("relu", name=f"{name}_out")(x)


def _convolution(
    x: "keras.KerasTensor", channels: int, kernel: int, *, name: str, stride: int = 1
) -> "keras.KerasTensor":
    """A convolution padded alike on all sides, whatever its stride, and its batch norm."""
    from keras import layers

    if kernel > 1:
        x = layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x)
    x = layers.Conv2D(channels, kernel, strides=stride, use_bias=False, name=f"{name}_conv")(x)
    return layers.BatchNormalization(epsilon=_EPSILON, name=f"{name}_bn")(x)


RESNET50_V1_5 = Backbone(
    name="resnet50_v1_5",
    build=build_resnet50_v1_5,
    stages={
        "stem": "conv1_relu",
        "stage1": "conv2_block3_out",
        "stage2": "conv3_block4_out",
        "stage3": "conv4_block6_out",
        "stage4": "conv5_block3_out",
    },
    preprocessing="torch",
    parameters=23_561_152,
    minimum_size=32,
    batch_norm_momentum=0.9,
    description="ResNet50 as PyTorch builds it (stride in the 3×3): for weights from `weights convert`",
)
