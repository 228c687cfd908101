"""What the user's files, variables and notebooks set of Keras changes no network, and stays as the user has set it."""

import os
import subprocess
import sys
from dataclasses import replace

import keras
import numpy as np
import pytest

import radtransfer
from radtransfer.cli.doctor import arithmetic_finding
from radtransfer.config.load import load_config
from radtransfer.errors import ConfigError
from radtransfer.images.augment import AUGMENTATIONS
from radtransfer.process import ONEDNN, keras_defaults, onednn_decided_by, onednn_in_use, pin_variables
from radtransfer.training.run import finetune

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
    with pytest.raises(ConfigError, match="Keras was imported with the backend jax. .*set KERAS_BACKEND=tensorflow"):
        radtransfer.build_backbone("cbr_tiny")


def test_keras_cv_on_tf_keras_is_refused(monkeypatch):
    keras_cv, tf_keras = pytest.importorskip("keras_cv"), pytest.importorskip("tf_keras")
    monkeypatch.setattr(keras_cv.layers, "RandomFlip", lambda mode: tf_keras.layers.RandomFlip(mode))
    with pytest.raises(ConfigError, match="Restart Python without TF_USE_LEGACY_KERAS"):
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


@pytest.fixture
def processor(monkeypatch, tmp_path):
    """Act as on a Linux processor with these lines in `/proc/cpuinfo`, and as if nobody had asked for oneDNN."""
    # An empty variable is as good as none, and is put back afterwards whatever the test makes of it.
    monkeypatch.setenv(ONEDNN, "")
    monkeypatch.setenv("RADTRANSFER_CHOSE_ONEDNN", "")

    def act(lines):
        (tmp_path / "cpuinfo").write_text(lines)
        monkeypatch.setattr("radtransfer.process.CPUINFO", tmp_path / "cpuinfo")

    return act


@pytest.mark.parametrize(
    ("lines", "given", "expected", "decided_by"),
    [
        ("flags : fpu avx avx2 fma sse4_2\n", "", "1", "radtransfer"),
        ("model name : a b\nflags\t\t: fma avx2 avx512_vnni\n\nflags : fpu\n", "", "1", "radtransfer"),
        ("flags : fpu avx avx2 fma\n", "0", "0", "user"),
        ("flags : fpu avx avx2 fma\n", "True", "True", "user"),
        ("flags : fpu avx avx2 fma\n", "off", "off", "tensorflow"),
        ("flags : fpu avx avx2\n", "", "", "tensorflow"),
        ("Features : fp asimd avx2 fma\n", "", "", "tensorflow"),
        ("", "", "", "tensorflow"),
    ],
)
def test_onednn_is_chosen_where_it_was_measured_unless_the_user_decides(
    lines, given, expected, decided_by, processor, monkeypatch
):
    processor(lines)
    monkeypatch.setenv(ONEDNN, given)
    for _ in range(2):  # a process of ours and one that it starts
        pin_variables()
        assert (os.environ[ONEDNN], onednn_decided_by()) == (expected, decided_by)


def test_a_system_without_cpuinfo_keeps_tensorflows_choice(processor, monkeypatch, tmp_path):
    processor("")
    monkeypatch.setattr("radtransfer.process.CPUINFO", tmp_path)
    pin_variables()
    assert onednn_decided_by() == "tensorflow"


CONVOLUTION = """
import os, sys
import tensorflow as tf
from radtransfer.process import ONEDNN, onednn_in_use
os.environ[ONEDNN] = sys.argv[1]  # too late to change anything
convolve = tf.function(lambda x: tf.nn.conv2d(x, tf.ones([3, 3, 3, 4]), 1, "SAME"))
convolve(tf.ones([1, 8, 8, 3]))
print("in use:", onednn_in_use())
"""


@pytest.mark.parametrize(("value", "late"), [("1", "0"), ("0", "1")])
def test_what_is_said_of_onednn_is_what_computes(value, late):
    environment = os.environ | {ONEDNN: value, "ONEDNN_VERBOSE": "1"}
    command = [sys.executable, "-c", CONVOLUTION, late]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert f"in use: {value == '1'}" in done.stdout
    assert (",cpu,convolution," in done.stdout) is (value == "1")


@pytest.mark.parametrize("value", ["0", "off"])
def test_the_doctor_tells_of_a_variable_without_effect(value, monkeypatch):
    """TensorFlow was imported before the variable got the first value, and never understands the second."""
    monkeypatch.setenv(ONEDNN, value)
    finding = arithmetic_finding()
    assert (finding.status, finding.facts["onednn"]) == ("note", onednn_in_use())
    assert f"oneDNN {'on' if onednn_in_use() else 'off'}: {ONEDNN}={value} has no effect" in finding.text
