"""A small network of layers that are made of layers: attention, an MLP within TimeDistributed, an embedding."""

import keras

from radtransfer.models.backbone import Backbone

STAGES = {"stem": "stem_out", "stage1": "block1_out", "stage2": "block2_out", "stage3": "coded"}


def build_composite(image, pooling):
    layers = keras.layers
    grey = layers.AveragePooling2D(4, name="grey")(image)
    x = layers.Conv2D(16, 4, strides=4, name="patches")(image)
    x = layers.BatchNormalization(name="patches_bn")(x)
    x = layers.Add(name="stem_out")([x, layers.Conv2D(16, 1, name="skip")(grey)])
    for block in ("block1", "block2"):
        y = layers.LayerNormalization(name=f"{block}_norm")(x)
        y = layers.MultiHeadAttention(2, 8, dropout=0.1, attention_axes=(1, 2), name=f"{block}_attention")(y, y)
        x = layers.Add(name=f"{block}_add")([x, y])
        y = layers.TimeDistributed(_mlp(), name=f"{block}_mlp")(x)
        x = layers.Add(name=f"{block}_out")([x, y])
    bins = layers.Discretization([-1.0, 0.0, 1.0], name="bins")(layers.GlobalAveragePooling2D(name="brightness")(grey))
    codes = layers.GlobalAveragePooling1D(name="code")(layers.Embedding(4, 16, name="codes")(bins))
    x = layers.Add(name="coded")([x, layers.Reshape((1, 1, 16), name="code_map")(codes)])
    return keras.Model(image, layers.GlobalAveragePooling2D(name="avg_pool")(x) if pooling else x)


def _mlp():
    layers = keras.layers
    inner = [
        layers.Input((None, 16)),
        layers.LayerNormalization(name="norm"),
        layers.Dense(32, activation="gelu", name="wide"),
        layers.BatchNormalization(name="bn"),
        layers.Dropout(0.2, name="drop"),
        layers.Dense(16, name="narrow"),
    ]
    return keras.Sequential(inner, name="mlp")


COMPOSITE = Backbone(
    name="composite",
    build=build_composite,
    stages=STAGES,
    preprocessing="torch",
    parameters=5_680,
    minimum_size=16,
    batch_norm_momentum=0.99,
    description="layers within layers",
)


def add_to_backbones(monkeypatch):
    """Let the command line know it by name."""
    from radtransfer.models.backbone import BACKBONES

    monkeypatch.setitem(BACKBONES._entries, "composite", "composite_network:COMPOSITE")
