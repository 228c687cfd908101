"""The CBR family: repeated convolution, batch norm, ReLU and max-pool; much smaller than ImageNet networks.

References:
    Raghu, Zhang, Kleinberg, Bengio 2019, Transfusion (arXiv 1902.07208), Table 1 and Appendix A.
"""

from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

from radtransfer.models.backbone import Backbone, narrowed

if TYPE_CHECKING:
    import keras


def build_cbr(
    image: "keras.KerasTensor",
    pooling: str | None,
    widths: Mapping[str, float] | None = None,
    *,
    kernel: int,
    channels: tuple[int, ...],
    last_pool: bool = True,
) -> "keras.Model":
    """A CBR network with one block per entry of `channels`, scaled by the `widths` of the stages.

    The paper does not specify the padding, which is "same" here.
    """
    from keras import Model, layers

    if widths:
        stages = _stage_names(len(channels))
        channels = tuple(narrowed(full, widths[stage]) for full, stage in zip(channels, stages, strict=True))
    x = image
    for block, width in enumerate(channels, start=1):
        x = layers.Conv2D(width, kernel, padding="same", use_bias=False, name=f"conv{block}")(x)
        x = layers.BatchNormalization(name=f"bn{block}")(x)
        x = layers.ReLU(name=f"relu{block}")(x)
        if last_pool or block < len(channels):
            x = layers.MaxPooling2D(3, strides=2, padding="same", name=f"pool{block}")(x)
    if pooling == "avg":
        x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    return Model(image, x)


def _stage_names(blocks: int) -> list[str]:
    return ["stem", *(f"stage{block}" for block in range(1, blocks))]


def _spec(name: str, kernel: int, channels: tuple[int, ...], description: str, *, last_pool: bool = True) -> Backbone:
    ends = [f"pool{block}" for block in range(1, len(channels) + 1)]
    if not last_pool:
        ends[-1] = f"relu{len(channels)}"
    later_kernels = sum(kernel**2 * before * after for before, after in pairwise(channels))
    build = partial(build_cbr, kernel=kernel, channels=channels, last_pool=last_pool)
    return Backbone(
        name=name,
        build=build,
        build_slim=build,
        stages=dict(zip(_stage_names(len(channels)), ends, strict=True)),
        preprocessing="torch",
        parameters=kernel**2 * 3 * channels[0] + later_kernels + 4 * sum(channels),
        # Table 1 counts exactly the kernels after the first, and a head of five classes without biases.
        paper_parameters=later_kernels + 5 * channels[-1],
        minimum_size=16,
        # With Keras' 0.99, the initial statistics would affect inference for hundreds of steps.
        batch_norm_momentum=0.9,
        description=description,
    )


_LARGE_T = "CBR-LargeT: five 7×7 blocks, no pool after the last (Transfusion)"
CBR_LARGE_T = _spec("cbr_large_t", 7, (32, 64, 128, 256, 512), _LARGE_T, last_pool=False)

_LARGE_W = "CBR-LargeW: four 7×7 blocks, twice as wide (Transfusion)"
CBR_LARGE_W = _spec("cbr_large_w", 7, (64, 128, 256, 512), _LARGE_W)

CBR_SMALL = _spec("cbr_small", 7, (32, 64, 128, 256), "CBR-Small: four 7×7 blocks (Transfusion)")

# Appendix A has 64-128-256-512 for CBR-Tiny, which contradicts Table 1 and "one twentieth of the size" of ResNet50:
# `cbr_tiny` follows the table, `cbr_tiny_wide` the appendix.
CBR_TINY = _spec("cbr_tiny", 5, (32, 64, 128, 256), "CBR-Tiny: four 5×5 blocks (Transfusion, Table 1)")

_TINY_WIDE = "CBR-Tiny as in Appendix A of Transfusion: twice as wide"
CBR_TINY_WIDE = _spec("cbr_tiny_wide", 5, (64, 128, 256, 512), _TINY_WIDE)
