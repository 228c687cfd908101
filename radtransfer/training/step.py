"""One training step: a network with its optimizer and traced functions, and the moving statistics of batch norm.

Tracing a large network takes longer than many of its steps, so one learner, reset for each fold, serves all folds of
a run and later runs that need the same one (see `context.ModelCache`).

After s steps at momentum m, moving statistics still contain a share m^s of their initial values: 43 % after 85 steps
at Keras' 0.99, which made a network of AUC 0.988 score 0.655. Up to step 5/(1 − m), when less than 1 % is left, the
statistics are therefore re-estimated on training images before each validation.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from radtransfer.config.schema import TrainingSettings
from radtransfer.errors import ConfigError, RunError
from radtransfer.models.classifier import Classifier, Cut, cut_network
from radtransfer.models.layers import seed_states, sub_layers
from radtransfer.training.losses import make_loss

Inputs = tf.Tensor | list[tf.Tensor]
"""Images, float32 (batch, height, width, 3), RGB, 0–255; or their features from the frozen layers, float32."""


class Evaluator:
    """Predicts with a network on batches of one fixed shape; traced once.

    `cut` splits the network where freezing ends; with `from_features` the inputs are the features at the cut.
    """

    def __init__(
        self,
        classifier: Classifier,
        *,
        loss: str,
        batch_size: int,
        jit: bool,
        cut: Cut | None = None,
        from_features: bool = False,
    ):
        self.classifier = classifier
        self._loss = make_loss(loss, activation=classifier.activation)
        self._activation = tf.nn.softmax if classifier.activation == "softmax" else tf.nn.sigmoid
        self.cut, self.from_features = cut, from_features
        images = tf.TensorSpec((batch_size, *classifier.logits.input_shape[1:]), tf.float32)
        features = [tf.TensorSpec((batch_size, *x.shape[1:]), tf.float32) for x in cut.rest.inputs] if cut else None
        self._inputs = features if from_features else images
        self._targets = tf.TensorSpec((batch_size, classifier.logits.output_shape[-1]), tf.float32)
        self.evaluate = tf.function(self._evaluate, input_signature=[self._inputs, self._targets], jit_compile=jit)

    def _logits(self, inputs: Inputs, *, training: bool) -> tf.Tensor:
        if self.cut is None:
            return tf.cast(self.classifier.logits(inputs, training=training), tf.float32)
        features = inputs if self.from_features else self.cut.features(inputs)
        return tf.cast(self.cut.logits(features, training=training), tf.float32)

    def _evaluate(self, inputs: Inputs, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Probabilities (batch, classes) and unweighted losses (batch,), without dropout."""
        logits = self._logits(inputs, training=False)
        return self._activation(logits), self._loss(targets, logits, tf.ones([logits.shape[-1]]))


class Learner(Evaluator):
    """Trains a network: holds its optimizer, frozen layers and class weights.

    Batch norm of `frozen` layers runs in inference mode. With `from_features` the inputs are the features of the
    frozen layers, if any are frozen. `averages` are the moving averages of the trainable weights, empty without
    `ema_momentum`.
    """

    def __init__(
        self,
        classifier: Classifier,
        settings: TrainingSettings,
        *,
        batch_size: int,
        jit: bool,
        frozen: frozenset[str] = frozenset(),
        from_features: bool = False,
    ):
        cut = cut_network(classifier, frozen)
        super().__init__(
            classifier,
            loss=settings.loss,
            batch_size=batch_size,
            jit=jit,
            cut=cut,
            from_features=from_features and cut is not None,
        )
        self._frozen = frozen
        self.freeze()
        mixed_float16 = any(layer.compute_dtype == "float16" for layer in classifier.model.layers)
        self.optimizer = make_optimizer(settings, mixed_float16=mixed_float16)
        # Without this the optimizer creates its variables in the first step, which is then traced twice.
        self.optimizer.build(classifier.model.trainable_variables)
        self.averages = weight_averages(self.optimizer)
        # Most slots start as zeros, of which only one is stored.
        initial = [np.array(variable) for variable in self.optimizer.variables]
        self._initial_optimizer = [x if x.any() else np.broadcast_to(np.zeros((), x.dtype), x.shape) for x in initial]
        self._class_weights = tf.Variable(tf.ones([self._targets.shape[-1]]), trainable=False)
        weights = tf.TensorSpec((batch_size,), tf.float32)
        self.train = tf.function(self._train, input_signature=[self._inputs, self._targets, weights], jit_compile=jit)
        self.observe = tf.function(self._observe, input_signature=[self._inputs], jit_compile=jit)

    def reset(self, class_weights: np.ndarray) -> None:
        """Reset the optimizer and set the class weights; the caller sets the weights of the network."""
        self.freeze()
        for variable, value in zip(self.optimizer.variables, self._initial_optimizer, strict=True):
            variable.assign(value)
        self._class_weights.assign(class_weights)

    def seed_epoch(self, seed: int) -> None:
        """Make dropout in the next epoch a pure function of `seed`."""
        self.set_seeds([np.array([seed, i << 32]) for i in range(len(seed_states(self.classifier.model)))])

    def seeds(self) -> list[np.ndarray]:
        return [np.array(state) for state in seed_states(self.classifier.model)]

    def set_seeds(self, seeds: list[np.ndarray]) -> None:
        for state, seed in zip(seed_states(self.classifier.model), seeds, strict=True):
            state.assign(seed)

    def state(self) -> Iterator[np.ndarray]:
        """The weights and the optimizer, one array at a time: enough to resume exactly."""
        return (np.array(variable) for variable in self._variables())

    def restore(self, state: list[np.ndarray]) -> None:
        """Set what `state` returned; RunError, with nothing set, if network, optimizer or precision differ."""
        variables = self._variables()
        if [array.shape for array in state] != [tuple(variable.shape) for variable in variables]:
            raise RunError(
                "The checkpoint belongs to a different network, optimizer or precision: "
                f"expected {len(variables)} arrays of matching shapes. Received: {len(state)} arrays. "
                "Delete the folder of this fold to start it again."
            )
        for variable, value in zip(variables, state, strict=True):
            variable.assign(value)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside the block the network has the averaged weights, if there are any."""

        def swap() -> None:
            pairs = zip(self.classifier.model.trainable_variables, self.averages, strict=True) if self.averages else ()
            for variable, average in pairs:
                value = np.array(variable)
                variable.assign(average)
                average.assign(value)

        swap()
        try:
            yield
        finally:
            swap()

    def freeze(self) -> None:
        """Set `trainable` of every layer; tracing a step reads it."""
        for layer in self.classifier.model.layers:
            layer.trainable = layer.name not in self._frozen

    def _variables(self) -> list[keras.Variable]:
        return [*self.classifier.model.weights, *self.optimizer.variables]

    def _train(self, inputs: Inputs, targets: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        """One step; returns the sum of the weighted losses."""
        total, gradients = self._gradients(inputs, targets, weights, tf.maximum(tf.reduce_sum(weights), 1.0))
        self.optimizer.apply(gradients, self.classifier.model.trainable_variables)
        return total

    def _gradients(
        self, inputs: Inputs, targets: tf.Tensor, weights: tf.Tensor, count: tf.Tensor
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """The sum of the weighted losses, and the gradients of that sum divided by `count`."""
        variables = self.classifier.model.trainable_variables
        # Watching only trainable variables keeps the frozen layers off the tape.
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([variable.value for variable in variables])
            losses = self._loss(targets, self._logits(inputs, training=True), self._class_weights)
            total = tf.reduce_sum(losses * weights)
            loss = self.optimizer.scale_loss(total / count)
        return total, tape.gradient(loss, variables)

    def _observe(self, inputs: Inputs) -> None:
        self._logits(inputs, training=True)


def learning_rate(settings: TrainingSettings, *, step: int, steps_per_epoch: int) -> float:
    """The learning rate of step `step`, from 0.

    Warm-up rises linearly and reaches the peak at its last step; "cosine" then falls to 0 at the end of `epochs`;
    "step" divides by 10 at each of `step_epochs`.

    References:
        Goyal et al. 2017, Accurate, Large Minibatch SGD, section 2.2 (warm-up, steps).
        Loshchilov & Hutter 2017, SGDR, equation 5 (cosine, one cycle).
    """
    warmup = round(settings.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    if settings.schedule == "cosine":
        share = (step - warmup) / max(settings.epochs * steps_per_epoch - warmup, 1)
        return settings.learning_rate * 0.5 * (1.0 + math.cos(math.pi * min(share, 1.0)))
    if settings.schedule == "step":
        passed = sum(step >= epoch * steps_per_epoch for epoch in settings.step_epochs)
        return settings.learning_rate * 0.1**passed
    return settings.learning_rate


def make_optimizer(settings: TrainingSettings, *, mixed_float16: bool) -> keras.optimizers.Optimizer:
    """The optimizer of the settings, with loss scaling for mixed float16."""
    rate, decay, momentum = settings.learning_rate, settings.weight_decay or None, settings.momentum
    average = {"use_ema": settings.ema_momentum is not None, "ema_momentum": settings.ema_momentum or 0.0}
    optimizer = {
        "adam": lambda: FusedAdam(rate, weight_decay=decay, **average),
        "adamw": lambda: FusedAdamW(rate, weight_decay=settings.weight_decay, **average),
        "sgd": lambda: FusedSGD(rate, momentum=momentum, weight_decay=decay, **average),
        "rmsprop": lambda: FusedRMSprop(rate, momentum=momentum, weight_decay=decay, **average),
    }[settings.optimizer]()
    return keras.optimizers.LossScaleOptimizer(optimizer) if mixed_float16 else optimizer


def weight_averages(optimizer: keras.optimizers.Optimizer) -> list[keras.Variable]:
    """The moving averages of the optimizer's variables, in their order; empty without `use_ema`."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return inner._model_variables_moving_average if inner.use_ema else []


class FusedAdamStep:
    """Adam's update (without AMSGrad) as one operation of TensorFlow.

    Keras composes it of about ten operations, each of which reads and writes a whole variable; the fused operation is
    traced faster and passes over memory once. The results are those of Keras except for rounding.
    """

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: Any) -> None:
        index = self._get_variable_index(variable)
        step = tf.cast(self.iterations.value + 1, tf.float32)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.pow(self.beta_1, step),
            beta2_power=tf.pow(self.beta_2, step),
            lr=learning_rate,
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )


class FusedAdam(FusedAdamStep, keras.optimizers.Adam):
    """Adam."""


class FusedAdamW(FusedAdamStep, keras.optimizers.AdamW):
    """AdamW."""


class FusedSGD(keras.optimizers.SGD):
    """Stochastic gradient descent, with momentum or without."""

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: Any) -> None:
        if not self.momentum:
            tf.raw_ops.ResourceApplyGradientDescent(var=variable.handle, alpha=learning_rate, delta=gradient)
            return
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=variable.handle,
            accum=self.momentums[self._get_variable_index(variable)].value.handle,
            lr=learning_rate,
            grad=gradient,
            momentum=self.momentum,
        )


class FusedRMSprop(keras.optimizers.RMSprop):
    """RMSprop, fused where it has momentum."""

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: Any) -> None:
        if not self.momentum:  # Keras then has no momentum variables, which the operation needs
            super().update_step(gradient, variable, learning_rate)
            return
        index = self._get_variable_index(variable)
        tf.raw_ops.ResourceApplyRMSProp(
            var=variable.handle,
            ms=self._velocities[index].value.handle,
            mom=self._momentums[index].value.handle,
            lr=learning_rate,
            rho=self.rho,
            momentum=self.momentum,
            epsilon=self.epsilon,
            grad=gradient,
        )


STATISTICS_IMAGES = 512  # maximum number of training images for re-estimating batch-norm statistics


def settled_after(momentum: float | None) -> int:
    """The step from which moving statistics need no re-estimation; 0 for networks without batch norm."""
    return 0 if momentum is None else round(5 / (1 - momentum))


def reestimate_statistics(learner: Learner, batches: Iterable[tuple[tf.Tensor, ...]]) -> None:
    """Set the moving statistics of every trainable batch-norm layer from `batches` of training images.

    The variance is that of all images: the mean of the batch variances plus the variance of the batch means.
    """
    layers = trainable_batch_norms(learner.classifier.model)
    if not layers:
        return
    means, variances = [], []
    for images, *_ in batches:
        # An update from zero gives (1 − momentum) times the statistics of the batch.
        _set_statistics(layers, [(0.0 * layer.moving_mean, 0.0 * layer.moving_variance) for layer in layers])
        learner.observe(images)
        means.append([np.array(layer.moving_mean, np.float64) / (1 - layer.momentum) for layer in layers])
        variances.append([np.array(layer.moving_variance, np.float64) / (1 - layer.momentum) for layer in layers])
    for i, layer in enumerate(layers):
        of_layer = np.stack([batch[i] for batch in means])
        layer.moving_mean.assign(of_layer.mean(axis=0))
        layer.moving_variance.assign(np.mean([batch[i] for batch in variances], axis=0) + of_layer.var(axis=0))


@contextmanager
def evaluation_mode(learner: Learner, batches: Iterable[tuple[tf.Tensor, ...]] | None) -> Iterator[None]:
    """Inside the block use averaged weights, if there are any, and batch-norm statistics from `batches`, if given.

    Averaged weights need their own statistics, as those gathered in training belong to other weights. Afterwards
    weights, statistics and the states of dropout are restored.

    References:
        Izmailov et al. 2018, Averaging Weights Leads to Wider Optima (arXiv 1803.05407), section 3.2.
    """
    with learner.averaged():
        if batches is None:
            yield
            return
        layers, seeds = trainable_batch_norms(learner.classifier.model), learner.seeds()
        before = [(np.array(layer.moving_mean), np.array(layer.moving_variance)) for layer in layers]
        reestimate_statistics(learner, batches)
        yield
        _set_statistics(layers, before)
        learner.set_seeds(seeds)


def copy_statistics(source: keras.Model, target: keras.Model) -> None:
    """Copy the moving statistics of batch-norm layers from `source` to the layers of the same name in `target`.

    A comparison then shows the effect of the weights alone: fine-tuning on other images changes the statistics at
    once, whatever the learning rate. Raises ConfigError if there are no such layers.
    """
    sources, targets = batch_norms(source), batch_norms(target)
    pairs = [(sources[name], layer) for name, layer in targets.items() if name in sources]
    pairs = [(other, layer) for other, layer in pairs if other.moving_mean.shape == layer.moving_mean.shape]
    if not pairs:
        raise ConfigError(
            "--batch-norm shared: expected batch-norm layers of the same name and width in both networks. "
            "Received: none. Leave the option out."
        )
    for other, layer in pairs:
        layer.moving_mean.assign(other.moving_mean)
        layer.moving_variance.assign(other.moving_variance)


def batch_norms(model: keras.Model) -> dict[str, keras.layers.BatchNormalization]:
    """The batch-norm layers of a model by name, with those inside other layers as `outer/inner`."""
    return {
        f"{layer.name}/{path}".rstrip("/"): part
        for layer in model.layers
        for path, part in sub_layers(layer).items()
        if isinstance(part, keras.layers.BatchNormalization)
    }


def trainable_batch_norms(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    return [layer for layer in batch_norms(model).values() if layer.trainable]


def _set_statistics(layers: list[keras.layers.BatchNormalization], values: list[tuple]) -> None:
    for layer, (mean, variance) in zip(layers, values, strict=True):
        layer.moving_mean.assign(mean)
        layer.moving_variance.assign(variance)
