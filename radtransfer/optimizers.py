"""Keras' optimizers with the update of a variable as one operation.

Keras composes an update of about ten operations, each of which reads and writes a whole variable; TensorFlow has one
for each rule, which is traced sooner and passes over memory once. Rules, variables and results are those of Keras but
for rounding.
"""

from typing import Any

import keras
import tensorflow as tf

from radtransfer.settings import TrainingSettings


def make_optimizer(settings: TrainingSettings, *, mixed_float16: bool) -> keras.optimizers.Optimizer:
    """The optimizer that the settings ask for; with loss scaling where it computes in float16."""
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
    """The moving averages of the variables that `optimizer` was built for, in their order; none without `use_ema`.

    As in Keras, the first step sets them to its weights.
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return inner._model_variables_moving_average if inner.use_ema else []


class FusedAdamStep:
    """The step of Adam without AMSGrad."""

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: Any) -> None:
        place = self._get_variable_index(variable)
        step = tf.cast(self.iterations.value + 1, tf.float32)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[place].value.handle,
            v=self._velocities[place].value.handle,
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
        if not self.momentum:  # Keras has no variables for it then, and the operation needs them
            super().update_step(gradient, variable, learning_rate)
            return
        place = self._get_variable_index(variable)
        tf.raw_ops.ResourceApplyRMSProp(
            var=variable.handle,
            ms=self._velocities[place].value.handle,
            mom=self._momentums[place].value.handle,
            lr=learning_rate,
            rho=self.rho,
            momentum=self.momentum,
            epsilon=self.epsilon,
            grad=gradient,
        )
