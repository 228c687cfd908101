"""The same work as `handwritten.py`, by radtransfer.

python ours.py step BACKBONE SIZE BATCH
python ours.py folds BACKBONE SIZE BATCH FOLDS
python ours.py train BACKBONE SIZE BATCH FOLDER
python ours.py evaluate BACKBONE SIZE BATCH         a turn is `predict`, then the bare forward passes
python ours.py both BACKBONE SIZE BATCH             a turn is training steps, then `predict` of as many batches
"""

import sys
import time

started = time.perf_counter()
import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from contest import serve, since, spent  # noqa: E402

from radtransfer.config.schema import TrainingSettings  # noqa: E402
from radtransfer.models.backbone import BACKBONES  # noqa: E402
from radtransfer.training.context import ModelCache  # noqa: E402
from radtransfer.training.loop import predict  # noqa: E402
from radtransfer.transfer.initialize import initialize_weights  # noqa: E402

imported = time.perf_counter()


def make_learner(backbone, size, batch):
    networks = ModelCache()
    facts = {"classes": 2, "activation": "softmax", "dropout": 0.5, "preprocessing": "tf", "precision": "float32"}
    classifier = networks.classifier(BACKBONES[backbone], image_size=size, widths={}, **facts)
    settings = TrainingSettings(batch_size=batch)
    return networks.learner(classifier, settings, jit=False, frozen=frozenset(), from_features=False)


def batch_of(size, batch):
    images = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3)).astype(np.float32)
    targets = np.eye(2, dtype=np.float32)[np.arange(batch) % 2]
    return tf.constant(images), tf.constant(targets), tf.ones(batch)


def begin(learner, seed):
    """What `finetune` does before the first step of a fold."""
    initialize_weights(learner.classifier.model, None, None, seed=seed)
    learner.reset(np.ones(2, np.float32))
    learner.seed_epoch(seed)


def stepping(learner, data):
    def steps(count):
        began, total = spent(), 0.0
        for images, targets, weights in data.take(count):
            learner.optimizer.learning_rate = 1e-4
            total += learner.train(images, targets, weights)
        float(total)
        return since(began)

    return steps


def repeated(size, batch):
    """The same batch again and again; without autotune, as `finetune` reads images.

    Freeing an autotuned iterator waits for the next 10 × (2ⁿ − 1) ms: 2.555, 5.11, 10.23 s on the clock.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return tf.data.Dataset.from_tensors(batch_of(size, batch)).cache().repeat().prefetch(2).with_options(options)


def step(backbone, size, batch):
    began = spent()
    learner = make_learner(backbone, size, batch)
    begin(learner, 0)
    steps = stepping(learner, repeated(size, batch))
    steps(1)
    serve(steps, first=since(began), imports=imported - started, tensorflow=tf.__version__, keras=keras.__version__)


def folds(backbone, size, batch, count):
    seconds, learner = [], None
    for number in range(int(count)):
        began = spent()
        learner = learner or make_learner(backbone, size, batch)
        begin(learner, number)
        stepping(learner, repeated(size, batch))(1)
        seconds.append(since(began))
    print(seconds)


def train(backbone, size, batch, folder):
    from radtransfer.config.load import load_config
    from radtransfer.training.run import finetune

    options = {
        "data.source": folder,
        "splits.folds": 1,
        "model.backbone": backbone,
        "model.image_size": size,
        "training.batch_size": batch,
        "training.epochs": 2,
        "training.augmentation": "none",
        "out": f"{folder}-run",
    }
    finetune(load_config(options=options))


def evaluate(backbone, size, batch):
    learner = make_learner(backbone, size, batch)
    begin(learner, 0)
    images, targets, weights = batch_of(size, batch)
    logits = tf.function(lambda x: learner.classifier.logits(x, training=False))

    def both(steps):
        began = spent()
        for _ in range(steps):
            logits(images).numpy()
        bare, began = since(began), spent()
        predict(learner, [(images, targets, weights)] * steps)
        return since(began), bare

    both(1)
    serve(both, tensorflow=tf.__version__)


def both(backbone, size, batch):
    learner = make_learner(backbone, size, batch)
    begin(learner, 0)
    steps, data = stepping(learner, repeated(size, batch)), batch_of(size, batch)

    def work(count):
        trained, began = steps(count), spent()
        predict(learner, [data] * count)
        return trained + since(began)

    work(1)
    serve(work, tensorflow=tf.__version__)


if __name__ == "__main__":
    what, backbone, size, batch, *rest = sys.argv[1:]
    work = {"step": step, "folds": folds, "train": train, "evaluate": evaluate, "both": both}[what]
    work(backbone, int(size), int(batch), *rest)
