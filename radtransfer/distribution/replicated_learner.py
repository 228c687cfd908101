"""A learner whose network stands on several devices, each of which computes its part of every batch.

The gradient is that of the whole batch, whatever the number of replicas: each divides its sum of losses by the images
of all, and the gradients are added up. Batch norm normalizes with the images of one replica, as is usual; after every
step the moving means of all replicas are averaged, and so are the moving variances, so that at any time each replica
holds the network that is validated and saved.
"""

from typing import Any

import numpy as np
import tensorflow as tf

from radtransfer.batch_norm import trainable_batch_norms
from radtransfer.classifier import Classifier
from radtransfer.distribution.replicas import Replicas
from radtransfer.layers import seed_states
from radtransfer.learner import Inputs, Learner
from radtransfer.seeds import derive_seed
from radtransfer.settings import TrainingSettings

_SUM, _MEAN = tf.distribute.ReduceOp.SUM, tf.distribute.ReduceOp.MEAN


class ReplicatedLearner(Learner):
    """Trains as `Learner` does, on many devices; every process makes it and calls it alike.

    `train`, `evaluate` and `observe` take this process's part of the batch.

    Args:
        classifier: Built in the scope of the strategy.
        settings: Optimizer, loss, and the batch size of all replicas together.
        replicas: They.
        jit: Compile what a replica computes with XLA; the exchange and the update are not.
        frozen: Names of layers that do not train.
    """

    def __init__(
        self,
        classifier: Classifier,
        settings: TrainingSettings,
        *,
        replicas: Replicas,
        jit: bool,
        frozen: frozenset[str] = frozenset(),
    ):
        self._replicas = replicas
        self._replica_gradients = tf.function(super()._gradients, jit_compile=jit)
        self._replica_evaluate = tf.function(super()._evaluate, jit_compile=jit)
        self._replica_logits = tf.function(self._training_logits, jit_compile=jit)
        with replicas.strategy.scope():
            super().__init__(
                classifier,
                settings,
                batch_size=settings.batch_size // replicas.workers,
                jit=False,
                frozen=frozen,
            )

    @property
    def is_chief(self) -> bool:
        return self._replicas.is_chief

    def from_chief(self, load: Any) -> Any:
        return self._replicas.from_chief(load)

    def reset(self, class_weights: np.ndarray) -> None:
        """As `Learner.reset`; besides, every process takes over the chief's weights."""
        super().reset(class_weights)
        self.restore(self._replicas.from_chief(lambda: (list(self.state()), None))[0])

    def seeds(self) -> list[np.ndarray]:
        """(replicas of this process, 2) for each generator."""
        return [np.stack([copy.numpy() for copy in copies]) for copies in self._seed_copies()]

    def set_seeds(self, seeds: list[np.ndarray]) -> None:
        for copies, states in zip(self._seed_copies(), seeds, strict=True):
            for copy, state in zip(copies, states, strict=True):
                copy.assign(state)

    def seed_epoch(self, seed: int) -> None:
        """As `Learner.seed_epoch`; each replica drops other units."""
        first = self._replicas.worker * self._replicas.local_count
        numbers = range(first, first + self._replicas.local_count)
        of_replicas = [derive_seed(seed, "replica", number) if number else seed for number in numbers]
        places = range(len(seed_states(self.classifier.model)))
        self.set_seeds([np.array([[own, place << 32] for own in of_replicas]) for place in places])

    def whole(self, found: list[tuple[tf.Tensor, ...]]) -> list[tuple[tf.Tensor, ...]]:
        """`found`, batch by batch (images of this process, …), with those of the other processes."""
        columns = [np.stack([array.numpy() for array in column]) for column in zip(*found, strict=True)]
        joined = [np.concatenate(self._replicas.gathered(column), axis=1) for column in columns]
        return list(zip(*map(tf.constant, joined), strict=True))

    def _seed_copies(self) -> list[tuple[tf.Variable, ...]]:
        copies = self._replicas.strategy.experimental_local_results
        return [copies(state.value) for state in seed_states(self.classifier.model)]

    def _train(self, inputs: Inputs, targets: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        return self._replicas.run(self._train_replica, inputs, targets, weights)[0]

    def _train_replica(self, inputs: Inputs, targets: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        context = tf.distribute.get_replica_context()
        count = tf.maximum(context.all_reduce(_SUM, tf.reduce_sum(weights)), 1.0)
        total, gradients = self._replica_gradients(inputs, targets, weights, count)
        self.optimizer.apply(gradients, self.classifier.model.trainable_variables)  # Keras adds them up
        self._average(context)
        return context.all_reduce(_SUM, total)

    def _evaluate(self, inputs: Inputs, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        results = self._replicas.run(self._replica_evaluate, inputs, targets)
        probabilities, losses = zip(*results, strict=True)
        return tf.concat(probabilities, axis=0), tf.concat(losses, axis=0)

    def _observe(self, inputs: Inputs) -> None:
        self._replicas.run(self._observe_replica, inputs)

    def _observe_replica(self, inputs: Inputs) -> tf.Tensor:
        """Statistics that began at zero become those of the whole batch, as one device would have measured them."""
        self._replica_logits(inputs)
        self._average(tf.distribute.get_replica_context(), from_zero=True)
        return tf.zeros([])

    def _training_logits(self, inputs: Inputs) -> tf.Tensor:
        return self._logits(inputs, training=True)

    def _average(self, context: tf.distribute.ReplicaContext, *, from_zero: bool = False) -> None:
        """Average the moving statistics over all replicas.

        With `from_zero` the variance is that of all images of the batch: the mean of the replicas' variances plus the
        variance of their means.
        """
        layers = trainable_batch_norms(self.classifier.model)
        if not layers:
            return
        own = [layer.moving_mean.value for layer in layers]
        means = _all_reduce_mean(context, own)
        variances = [layer.moving_variance.value for layer in layers]
        if from_zero:
            shares = [1.0 - layer.momentum for layer in layers]
            spread = [tf.square(x - mean) / share for x, mean, share in zip(own, means, shares, strict=True)]
            variances = [variance + more for variance, more in zip(variances, spread, strict=True)]
        variances = _all_reduce_mean(context, variances)
        for layer, mean, variance in zip(layers, means, variances, strict=True):
            layer.moving_mean.assign(mean)
            layer.moving_variance.assign(variance)


def _all_reduce_mean(context: tf.distribute.ReplicaContext, arrays: list[tf.Tensor]) -> list[tf.Tensor]:
    """Of vectors, in one exchange."""
    joined = context.all_reduce(_MEAN, tf.concat([tf.convert_to_tensor(array) for array in arrays], axis=0))
    return tf.split(joined, [array.shape[0] for array in arrays])
