"""Slim networks: fewer channels, and otherwise the same networks."""

import dataclasses
from functools import partial
from itertools import pairwise

import keras
import numpy as np
import pytest

from radtransfer.errors import ConfigError, UnknownNameError
from radtransfer.models.architecture import build_architecture
from radtransfer.models.backbone import BACKBONES, narrowed, stage_summaries, stage_widths

AFTER_STAGE1 = {"stage2": 0.5, "stage3": 0.5, "stage4": 0.5}


def built_by_us(name: str):
    """The card whose every width comes from our own blocks, the full one too."""
    card = BACKBONES[name]
    return dataclasses.replace(card, build=partial(card.build_slim, widths=dict.fromkeys(card.stages, 1.0)))


def graph(model: keras.Model) -> str:
    """All layers, their settings and their connections; the last of four axes is 3 or -1."""
    return str(model.get_config()).replace("'axis': -1", "'axis': 3")


@pytest.mark.parametrize("name", ["resnet50", pytest.param("densenet121", marks=pytest.mark.slow)])
@pytest.mark.parametrize("pooling", ["avg", None])
def test_our_blocks_at_full_width_are_the_keras_application(name, pooling):
    ours = build_architecture(built_by_us(name), image_size=64, pooling=pooling)
    theirs = build_architecture(name, image_size=64, pooling=pooling)
    assert graph(ours) == graph(theirs)
    assert [weight.path for weight in ours.weights] == [weight.path for weight in theirs.weights]
    rng = np.random.default_rng(0)
    theirs.set_weights([value + rng.normal(0, 0.01, value.shape) for value in theirs.get_weights()])
    ours.set_weights(theirs.get_weights())
    images = rng.normal(size=(2, 64, 64, 3)).astype("float32")
    expected = np.asarray(theirs(images))
    assert np.isfinite(expected).all()  # NaN would equal NaN
    np.testing.assert_allclose(ours(images), expected, atol=1e-6 * np.abs(expected).max())


def test_slim_resnet50_of_the_paper_has_the_known_size():
    # Counted on a network that Keras' own (private) block functions built with these widths.
    model = build_architecture("resnet50", image_size=32, widths=AFTER_STAGE1)
    assert model.count_params() == 6_141_568
    assert model.output_shape == (None, 1024)


def resnet50_parameters(stem: int, widths: tuple[int, ...]) -> int:
    """Convolutions have a bias here, and batch norm four numbers per channel: k·k·in·out + 5·out."""
    total, before = 49 * 3 * stem + 5 * stem, stem
    for blocks, width in zip((3, 4, 6, 3), widths, strict=True):
        out = 4 * width
        total += before * out + 5 * out  # the projection
        for _ in range(blocks):
            total += before * width + 9 * width * width + width * out + 5 * (width + width + out)
            before = out
    return total


def test_slim_resnet50_has_the_parameters_of_the_formula():
    assert resnet50_parameters(64, (64, 128, 256, 512)) == BACKBONES["resnet50"].parameters
    model = build_architecture("resnet50", image_size=32, widths={"stem": 0.25, "stage3": 0.3, "stage4": 0.001})
    assert model.count_params() == resnet50_parameters(16, (64, 128, 77, 1))
    assert model.output_shape == (None, 4)


@pytest.mark.parametrize(
    ("name", "widths", "kernel", "channels"),
    [
        ("cbr_small", {"stage1": 0.5, "stage2": 0.5, "stage3": 0.5}, 7, (32, 32, 64, 128)),
        ("cbr_tiny", {"stage3": 0.3}, 5, (32, 64, 128, 77)),
        ("cbr_large_t", {"stem": 0.01, "stage4": 0.25}, 7, (1, 64, 128, 256, 128)),
    ],
)
def test_slim_cbr_has_the_parameters_of_the_formula(name, widths, kernel, channels):
    model = build_architecture(name, image_size=32, widths=widths)
    kernels = sum(kernel**2 * before * after for before, after in pairwise((3, *channels)))
    assert model.count_params() == kernels + 4 * sum(channels)
    assert model.output_shape == (None, channels[-1])


@pytest.mark.slow
def test_a_slim_dense_stage_grows_slower_and_transitions_still_halve():
    card = BACKBONES["densenet121"]
    stages = stage_summaries(build_architecture(card, image_size=32, widths=AFTER_STAGE1), card)
    # 64 + 6·32, half of it + 12·16, half of it + 24·16, half of it + 16·16
    assert [stage.output_shape[-1] for stage in stages] == [64, 256, 320, 544, 528]


def test_fractions_of_a_channel_are_rounded_and_one_is_left():
    assert [narrowed(64, 0.3), narrowed(64, 0.5), narrowed(64, 1.0)] == [19, 32, 64]
    assert [narrowed(5, 0.5), narrowed(7, 0.5), narrowed(64, 0.001)] == [2, 4, 1]


def test_stages_that_are_not_named_have_full_width():
    widths = stage_widths(BACKBONES["cbr_tiny"], {"stage2": 0.5})
    assert widths == {"stem": 1.0, "stage1": 1.0, "stage2": 0.5, "stage3": 1.0}
    assert list(widths) == list(BACKBONES["cbr_tiny"].stages)


@pytest.mark.parametrize("fraction", [0, -0.5, 1.5, float("nan"), "half"])
def test_a_width_that_is_no_fraction_is_refused(fraction):
    with pytest.raises(ConfigError, match=f"Width of stage2: expected a fraction .* Received: {fraction!r}"):
        build_architecture("cbr_tiny", image_size=32, widths={"stage2": fraction})


def test_the_width_of_an_unknown_stage_is_refused_with_the_closest():
    with pytest.raises(UnknownNameError, match="Unknown stage of cbr_tiny 'stage4'. Did you mean 'stage3'"):
        build_architecture("cbr_tiny", image_size=32, widths={"stage4": 0.5})


def test_a_network_that_cannot_be_slim_names_those_that_can():
    with pytest.raises(
        ConfigError, match="inception_v3 has full width only.* use one of resnet50, densenet121, cbr_large_t"
    ):
        build_architecture("inception_v3", image_size=75, widths={"stage2": 0.5})


def test_a_network_that_cannot_be_slim_may_be_asked_for_its_full_width():
    widths = dict.fromkeys(BACKBONES["efficientnet_v2_b0"].stages, 1.0)
    model = build_architecture("efficientnet_v2_b0", image_size=32, widths=widths)
    assert model.count_params() == BACKBONES["efficientnet_v2_b0"].parameters


@pytest.mark.parametrize("name", ["cbr_tiny", "resnet50"])
def test_gradients_reach_every_trainable_weight_of_a_slim_network(name):
    import tensorflow as tf

    model = build_architecture(name, image_size=32, widths={"stage2": 0.25, "stage3": 0.5})
    with tf.GradientTape() as tape:
        loss = keras.ops.sum(model(np.ones((2, 32, 32, 3), "float32"), training=True) ** 2)
    assert all(gradient is not None for gradient in tape.gradient(loss, model.trainable_weights))
