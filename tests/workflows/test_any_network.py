"""Networks outside the table through the commands: the user's own function and file, and one of keras.applications."""

import hashlib
import json
import subprocess
import sys

import keras
import numpy as np
import pytest

OWN = """
import keras
from keras import layers

def build(image_size):
    image = keras.Input((image_size, image_size, 3))
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(image)
    x = x + layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    x = layers.Conv2D(16, 3, strides=2, padding="same", name="second")(x)
    x = layers.BatchNormalization(name="norm")(x)
    return keras.Model(image, layers.GlobalAveragePooling2D()(x))

def pair(image_size):
    image = keras.Input((image_size, image_size, 3))
    return keras.Model(image, [image, image])
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_network.py").write_text(OWN)
    yield tmp_path
    sys.modules.pop("own_network", None)


def finetune(radtransfer, tiny_images, out, *arguments):
    data = ("--data", tiny_images / "images.csv", "--image-root", tiny_images / "images")
    training = ("--folds", 2, "--fold", 1, "--epochs", 1, "--batch-size", 8, "--learning-rate", "1e-3")
    outcome = radtransfer("finetune", *data, *training, "--out", out, *arguments)
    assert outcome.code == 0, outcome.err
    return json.loads((out / "run.json").read_text())


def test_a_function_of_the_user_is_trained_compared_and_explained(radtransfer, tiny_images, here):
    own = ("--backbone", "own_network:build", "--image-size", 24)
    record = finetune(radtransfer, tiny_images, here / "run", *own, "--freeze-to", "stem")
    assert record["backbone"] == "own_network:build"
    assert record["code"]["sha256"] == hashlib.sha256(OWN.encode()).hexdigest()
    assert [(stage["stage"], stage["trains"]) for stage in record["plan"]["stages"]] == [
        ("stem", False),
        ("stage1", True),
    ]
    outcome = radtransfer("compare-cca", "run@initial", "run", "--similarity", "cka", "--repeats", 1, "--json")
    assert outcome.code == 0, outcome.err
    assert [row["layer"] for row in json.loads(outcome.out)["layers"]] == ["stem", "stage1"]
    outcome = radtransfer("explain", "run", "--limit", 2, "--out", "sheet")
    assert outcome.code == 0, outcome.err
    # What was trained is plain Keras: it opens, and is a network again, where the code is not.
    program = "import keras, sys; print(keras.models.load_model(sys.argv[1]).output_shape)"
    done = subprocess.run(
        [sys.executable, "-c", program, str(here / "run" / "fold_1" / "model.keras")],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    )
    assert done.stdout.strip() == "(None, 2)"


def test_a_file_of_the_user_gives_a_network_and_its_weights(radtransfer, tiny_images, here):
    exec(OWN, names := {})
    model = names["build"](24)
    model.set_weights([np.random.default_rng(0).normal(size=w.shape) for w in model.get_weights()])
    model.save("net.keras")
    record = finetune(
        radtransfer, tiny_images, here / "run", "--backbone", "net.keras", "--weights", "net.keras", "--image-size", 24
    )
    assert {stage["starts_from"] for stage in record["plan"]["stages"]} == {"pretrained"}
    outcome = radtransfer("plan", "net.keras", "--image-size", 32)
    assert outcome.code == 2 and "net.keras takes images of 24 pixels only. Received: 32." in outcome.err


def test_networks_that_cannot_be_used_are_refused_in_one_sentence(radtransfer, here):
    for name, reason in {
        "own_network:missing": "module 'own_network' has no attribute 'missing'",
        "own_network:pair": "expected a functional model of one image",
    }.items():
        outcome = radtransfer("plan", name)
        assert outcome.code == 2 and reason in outcome.err and "bug" not in outcome.err


def test_a_classifier_of_keras_takes_its_weights_from_keras(radtransfer, here, monkeypatch):
    # Keras downloads the weights; here it makes them up.
    original = keras.applications.MobileNetV2

    def offline(*arguments, weights=None, **options):
        return original(*arguments, weights=None, **options)

    monkeypatch.setattr(keras.applications, "MobileNetV2", offline)
    monkeypatch.setenv("RADTRANSFER_CACHE", str(here / "cache"))
    outcome = radtransfer("plan", "keras:MobileNetV2", "--weights", "imagenet", "--image-size", 64, "--json")
    assert outcome.code == 0, outcome.err
    assert "Keras loads its ImageNet weights of MobileNetV2" in outcome.err
    stages = json.loads(outcome.out)["stages"]
    assert [stage["stage"] for stage in stages] == ["stem", "stage1", "stage2", "stage3", "stage4"]
    assert {stage["starts_from"] for stage in stages} == {"pretrained"}
