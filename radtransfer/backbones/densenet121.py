"""DenseNet121, also a RadImageNet network.

References:
    Huang, Liu, van der Maaten, Weinberger 2017, Densely Connected Networks (arXiv 1608.06993).
"""

from typing import TYPE_CHECKING

from radtransfer.backbones.backbone import Backbone

if TYPE_CHECKING:
    import keras


def build_densenet121(image: "keras.KerasTensor", pooling: str | None) -> "keras.Model":
    from keras import applications

    return applications.DenseNet121(weights=None, include_top=False, input_tensor=image, pooling=pooling)


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
)
