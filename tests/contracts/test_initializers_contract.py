"""What every entry of the initializer table promises."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from radtransfer.initializers import INITIALIZERS

KERNEL = (5, 5, 3, 8)
ARRAY = np.random.default_rng(0).gamma(2.0, 0.05, KERNEL).astype(np.float32)
VECTOR = ARRAY[0, 0, 0]

MADE = {
    "mean_var": lambda array, seed: INITIALIZERS["mean_var"].like(array, seed),
    "positive_mean_var": lambda array, seed: INITIALIZERS["positive_mean_var"].like(array, seed),
    "sampled": lambda array, seed: INITIALIZERS["sampled"](array, seed),
    "shuffled": lambda array, seed: INITIALIZERS["shuffled"](array, seed),
    "copied": lambda array, seed: INITIALIZERS["copied"](array),
    "gabor": lambda array, seed: INITIALIZERS["gabor"](scale=float(array.std())),
}
SEEDED = ("mean_var", "positive_mean_var", "sampled", "shuffled")
FOR_VECTORS = (*SEEDED, "copied")


@pytest.fixture(params=MADE)
def initializer(request):
    return MADE[request.param](ARRAY, 3)


def values(initializer, shape=KERNEL):
    return np.asarray(initializer(shape))


def convolution(initializer):
    model = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Conv2D(8, 5, kernel_initializer=initializer)])
    return model, model.layers[0].kernel


def normalization(initializer):
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    layer = keras.layers.BatchNormalization(**{f"{name}_initializer": initializer for name in names})
    return keras.Sequential([keras.Input((4, 4, 8)), layer])


def test_every_entry_is_covered_here():
    assert list(MADE) == list(INITIALIZERS)


def test_it_is_registered_with_keras(initializer):
    name = f"radtransfer>{type(initializer).__name__}"
    assert keras.saving.get_registered_name(type(initializer)) == name
    assert keras.saving.get_registered_object(name) is type(initializer)


def test_its_config_is_json_and_gives_an_equal_initializer(initializer):
    config = json.loads(json.dumps(initializer.get_config()))
    again = type(initializer).from_config(config)
    assert again.get_config() == initializer.get_config()
    np.testing.assert_array_equal(values(again), values(initializer))


def test_keras_serializes_and_clones_it(initializer):
    config = json.loads(json.dumps(keras.initializers.serialize(initializer)))
    for again in (keras.initializers.deserialize(config), initializer.clone(), keras.initializers.get(initializer)):
        assert type(again) is type(initializer)
        np.testing.assert_array_equal(values(again), values(initializer))


def test_every_call_gives_the_same_weights(initializer):
    np.testing.assert_array_equal(values(initializer), values(initializer))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_the_dtype_asked_for_is_the_one_given(initializer, dtype):
    tensor = initializer(KERNEL, dtype=dtype)
    assert keras.backend.standardize_dtype(tensor.dtype) == dtype
    assert tuple(tensor.shape) == KERNEL
    np.testing.assert_allclose(np.asarray(tensor, np.float64), values(initializer), rtol=0.01, atol=1e-3)


def test_without_a_dtype_it_is_the_default_of_keras(initializer):
    assert initializer(KERNEL).dtype == "float32"
    keras.config.set_floatx("float64")
    try:
        assert initializer(KERNEL).dtype == "float64"
    finally:
        keras.config.set_floatx("float32")


def test_weights_are_the_same_inside_a_tf_function(initializer):
    np.testing.assert_array_equal(tf.function(lambda: initializer(KERNEL))(), values(initializer))


def test_a_layer_built_inside_a_tf_function_gets_the_same_weights(initializer):
    layer = keras.layers.Conv2D(8, 5, kernel_initializer=initializer)
    tf.function(layer)(tf.zeros((1, 16, 16, 3)))
    np.testing.assert_array_equal(layer.kernel, values(initializer))


def test_a_keras_layer_starts_from_it_under_mixed_precision(initializer):
    layer = keras.layers.Conv2D(8, 5, kernel_initializer=initializer, dtype="mixed_bfloat16")
    layer.build((None, 16, 16, 3))
    np.testing.assert_array_equal(layer.kernel, values(initializer))


def test_a_cloned_model_starts_from_the_same_weights(initializer):
    model, kernel = convolution(initializer)
    np.testing.assert_array_equal(keras.models.clone_model(model).layers[0].kernel, kernel)


def test_a_convolution_survives_saving(initializer, tmp_path):
    model, kernel = convolution(initializer)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True).layers[0]
    assert loaded.kernel_initializer.get_config() == initializer.get_config()
    np.testing.assert_array_equal(loaded.kernel, kernel)


@pytest.mark.parametrize("name", FOR_VECTORS)
def test_batch_norm_survives_saving(name, tmp_path):
    initializer = MADE[name](VECTOR, 3)
    model = normalization(initializer)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True).layers[0]
    for variable in loaded.weights:
        assert getattr(loaded, f"{variable.name}_initializer").get_config() == initializer.get_config()
        np.testing.assert_array_equal(variable, values(initializer, (8,)))


@pytest.mark.parametrize("name", SEEDED)
def test_another_seed_gives_independent_weights(name):
    array = np.random.default_rng(1).gamma(2.0, 0.05, 20_000).astype(np.float32)
    streams = np.stack([values(MADE[name](array, seed), array.shape) for seed in range(4)])
    off_diagonal = np.corrcoef(streams) - np.eye(4)
    assert np.abs(off_diagonal).max() < 4 / np.sqrt(array.size)


@pytest.mark.parametrize("name", SEEDED)
@pytest.mark.parametrize("seed", [-1, 1.5, None, True, "1"])
def test_what_is_no_seed_is_refused(name, seed):
    with pytest.raises(ValueError, match="Expected a non-negative integer as seed. Received: "):
        MADE[name](ARRAY, seed)


@pytest.mark.parametrize("name", SEEDED)
def test_a_numpy_integer_is_a_seed_that_can_be_saved(name):
    initializer = MADE[name](ARRAY, np.int64(3))
    assert json.dumps(initializer.get_config()) == json.dumps(MADE[name](ARRAY, 3).get_config())


LOAD = """
import sys
{imports}
model = keras.models.load_model(sys.argv[1], safe_mode=True)
print(*(float(model.layers[0].kernel_initializer((5, 5, 3, 8))[i, 0, 1, 2]).hex() for i in range(5)))
"""


def start_of(path, imports, **options):
    command = [sys.executable, "-c", LOAD.format(imports=imports), str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True, **options).stdout.split()


@pytest.mark.parametrize(
    "imports",
    ["import keras, radtransfer.initializers", "from radtransfer.initializers import Gabor\nimport keras"],
)
def test_a_new_process_that_imports_the_package_loads_any_of_them(imports, tmp_path):
    for name, make in MADE.items():
        convolution(make(ARRAY, 3))[0].save(tmp_path / f"{name}.keras")
    model = keras.models.load_model(tmp_path / "sampled.keras")
    expected = [float(x).hex() for x in values(model.layers[0].kernel_initializer)[:, 0, 1, 2]]
    assert start_of(tmp_path / "sampled.keras", imports) == expected


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_another_backend_draws_the_same_weights(backend, tmp_path):
    pytest.importorskip(backend)
    initializer = MADE["mean_var"](ARRAY, 3)
    convolution(initializer)[0].save(tmp_path / "model.keras")
    environment = {**os.environ, "KERAS_BACKEND": backend}
    drawn = start_of(tmp_path / "model.keras", "import keras, radtransfer.initializers", env=environment)
    assert drawn == [float(x).hex() for x in values(initializer)[:, 0, 1, 2]]
