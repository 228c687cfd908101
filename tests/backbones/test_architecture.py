import dataclasses

import keras
import numpy as np
import pytest
from composite_network import COMPOSITE

from radtransfer.errors import ConfigError, UnknownNameError
from radtransfer.models.architecture import build_architecture
from radtransfer.models.backbone import BACKBONES, layer_sources
from radtransfer.training.step import batch_norms


def test_an_unknown_backbone_is_refused_with_the_closest_name():
    with pytest.raises(UnknownNameError, match="Did you mean 'resnet50'"):
        build_architecture("resnet-50")


def test_a_pooling_that_does_not_exist_is_refused():
    with pytest.raises(ConfigError, match="Received: 'max'"):
        build_architecture("cbr_tiny", image_size=32, pooling="max")


def test_an_image_without_channels_is_refused():
    with pytest.raises(ConfigError, match="channels: expected at least 1. Received: 0"):
        build_architecture("cbr_tiny", image_size=32, channels=0)


def test_unnamed_layers_are_numbered_as_in_a_fresh_process():
    keras.layers.Conv2D(1, 1)  # moves Keras' global numbering on
    names = {layer.name for layer in build_architecture("inception_v3", image_size=75).layers}
    expected = {"conv2d", *(f"conv2d_{rank}" for rank in range(1, 94))}
    assert {name for name in names if name.startswith("conv2d")} == expected


def test_the_numbering_follows_the_order_of_creation():
    # In the first Inception block the 1×1 branch of 64 filters is made first, though a walk through
    # the graph meets the 5×5 branch of 48 before it; weight files rely on this order.
    model = build_architecture("inception_v3", image_size=75)
    widths = [model.get_layer(f"conv2d_{rank}").filters for rank in range(5, 12)]
    assert widths == [64, 48, 64, 64, 96, 96, 32]


def test_the_global_policy_does_not_reach_the_layers():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = build_architecture("cbr_tiny", image_size=32)
    finally:
        keras.config.set_dtype_policy(before)
    assert {layer.dtype_policy.name for layer in model.layers[1:]} == {"float32"}


def test_the_batch_norm_momentum_is_a_field_of_the_card():
    card = dataclasses.replace(BACKBONES["cbr_tiny"], batch_norm_momentum=0.5)
    assert build_architecture(card, image_size=32).get_layer("bn1").momentum == 0.5
    composite = build_architecture(dataclasses.replace(COMPOSITE, batch_norm_momentum=0.5), image_size=32)
    assert {layer.momentum for layer in batch_norms(composite).values()} == {0.5}


def test_what_a_layer_is_called_with_by_keyword_is_kept():
    def build(image, _):
        x = keras.layers.AveragePooling2D(4, name="pooled")(image)
        y = keras.layers.MultiHeadAttention(1, 4, attention_axes=(1, 2), name="attention")(query=x, value=image)
        return keras.Model(image, keras.layers.BatchNormalization(name="last")(y, training=True))

    model = build_architecture(dataclasses.replace(COMPOSITE, build=build, stages={"stem": "last"}), image_size=16)
    images = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)
    np.testing.assert_allclose(np.asarray(model(images)).mean(axis=(0, 1, 2)), 0, atol=1e-3)
    assert layer_sources(model)["attention"] == ["pooled", "image"]


@pytest.mark.parametrize("name", ["resnet50", "efficientnet_v2_b0"])
def test_the_cards_keep_the_momentum_that_keras_builds_its_networks_with(name):
    card = BACKBONES[name]
    theirs = card.build(keras.Input((64, 64, 3)), None)
    batch_norms = [layer for layer in theirs.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert {layer.momentum for layer in batch_norms} == {card.batch_norm_momentum}


@pytest.mark.slow
def test_residuals_of_inception_resnet_v2_are_scaled_as_published():
    model = build_architecture("inception_resnet_v2", image_size=75)
    scales = [layer.scale for layer in model.layers if isinstance(layer, keras.layers.Rescaling)]
    assert scales == [0.17] * 10 + [0.1] * 20 + [0.2] * 9 + [1.0]
