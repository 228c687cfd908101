"""InceptionV3, also a RadImageNet network.

References:
    Szegedy et al. 2016, Rethinking the Inception Architecture for Computer Vision (arXiv 1512.00567).
"""

from typing import TYPE_CHECKING

from radtransfer.backbones.backbone import Backbone

if TYPE_CHECKING:
    import keras


def build_inception_v3(image: "keras.KerasTensor", pooling: str | None) -> "keras.Model":
    from keras import applications

    return applications.InceptionV3(weights=None, include_top=False, input_tensor=image, pooling=pooling)


INCEPTION_V3 = Backbone(
    name="inception_v3",
    build=build_inception_v3,
    stages={"stem": "max_pooling2d_1", "stage1": "mixed2", "stage2": "mixed7", "stage3": "mixed10"},
    preprocessing="tf",
    parameters=21_802_784,
    minimum_size=75,
    batch_norm_momentum=0.99,
    description="InceptionV3: parallel branches; ImageNet and RadImageNet weights exist",
    application="InceptionV3",
)
