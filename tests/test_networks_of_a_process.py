import tensorflow as tf

from radtransfer.config.schema import TrainingSettings
from radtransfer.models.backbone import BACKBONES
from radtransfer.training.context import ModelCache

FACTS = {
    "classes": 2,
    "activation": "softmax",
    "dropout": 0.5,
    "preprocessing": "torch",
    "precision": "float32",
    "widths": {},
}


def classifier_of(networks, size=16, backbone="cbr_tiny"):
    return networks.classifier(BACKBONES[backbone], image_size=size, **FACTS)


def learner_of(networks, classifier, *, frozen=frozenset(), **settings):
    settings = TrainingSettings(batch_size=4, **settings)
    return networks.learner(classifier, settings, jit=False, frozen=frozen, from_features=False)


def test_the_same_facts_give_the_same_network_as_if_it_were_new():
    networks = ModelCache()
    classifier = classifier_of(networks)
    before = classifier.model.get_weights()
    learner_of(networks, classifier, frozen=frozenset({"conv1"}))
    for variable in classifier.model.weights:
        variable.assign(tf.fill(variable.shape, 7.0))
    assert classifier_of(networks) is classifier
    assert all(layer.trainable for layer in classifier.model.layers)
    assert not any((array == 7.0).any() for array in classifier.model.get_weights())
    assert [array.shape for array in before] == [array.shape for array in classifier.model.get_weights()]


def test_other_facts_give_another_network_and_few_are_kept():
    networks = ModelCache()
    first = classifier_of(networks, size=16)
    assert classifier_of(networks, size=24) is not first
    assert classifier_of(networks, size=16) is first
    classifier_of(networks, size=32)
    assert classifier_of(networks, size=16) is first
    for size in (40, 48):
        classifier_of(networks, size=size)
    assert classifier_of(networks, size=16) is not first


def test_the_learning_rate_is_no_part_of_a_learner_and_what_is_traced_is():
    networks = ModelCache()
    classifier = classifier_of(networks)
    first = learner_of(networks, classifier, learning_rate=0.1)
    assert learner_of(networks, classifier, learning_rate=0.2, epochs=7) is first
    others = [
        learner_of(networks, classifier, frozen=frozenset({"conv1"})),
        learner_of(networks, classifier, optimizer="sgd"),
        learner_of(networks, classifier, weight_decay=0.1),
        learner_of(networks, classifier, loss="binary_crossentropy"),
    ]
    assert len({id(item) for item in (first, *others)}) == 5


def test_a_learner_that_is_taken_again_freezes_its_layers_again():
    networks = ModelCache()
    classifier = classifier_of(networks)
    frozen = learner_of(networks, classifier, frozen=frozenset({"conv1"}))
    learner_of(networks, classifier)
    assert classifier.model.get_layer("conv1").trainable
    assert learner_of(networks, classifier, frozen=frozenset({"conv1"})) is frozen
    assert not classifier.model.get_layer("conv1").trainable
