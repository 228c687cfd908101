import keras
import numpy as np
import pytest
import tensorflow as tf

from radtransfer.config.schema import TrainingSettings
from radtransfer.models.backbone import BACKBONES, layers_up_to
from radtransfer.models.classifier import build_classifier, cut_network
from radtransfer.training.step import Learner
from radtransfer.transfer.initialize import initialize_weights

BATCH, SIZE, CLASSES = 4, 32, 3


def classifier(name="cbr_tiny", size=SIZE):
    built = build_classifier(
        BACKBONES[name], classes=CLASSES, image_size=size, activation="softmax", dropout=0.5, preprocessing="caffe"
    )
    initialize_weights(built.model, None, None, seed=1)
    return built


def frozen_through(built, name, layer):
    return layers_up_to(built.backbone, BACKBONES[name], layer)


def images(size=SIZE):
    return np.random.default_rng(0).uniform(0, 255, (BATCH, size, size, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "layer", "crossing"),
    [
        ("cbr_tiny", "stage1", 1),
        ("cbr_tiny", "stage3", 1),
        ("resnet50", "stage2", 1),
        ("resnet50", "conv3_block1_1_relu", 2),  # the shortcut crosses beside it
        ("inception_v3", "stem", 1),
        ("efficientnet_v2_b0", "stage1", 1),
    ],
)
def test_the_two_parts_are_the_network(name, layer, crossing):
    size = 75 if name == "inception_v3" else SIZE
    built = classifier(name, size)
    cut = cut_network(built, frozen_through(built, name, layer))
    assert len(cut.trunk.outputs) == crossing
    expected = built.logits(images(size), training=False)
    np.testing.assert_allclose(cut.logits(cut.features(images(size)), training=False), expected, rtol=1e-4, atol=1e-5)


def test_the_head_with_its_dropout_is_never_in_the_trunk():
    built = classifier()
    cut = cut_network(built, frozenset(layer.name for layer in built.backbone.layers))
    assert {layer.name for layer in cut.rest.layers} >= {"head_dropout", "head"}
    assert cut.trunk.outputs[0].shape[1:] == (256,)


def test_what_is_frozen_behind_a_trained_layer_is_not_in_the_trunk():
    built = classifier()
    cut = cut_network(built, frozenset({"conv1", "bn1", "conv3", "bn3"}))
    assert {layer.name for layer in cut.trunk.layers if layer.weights} == {"conv1", "bn1"}


@pytest.mark.parametrize("frozen", [frozenset(), frozenset({"conv2", "bn2"})])
def test_without_a_frozen_beginning_there_is_no_cut(frozen):
    assert cut_network(classifier(), frozen) is None


def learner(frozen, optimizer="adam", **options):
    settings = TrainingSettings(learning_rate=1e-2, optimizer=optimizer)
    return Learner(classifier(), settings, batch_size=BATCH, jit=False, frozen=frozen, **options)


def batch(inputs):
    return inputs, tf.constant(np.eye(CLASSES, dtype=np.float32)[[0, 1, 2, 0]]), tf.ones(BATCH)


def test_frozen_layers_and_their_statistics_stay_and_the_others_move():
    frozen = frozenset({"conv1", "bn1", "conv2", "bn2"})
    trained = learner(frozen)
    before = {layer.name: layer.get_weights() for layer in trained.classifier.model.layers}
    trained.train(*batch(tf.constant(images())))
    for layer in trained.classifier.model.layers:
        for old, new in zip(before[layer.name], layer.get_weights(), strict=True):
            assert np.array_equal(old, new) == (layer.name in frozen), layer.name


def test_gradient_work_stops_at_the_frozen_boundary():
    def gradients(frozen):
        graph = learner(frozen).train.get_concrete_function().graph
        return sum(operation.type.startswith("Conv2DBackprop") for operation in graph.get_operations())

    # Each convolution that is recorded has the gradient of its kernel and that of what it is given.
    assert gradients(frozenset()) == 8
    assert gradients(frozenset({"conv1", "bn1", "conv2", "bn2"})) == 4


def test_training_on_features_is_training_on_images():
    frozen = frozenset({"conv1", "bn1", "conv2", "bn2"})
    # Where a gradient is nearly 0, Adam would make a step of its rounding.
    on_images, on_features = (learner(frozen, "sgd", from_features=cached) for cached in (False, True))
    features = on_features.cut.features(images())
    for seed in (1, 2):
        for one in (on_images, on_features):
            one.seed_epoch(seed)
        a = float(on_images.train(*batch(tf.constant(images()))))
        b = float(on_features.train(*batch(features)))
        assert a == pytest.approx(b, rel=1e-5)
    for a, b in zip(on_images.classifier.model.get_weights(), on_features.classifier.model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_random_layers_of_the_trunk_are_off():
    built, name = classifier("efficientnet_v2_b0"), "efficientnet_v2_b0"

    def draws(frozen):
        trained = Learner(built, TrainingSettings(), batch_size=BATCH, jit=False, frozen=frozen)
        graph = trained.train.get_concrete_function().graph
        return sum(operation.type.startswith("StatelessRandomUniform") for operation in graph.get_operations())

    def random_layers(model):
        return sum(isinstance(layer, keras.layers.Dropout) and layer.rate > 0 for layer in model.layers)

    frozen = frozen_through(built, name, "stage2")
    rest = random_layers(cut_network(built, frozen).rest)
    assert rest < random_layers(built.model)
    assert draws(frozen) == rest
    assert draws(frozenset()) == random_layers(built.model)
