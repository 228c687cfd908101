"""Vision transformers in plain Keras layers: one flat graph, the class token and its position one row of a table.

Tokens stand in the order [class, registers, patches from the upper left, row by row]. The class token is that row of
`positions` which the zeros before the patches get, a register likewise, so that the graph needs no layer of its own.
What differs between families of weights (epsilon, activation, pooling, a norm before the blocks) are options of
`build_vit`; `Backbone.with_options` sets them.

References:
    Dosovitskiy et al. 2021, An Image is Worth 16x16 Words (arXiv 2010.11929).
    Touvron et al. 2021, Going deeper with Image Transformers (arXiv 2103.17239): LayerScale.
    Darcet et al. 2024, Vision Transformers Need Registers (arXiv 2309.16588).
"""

from functools import partial
from typing import TYPE_CHECKING, Literal

from radtransfer.models.backbone import Backbone

if TYPE_CHECKING:
    import keras
    import numpy as np

POSITIONS = "positions"
"""The layer whose table has a row for every token."""

CLASS_TOKEN = "cls"
"""Name under which the normalized class token is compared and extracted, apart from the patches."""


def build_vit(
    image: "keras.KerasTensor",
    pooling: str | None,
    *,
    patch: int,
    width: int,
    depth: int,
    layer_scale: bool = False,
    registers: int = 0,
    heads: int | None = None,
    epsilon: float = 1e-6,
    activation: Literal["gelu", "quick_gelu"] = "gelu",
    norm_before: bool = False,
    pool: Literal["token", "mean"] = "token",
) -> "keras.Model":
    """A vision transformer to its normalized tokens (batch, tokens, width); a head has 64 channels, if not `heads`.

    With `pooling` "avg" to one vector: the class token, or the mean of the patches, as `pool` says.
    """
    from keras import Model, initializers, layers, ops

    heads = heads or width // 64
    small = initializers.TruncatedNormal(stddev=0.02)

    def norm(x, name):
        return layers.LayerNormalization(epsilon=epsilon, name=name)(x)

    def scaled(x, name):
        if not layer_scale:
            return x
        start = initializers.Constant(1e-5)
        return layers.EinsumDense("btc,c->btc", (before + patches, width), kernel_initializer=start, name=name)(x)

    x = layers.Conv2D(width, patch, strides=patch, kernel_initializer="lecun_normal", name="patch_embedding")(image)
    patches, before = x.shape[1] * x.shape[2], 1 + registers
    x = layers.Reshape((patches, width), name="patches")(x)
    x = layers.ZeroPadding1D((before, 0), name="tokens")(x)
    # The numbers 0, 1, 2 … of the tokens; whole ones, which bfloat16 has only up to 256.
    numbers = ops.cumsum(ops.ones_like(x[:, :, 0], dtype="int32"), axis=1) - 1
    table = layers.Embedding(before + patches, width, embeddings_initializer=small, name=POSITIONS)
    x = layers.Add(name="embedding")([x, table(numbers)])
    if norm_before:
        x = norm(x, "norm_before")
    for block in range(1, depth + 1):
        name = f"block{block}"
        y = norm(x, f"{name}_norm1")
        attention = layers.MultiHeadAttention(heads, width // heads, kernel_initializer=small, name=f"{name}_attention")
        y = scaled(attention(y, y), f"{name}_scale1")
        x = layers.Add(name=f"{name}_add1")([x, y])
        y = norm(x, f"{name}_norm2")
        if activation == "gelu":
            y = layers.Dense(4 * width, activation="gelu", kernel_initializer=small, name=f"{name}_mlp1")(y)
        else:
            y = layers.Dense(4 * width, kernel_initializer=small, name=f"{name}_mlp1")(y)
            y = y * ops.sigmoid(1.702 * y)
        y = layers.Dense(width, kernel_initializer=small, name=f"{name}_mlp2")(y)
        x = layers.Add(name=f"{name}_add2")([x, scaled(y, f"{name}_scale2")])
    x = norm(x, "norm")
    if pooling == "avg" and pool == "token":
        x = layers.Cropping1D((0, before + patches - 1), name="class_token")(x)
        x = layers.Flatten(name="token_pool")(x)
    elif pooling == "avg":
        x = layers.Cropping1D((before, 0), name="patch_tokens")(x)
        x = layers.GlobalAveragePooling1D(name="token_pool")(x)
    return Model(image, x)


def tokens_before_patches(model: "keras.Model") -> int | None:
    """How many tokens stand before those of the patches; None if `model` is no vision transformer of ours."""
    layer = next((layer for layer in model.layers if layer.name == "tokens"), None)
    return layer.padding[0] if hasattr(layer, "padding") else None


def patch_grid(model: "keras.Model", output: "keras.KerasTensor") -> tuple[int, int] | None:
    """Height and width of the patches among the tokens (batch, tokens, channels) of `output`; None for another."""
    before = tokens_before_patches(model)
    if before is None or len(getattr(output, "shape", ())) != 3 or output.shape[1] is None:
        return None
    side = round((output.shape[1] - before) ** 0.5) if output.shape[1] > before else 0
    return (side, side) if side and side**2 + before == output.shape[1] else None


def resized_positions(table: "np.ndarray", *, rows: int, before: int) -> "np.ndarray":
    """A position table for another image size: the grid of patches resized, bicubic, `before` rows kept.

    As `timm.layers.resample_abs_pos_embed` does it, with antialiasing. `rows` are those that are wanted.
    """
    import numpy as np
    import tensorflow as tf

    kept, grid = table[:before], table[before:]
    old, new = round(len(grid) ** 0.5), round((rows - before) ** 0.5)
    grid = tf.image.resize(grid.reshape(1, old, old, -1), (new, new), method="bicubic", antialias=True).numpy()
    return np.concatenate([kept, grid.reshape(new * new, -1)])


def vit_spec(size: str, patch: int, width: int, depth: int, *, layer_scale: bool = False) -> Backbone:
    """A vision transformer of `depth` blocks (a multiple of 4), in stages of a quarter of them each."""
    block = 12 * width**2 + 13 * width + 2 * width * layer_scale
    tokens = 1 + (224 // patch) ** 2
    quarters = {f"stage{number}": f"block{depth * number // 4}_add2" for number in (1, 2, 3)}
    more = " with LayerScale, as DINOv2 has it" if layer_scale else ""
    return Backbone(
        name=f"vit_{size}_{patch}",
        build=partial(build_vit, patch=patch, width=width, depth=depth, layer_scale=layer_scale),
        stages={"stem": "embedding", **quarters, "stage4": "norm"},
        preprocessing="torch" if layer_scale else "tf",
        parameters=depth * block + 2 * width + tokens * width + (3 * patch**2 + 1) * width,
        minimum_size=patch,
        patch=patch,
        batch_norm_momentum=None,
        description=f"ViT-{size.capitalize()}/{patch}: {depth} blocks, {width} channels{more}",
    )


VIT_TINY_16 = vit_spec("tiny", 16, 192, 12)
VIT_SMALL_16 = vit_spec("small", 16, 384, 12)
VIT_BASE_16 = vit_spec("base", 16, 768, 12)
VIT_LARGE_16 = vit_spec("large", 16, 1024, 24)
VIT_SMALL_14 = vit_spec("small", 14, 384, 12, layer_scale=True)
VIT_BASE_14 = vit_spec("base", 14, 768, 12, layer_scale=True)
VIT_LARGE_14 = vit_spec("large", 14, 1024, 24, layer_scale=True)
