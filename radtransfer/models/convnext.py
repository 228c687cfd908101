"""ConvNeXt-Tiny, a modern convolutional network without batch norm.

References:
    Liu et al. 2022, A ConvNet for the 2020s (arXiv 2201.03545).
"""

from typing import TYPE_CHECKING

from radtransfer.models.backbone import Backbone

if TYPE_CHECKING:
    import keras


_DEPTHS = (3, 3, 9, 3)
_BLOCKS = [
    f"convnext_tiny_stage_{stage}_block_{block}" for stage, depth in enumerate(_DEPTHS) for block in range(depth)
]


def build_convnext_tiny(image: "keras.KerasTensor", pooling: str | None) -> "keras.Model":
    from keras import applications

    return applications.ConvNeXtTiny(
        weights=None, include_top=False, input_tensor=image, pooling=pooling, include_preprocessing=False
    )


def channel_scale(
    operation: "keras.Operation", inputs: tuple["keras.KerasTensor"], *, name: str, dtype: str
) -> "keras.KerasTensor":
    """One learned factor per channel, in place of the application's own `LayerScale`.

    A 1×1 depthwise convolution is the public layer that does this at full speed (an einsum is ten
    times slower). Its kernel is (1, 1, channels, 1) where `LayerScale` keeps (channels,).
    """
    from keras import initializers, layers

    initial = initializers.Constant(operation.init_values)
    scale = layers.DepthwiseConv2D(1, use_bias=False, depthwise_initializer=initial, name=name, dtype=dtype)
    return scale(inputs[0])


def residual_sum(
    operation: "keras.Operation", inputs: tuple["keras.KerasTensor", ...], *, name: str, dtype: str
) -> "keras.KerasTensor":
    """The sum that ends a block, as a layer named after the block instead of an unnamed operation."""
    from keras import layers

    block = int(name.removeprefix("add").removeprefix("_") or 0)
    return layers.Add(name=f"{_BLOCKS[block]}_add", dtype=dtype)(list(inputs))


CONVNEXT_TINY = Backbone(
    name="convnext_tiny",
    build=build_convnext_tiny,
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
