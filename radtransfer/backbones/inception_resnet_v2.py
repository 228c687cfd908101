"""InceptionResNetV2, also a RadImageNet network.

References:
    Szegedy, Ioffe, Vanhoucke, Alemi 2017, Inception-v4, Inception-ResNet (arXiv 1602.07261).
"""

from typing import TYPE_CHECKING

from radtransfer.backbones.backbone import Backbone

if TYPE_CHECKING:
    import keras


def build_inception_resnet_v2(image: "keras.KerasTensor", pooling: str | None) -> "keras.Model":
    from keras import applications

    return applications.InceptionResNetV2(weights=None, include_top=False, input_tensor=image, pooling=pooling)


def residual_sum(
    operation: "keras.Operation", inputs: tuple[list["keras.KerasTensor"]], *, name: str, dtype: str
) -> "keras.KerasTensor":
    """`x + scale · branch` with public layers, in place of the application's own `CustomScaleLayer`."""
    from keras import layers

    x, branch = inputs[0]
    number = name.removeprefix("custom_scale_layer")
    scaled = layers.Rescaling(operation.scale, name=f"rescaling{number}", dtype=dtype)(branch)
    return layers.Add(name=f"add{number}", dtype=dtype)([x, scaled])


INCEPTION_RESNET_V2 = Backbone(
    name="inception_resnet_v2",
    build=build_inception_resnet_v2,
    stages={
        "stem": "max_pooling2d_1",
        "stage1": "block35_10_ac",
        "stage2": "block17_20_ac",
        "stage3": "conv_7b_ac",
    },
    preprocessing="tf",
    parameters=54_336_736,
    minimum_size=75,
    batch_norm_momentum=0.99,
    description="InceptionResNetV2: branches and residuals; ImageNet and RadImageNet weights exist",
    application="InceptionResNetV2",
    replacements={"CustomScaleLayer": residual_sum},
)
