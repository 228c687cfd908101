"""A network with its optimizer and its traced functions; re-set, not rebuilt, for every fold.

Tracing a large network costs longer than many of its steps, so one learner serves all folds and seeds of a run.
"""

import keras
import numpy as np
import tensorflow as tf

from radtransfer.classifier import Classifier
from radtransfer.losses import make_loss
from radtransfer.settings import TrainingSettings


class Learner:
    """Trains and evaluates one classifier, a batch at a time.

    Every function takes batches of one fixed shape and is traced once.

    Args:
        classifier: The network.
        settings: Optimizer and loss.
        batch_size: Images per batch, always.
        jit: Compile with XLA.
    """

    def __init__(self, classifier: Classifier, settings: TrainingSettings, *, batch_size: int, jit: bool):
        self.classifier = classifier
        self.optimizer = _make_optimizer(settings, mixed_float16=_uses_float16(classifier.model))
        self.optimizer.build(classifier.model.trainable_variables)
        self._fresh_optimizer = [np.array(variable) for variable in self.optimizer.variables]
        self._loss = make_loss(settings.loss, activation=classifier.activation)
        classes = classifier.model.output_shape[-1]
        self._class_weights = tf.Variable(tf.ones([classes]), trainable=False)
        images = tf.TensorSpec((batch_size, *classifier.model.input_shape[1:]), tf.float32)
        targets = tf.TensorSpec((batch_size, classes), tf.float32)
        weights = tf.TensorSpec((batch_size,), tf.float32)
        self.train = tf.function(self._train, input_signature=[images, targets, weights], jit_compile=jit)
        self.evaluate = tf.function(self._evaluate, input_signature=[images, targets], jit_compile=jit)
        self.observe = tf.function(self._observe, input_signature=[images], jit_compile=jit)

    def reset(self, class_weights: np.ndarray) -> None:
        """A fresh optimizer and these class weights; the network's weights are the caller's to set."""
        for variable, value in zip(self.optimizer.variables, self._fresh_optimizer, strict=True):
            variable.assign(value)
        self._class_weights.assign(class_weights)

    def seed_epoch(self, seed: int) -> None:
        """Make dropout of the coming epoch a pure function of `seed`."""
        for place, generator in enumerate(seed_generators(self.classifier.model)):
            generator.state.assign([seed, place << 32])

    def state(self) -> list[np.ndarray]:
        """Weights and optimizer, enough to go on exactly."""
        return [np.array(variable) for variable in self._variables()]

    def restore(self, state: list[np.ndarray]) -> None:
        """Set what `state` gave."""
        for variable, value in zip(self._variables(), state, strict=True):
            variable.assign(value)

    def _variables(self) -> list[keras.Variable]:
        return [*self.classifier.model.weights, *self.optimizer.variables]

    def _train(self, images: tf.Tensor, targets: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        """One step; gives the sum of the losses of the rows that count."""
        variables = self.classifier.model.trainable_variables
        with tf.GradientTape() as tape:
            losses = self._loss(targets, self.classifier.logits(images, training=True), self._class_weights)
            total = tf.reduce_sum(losses * weights)
            loss = self.optimizer.scale_loss(total / tf.maximum(tf.reduce_sum(weights), 1.0))
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        return total

    def _evaluate(self, images: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Probabilities (batch, classes) and unweighted loss (batch,), without dropout."""
        logits = self.classifier.logits(images, training=False)
        activation = tf.nn.softmax if self.classifier.activation == "softmax" else tf.nn.sigmoid
        return activation(tf.cast(logits, tf.float32)), self._loss(
            targets, logits, tf.ones_like(self._class_weights)
        )

    def _observe(self, images: tf.Tensor) -> None:
        """Let batch norm see a batch; nothing else changes."""
        self.classifier.logits(images, training=True)


def seed_generators(model: keras.Model) -> list[keras.random.SeedGenerator]:
    """The generators of a network's random layers (dropout, stochastic depth), in order."""
    return [layer.seed_generator for layer in model.layers if hasattr(layer, "seed_generator")]


def _make_optimizer(settings: TrainingSettings, *, mixed_float16: bool) -> keras.optimizers.Optimizer:
    rate, decay = settings.learning_rate, settings.weight_decay or None
    optimizer = {
        "adam": lambda: keras.optimizers.Adam(rate, weight_decay=decay),
        "adamw": lambda: keras.optimizers.AdamW(rate, weight_decay=settings.weight_decay),
        "sgd": lambda: keras.optimizers.SGD(rate, momentum=settings.momentum, weight_decay=decay),
        "rmsprop": lambda: keras.optimizers.RMSprop(rate, momentum=settings.momentum, weight_decay=decay),
    }[settings.optimizer]()
    return keras.optimizers.LossScaleOptimizer(optimizer) if mixed_float16 else optimizer


def _uses_float16(model: keras.Model) -> bool:
    return any(layer.compute_dtype == "float16" for layer in model.layers)
