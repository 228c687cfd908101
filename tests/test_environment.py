"""What the user's files, variables and notebooks set of Keras changes no network, and stays as the user has set it."""

import os
import subprocess
import sys
from dataclasses import replace

import keras
import numpy as np
import pytest

import radtransfer
from radtransfer.augmentations import AUGMENTATIONS
from radtransfer.config import load_config
from radtransfer.environment import keras_defaults
from radtransfer.errors import ConfigError
from radtransfer.finetune import finetune

SETTINGS = {
    "image_data_format": "channels_first",
    "floatx": "float16",
    "epsilon": 0.1,
    "dtype_policy": "mixed_float16",
    "max_epochs": 1,
    "max_steps_per_epoch": 1,
}


def settings():
    found = {name: getattr(keras.config, name)() for name in SETTINGS}
    return found | {"dtype_policy": found["dtype_policy"].name}


@pytest.fixture
def notebook():
    """Inside a test Keras is set as a notebook's author likes it."""
    before = settings()
    for name, value in SETTINGS.items():
        getattr(keras.config, f"set_{name}")(value)
    yield
    for name, value in before.items():
        getattr(keras.config, f"set_{name}")(value)


@pytest.mark.parametrize("name", ["resnet50", "efficientnet_v2_b0"])
def test_a_notebooks_settings_do_not_change_a_network(name, request):
    images = np.random.default_rng(0).uniform(0, 1, (1, 64, 64, 3)).astype("float32")
    expected = radtransfer.build_backbone(name, image_size=64)
    features = expected(images).numpy()
    request.getfixturevalue("notebook")
    model = radtransfer.build_backbone(name, image_size=64)
    assert model.get_config() == expected.get_config()
    model.set_weights(expected.get_weights())
    np.testing.assert_array_equal(model(images), features)


def test_a_notebooks_settings_do_not_change_a_training(request, tmp_path):
    data = ("data.source=synthetic_fundus:images=60,size=32", "splits.folds=1", "training.epochs=1")
    config = load_config(sets=(*data, "model.backbone=cbr_tiny", "model.image_size=16", f"out={tmp_path}/usual"))
    usual = finetune(config)
    request.getfixturevalue("notebook")
    found = finetune(replace(config, out=f"{tmp_path}/unusual"))
    for name in ("predictions.csv", "metrics.json"):
        assert (found.path / name).read_bytes() == (usual.path / name).read_bytes()
    assert settings() == SETTINGS


def test_a_notebooks_settings_come_back_also_after_an_error(notebook):
    with pytest.raises(ConfigError):
        radtransfer.build_backbone("resnet50", image_size=1)
    assert settings() == SETTINGS
    with keras_defaults():
        assert keras.config.floatx() == "float32"
        keras.utils.clear_session()
    assert settings() == SETTINGS


def test_keras_on_another_backend_is_refused_in_one_line(monkeypatch):
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(ConfigError, match="imported Keras with the backend jax. .*set KERAS_BACKEND=tensorflow"):
        radtransfer.build_backbone("cbr_tiny")


def test_keras_cv_on_tf_keras_is_refused(monkeypatch):
    keras_cv, tf_keras = pytest.importorskip("keras_cv"), pytest.importorskip("tf_keras")
    monkeypatch.setattr(keras_cv.layers, "RandomFlip", lambda mode: tf_keras.layers.RandomFlip(mode))
    with pytest.raises(ConfigError, match="Start Python again without TF_USE_LEGACY_KERAS"):
        AUGMENTATIONS["random_flip"].build()


FRESH = """
import os, sys
variables = {name: value for name, value in os.environ.items() if "KERAS" in name}
import radtransfer
assert not {"keras", "tensorflow", "numpy"} & {*sys.modules}
model = radtransfer.build_backbone("cbr_tiny", image_size=32)
import keras
assert variables == {name: value for name, value in os.environ.items() if "KERAS" in name}
print(model.count_params(), keras.config.backend(), keras.config.image_data_format())
print(keras.utils.get_file("copy.json", "file://" + sys.argv[1]))
"""


@pytest.mark.parametrize(
    ("text", "variables", "data_format"),
    [
        ('{"image_data_format": "channels_first", "backend": "jax"}', {}, "channels_first"),
        ('{"floatx": "float8"}', {"KERAS_BACKEND": "jax", "KERAS_MAX_EPOCHS": "few"}, "channels_last"),
    ],
    ids=["valid", "invalid"],
)
def test_a_fresh_python_gets_the_network_whatever_keras_json_says(text, variables, data_format, tmp_path):
    file = tmp_path / "keras.json"
    file.write_text(text)
    environment = os.environ | {"KERAS_HOME": str(tmp_path)} | variables
    command = [sys.executable, "-c", FRESH, str(file)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found, download = done.stdout.splitlines()[0], done.stdout.splitlines()[-1]
    assert found.split() == ["1079520", "tensorflow", data_format]  # the user's own networks are as the file says
    assert download == str(tmp_path / "datasets" / "copy.json")
    assert file.read_text() == text
