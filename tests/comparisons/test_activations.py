import keras
import numpy as np
import pytest

from radtransfer.errors import SimilarityError, UnknownNameError
from radtransfer.models.activations import FeatureMaps
from radtransfer.similarity.layer_rows import read_rows


def small_model(dtype="float32"):
    keras.utils.set_random_seed(0)
    image = keras.Input((12, 12, 3))
    x = keras.layers.Conv2D(8, 3, padding="same", activation="relu", name="low", dtype=dtype)(image)
    x = keras.layers.Conv2D(16, 3, strides=2, padding="same", name="high", dtype=dtype)(x)
    pooled = keras.layers.GlobalAveragePooling2D(name="pooled", dtype=dtype)(x)
    return keras.Model(image, keras.layers.Dense(2, name="head", dtype="float32")(pooled))


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(10, 12, 12, 3)).astype(np.float32)


def test_all_layers_come_out_of_one_pass_as_maps(model, images):
    maps = FeatureMaps(model, ["high", "low", "pooled"])
    found = maps.of(images)
    assert {name: tuple(values.shape[1:]) for name, values in found.items()} == {
        "high": (6, 6, 16),
        "low": (12, 12, 8),
        "pooled": (1, 1, 16),
    }
    expected = keras.Model(model.input, model.get_layer("high").output)(images, training=False)
    np.testing.assert_allclose(found["high"], expected, atol=1e-6)
    assert (maps.grid("low"), maps.width("low")) == ((12, 12), 8)


def test_what_is_measured_is_float32_whatever_the_network_was_trained_in(model, images):
    half = small_model("mixed_bfloat16")
    half.set_weights(model.get_weights())
    found, expected = FeatureMaps(half, ["high"]).of(images), FeatureMaps(model, ["high"]).of(images)
    np.testing.assert_allclose(found["high"], expected["high"], atol=1e-6)
    assert half.get_layer("high").compute_dtype == "bfloat16"


def test_rows_are_the_asked_positions_and_channels(model, images):
    maps = FeatureMaps(model, ["low"]).of(images)["low"]
    rows = read_rows(maps, np.array([0, 7, 35]), np.array([1, 1, 4]), grid=(6, 6), channels=np.array([2, 5]))
    assert rows.dtype == np.float32
    values = np.asarray(maps)
    np.testing.assert_array_equal(rows, [values[1, 1, 1][[2, 5]], values[1, 3, 3][[2, 5]], values[4, 11, 11][[2, 5]]])


def test_an_unknown_layer_is_named_with_the_closest(model):
    with pytest.raises(UnknownNameError, match="'high'"):
        FeatureMaps(model, ["hihg"])


def test_a_layer_without_one_array_is_an_error():
    image = keras.Input((4, 4, 2, 3))
    model = keras.Model(image, keras.layers.Conv3D(2, 1, name="volume")(image))
    with pytest.raises(SimilarityError, match=r"volume: expected .* 2 to 4 dimensions"):
        FeatureMaps(model, ["volume"])
