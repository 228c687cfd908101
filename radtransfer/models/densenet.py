"""DenseNet121, also a RadImageNet network.

References:
    Huang, Liu, van der Maaten, Weinberger 2017, Densely Connected Networks (arXiv 1608.06993).
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from radtransfer.models.backbone import Backbone, narrowed

if TYPE_CHECKING:
    import keras


def build_densenet121(image: "keras.KerasTensor", pooling: str | None) -> "keras.Model":
    from keras import applications

    return applications.DenseNet121(weights=None, include_top=False, input_tensor=image, pooling=pooling)


def build_slim_densenet121(
    image: "keras.KerasTensor", pooling: str | None, widths: Mapping[str, float]
) -> "keras.Model":
    """DenseNet121 with a fraction of its growth rate of 32, and in the stem of its 64 channels.

    The transitions before stage2 to stage4 still halve what they are given, so that a narrow stage
    puts out a little more than its fraction: it also passes on what came before. At full width it is
    Keras' DenseNet121.
    """
    from keras import Model, layers

    from radtransfer.models.architecture import EPSILON_DENSE_BLOCKS as EPSILON
    from radtransfer.models.architecture import dense_stage, norm_relu, transition

    x = layers.ZeroPadding2D(3)(image)
    x = layers.Conv2D(narrowed(64, widths["stem"]), 7, strides=2, use_bias=False, name="conv1_conv")(x)
    x = norm_relu(x, name="conv1")
    x = layers.ZeroPadding2D(1)(x)
    x = layers.MaxPooling2D(3, strides=2, name="pool1")(x)
    x = dense_stage(x, blocks=6, growth=narrowed(32, widths["stage1"]), name="conv2")
    x = transition(x, name="pool2")
    x = dense_stage(x, blocks=12, growth=narrowed(32, widths["stage2"]), name="conv3")
    x = transition(x, name="pool3")
    x = dense_stage(x, blocks=24, growth=narrowed(32, widths["stage3"]), name="conv4")
    x = transition(x, name="pool4")
    x = dense_stage(x, blocks=16, growth=narrowed(32, widths["stage4"]), name="conv5")
    x = layers.BatchNormalization(epsilon=EPSILON, name="bn")(x)
    x = layers.Activation("relu", name="relu")(x)
    if pooling == "avg":
        x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    return Model(image, x)


DENSENET121 = Backbone(
    name="densenet121",
    build=build_densenet121,
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
    build_slim=build_slim_densenet121,
)
