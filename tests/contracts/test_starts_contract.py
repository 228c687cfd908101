"""What schemes start from, what freezing keeps and what is saved, on one network of each family and a CBR."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from radtransfer.backbones import BACKBONES
from radtransfer.backbones.architecture import build_architecture
from radtransfer.classifier import build_classifier
from radtransfer.initialization import NORMALIZATIONS, start
from radtransfer.learner import Learner
from radtransfer.outline import outline_plan
from radtransfer.settings import TrainingSettings, TransferSettings
from radtransfer.transfer import lay_out

FAMILIES = ("resnet50", "inception_v3", "densenet121", "efficientnet_v2_b0", "convnext_tiny", "cbr_tiny")
NAMES = [name if name in FAMILIES else pytest.param(name, marks=pytest.mark.slow) for name in BACKBONES]
LARGE = 2000
"""Values from which on a tensor's mean and variance say something."""


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
    outline = outline_plan(TransferSettings(**settings), BACKBONES[name], weights=True)
    return lay_out(outline, model, BACKBONES[name], weights=True)


@pytest.mark.parametrize("name", NAMES)
def test_tensors_keep_what_their_scheme_keeps(name):
    model = build_architecture(name, image_size=size(name))
    pretrained = invented(model)
    for scheme in ("transfer", "shuffled", "mean_var"):
        start(model, plan_for(model, name, scheme=scheme), pretrained, seed=3)
        for layer in model.layers:
            if isinstance(layer, NORMALIZATIONS) and scheme != "transfer":
                assert {float(np.ptp(weight)) for weight in layer.get_weights()} == {0.0}, layer.name
                continue
            for value, source in zip(layer.get_weights(), pretrained.get(layer.name, ()), strict=True):
                check_kept(scheme, value, source)


def check_kept(scheme, value, source):
    if scheme == "transfer":
        np.testing.assert_array_equal(value, source)
    elif scheme == "shuffled":
        np.testing.assert_array_equal(np.sort(value, axis=None), np.sort(source, axis=None))
        assert source.size < LARGE or (value != source).mean() > 0.9
    elif source.size >= LARGE:
        assert value.mean() == pytest.approx(source.mean(), abs=6 * source.std() / np.sqrt(source.size))
        assert value.std() == pytest.approx(source.std(), rel=6 / np.sqrt(2 * source.size))


@pytest.mark.parametrize("name", NAMES)
def test_a_step_moves_what_trains_and_nothing_else(name):
    built = build_classifier(
        BACKBONES[name],
        classes=2,
        image_size=size(name),
        activation="softmax",
        dropout=0.5,
        preprocessing="torch",
    )
    plan = plan_for(built.backbone, name, scheme="fixed_features_reinit", through="stage1")
    start(built.model, plan, invented(built.backbone), seed=3)
    learner = Learner(built, TrainingSettings(learning_rate=1e-2), batch_size=2, jit=False, frozen=plan.frozen)
    before = {layer.name: layer.get_weights() for layer in built.model.layers}
    images = np.random.default_rng(1).uniform(0, 255, (2, size(name), size(name), 3)).astype(np.float32)
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


@pytest.mark.parametrize("name", NAMES)
def test_a_started_network_is_saved_as_plain_keras(name, tmp_path):
    model = build_architecture(name, image_size=size(name))
    start(model, plan_for(model, name, scheme="mean_var"), invented(model), seed=3)
    model.save(tmp_path / "start.keras")
    loaded = keras.models.load_model(tmp_path / "start.keras", safe_mode=True)
    assert all(map(np.array_equal, loaded.get_weights(), model.get_weights()))
    assert "radtransfer" not in loaded.to_json()
