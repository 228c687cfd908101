import keras
import numpy as np
import pytest

from radtransfer.models.activations import flat_model


@pytest.fixture(scope="module")
def nested():
    """What tutorials build: a functional backbone within a classifier, half precision, a Sequential head."""
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", name="low", dtype="mixed_bfloat16")(image)
    x = keras.layers.BatchNormalization(name="normal", dtype="mixed_bfloat16")(x)
    backbone = keras.Model(image, keras.layers.Add(name="sum", dtype="mixed_bfloat16")([x, keras.ops.relu(x)]))
    head = keras.Sequential([keras.layers.GlobalAveragePooling2D(name="pool"), keras.layers.Dense(2, name="dense")])
    outer = keras.Input((8, 8, 3))
    return keras.Model(outer, head(backbone(keras.layers.Rescaling(1 / 255)(outer), training=False)))


def test_every_layer_stands_at_the_top_with_its_weights_in_float32(nested):
    flat = flat_model(nested)
    assert flat is not nested and flat_model(flat) is flat
    assert all(layer.compute_dtype == "float32" and not isinstance(layer, keras.Model) for layer in flat.layers)
    assert {"low", "normal", "sum", "pool", "dense"} <= {layer.name for layer in flat.layers}
    images = np.random.default_rng(0).uniform(0, 255, (3, 8, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(flat(images), nested(images), atol=0.02)
    for mine, its in zip(flat.get_weights(), nested.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, its)


def test_the_graph_may_begin_with_something_else(nested):
    flat = flat_model(nested, prepare=lambda image: image * 2.0)
    images = np.random.default_rng(0).uniform(0, 100, (3, 8, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(flat(images), flat_model(nested)(2 * images), atol=1e-5)
    assert flat.get_layer("low").output is not None


def test_a_copy_scales_by_what_the_original_measured():
    scale = keras.layers.Normalization(name="scale")
    images = np.random.default_rng(0).uniform(0, 255, (9, 8, 8, 3)).astype(np.float32)
    scale.adapt(images)
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, keras.layers.Dense(2, name="dense", dtype="mixed_bfloat16")(scale(image)))
    np.testing.assert_allclose(flat_model(model)(images), model(images), atol=0.05)
