"""What every entry of the backbone table promises."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import warm_process

from radtransfer.errors import ConfigError, UnknownNameError
from radtransfer.images.preprocessing import preprocess
from radtransfer.models import backbone
from radtransfer.models.architecture import build_architecture
from radtransfer.models.backbone import BACKBONES, HEAD, Backbone, layer_stages, stage_summaries
from radtransfer.models.layers import sub_layers
from radtransfer.training.step import batch_norms

SIZE = 112
"""A multiple of the patches of all vision transformers."""
LIGHT = ("cbr_tiny", "efficientnet_v2_b0", "convnext_tiny", "vit_tiny_16")
"""One of each family; what takes long runs on these by default and on the others as `slow`."""

by_weight = [pytest.param("composite", id="composite")]
by_weight += [pytest.param(name, marks=() if name in LIGHT else pytest.mark.slow, id=name) for name in BACKBONES]
pretrained_by_weight = [param for param in by_weight[1:] if BACKBONES[param.values[0]].pretrained]


# Some networks take seconds to build.
HEAVY = (
    "densenet121",
    "inception_resnet_v2",
    "vit_small_16",
    "vit_base_16",
    "vit_base_14",
    "vit_large_16",
    "vit_large_14",
)
by_size = [pytest.param(name, marks=pytest.mark.slow if name in HEAVY else ()) for name in [*BACKBONES, "composite"]]


@pytest.fixture(scope="module", params=by_size)
def card(request: pytest.FixtureRequest) -> Backbone:
    return BACKBONES[request.param]


@pytest.fixture(scope="module")
def model(card: Backbone) -> keras.Model:
    return build_architecture(card, image_size=SIZE)


def perturb(model: keras.Model, seed: int = 0) -> None:
    """Give every weight its own values, so that two swapped ones show; around zero, or deep networks overflow."""
    rng = np.random.default_rng(seed)
    model.set_weights([w + rng.normal(0, 0.01, w.shape) for w in model.get_weights()])


def images(count: int = 2, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, size, size, 3)).astype("float32")


def config_entries(config: Any) -> Iterator[dict]:
    """Every serialized object in a model's config."""
    if isinstance(config, dict):
        if "class_name" in config and config["class_name"] != "__keras_tensor__":
            yield config
        config = list(config.values())
    if isinstance(config, list | tuple):
        for part in config:
            yield from config_entries(part)


def test_the_card_has_the_name_it_has_in_the_table():
    assert [BACKBONES[name].name for name in BACKBONES] == list(BACKBONES)


def test_the_stages_are_named_from_the_stem_on(card):
    assert list(card.stages) == ["stem", *(f"stage{i}" for i in range(1, len(card.stages)))]


def test_the_card_counts_the_parameters_right(card, model):
    counted = model if card.patch is None else build_architecture(card)  # positions are as many as patches
    assert counted.count_params() == card.parameters


def test_every_layer_is_known_before_the_network_is_built(card, model):
    for layer in model.layers:
        card.check_layer(layer.name)
    if card.build.__module__.startswith("radtransfer."):  # of others nothing is known before
        line = f"{card.name}: {' '.join(layer.name for layer in model.layers)}"
        lines = Path(backbone.__file__).with_name("layers.txt").read_text(encoding="utf-8").splitlines()
        assert card.name in [text.partition(":")[0] for text in lines], f"add to radtransfer/models/layers.txt: {line}"
        with pytest.raises(UnknownNameError, match="stage or layer of .* 'stage77'. Did you mean .*'stage"):
            card.check_layer("stage77")


def test_the_default_preprocessing_exists(card):
    preprocess(keras.Input((SIZE, SIZE, 3)), card.preprocessing)


def test_the_model_is_one_flat_graph_of_layers_each_called_once(model):
    others = [operation for operation in model.operations if not isinstance(operation, keras.layers.Layer)]
    assert all(type(operation).__module__.startswith("keras.src.ops.") for operation in others)
    assert not any(isinstance(layer, keras.Model) for layer in model.layers)
    assert len({layer.name for layer in model.layers}) == len(model.layers)


def test_the_config_names_only_public_keras_classes(model):
    for entry in config_entries(model.get_config()):
        if entry["class_name"] == "__slice__" or entry["module"].startswith("keras.src.ops."):
            continue  # `keras.ops`, as every functional model saves it
        assert entry["module"] in ("keras", "keras.layers", "keras.initializers"), entry["class_name"]
        assert entry["registered_name"] is None, entry["class_name"]


def test_layer_names_do_not_depend_on_what_was_built_before(card, model):
    for _ in range(3):
        keras.layers.Conv2D(1, 1)  # moves Keras' global numbering on
    again = build_architecture(card, image_size=SIZE)
    assert [layer.name for layer in again.layers] == [layer.name for layer in model.layers]
    assert [weight.path for weight in again.weights] == [weight.path for weight in model.weights]


def test_the_output_is_one_vector_per_image(card, model):
    assert model.input_shape == (None, SIZE, SIZE, 3)
    assert len(model.output_shape) == 2
    feature_map = model.get_layer(list(card.stages.values())[-1]).output
    assert model.output_shape[-1] == feature_map.shape[-1]


def test_batch_norm_has_the_momentum_on_the_card(card, model):
    momenta = {layer.momentum for layer in batch_norms(model).values()}
    assert momenta == ({card.batch_norm_momentum} if card.batch_norm_momentum else set())


def test_stage_ends_follow_one_another_and_never_grow(card, model):
    names = [layer.name for layer in model.layers]
    places = [names.index(end) for end in card.stages.values()]
    assert places == sorted(places)
    sides = [stage.output_shape[0] for stage in stage_summaries(model, card)]
    assert sides == sorted(sides, reverse=True)


def test_every_weight_belongs_to_a_stage(card, model):
    stages = layer_stages(model, card)
    assert list(stages) == [layer.name for layer in model.layers]
    assert not any(layer.weights for layer in model.layers if stages[layer.name] == HEAD)
    assert sum(stage.parameters for stage in stage_summaries(model, card)) == model.count_params()
    assert all(stages[end] == stage for stage, end in card.stages.items())


def test_an_image_below_the_minimum_is_refused_with_the_minimum(card):
    too_small = card.minimum_size - 1
    with pytest.raises(ConfigError, match=f"{too_small} is too small for {card.name} .minimum {card.minimum_size}"):
        build_architecture(card, image_size=too_small)


@pytest.mark.parametrize("name", by_weight)
def test_the_smallest_image_leaves_a_feature_map(name):
    small = build_architecture(name, image_size=BACKBONES[name].minimum_size, pooling=None)
    assert len(small.output_shape) == (3 if BACKBONES[name].patch else 4)
    assert min(small.output_shape[1:]) >= 1


@pytest.mark.parametrize("name", by_weight)
def test_a_policy_is_set_on_every_layer_and_nowhere_else(name):
    policy = keras.config.dtype_policy().name
    model = build_architecture(name, image_size=SIZE, precision="mixed_bfloat16")
    parts = [part for layer in model.layers for part in sub_layers(layer).values()]
    layers = [part for part in parts if not isinstance(part, keras.layers.InputLayer | keras.Model)]
    assert {layer.dtype_policy.name for layer in layers} == {"mixed_bfloat16"}
    assert {weight.dtype for weight in model.weights} == {"float32"}
    assert keras.ops.dtype(model(images(1))) == "bfloat16"
    assert keras.config.dtype_policy().name == policy


@pytest.mark.parametrize("name", [param for param in by_weight if not param.id.startswith("vit_")])
def test_any_image_size_and_one_channel_are_possible(name):
    model = build_architecture(name, image_size=None, channels=1)
    for size in (SIZE, SIZE + 17):
        assert np.isfinite(model(images(1, size)[..., :1])).all()


@pytest.mark.parametrize("name", pretrained_by_weight)
@pytest.mark.parametrize("pooling", ["avg", None])
def test_the_features_are_those_of_the_keras_application(name, pooling):
    card = BACKBONES[name]
    theirs = card.build(keras.Input((SIZE, SIZE, 3)), pooling)
    theirs = keras.Model(theirs.inputs[0], theirs.outputs[0])  # some take a list of inputs
    perturb(theirs)
    ours = build_architecture(card, image_size=SIZE, pooling=pooling)
    ours.set_weights([value.reshape(w.shape) for value, w in zip(theirs.get_weights(), ours.weights, strict=True)])
    expected = np.asarray(theirs(images()))
    assert np.isfinite(expected).all()  # NaN would equal NaN
    np.testing.assert_allclose(ours(images()), expected, atol=1e-5 * np.abs(expected).max())


WITHOUT_US = """
import sys
for name in [name for name in sys.modules if name.partition(".")[0] == "radtransfer"]:
    del sys.modules[name]
sys.modules["radtransfer"] = None  # any import of it fails
import keras, numpy as np
keras.saving.get_custom_objects().clear()
model = keras.models.load_model(sys.argv[1], safe_mode=True)
np.save(sys.argv[3], model(np.load(sys.argv[2])))
"""


@pytest.mark.parametrize("name", by_weight)
def test_a_saved_model_opens_in_plain_keras_in_safe_mode(name, tmp_path):
    check_opens_in_plain_keras(build_architecture(name, image_size=SIZE), tmp_path)


def check_opens_in_plain_keras(model: keras.Model, tmp_path: Path) -> None:
    perturb(model)
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "images.npy", images())
    paths = [str(tmp_path / file) for file in ("model.keras", "images.npy", "features.npy")]
    warm_process.run(*paths, program=WITHOUT_US, check=True)
    features = np.load(paths[2])
    assert np.isfinite(features).all()  # NaN would equal NaN
    np.testing.assert_array_equal(features, model(images()))


slim_by_weight = [
    pytest.param(name, marks=() if name in ("resnet50", "cbr_tiny") else pytest.mark.slow, id=name)
    for name in BACKBONES
    if BACKBONES[name].build_slim
]
saved_slim = [
    pytest.param(name, marks=() if name == "cbr_tiny" else pytest.mark.slow, id=name)
    for name in BACKBONES
    if BACKBONES[name].build_slim
]


def halved_after_stage1(card: Backbone) -> dict[str, float]:
    return {stage: 0.5 for stage in card.stages if stage not in ("stem", "stage1")}


@pytest.mark.parametrize("name", slim_by_weight)
def test_a_slim_network_has_the_same_layers_in_the_same_stages(name):
    card = BACKBONES[name]
    full = build_architecture(card, image_size=SIZE)
    slim = build_architecture(card, image_size=SIZE, widths=halved_after_stage1(card))
    assert [weight.path for weight in slim.weights] == [weight.path for weight in full.weights]
    assert layer_stages(slim, card) == layer_stages(full, card)
    before, after = stage_summaries(full, card), stage_summaries(slim, card)
    assert after[:2] == before[:2]
    assert all(slim.parameters < full.parameters for slim, full in zip(after[2:], before[2:], strict=True))
    assert all(slim.output_shape[:2] == full.output_shape[:2] for slim, full in zip(after, before, strict=True))


@pytest.mark.parametrize("name", slim_by_weight)
def test_the_stages_before_the_first_slim_one_take_the_full_networks_weights(name):
    card = BACKBONES[name]
    full = build_architecture(card, image_size=SIZE)
    slim = build_architecture(card, image_size=SIZE, widths=halved_after_stage1(card))
    perturb(full)
    for layer, stage in layer_stages(full, card).items():
        if stage in ("stem", "stage1"):
            slim.get_layer(layer).set_weights(full.get_layer(layer).get_weights())
    until_there = [keras.Model(m.input, m.get_layer(card.stage_end("stage1")).output) for m in (full, slim)]
    expected, found = (np.asarray(part(images())) for part in until_there)
    np.testing.assert_array_equal(found, expected)
    assert np.isfinite(slim(images())).all()


@pytest.mark.parametrize("name", saved_slim)
def test_a_saved_slim_model_opens_in_plain_keras_in_safe_mode(name, tmp_path):
    card = BACKBONES[name]
    check_opens_in_plain_keras(build_architecture(card, image_size=SIZE, widths=halved_after_stage1(card)), tmp_path)
