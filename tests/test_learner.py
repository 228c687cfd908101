import keras
import numpy as np
import pytest
import tensorflow as tf

from radtransfer.config.schema import TrainingSettings
from radtransfer.models.backbone import BACKBONES
from radtransfer.models.classifier import build_classifier
from radtransfer.training.step import (
    Learner,
    evaluation_mode,
    reestimate_statistics,
    settled_after,
    trainable_batch_norms,
)
from radtransfer.transfer.initialize import initialize_weights

BATCH, SIZE, CLASSES = 4, 16, 3


def make_learner(jit=False, dropout=0.5, **settings):
    classifier = build_classifier(
        BACKBONES["cbr_tiny"],
        classes=CLASSES,
        image_size=SIZE,
        activation="softmax",
        dropout=dropout,
        preprocessing="torch",
    )
    initialize_weights(classifier.model, None, None, seed=1)
    return Learner(classifier, TrainingSettings(learning_rate=1e-2, **settings), batch_size=BATCH, jit=jit)


def make_batch(seed=0, images=BATCH):
    rng = np.random.default_rng(seed)
    pixels = rng.uniform(0, 255, (images, SIZE, SIZE, 3)).astype(np.float32)
    targets = np.eye(CLASSES, dtype=np.float32)[rng.integers(CLASSES, size=images)]
    return tf.constant(pixels), tf.constant(targets), tf.ones(images)


def weights(learner):
    return learner.classifier.model.get_weights()


def check_same(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def shared_learner():
    return make_learner()


def train(learner, steps=3, seed=5):
    initialize_weights(learner.classifier.model, None, None, seed=seed)
    learner.reset(np.ones(CLASSES, np.float32))
    learner.seed_epoch(seed)
    return [float(learner.train(*make_batch(step))) for step in range(steps)]


def test_each_function_is_traced_once_for_all_folds(shared_learner):
    for _ in range(2):
        train(shared_learner)
        shared_learner.evaluate(*make_batch()[:2])
        shared_learner.observe(make_batch()[0])
    for function in (shared_learner.train, shared_learner.evaluate, shared_learner.observe):
        assert function.experimental_get_tracing_count() == 1


def test_a_reset_learner_equals_a_fresh_one(shared_learner):
    train(shared_learner, seed=9)
    used, fresh = train(shared_learner), make_learner()
    assert used == train(fresh)
    check_same(weights(shared_learner), weights(fresh))


def test_state_restores_exactly(shared_learner):
    train(shared_learner)
    state = list(shared_learner.state())
    shared_learner.seed_epoch(2)
    after = float(shared_learner.train(*make_batch(7)))
    shared_learner.restore(state)
    shared_learner.seed_epoch(2)
    assert float(shared_learner.train(*make_batch(7))) == after


def test_dropout_depends_on_the_epoch_seed_alone(shared_learner):
    losses = []
    for seed in (3, 3, 4):
        train(shared_learner, steps=0)
        shared_learner.seed_epoch(seed)
        losses.append(float(shared_learner.train(*make_batch())))
    assert losses[0] == losses[1] != losses[2]


def test_a_row_of_weight_zero_does_not_move_the_loss(shared_learner):
    images, targets, _ = make_batch()
    train(shared_learner, steps=0)
    full = float(shared_learner.train(images, targets, tf.ones(BATCH)))
    train(shared_learner, steps=0)
    last_of = float(shared_learner.train(images, targets, tf.constant([1.0, 1.0, 1.0, 0.0])))
    train(shared_learner, steps=0)
    wrong_label = tf.tensor_scatter_nd_update(targets, [[3]], [tf.roll(targets[3], 1, 0)])
    other_label = float(shared_learner.train(images, wrong_label, tf.constant([1.0, 1.0, 1.0, 0.0])))
    assert last_of == other_label < full


def test_evaluation_gives_the_probabilities_of_the_saved_model(shared_learner):
    images, targets, _ = make_batch()
    probabilities, losses = shared_learner.evaluate(images, targets)
    np.testing.assert_allclose(probabilities, shared_learner.classifier.model.predict(images, verbose=0), atol=1e-6)
    logits = shared_learner.classifier.logits.predict(images, verbose=0)
    expected = keras.losses.categorical_crossentropy(targets, logits, from_logits=True)
    np.testing.assert_allclose(losses, expected, rtol=1e-4)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "rmsprop"])
def test_every_optimizer_takes_a_step(optimizer):
    learner = make_learner(optimizer=optimizer, weight_decay=1e-4)
    before = weights(learner)
    assert np.isfinite(float(learner.train(*make_batch())))
    assert all((a != b).any() for a, b in zip(before, weights(learner), strict=True) if a.ndim == 4)


def test_statistics_are_those_of_the_training_images(shared_learner):
    train(shared_learner, steps=2)
    batches = [make_batch(seed) for seed in (1, 2, 3)]
    reestimate_statistics(shared_learner, batches)
    classifier = shared_learner.classifier
    first = keras.Model(classifier.model.input, classifier.model.get_layer("conv1").output)
    seen = np.concatenate([first.predict(images, verbose=0) for images, *_ in batches])
    layer = classifier.model.get_layer("bn1")
    np.testing.assert_allclose(layer.moving_mean, seen.mean(axis=(0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(layer.moving_variance, seen.var(axis=(0, 1, 2)), rtol=1e-4)


def test_reestimation_changes_nothing_else_and_spares_frozen_layers():
    learner = make_learner()
    train(learner, steps=1)
    frozen = learner.classifier.model.get_layer("bn2")
    frozen.trainable = False
    assert len(trainable_batch_norms(learner.classifier.model)) == 3
    before = {variable.path: np.array(variable) for variable in learner.classifier.model.weights}
    reestimate_statistics(learner, [make_batch(1)])
    for variable in learner.classifier.model.weights:
        moves = "moving" in variable.path and "bn2" not in variable.path
        assert (np.array(variable) != before[variable.path]).any() == moves, variable.path


def test_statistics_settle_after_five_time_constants():
    assert settled_after(0.9) == 50
    assert settled_after(0.99) == 500
    assert settled_after(None) == 0


@pytest.mark.parametrize("jit", [False, True])
def test_in_evaluation_mode_the_network_has_the_averages_and_statistics_of_its_own(jit):
    learner = make_learner(jit, ema_momentum=0.5)
    initialize_weights(learner.classifier.model, None, None, seed=1)
    learner.reset(np.ones(CLASSES, np.float32))
    trained = []
    for step in range(3):
        learner.train(*make_batch(step))
        trained.append(np.array(learner.classifier.model.trainable_variables[0]))
    state = list(learner.state())
    with evaluation_mode(learner, [make_batch(1)]):
        inside = weights(learner)
        kernel = np.array(learner.classifier.model.trainable_variables[0])
        reestimate_statistics(learner, [make_batch(1)])
        check_same(inside, weights(learner))
    np.testing.assert_allclose(kernel, trained[0] / 4 + trained[1] / 4 + trained[2] / 2, rtol=1e-5, atol=1e-7)
    check_same(state, learner.state())


def test_frozen_layers_do_not_move_and_their_statistics_stay():
    frozen = frozenset({"conv1", "bn1", "conv2", "bn2"})
    learner = Learner(make_learner().classifier, TrainingSettings(), batch_size=BATCH, jit=False, frozen=frozen)
    before = {variable.path: np.array(variable) for variable in learner.classifier.model.weights}
    train(learner, seed=1)
    for variable in learner.classifier.model.weights:
        moved = (np.array(variable) != before[variable.path]).any()
        assert moved == (variable.path.split("/")[0] not in frozen), variable.path
    assert len(learner.optimizer.variables) < len(make_learner().optimizer.variables)


def test_a_state_of_another_network_changes_nothing(shared_learner):
    from radtransfer.errors import RunError

    before = weights(shared_learner)
    state = [np.zeros_like(array) for array in shared_learner.state()]
    with pytest.raises(RunError, match="different network, optimizer or precision"):
        shared_learner.restore([*state[:-1], np.zeros((3, 3))])
    check_same(weights(shared_learner), before)
