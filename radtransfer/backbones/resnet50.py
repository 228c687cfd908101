"""ResNet50, the network of both papers and of RadImageNet.

References:
    He, Zhang, Ren, Sun 2016, Deep Residual Learning for Image Recognition (arXiv 1512.03385).
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from radtransfer.backbones.backbone import Backbone
from radtransfer.backbones.widths import narrowed

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

    from radtransfer.backbones.residual_blocks import EPSILON, residual_stage

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
