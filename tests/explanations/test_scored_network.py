import keras
import numpy as np
import pytest
from spot_networks import spot_network

from radtransfer.errors import ConfigError, UnknownNameError, WeightsError
from radtransfer.evaluation.scored_network import Decision, ScoredNetwork
from radtransfer.models.backbone import BACKBONES
from radtransfer.models.classifier import build_classifier


def tiny(activation="softmax", classes=3, size=32):
    return build_classifier(
        BACKBONES["cbr_tiny"],
        classes=classes,
        image_size=size,
        activation=activation,
        dropout=0.5,
        preprocessing="torch",
    ).model


def random_images(size=32):
    return np.random.default_rng(0).uniform(0, 40, (3, size, size, 3)).astype(np.float32)


@pytest.mark.parametrize(
    "model",
    [
        lambda: tiny("softmax"),
        lambda: tiny("sigmoid", 4),
        lambda: tiny("sigmoid", 1),
        lambda: spot_network("softmax", 2),
        lambda: spot_network("sigmoid", 1),
        lambda: keras.Sequential([keras.Input((32, 32, 3)), spot_network("softmax", 2)]),
    ],
    ids=["softmax", "labels", "one sigmoid", "dense softmax", "dense sigmoid", "nested"],
)
def test_scores_are_the_log_odds_of_what_the_model_predicts(model):
    model, images = model(), random_images()
    network = ScoredNetwork(model, None)
    expected = model.predict(images, verbose=0).astype(np.float64)
    logits = network.logits(images)
    np.testing.assert_allclose(network.probabilities(logits), expected, atol=1e-6)
    last = network.outputs - 1
    odds = np.log(expected[:, last] / (1 - expected[:, last]))
    np.testing.assert_allclose(network.scores(logits, [Decision(last)] * 3), odds, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(network.scores(logits, [Decision(last, present=False)] * 3), -odds, rtol=1e-3, atol=1e-4)


def test_frozen_layers_have_gradients_too():
    model = tiny()
    model.trainable = False
    network = ScoredNetwork(model, BACKBONES["cbr_tiny"])
    maps, gradients = network.gradients(random_images(), [Decision(0)] * 3)
    assert maps.shape == gradients.shape == (3, 2, 2, 256)
    assert np.abs(gradients).max() > 0


def test_a_stage_means_its_last_layer_and_the_last_is_the_default():
    model, card = tiny(), BACKBONES["cbr_tiny"]
    assert ScoredNetwork(model, card).layer == "pool4"
    network = ScoredNetwork(model, card, "stage1")
    assert (network.layer, network.stage, network.grid) == ("pool2", "stage1", (8, 8))
    assert ScoredNetwork(model, card, "relu3").stage is None


@pytest.mark.parametrize("layer", ["stage9", "nowhere"])
def test_a_layer_that_is_not_there_is_named(layer):
    with pytest.raises(UnknownNameError, match=layer):
        ScoredNetwork(tiny(), BACKBONES["cbr_tiny"], layer)
    with pytest.raises(UnknownNameError, match=layer):
        ScoredNetwork(tiny(), None, layer)


@pytest.mark.parametrize("layer", ["avg_pool", "head"])
def test_a_layer_without_a_map_is_refused(layer):
    with pytest.raises(ConfigError, match="earlier stage"):
        ScoredNetwork(tiny(), BACKBONES["cbr_tiny"], layer)


def test_a_map_of_one_position_is_refused_and_never_the_default():
    model, card = tiny(size=16), BACKBONES["cbr_tiny"]
    with pytest.raises(ConfigError, match="larger images"):
        ScoredNetwork(model, card, "stage3")
    assert ScoredNetwork(model, card).stage == "stage2"


def test_what_is_no_classifier_is_refused():
    with pytest.raises(WeightsError, match="softmax or sigmoid"):
        ScoredNetwork(spot_network("relu", 2), None)
