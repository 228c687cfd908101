"""Checks of a learner on two devices against one on a single device; run as a process, which makes the devices."""

import functools

import numpy as np
import tensorflow as tf

from radtransfer.config.schema import SystemSettings, TrainingSettings
from radtransfer.models.backbone import BACKBONES
from radtransfer.models.classifier import build_classifier
from radtransfer.training.distributed import ReplicatedLearner, join
from radtransfer.training.step import Learner, evaluation_mode, reestimate_statistics, trainable_batch_norms
from radtransfer.transfer.initialize import initialize_weights

BATCH, SIZE, CLASSES = 8, 16, 3
SETTINGS = TrainingSettings(learning_rate=1e-2, batch_size=BATCH, ema_momentum=0.9)


def classifier(dropout):
    facts = {"classes": CLASSES, "image_size": SIZE, "activation": "softmax", "preprocessing": "unit"}
    return build_classifier(BACKBONES["cbr_tiny"], dropout=dropout, **facts)


def begin(learner):
    initialize_weights(learner.classifier.model, None, None, seed=1)
    learner.reset(np.ones(CLASSES, np.float32))
    learner.seed_epoch(5)
    return learner


@functools.cache
def new_replicated(dropout, jit):
    with REPLICAS.scope():
        built = classifier(dropout)
    return ReplicatedLearner(built, SETTINGS, replicas=REPLICAS, jit=jit)


def replicated():
    return begin(new_replicated(0.0, jit=False))


def compiled_with_dropout():
    return begin(new_replicated(0.5, jit=True))


@functools.cache
def new_single(images):
    return Learner(classifier(0.0), SETTINGS, batch_size=images, jit=False)


def single(images=BATCH):
    return begin(new_single(images))


def batch(seed):
    rng = np.random.default_rng(seed)
    pixels = (
        rng.uniform(0, 255, (BATCH, SIZE, SIZE, 3)).astype(np.float32) * np.linspace(0.2, 1, BATCH)[:, None, None, None]
    )
    targets = np.eye(CLASSES, dtype=np.float32)[rng.integers(CLASSES, size=BATCH)]
    return tf.constant(pixels, tf.float32), tf.constant(targets), tf.constant([1.0] * (BATCH - 1) + [0.0])


def statistics(learner):
    layers = trainable_batch_norms(learner.classifier.model)
    return [np.array(value) for layer in layers for value in (layer.moving_mean, layer.moving_variance)]


def check_statistics_are_the_mean_over_replicas():
    images, targets, weights = batch(0)
    both = replicated()
    loss, halves, half_losses = float(both.train(images, targets, weights)), [], []
    for part in (slice(0, 4), slice(4, 8)):
        half = single(4)
        half_losses.append(float(half.train(images[part], targets[part], weights[part])))
        halves.append(statistics(half))
    np.testing.assert_allclose(loss, sum(half_losses), rtol=1e-6)
    for mine, one, other in zip(statistics(both), *halves, strict=True):
        np.testing.assert_allclose(mine, (one + other) / 2, rtol=1e-4, atol=1e-6)
    whole = single()
    whole.train(images, targets, weights)
    assert np.abs(statistics(whole)[3] - statistics(both)[3]).max() > 1e-3


def check_replicas_stay_equal():
    both = compiled_with_dropout()
    for seed in range(3):
        both.train(*batch(seed))
    for variable in (*both.classifier.model.weights, *both.optimizer.variables):
        one, other = REPLICAS.strategy.experimental_local_results(variable.value)
        np.testing.assert_array_equal(one.numpy(), other.numpy(), err_msg=variable.path)


def check_each_replica_drops_other_units():
    both = compiled_with_dropout()
    (seeds,) = both.seeds()
    assert seeds[0][0] != seeds[1][0]
    with evaluation_mode(both, [batch(1)]):
        pass
    np.testing.assert_array_equal(both.seeds()[0], seeds)


def check_measured_statistics_are_those_of_the_whole_batch():
    """Of the first layer, whose input is the same; behind it batch norm has seen other images."""
    both, one = replicated(), single()
    for learner in (both, one):
        reestimate_statistics(learner, [batch(2), batch(3)])
    for mine, theirs in zip(statistics(both)[:2], statistics(one)[:2], strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)


def check_compiled_replicas_evaluate_the_same():
    images, targets, _ = batch(4)
    compiled, one = compiled_with_dropout(), single()
    for mine, theirs in zip(compiled.evaluate(images, targets), one.evaluate(images, targets), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


if __name__ == "__main__":
    REPLICAS = join(SystemSettings(distribute="mirrored"))
    if REPLICAS.count != 2:
        raise SystemExit(f"{REPLICAS.count} devices")
    for name, check in list(globals().items()):
        if name.startswith("check_"):
            check()
            print(name)
