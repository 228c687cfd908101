"""Networks outside the table: their stages, and what is refused before one is built."""

import keras
import pytest
from keras import layers

from radtransfer.errors import ConfigError, UnknownNameError
from radtransfer.models.backbone import BACKBONES
from radtransfer.pretrained.any_network import APPLICATIONS, find_stages


def conv(x, name, *, strides=1, size=3):
    return layers.Conv2D(4, size, strides=strides, padding="same", name=name)(x)


@pytest.fixture
def image():
    return keras.Input((64, 64, 3))


def test_stages_end_where_the_maps_become_smaller(image):
    x = conv(image, "full")
    x = conv(x, "half", strides=2)
    x = layers.MaxPooling2D(name="pool")(x)
    x = conv(x, "quarter")
    x = conv(layers.ZeroPadding2D(1, name="padding")(x), "eighth", strides=2)
    assert find_stages(keras.Model(image, x)) == {"stem": "pool", "stage1": "quarter", "stage2": "eighth"}


def test_a_stage_ends_behind_its_branches_and_gates_do_not_count(image):
    x = conv(image, "stem", strides=2)
    gate = conv(layers.GlobalAveragePooling2D(keepdims=True)(x), "gate", size=1)
    x = layers.Multiply(name="gated")([x, gate])
    shortcut, y = conv(x, "shortcut", strides=2), conv(x, "down", strides=2)
    x = layers.Add(name="joined")([shortcut, y])
    vector = layers.Dense(5, name="last")(layers.GlobalAveragePooling2D()(x))
    assert find_stages(keras.Model(image, vector)) == {"stem": "gated", "stage1": "joined"}


def test_a_network_that_begins_with_patches_has_a_stem(image):
    x = conv(conv(image, "patches", strides=4, size=4), "first")
    x = conv(x, "second", strides=2)
    assert find_stages(keras.Model(image, x)) == {"stem": "patches", "stage1": "first", "stage2": "second"}


def test_a_network_without_maps_is_refused(image):
    with pytest.raises(ConfigError, match="expected a network with feature maps"):
        find_stages(keras.Model(image, layers.Dense(3)(layers.Flatten()(image))))


def test_names_are_checked_without_building_anything(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownNameError, match="keras.applications 'MobileNetV4'. Did you mean 'MobileNetV2'"):
        BACKBONES.check("keras:MobileNetV4")
    with pytest.raises(ConfigError, match="mine:build: expected MODULE:FUNCTION of a module that Python finds here"):
        BACKBONES.check("mine:build")
    (tmp_path / "mine.py").write_text("raise SystemExit('this must not run')")
    BACKBONES.check("mine:build")
    with pytest.raises(ConfigError, match=r"net\.keras: there is no such file"):
        BACKBONES.check("net.keras")
    assert "resnet51" not in BACKBONES
    assert BACKBONES.get("mine.missing:build") is None


def test_every_classifier_of_keras_is_known():
    classes = {name for name, value in vars(keras.applications).items() if callable(value) and name[0].isupper()}
    assert set(APPLICATIONS) == classes and len(APPLICATIONS) == 40
