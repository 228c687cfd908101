"""Files written by Keras 2 (tf_keras) give the same features in our networks, however they were saved."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from radtransfer.models.architecture import build_architecture
from radtransfer.pretrained.match import assign, load_pretrained
from radtransfer.pretrained.source import find_weights

SIZE = 80
NETWORKS = {
    "resnet50": "ResNet50",
    "inception_v3": "InceptionV3",
    "densenet121": "DenseNet121",
    "inception_resnet_v2": "InceptionResNetV2",
}
MODERN = {"efficientnet_v2_b0": "EfficientNetV2B0", "convnext_tiny": "ConvNeXtTiny"}


def save_weights_only(backbone, path: Path) -> None:
    backbone.save_weights(path)


def save_whole(backbone, path: Path) -> None:
    backbone.save(path)


def save_with_head(backbone, path: Path) -> None:
    headed(backbone, backbone.output).save_weights(path)


def save_with_convolutional_head(backbone, path: Path) -> None:
    import tf_keras

    x = tf_keras.layers.Conv2D(8, 3, padding="same")(backbone.output)
    x = tf_keras.layers.BatchNormalization()(x)
    headed(backbone, x).save(path)


def save_nested(backbone, path: Path) -> None:
    nested(backbone).save_weights(path)


def save_nested_half_frozen(backbone, path: Path) -> None:
    with half_frozen(backbone):
        nested(backbone).save(path)


def save_half_frozen(backbone, path: Path) -> None:
    with half_frozen(backbone):
        headed(backbone, backbone.output).save(path)


def save_sequential(backbone, path: Path) -> None:
    sequential(backbone).save_weights(path)


def save_sequential_whole(backbone, path: Path) -> None:
    sequential(backbone).save(path)


def save_behind_an_adapter(backbone, path: Path) -> None:
    """Grey images become colour ones by a convolution of the user's own, in front of the network."""
    import tf_keras

    grey = tf_keras.Input((SIZE, SIZE, 1))
    adapted = tf_keras.layers.Conv2D(3, 1, use_bias=False)(grey)
    tf_keras.Model(grey, backbone(adapted)).save_weights(path)


# Written with the suffix of another format each, since the suffix must not matter.
VARIANTS: dict[str, tuple[Callable, str]] = {
    "weights only": (save_weights_only, "h5"),
    "whole model": (save_whole, "h5"),
    "with head": (save_with_head, "h5"),
    "with convolutional head": (save_with_convolutional_head, "h5"),
    "nested": (save_nested, "h5"),
    "nested, half frozen": (save_nested_half_frozen, "h5"),
    "half frozen": (save_half_frozen, "h5"),
    "sequential": (save_sequential, "h5"),
    "sequential, whole": (save_sequential_whole, "h5"),
    "adapter": (save_behind_an_adapter, "h5"),
    "weights.h5": (save_weights_only, "weights.h5"),
    "weights.h5 with head": (save_with_head, "weights.h5"),
    "weights.h5 nested": (save_nested, "weights.h5"),
    "weights.h5 sequential": (save_sequential, "weights.h5"),
    "keras archive": (save_whole, "keras"),
    "keras archive nested": (save_nested_half_frozen, "keras"),
}
QUICK = [("inception_v3", variant, numbering) for variant in VARIANTS for numbering in ("offset",)]
QUICK += [("inception_v3", "weights only", "fresh"), ("inception_v3", "nested, half frozen", "fresh")]
QUICK += [("densenet121", "nested, half frozen", "offset"), ("densenet121", "with head", "offset")]
QUICK += [("resnet50", "whole model", "offset"), ("resnet50", "weights.h5 with head", "offset")]
QUICK += [("inception_resnet_v2", "with convolutional head", "offset")]
EVERY = [
    (network, variant, numbering)
    for network in NETWORKS
    for variant in VARIANTS
    for numbering in ("fresh", "offset")
    if (network, variant, numbering) not in QUICK
]


@pytest.mark.parametrize(("network", "variant", "numbering"), QUICK)
def test_a_keras_2_file_gives_the_same_features(network, variant, numbering, keras_2, ours, tmp_path):
    check_features(network, NETWORKS[network], variant, numbering, keras_2, ours, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("network", "variant", "numbering"), EVERY)
def test_every_keras_2_file_gives_the_same_features(network, variant, numbering, keras_2, ours, tmp_path):
    check_features(network, NETWORKS[network], variant, numbering, keras_2, ours, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["weights only", "nested", "weights.h5"])
@pytest.mark.parametrize("network", MODERN)
def test_a_modern_keras_2_file_gives_the_same_features(network, variant, keras_2, ours, tmp_path):
    if (network, variant) == ("convnext_tiny", "weights.h5"):
        pytest.skip("such a file keeps neither names nor the order between classes")
    check_features(network, MODERN[network], variant, "offset", keras_2, ours, tmp_path)


def check_features(network, application, variant, numbering, keras_2, ours, folder):
    reference, image, expected = keras_2(application, numbering)
    save, suffix = VARIANTS[variant]
    written, renamed = folder / f"written.{suffix}", folder / "renamed.bin"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tf_keras, on its own formats
        save(reference, written)
    written.rename(renamed)
    model = ours(network)
    erase(model)
    pretrained = load_pretrained(find_weights(str(renamed)), backbone=network, model=model)
    assert not any(weight.numpy().any() for weight in model.weights), "planning must not touch the model"
    assign(model, pretrained.layers)
    found = np.asarray(model(image, training=False))
    assert np.abs(found - expected).max() / np.abs(expected).max() < 1e-5
    assert len(pretrained.layers) == sum(bool(layer.weights) for layer in model.layers)
    assert pretrained.changed == len(pretrained.layers)


@pytest.fixture(scope="module")
def keras_2():
    """Builds a network with Keras 2 once: the network, an image and its features."""
    made = {}

    def build(application: str, numbering: str):
        if (application, numbering) not in made:
            made[application, numbering] = build_keras_2(application, numbering)
        return made[application, numbering]

    return build


@pytest.fixture(scope="module")
def ours():
    made = {}

    def build(network: str):
        if network not in made:
            made[network] = build_architecture(network, image_size=SIZE)
        return made[network]

    return build


def build_keras_2(application: str, numbering: str):
    tf_keras = pytest.importorskip("tf_keras")
    tf_keras.backend.reset_uids()
    if numbering == "offset":
        tf_keras.Sequential([tf_keras.layers.Conv2D(1, 1), tf_keras.layers.BatchNormalization()])
    options = {"include_preprocessing": False} if application in MODERN.values() else {}
    build = getattr(tf_keras.applications, application)
    network = build(weights=None, include_top=False, input_shape=(SIZE, SIZE, 3), **options)
    rng = np.random.default_rng(0)
    for weight in network.weights:
        factor = rng.uniform(0.8, 1.2, weight.shape)
        shift = rng.uniform(0, 0.1, weight.shape) if len(weight.shape) == 1 else 0
        weight.assign(weight.numpy() * factor + shift)
    image = rng.standard_normal((1, SIZE, SIZE, 3)).astype("float32")
    features = np.asarray(network(image, training=False))
    return network, image, pooled(network, image) if "ConvNeXt" in application else features.mean(axis=(1, 2))


def pooled(network, image):
    """ConvNeXt's last normalization stands behind the pooling, if there is one."""
    import tf_keras

    *_, before, norm = network.layers
    feature_map = tf_keras.Model(network.input, before.output)(image, training=False)
    return np.asarray(norm(np.asarray(feature_map).mean(axis=(1, 2), keepdims=True)))[:, 0, 0]


def headed(backbone, x):
    import tf_keras

    x = tf_keras.layers.GlobalAveragePooling2D()(x)
    x = tf_keras.layers.Dense(16, activation="relu")(tf_keras.layers.Dropout(0.5)(x))
    return tf_keras.Model(backbone.input, tf_keras.layers.Dense(2, activation="softmax")(x))


def nested(backbone):
    import tf_keras

    image = tf_keras.Input((SIZE, SIZE, 3))
    x = tf_keras.layers.GlobalAveragePooling2D()(backbone(image))
    return tf_keras.Model(image, tf_keras.layers.Dense(2)(x))


def sequential(backbone):
    import tf_keras

    layers = tf_keras.layers
    convolution = [layers.Conv2D(4, 1), layers.BatchNormalization(), layers.GlobalAveragePooling2D()]
    return tf_keras.Sequential([backbone, *convolution, layers.Dense(2)])


class half_frozen:  # noqa: N801
    """Freezes every third layer of the first half while the block runs, so that the saved order changes."""

    def __init__(self, backbone):
        self.layers = backbone.layers[: len(backbone.layers) // 2 : 3]

    def __enter__(self):
        for layer in self.layers:
            layer.trainable = False

    def __exit__(self, *_):
        for layer in self.layers:
            layer.trainable = True


def erase(model) -> None:
    for weight in model.weights:
        weight.assign(np.zeros(weight.shape))
