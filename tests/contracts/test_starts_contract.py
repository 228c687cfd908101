"""What schemes start from, what freezing keeps and what is saved, on networks of all kinds of layers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from radtransfer.config.schema import TrainingSettings, TransferSettings
from radtransfer.models.architecture import build_architecture
from radtransfer.models.backbone import BACKBONES
from radtransfer.models.classifier import build_classifier
from radtransfer.models.layers import layer_variables
from radtransfer.pretrained.match import load_pretrained
from radtransfer.pretrained.source import find_weights
from radtransfer.training.step import Learner
from radtransfer.transfer.initialize import NORMALIZATIONS, draw_random, initialize_weights
from radtransfer.transfer.plan import build_plan
from radtransfer.transfer.spec import transfer_spec

FAMILIES = ("inception_v3", "efficientnet_v2_b0", "convnext_tiny", "cbr_tiny")
NAMES = [name if name in FAMILIES else pytest.param(name, marks=pytest.mark.slow) for name in BACKBONES]
NAMES.append("composite")
LIGHT = ("cbr_tiny", "efficientnet_v2_b0", "composite")
"""A step of the others takes seconds to trace: it is taken as `slow`."""

LARGE = 2000
"""Values from which on a tensor's mean and variance say something."""


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    """All tests of one network come one after the other, so that it is built twice only."""
    return request.param


@pytest.fixture(scope="module")
def pair(name):
    """A network, and the same again; with whatever values the tests before have left."""
    return tuple(build_architecture(name, image_size=size(name)) for _ in range(2))


def size(name):
    return max(32, BACKBONES[name].minimum_size)


def invented(model):
    """Arrays for every layer, of another mean and scale than any initializer's."""
    rng = np.random.default_rng(0)

    def array(weight):
        if weight.name == "moving_variance":
            return rng.uniform(0.5, 2, weight.shape).astype(np.float32)
        return (0.01 + 0.05 * rng.standard_normal(weight.shape)).astype(np.float32)

    return {layer.name: tuple(map(array, layer.weights)) for layer in model.layers if layer.weights}


def plan_for(model, name, **settings):
    outline = transfer_spec(TransferSettings(**settings), BACKBONES[name], weights=True)
    return build_plan(outline, model, BACKBONES[name])


def test_tensors_keep_what_their_scheme_keeps(name, pair):
    model, _ = pair
    pretrained = invented(model)
    for scheme in ("transfer", "shuffled", "mean_var"):
        initialize_weights(model, plan_for(model, name, scheme=scheme), pretrained, seed=3)
        for layer in model.layers:
            items = layer_variables(layer).values()
            for item, source in zip(items, pretrained.get(layer.name, ()), strict=True):
                value = np.array(item.variable)
                if isinstance(item.owner, NORMALIZATIONS) and scheme != "transfer":
                    assert np.ptp(value) == 0, item.variable.path
                else:
                    check_kept(scheme, value, source)


def test_no_variable_keeps_what_an_earlier_fold_left_in_it(name, pair):
    model, other = pair
    model.set_weights([np.full_like(weight, 7) for weight in model.get_weights()])
    initialize_weights(model, plan_for(model, name, scheme="scratch"), None, seed=3)
    initialize_weights(other, plan_for(other, name, scheme="scratch"), None, seed=3)
    assert all(map(np.array_equal, model.get_weights(), other.get_weights()))
    assert not any((weight == 7).any() for weight in model.get_weights())
    initialize_weights(other, plan_for(other, name, scheme="scratch"), None, seed=4)
    kept = [
        weight.path
        for weight, a, b in zip(model.weights, model.get_weights(), other.get_weights(), strict=True)
        if np.array_equal(a, b) and np.ptp(a) > 0
    ]
    assert kept == []


@pytest.mark.parametrize("file", ["own.keras", "own.weights.h5", "own.h5", "half_frozen.h5"])
def test_a_network_loads_what_it_saved(name, pair, file, tmp_path):
    model, other = pair
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.5, 1.5, weight.shape) for weight in model.weights])
    for layer in model.layers[: len(model.layers) // 2] if file == "half_frozen.h5" else ():
        layer.trainable = False
    save = model.save_weights if file.endswith(".weights.h5") else model.save
    save(tmp_path / file)
    for layer in model.layers:
        layer.trainable = True
    found = load_pretrained(find_weights(str(tmp_path / file)), backbone=name, model=other)
    assert found.extra == ()
    for layer in model.layers:
        for value, array in zip(layer.get_weights(), found.layers.get(layer.name, ()), strict=True):
            np.testing.assert_array_equal(value, array)


def check_kept(scheme, value, source):
    if scheme == "transfer":
        np.testing.assert_array_equal(value, source)
    elif scheme == "shuffled":
        np.testing.assert_array_equal(np.sort(value, axis=None), np.sort(source, axis=None))
        assert source.size < LARGE or (value != source).mean() > 0.9
    elif source.size >= LARGE:
        assert value.mean() == pytest.approx(source.mean(), abs=6 * source.std() / np.sqrt(source.size))
        assert value.std() == pytest.approx(source.std(), rel=6 / np.sqrt(2 * source.size))


STEPPED = [name if name in LIGHT else pytest.param(name, marks=pytest.mark.slow) for name in [*BACKBONES, "composite"]]


@pytest.mark.parametrize("backbone", STEPPED)
def test_a_step_moves_what_trains_and_nothing_else(backbone):
    built = build_classifier(
        BACKBONES[backbone],
        classes=2,
        image_size=size(backbone),
        activation="softmax",
        dropout=0.5,
        preprocessing="torch",
    )
    plan = plan_for(built.backbone, backbone, scheme="fixed_features_reinit", through="stage1")
    initialize_weights(built.model, plan, invented(built.backbone), seed=3)
    learner = Learner(built, TrainingSettings(learning_rate=1e-2), batch_size=2, jit=False, frozen=plan.frozen)
    before = {layer.name: layer.get_weights() for layer in built.model.layers}
    images = np.random.default_rng(1).uniform(0, 255, (2, size(backbone), size(backbone), 3)).astype(np.float32)
    learner.train(tf.constant(images), tf.constant([[1.0, 0.0], [0.0, 1.0]]), tf.ones(2))
    moved = {
        layer.name
        for layer in built.model.layers
        if not all(map(np.array_equal, before[layer.name], layer.get_weights()))
    }
    weighted = {layer.name for layer in built.model.layers if layer.weights}
    assert moved & plan.frozen == set()
    assert "head" in moved
    assert len(moved) > 0.9 * len(weighted - plan.frozen)


def test_a_frozen_layer_behind_one_that_trains_keeps_all_that_stands_within_it():
    built = build_classifier(
        BACKBONES["composite"], classes=2, image_size=32, activation="softmax", dropout=0.5, preprocessing="torch"
    )
    draw_random(built.model, seed=3)
    frozen = frozenset({"block2_attention", "block2_mlp"})
    learner = Learner(built, TrainingSettings(learning_rate=1e-2), batch_size=2, jit=False, frozen=frozen)
    before = {layer.name: layer.get_weights() for layer in built.model.layers}
    images = np.random.default_rng(1).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    learner.train(tf.constant(images), tf.constant([[1.0, 0.0], [0.0, 1.0]]), tf.ones(2))
    same = {
        layer.name: [np.array_equal(*pair) for pair in zip(before[layer.name], layer.get_weights(), strict=True)]
        for layer in built.model.layers
    }
    assert all(all(same[name]) for name in frozen)
    assert not any(same["block1_mlp"])


def test_dropout_within_layers_is_drawn_anew_by_the_seed_of_the_epoch():
    built = build_classifier(
        BACKBONES["composite"], classes=2, image_size=32, activation="softmax", dropout=0, preprocessing="torch"
    )
    learner = Learner(built, TrainingSettings(optimizer="sgd"), batch_size=2, jit=False)
    images = np.random.default_rng(1).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)

    def trained(seed):
        learner.reset(np.ones(2, np.float32))
        draw_random(built.model, seed=3)
        learner.seed_epoch(seed)
        learner.train(tf.constant(images), tf.constant([[1.0, 0.0], [0.0, 1.0]]), tf.ones(2))
        return built.model.get_weights()

    one, again, other = trained(1), trained(1), trained(2)
    assert all(map(np.array_equal, one, again))
    assert not all(map(np.array_equal, one, other))


def test_a_started_network_is_saved_as_plain_keras(name, pair, tmp_path):
    model, _ = pair
    initialize_weights(model, plan_for(model, name, scheme="mean_var"), invented(model), seed=3)
    model.save(tmp_path / "start.keras")
    loaded = keras.models.load_model(tmp_path / "start.keras", safe_mode=True)
    assert all(map(np.array_equal, loaded.get_weights(), model.get_weights()))
    assert "radtransfer" not in loaded.to_json()
