"""Modern networks that `keras.applications` builds: EfficientNetV2-B0, and ConvNeXt-Tiny, which has no batch norm.

References:
    Tan, Le 2021, EfficientNetV2: Smaller Models and Faster Training (arXiv 2104.00298).
    Liu et al. 2022, A ConvNet for the 2020s (arXiv 2201.03545).
"""

from typing import TYPE_CHECKING

from radtransfer.models.backbone import Backbone, keras_application

if TYPE_CHECKING:
    import keras

_BLOCKS = [f"convnext_tiny_stage_{stage}_block_{block}" for stage, n in enumerate((3, 3, 9, 3)) for block in range(n)]


def channel_scale(
    operation: "keras.Operation", inputs: tuple["keras.KerasTensor"], *, name: str, dtype: str
) -> "keras.KerasTensor":
    """One learned factor per channel as a 1×1 depthwise convolution, in place of the application's own `LayerScale`.

    It is the fastest public layer for this (an einsum is ten times slower). Its kernel is (1, 1, channels, 1), that of
    `LayerScale` (channels,).
    """
    from keras import initializers, layers

    initial = initializers.Constant(operation.init_values)
    scale = layers.DepthwiseConv2D(1, use_bias=False, depthwise_initializer=initial, name=name, dtype=dtype)
    return scale(inputs[0])


def residual_sum(
    operation: "keras.Operation", inputs: tuple["keras.KerasTensor", ...], *, name: str, dtype: str
) -> "keras.KerasTensor":
    """The sum at the end of a block, as a layer named after the block."""
    from keras import layers

    block = int(name.removeprefix("add").removeprefix("_") or 0)
    return layers.Add(name=f"{_BLOCKS[block]}_add", dtype=dtype)(list(inputs))


EFFICIENTNET_V2_B0 = Backbone(
    name="efficientnet_v2_b0",
    build=keras_application("EfficientNetV2B0", include_preprocessing=False),
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

CONVNEXT_TINY = Backbone(
    name="convnext_tiny",
    build=keras_application("ConvNeXtTiny", include_preprocessing=False),
    stages={
        "stem": "convnext_tiny_stem_layernorm",
        "stage1": "convnext_tiny_stage_0_block_2_add",
        "stage2": "convnext_tiny_stage_1_block_2_add",
        "stage3": "convnext_tiny_stage_2_block_8_add",
        "stage4": "convnext_tiny_stage_3_block_2_add",
    },
    preprocessing="torch",
    parameters=27_820_128,
    minimum_size=32,
    batch_norm_momentum=None,
    description="ConvNeXt-Tiny: depthwise 7×7 and layer norm, no batch norm; ImageNet weights exist",
    application="ConvNeXtTiny",
    tail=("layer_normalization",),  # stands after the pooling
    replacements={"LayerScale": channel_scale, "Add": residual_sum},
)
