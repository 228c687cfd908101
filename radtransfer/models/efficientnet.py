"""EfficientNetV2-B0, a small modern network.

References:
    Tan, Le 2021, EfficientNetV2: Smaller Models and Faster Training (arXiv 2104.00298).
"""

from typing import TYPE_CHECKING

from radtransfer.models.backbone import Backbone

if TYPE_CHECKING:
    import keras


def build_efficientnet_v2_b0(image: "keras.KerasTensor", pooling: str | None) -> "keras.Model":
    from keras import applications

    return applications.EfficientNetV2B0(
        weights=None, include_top=False, input_tensor=image, pooling=pooling, include_preprocessing=False
    )


EFFICIENTNET_V2_B0 = Backbone(
    name="efficientnet_v2_b0",
    build=build_efficientnet_v2_b0,
    # One stage per resolution, as in ResNet50: 1/2, 1/4, 1/8, 1/16, 1/32.
    stages={
        "stem": "stem_activation",
        "stage1": "block2b_add",
        "stage2": "block3b_add",
        "stage3": "block5e_add",
        "stage4": "top_activation",
    },
    preprocessing="torch",
    parameters=5_919_312,
    minimum_size=32,
    batch_norm_momentum=0.9,
    description="EfficientNetV2-B0: inverted bottlenecks with squeeze-and-excitation; ImageNet weights exist",
    application="EfficientNetV2B0",
)
