"""Input scales against Keras' own, and their survival in a saved model."""

import subprocess
import sys

import keras
import numpy as np
import pytest

from radtransfer.errors import UnknownNameError
from radtransfer.images.preprocessing import MODES, preprocess


def preprocessed(images: np.ndarray, mode: str) -> np.ndarray:
    return keras.ops.convert_to_numpy(preprocess(keras.ops.convert_to_tensor(images, "float32"), mode))


def preprocessing_model(mode: str) -> keras.Model:
    inputs = keras.Input((4, 5, 3), name="image")
    return keras.Model(inputs, preprocess(inputs, mode))


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (2, 4, 5, 3)).astype("float32")


@pytest.mark.parametrize("mode", ["caffe", "tf", "torch"])
def test_modes_that_keras_has_equal_its_own(images, mode):
    expected = keras.applications.imagenet_utils.preprocess_input(images.copy(), mode=mode)
    np.testing.assert_allclose(preprocessed(images, mode), expected, atol=2e-5)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("caffe_unit", [-0.40760, 0.04400, 0.51498]),
        ("bgr_tf", [-1.0, 0.00392, 1.0]),
        ("unit", [1.0, 0.50196, 0.0]),
        ("raw", [255.0, 128.0, 0.0]),
    ],
)
def test_an_orange_pixel_becomes_what_the_mode_says(mode, expected):
    orange = np.broadcast_to(np.float32([255, 128, 0]), (1, 2, 2, 3))
    np.testing.assert_allclose(preprocessed(orange, mode)[0, 0, 0], expected, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_no_image_leaves_the_stated_output_range(mode):
    corners = np.stack(np.meshgrid([0, 255], [0, 255], [0, 255]), axis=-1).reshape(1, 2, 4, 3)
    values = preprocessed(corners, mode)
    np.testing.assert_allclose((values.min(), values.max()), MODES[mode].output_range, rtol=1e-5, atol=1e-6)


def test_an_unknown_mode_names_the_closest():
    with pytest.raises(UnknownNameError, match="'caffe_unit'"):
        preprocess(keras.Input((4, 5, 3)), "cafe_unit")


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_values_keep_float32_under_mixed_precision(images, policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = preprocessing_model("caffe")
        values = model(images)
    finally:
        keras.config.set_dtype_policy(before)
    assert values.dtype == "float32"
    np.testing.assert_allclose(values, preprocessed(images, "caffe"), atol=1e-5)


@pytest.mark.parametrize("mode", ["torch", "caffe"])
def test_a_saved_model_reads_the_same_images_where_keras_puts_channels_first(images, mode, tmp_path):
    preprocessing_model(mode).save(tmp_path / "model.keras")
    keras.config.set_image_data_format("channels_first")
    try:
        values = keras.models.load_model(tmp_path / "model.keras").predict(images, verbose=0)
    finally:
        keras.config.set_image_data_format("channels_last")
    np.testing.assert_allclose(values, preprocessed(images, mode), atol=1e-5)


RELOAD = """
import sys
import keras, numpy as np
model = keras.models.load_model(sys.argv[1], safe_mode=True)
np.save(sys.argv[3], model.predict(np.load(sys.argv[2]), verbose=0))
assert not any(name.startswith("radtransfer") for name in sys.modules)
"""


@pytest.mark.parametrize("mode", ["caffe_unit", "torch"])
def test_a_saved_model_loads_in_safe_mode_with_keras_alone(images, tmp_path, mode):
    preprocessing_model(mode).save(tmp_path / "model.keras")
    np.save(tmp_path / "images.npy", images)
    names = ("model.keras", "images.npy", "values.npy")
    subprocess.run([sys.executable, "-c", RELOAD, *(str(tmp_path / name) for name in names)], check=True)
    np.testing.assert_allclose(np.load(tmp_path / "values.npy"), preprocessed(images, mode), atol=1e-6)
