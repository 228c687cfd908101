"""Networks whose preprocessing is known: their statistics are collected here, on images drawn here."""

import keras
import numpy as np
import pytest

from radtransfer.images.preprocessing import MODES, preprocess
from radtransfer.models.architecture import build_architecture
from radtransfer.pretrained.input_check import check_network

SIZE = 32

KNOWN = [mode for mode in MODES if mode not in ("clip", "rad_dino")]  # of networks with batch norm


def photographs(images: int, seed: int, *, grey: bool = False) -> np.ndarray:
    """Clouds of colour with edges: float32 (images, SIZE, SIZE, 3), 0–255, of the mean colour of photographs."""
    rng = np.random.default_rng(seed)
    waves = np.arange(SIZE) / SIZE
    rows, columns = waves[:, np.newaxis], waves[np.newaxis, :]
    drawn = []
    for _ in range(images):
        picture = rng.normal(0, 20)
        for frequency in range(1, 7):
            angle, phase = rng.uniform(0, 2 * np.pi, 2)
            wave = np.sin(2 * np.pi * frequency * (rows * np.cos(angle) + columns * np.sin(angle)) + phase)
            picture = picture + 70 / frequency * wave
        edge = 40 * np.sign(rows - rng.uniform(0.2, 0.8) + (columns - 0.5) * rng.normal())
        picture = (picture + edge)[..., np.newaxis] + (115 if grey else np.array([125, 110, 95]))
        drawn.append(picture + (0 if grey else rng.normal(0, 8, 3)))
    return np.clip(np.broadcast_to(np.stack(drawn), (images, SIZE, SIZE, 3)), 0, 255).astype(np.float32)


def network(mode: str, images: np.ndarray, seed: int = 0) -> keras.Model:
    """Untrained filters; batch norm that has seen `images` in `mode`."""
    keras.utils.set_random_seed(seed)
    model = build_architecture("cbr_tiny", image_size=SIZE, pooling=None)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(preprocess(images, mode), training=True)
    return model


@pytest.mark.parametrize("mode", KNOWN)
def test_the_mode_that_the_statistics_were_collected_with_is_found(mode):
    found = check_network(network(mode, photographs(64, 0)), photographs(24, 1))
    assert found.verdict.certainty == "fits"
    assert found.verdict.modes == (mode,)
    assert found.modes[0].best_at >= 3
    assert found.modes[0].layers[0].misfit < 0.3


@pytest.mark.parametrize("mode", ["tf", "bgr_tf"])
def test_modes_that_differ_in_the_order_of_colours_are_one_on_grey_images(mode):
    found = check_network(network(mode, photographs(64, 0, grey=True)), photographs(24, 1, grey=True))
    assert found.grey
    assert set(found.verdict.modes) == {"tf", "bgr_tf"}


@pytest.mark.parametrize("mode", KNOWN)
def test_images_of_another_kind_never_give_another_mode(mode):
    dark = photographs(24, 1, grey=True) * 0.45
    found = check_network(network(mode, photographs(64, 0)), dark)
    assert mode in found.verdict.modes


def test_the_implied_training_images_are_those_of_the_training():
    seen = photographs(64, 0)
    found = check_network(network("torch", seen), photographs(24, 1))
    implied = found.modes[0].training
    np.testing.assert_allclose(implied.colour, seen.mean((0, 1, 2)) / 255, atol=0.02)
    assert implied.contrast == pytest.approx(np.sqrt(seen.var((0, 1, 2)).mean()) / 255, rel=0.15)


def test_pale_images_could_be_of_two_modes_and_the_verdict_names_both():
    pale = 115 + 0.35 * (photographs(64, 0, grey=True) - 115)
    other = photographs(24, 1, grey=True)
    found = check_network(network("tf", pale), other)
    assert found.verdict.certainty == "undecided"
    assert "tf" in found.verdict.modes


def test_statistics_that_no_mode_explains_fit_none():
    model = network("unit", photographs(64, 0))
    mean = model.get_layer("bn1").moving_mean
    mean.assign(mean * 1000)
    assert check_network(model, photographs(24, 1)).verdict.certainty == "none"


def test_a_network_that_was_never_trained_remembers_nothing():
    found = check_network(build_architecture("cbr_tiny", image_size=SIZE, pooling=None), photographs(8, 1))
    assert found.verdict.certainty == "undecided"
    assert "never trained" in found.verdict.reason


def test_a_network_without_batch_norm_remembers_nothing():
    image = keras.Input((SIZE, SIZE, 3))
    model = keras.Model(image, keras.layers.Conv2D(4, 3)(image), name="plain")
    assert "plain has no batch-norm layers" in check_network(model, photographs(8, 1)).verdict.reason


def test_the_result_is_repeatable():
    model, images = network("unit", photographs(64, 0)), photographs(24, 1)
    first, second = (check_network(model, images).modes[0] for _ in range(2))
    assert (first.probability, first.low, first.high) == (second.probability, second.low, second.high)
