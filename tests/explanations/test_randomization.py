import keras
import numpy as np
import pytest

from radtransfer.evaluation.heat_maps import Randomized, depend_on_weights, randomization_test
from radtransfer.evaluation.scored_network import Decision, ScoredNetwork
from radtransfer.models.backbone import BACKBONES
from radtransfer.models.classifier import build_classifier


def test_maps_change_when_weights_are_redrawn_and_the_network_stays_as_it_was():
    card = BACKBONES["cbr_tiny"]
    model = build_classifier(
        card, classes=2, image_size=64, activation="softmax", dropout=0.5, preprocessing="torch"
    ).model
    network = ScoredNetwork(model, card, "stage1")
    before = network.model.get_weights()
    images = np.random.default_rng(0).uniform(0, 255, (4, 64, 64, 3)).astype(np.float32)
    steps = randomization_test(network, images, [Decision(0)] * 4, seed=3)
    assert [step.what for step in steps] == ["head", "+ stage3", "+ stage2", "+ stage1", "+ stem"]
    assert abs(steps[-1].correlation) < 0.9
    for old, new in zip(before, network.model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_the_seed_decides_the_weights_that_are_drawn(spots):
    # Named and seeded: maps that happen to be dead all round would correlate alike whatever is drawn.
    drawn = keras.initializers.GlorotUniform(seed=0)
    image = keras.Input((32, 32, 3))
    maps = keras.layers.Conv2D(4, 3, strides=4, activation="relu", kernel_initializer=drawn, name="maps")(image)
    pooled = keras.layers.GlobalAveragePooling2D()(maps)
    head = keras.layers.Dense(2, activation="softmax", kernel_initializer=drawn, name="head")(pooled)
    network = ScoredNetwork(keras.Model(image, head), None)
    decisions = [Decision(0), Decision(1)]
    first, again, other = (randomization_test(network, spots, decisions, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert [step.what for step in first] == ["all weights"]


def test_maps_that_do_not_depend_on_the_weights_are_found_out(spots):
    image = keras.Input((32, 32, 3))
    map_ = keras.layers.AveragePooling2D(4, name="map")(image)
    pooled = keras.layers.GlobalAveragePooling2D()(map_)
    model = keras.Model(image, keras.layers.Dense(1, activation="sigmoid", kernel_initializer="ones")(pooled))
    (step,) = randomization_test(ScoredNetwork(model, None), spots, [Decision(0)] * 2, seed=0)
    assert step.correlation > 0.99


@pytest.mark.parametrize(
    ("correlation", "images", "expected"),
    [
        (0.1, 8, True),
        (0.5, 8, True),
        (0.6, 8, False),
        (-0.6, 8, False),
        (0.1, 3, None),
        (0.9, 3, None),
        (None, 8, None),
    ],
)
def test_few_images_and_maps_without_ranks_decide_nothing(correlation, images, expected):
    found = [Randomized("head", 0.9), Randomized("+ stem", correlation)]
    assert depend_on_weights(found, images=images) is expected
