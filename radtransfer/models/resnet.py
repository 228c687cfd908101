"""ResNet50, the network of both papers and of RadImageNet, as Keras and as PyTorch build it.

`resnet50` is that of `keras.applications`, also slim. `resnet50_v1_5` is PyTorch's, for weights converted from
torchvision and RadImageNet's `.pt`. Differences: the stride of a stage is in the 3×3 convolution, not in the 1×1 before
it; padding is symmetric; no biases beside batch norm; epsilon 1e-5. Layer names are the same.

References:
    He, Zhang, Ren, Sun 2016, Deep Residual Learning for Image Recognition (arXiv 1512.03385), Figure 5.
    `torchvision.models.resnet`, note on the place of the stride.
"""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from radtransfer.models.backbone import Backbone, keras_application, narrowed

if TYPE_CHECKING:
    import keras

_CHANNELS = {"stem": 64, "stage1": 64, "stage2": 128, "stage3": 256, "stage4": 512}
_BLOCKS = {"stage1": 3, "stage2": 4, "stage3": 6, "stage4": 3}
_EXPANSION = 4
"""Output channels of a bottleneck over its inner channels, at any width."""


def build_resnet50(
    image: "keras.KerasTensor", pooling: str | None, widths: Mapping[str, float] | None = None, *, torch: bool = False
) -> "keras.Model":
    """ResNet50, by default as in Keras, with `widths` as the fractions of the channels of stem and bottlenecks."""
    from keras import Model, layers

    width = {stage: narrowed(channels, (widths or {}).get(stage, 1.0)) for stage, channels in _CHANNELS.items()}
    x = _convolution(image, width["stem"], 7, stride=2, name="conv1", torch=torch)
    x = layers.Activation("relu", name="conv1_relu")(x)
    x = layers.ZeroPadding2D(1, name="pool1_pad")(x)
    x = layers.MaxPooling2D(3, strides=2, name="pool1_pool")(x)
    for number, (stage, blocks) in enumerate(_BLOCKS.items(), start=2):
        for block in range(1, blocks + 1):
            stride = 2 if block == 1 and stage != "stage1" else 1
            name = f"conv{number}_block{block}"
            x = _bottleneck(x, width[stage], stride=stride, project=block == 1, name=name, torch=torch)
    if pooling == "avg":
        x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    return Model(image, x)


def _bottleneck(
    x: "keras.KerasTensor", width: int, *, stride: int, project: bool, name: str, torch: bool
) -> "keras.KerasTensor":
    """1×1, 3×3 and 1×1 convolutions with a shortcut: `x` itself, or its projection by a 1×1 convolution."""
    from keras import layers

    convolution = partial(_convolution, torch=torch)
    first, second = (1, stride) if torch else (stride, 1)
    shortcut = convolution(x, _EXPANSION * width, 1, stride=stride, name=f"{name}_0") if project else x
    x = convolution(x, width, 1, stride=first, name=f"{name}_1")
    x = layers.Activation("relu", name=f"{name}_1_relu")(x)
    x = convolution(x, width, 3, stride=second, name=f"{name}_2")
    x = layers.Activation("relu", name=f"{name}_2_relu")(x)
    x = convolution(x, _EXPANSION * width, 1, name=f"{name}_3")
    x = layers.Add(name=f"{name}_add")([shortcut, x])
    return layers.Activation("relu", name=f"{name}_out")(x)


def _convolution(
    x: "keras.KerasTensor", channels: int, kernel: int, *, name: str, stride: int = 1, torch: bool
) -> "keras.KerasTensor":
    """A convolution and its batch norm."""
    from keras import layers

    padding = "valid"
    if kernel == 7 or torch and kernel == 3:
        x = layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x)
    elif kernel == 3:
        padding = "same"
    x = layers.Conv2D(channels, kernel, strides=stride, padding=padding, use_bias=not torch, name=f"{name}_conv")(x)
    return layers.BatchNormalization(epsilon=1e-5 if torch else 1.001e-5, name=f"{name}_bn")(x)


_STAGES = {
    "stem": "conv1_relu",
    "stage1": "conv2_block3_out",
    "stage2": "conv3_block4_out",
    "stage3": "conv4_block6_out",
    "stage4": "conv5_block3_out",
}

RESNET50 = Backbone(
    name="resnet50",
    build=keras_application("ResNet50"),
    build_slim=build_resnet50,
    stages=_STAGES,
    preprocessing="caffe",
    parameters=23_587_712,
    minimum_size=32,
    batch_norm_momentum=0.99,
    description="ResNet50: residual bottlenecks; ImageNet and RadImageNet weights exist",
    application="ResNet50",
)

RESNET50_V1_5 = Backbone(
    name="resnet50_v1_5",
    build=partial(build_resnet50, torch=True),
    stages=_STAGES,
    preprocessing="torch",
    parameters=23_561_152,
    minimum_size=32,
    batch_norm_momentum=0.9,
    description="ResNet50 as PyTorch builds it (stride in the 3×3): for weights from `weights convert`",
)
