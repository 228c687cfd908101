"""Every variable of a layer, whatever it is made of: reached by a path of its own, and drawn anew by every draw."""

import inspect

import keras
import numpy as np
import pytest

from radtransfer.errors import ConfigError
from radtransfer.models.layers import layer_variables, model_variables
from radtransfer.pretrained.match import match_layers, weighted_layers
from radtransfer.pretrained.read import read_weight_file
from radtransfer.pretrained.saved_model import open_model
from radtransfer.transfer.initialize import draw_random

LAYERS = keras.layers
SEQUENCE, MAP = (6, 4), (8, 8, 4)

# Every public layer with weights: how to make it, and the shape of what it takes.
PUBLIC = {
    "AdditiveAttention": (lambda: LAYERS.AdditiveAttention(), SEQUENCE),
    "Attention": (lambda: LAYERS.Attention(use_scale=True, score_mode="concat"), SEQUENCE),
    "BatchNormalization": (lambda: LAYERS.BatchNormalization(), MAP),
    "Bidirectional": (lambda: LAYERS.Bidirectional(LAYERS.LSTM(4)), SEQUENCE),
    "Conv1D": (lambda: LAYERS.Conv1D(4, 3), SEQUENCE),
    "Conv1DTranspose": (lambda: LAYERS.Conv1DTranspose(4, 3), SEQUENCE),
    "Conv2D": (lambda: LAYERS.Conv2D(4, 3), MAP),
    "Conv2DTranspose": (lambda: LAYERS.Conv2DTranspose(4, 3), MAP),
    "Conv3D": (lambda: LAYERS.Conv3D(4, 3), (4, 4, 4, 2)),
    "Conv3DTranspose": (lambda: LAYERS.Conv3DTranspose(4, 3), (4, 4, 4, 2)),
    "ConvLSTM1D": (lambda: LAYERS.ConvLSTM1D(4, 3), (3, 6, 4)),
    "ConvLSTM2D": (lambda: LAYERS.ConvLSTM2D(4, 3), (3, 6, 6, 2)),
    "ConvLSTM3D": (lambda: LAYERS.ConvLSTM3D(2, 3), (2, 4, 4, 4, 2)),
    "Dense": (lambda: LAYERS.Dense(4), SEQUENCE),
    "DepthwiseConv1D": (lambda: LAYERS.DepthwiseConv1D(3), SEQUENCE),
    "DepthwiseConv2D": (lambda: LAYERS.DepthwiseConv2D(3), MAP),
    "EinsumDense": (lambda: LAYERS.EinsumDense("abc,cd->abd", (None, 5), bias_axes="d"), SEQUENCE),
    "Embedding": (lambda: LAYERS.Embedding(10, 4), SEQUENCE),
    "GroupNormalization": (lambda: LAYERS.GroupNormalization(2), MAP),
    "GroupQueryAttention": (lambda: LAYERS.GroupQueryAttention(4, 4, 2), SEQUENCE),
    "GRU": (lambda: LAYERS.GRU(4), SEQUENCE),
    "LayerNormalization": (lambda: LAYERS.LayerNormalization(), SEQUENCE),
    "LSTM": (lambda: LAYERS.LSTM(4), SEQUENCE),
    "MultiHeadAttention": (lambda: LAYERS.MultiHeadAttention(2, 4, dropout=0.1), SEQUENCE),
    "PReLU": (lambda: LAYERS.PReLU(alpha_initializer="random_normal"), SEQUENCE),
    "RMSNormalization": (lambda: LAYERS.RMSNormalization(), SEQUENCE),
    "RNN": (lambda: LAYERS.RNN(LAYERS.StackedRNNCells([LAYERS.LSTMCell(4), LAYERS.GRUCell(4)])), SEQUENCE),
    "ReversibleEmbedding": (lambda: LAYERS.ReversibleEmbedding(10, 4, tie_weights=False), SEQUENCE),
    "SeparableConv1D": (lambda: LAYERS.SeparableConv1D(4, 3), SEQUENCE),
    "SeparableConv2D": (lambda: LAYERS.SeparableConv2D(4, 3), MAP),
    "SimpleRNN": (lambda: LAYERS.SimpleRNN(4), SEQUENCE),
    "SpectralNormalization": (lambda: LAYERS.SpectralNormalization(LAYERS.Dense(4)), SEQUENCE),
    "TimeDistributed": (lambda: LAYERS.TimeDistributed(LAYERS.Dense(4)), SEQUENCE),
}
PUBLIC = {name: made for name, made in PUBLIC.items() if hasattr(LAYERS, name)}
WITHIN_OTHERS = {"ConvLSTMCell", "GRUCell", "LSTMCell", "SimpleRNNCell", "StackedRNNCells", "Wrapper"}
NOT_DRAWN = {"Normalization", "STFTSpectrogram"}
"""Measured or computed; no draw may change them."""


def model_of(name):
    make, shape = PUBLIC[name]
    x = keras.Input(shape, dtype="int32" if "Embedding" in name else None)
    layer = make()
    layer = type(layer).from_config(layer.get_config() | {"name": "layer"})
    if "Attention" in name:
        return keras.Model(x, layer([x, x]) if "Head" not in name and "Query" not in name else layer(x, x))
    return keras.Model(x, layer(x))


def values(model):
    return [np.array(weight) for weight in model.weights]


def test_the_list_of_public_layers_is_whole():
    def creates_weights(kind):
        kinds = [each for each in kind.__mro__ if each.__module__.startswith("keras.src.layers.")]
        return any("self.add_weight(" in inspect.getsource(each) for each in kinds if each is not keras.Layer)

    layers = {name: kind for name, kind in vars(LAYERS).items() if inspect.isclass(kind)}
    found = {kind.__name__ for kind in layers.values() if issubclass(kind, keras.Layer) and creates_weights(kind)}
    known = {type(PUBLIC[name][0]()).__name__ for name in PUBLIC} | WITHIN_OTHERS | NOT_DRAWN
    assert found - known == set()


@pytest.mark.parametrize("name", PUBLIC)
def test_every_variable_of_a_public_layer_has_a_path_of_its_own(name):
    model = model_of(name)
    variables = layer_variables(model.layers[-1])
    assert [id(item.variable) for item in variables.values()] == [id(weight) for weight in model.layers[-1].weights]
    assert list(layer_variables(model_of(name).layers[-1])) == list(variables)  # whatever was built before


@pytest.mark.parametrize("name", PUBLIC)
def test_a_draw_sets_every_variable_of_a_public_layer_as_keras_does_and_by_the_seed_alone(name):
    model, other = model_of(name), model_of(name)
    built, again = values(model), values(other)
    draw_random(model, seed=1)
    other.set_weights([value + 1 for value in built])
    draw_random(other, seed=1)
    for one, two in zip(values(model), values(other), strict=True):
        np.testing.assert_array_equal(one, two)
    draw_random(other, seed=2)
    for weight, first, second, a, b in zip(model.weights, built, again, values(model), values(other), strict=True):
        if np.array_equal(first, second):  # Keras sets it to a constant
            np.testing.assert_array_equal(a, first, err_msg=weight.path)
        else:
            assert not np.array_equal(a, b), weight.path
            assert first.size < 30 or a.std() == pytest.approx(first.std(), rel=0.5), weight.path


def found_in(file, model):
    return match_layers(read_weight_file(file), weighted_layers(model))


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_layer_loads_from_each_kind_of_keras_file(name, tmp_path):
    model, other = model_of(name), model_of(name)
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(1, 9, weight.shape).astype(weight.dtype) for weight in model.weights])
    model.save(tmp_path / "whole.keras")
    model.save_weights(tmp_path / "only.weights.h5")
    model.save(tmp_path / "legacy.h5")
    for weight, value in zip(open_model(tmp_path / "whole.keras").get_weights(), values(model), strict=True):
        np.testing.assert_array_equal(weight, value)
    for file in tmp_path.iterdir():
        match = found_in(file, other)
        assert not match.missing, file.name
        for array, value in zip(match.arrays["layer"], values(model), strict=True):
            np.testing.assert_array_equal(array, value, err_msg=file.name)


def test_a_draw_leaves_what_was_measured_on_data():
    measured = LAYERS.Normalization()
    measured.adapt(np.random.default_rng(0).normal(5, 2, (20, 4)))
    x = keras.Input((4,))
    model = keras.Model(x, measured(x))
    before = values(model)
    draw_random(model, seed=1)
    assert all(map(np.array_equal, before, values(model)))


@keras.saving.register_keras_serializable(package="test")
class Block(keras.Layer):
    """Layers in lists, in a dict and in a model; several of one name, and a variable of its own twice."""

    def __init__(self, **options):
        super().__init__(**options)
        self.pair = [LAYERS.Dense(4), LAYERS.Dense(4)]
        self.twins = {"one": LAYERS.Dense(4, name="twin"), "other": LAYERS.Dense(4, name="twin")}
        self.net = keras.Sequential([LAYERS.LayerNormalization(), LAYERS.Dense(4)])
        self.scale_initializer = keras.initializers.RandomNormal()

    def build(self, shape):
        for layer in (*self.pair, *self.twins.values(), self.net):
            layer.build(shape)
        self.scales = [self.add_weight(shape=(4,), name="scale", initializer=self.scale_initializer) for _ in range(2)]

    def call(self, x):
        for layer in (*self.pair, *self.twins.values(), self.net):
            x = layer(x)
        return x * self.scales[0] * self.scales[1]


PATHS = [f"{layer}/{leaf}" for layer in ("dense", "dense_1", "twin", "twin_1") for leaf in ("kernel", "bias")]
PATHS += ["sequential/layer_normalization/gamma", "sequential/layer_normalization/beta"]
PATHS += ["sequential/dense/kernel", "sequential/dense/bias", "scale", "scale_1"]


def block_model():
    x = keras.Input((4,))
    return keras.Model(x, Block(name="block")(x))


def test_layers_in_lists_dicts_and_models_of_a_layer_have_paths_that_names_do_not_make_collide():
    LAYERS.Dense(1)  # moves the numbers of Keras on
    assert set(layer_variables(block_model().get_layer("block"))) == set(PATHS)


def test_variables_of_one_name_are_drawn_apart():
    model = block_model()
    draw_random(model, seed=1)
    items = layer_variables(model.get_layer("block"))
    for one, other in (("scale", "scale_1"), ("twin/kernel", "twin_1/kernel"), ("dense/kernel", "dense_1/kernel")):
        assert not np.array_equal(items[one].variable, items[other].variable)


def test_layers_of_one_name_within_a_layer_are_refused_and_never_loaded_for_one_another(tmp_path):
    block_model().save(tmp_path / "block.keras")
    assert found_in(tmp_path / "block.keras", block_model()).missing == ("block",)


def test_what_layers_share_is_reached_once():
    x, inner = keras.Input((6, 4)), LAYERS.Dense(4, name="inner")
    y = LAYERS.TimeDistributed(inner, name="second")(LAYERS.TimeDistributed(inner, name="first")(x))
    model = keras.Model(x, y)
    found = model_variables(model)
    assert list(found["first"]) == ["inner/kernel", "inner/bias"]
    assert found["second"] == {}


class Unknown(keras.Layer):
    """What it starts from is in no attribute."""

    def build(self, shape):
        self.token = self.add_weight(name="token", shape=(4,), initializer="ones")

    def call(self, x):
        return x + self.token


class Outer(keras.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.parts = [Unknown(name="unknown")]

    def call(self, x):
        return self.parts[0](x)


@pytest.mark.parametrize(("kind", "path"), [(Unknown, "token"), (Outer, "unknown/token")])
def test_a_variable_without_initializer_is_an_error_that_names_it(kind, path):
    x = keras.Input((4,))
    model = keras.Model(x, kind(name="mine")(x))
    with pytest.raises(ConfigError, match=rf"Variable {path} of layer mine \(Unknown\).*token_initializer"):
        draw_random(model, seed=0)


def test_an_initializer_that_takes_no_seed_is_an_error():
    x = keras.Input((4,))
    model = keras.Model(x, LAYERS.Dense(2, kernel_initializer=lambda shape, dtype: np.ones(shape), name="mine")(x))
    with pytest.raises(ConfigError, match="Variable kernel of layer mine .Dense.*a function, which takes no seed"):
        draw_random(model, seed=0)


def test_a_variable_outside_the_layers_is_an_error():
    x = keras.Input((4,))
    model = keras.Model(x, LAYERS.Dense(2)(x))
    model.extra = keras.Variable(np.ones(3), name="extra")
    with pytest.raises(ConfigError, match="variables outside .first: .*extra"):
        draw_random(model, seed=0)
