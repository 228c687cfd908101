"""Training on several devices, of one process or of several workers; only this module knows about workers.

A run asks its `Coordinator` who writes files, what the chief sent, and which part of a batch this process trains on.
With one device all its methods are no-ops; `Replicas` coordinates copies of the network on several devices.
"""

import hashlib
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property, partial
from typing import Any

import numpy as np
import tensorflow as tf

from radtransfer.config.schema import SystemSettings, TrainingSettings
from radtransfer.errors import ConfigError, WorkerLostError
from radtransfer.images.pipeline import Batches
from radtransfer.models.classifier import Classifier
from radtransfer.models.layers import seed_states
from radtransfer.process import ONEDNN, derive_seed
from radtransfer.training.checkpoint import from_bytes, to_bytes
from radtransfer.training.cluster import Cluster, find_cluster, wait_for_workers
from radtransfer.training.step import Inputs, Learner, trainable_batch_norms

LOGICAL_CPUS = "RADTRANSFER_LOGICAL_CPUS"
"""Environment variable: splits the CPU into so many devices, to try `mirrored` without GPUs."""

_SUM, _MEAN = tf.distribute.ReduceOp.SUM, tf.distribute.ReduceOp.MEAN


class Coordinator:
    """One process with one device: every method is a no-op. Worker 0 is the chief."""

    count, workers, worker = 1, 1, 0
    distributed = False

    @property
    def is_chief(self) -> bool:
        return self.worker == 0

    def broadcast(self, value: Any) -> Any:
        """The chief's `value`, of JSON types, on every worker."""
        return value

    def from_chief(self, load: Callable[[], Any]) -> Any:
        """The result of `load` on the chief, sent to every worker: (arrays, record) or None."""
        return load()

    def gather(self, batches: list[tuple[tf.Tensor, ...]]) -> list[tuple[tf.Tensor, ...]]:
        """The tensors of each batch, (images of this worker, …), joined with those of the other workers."""
        return batches

    def check_same(self, facts: Mapping[str, Any]) -> None:
        """Raise ConfigError if `facts` differ between a worker and the chief."""

    def watch(self) -> AbstractContextManager[None]:
        """Turn the loss of another worker inside the block into a WorkerLostError that names it."""
        return nullcontext()

    def scope(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def part(self, batches: Batches) -> Batches:
        return batches

    def learner(self, classifier: Classifier, settings: TrainingSettings, **options: Any) -> Learner:
        return Learner(classifier, settings, batch_size=settings.batch_size, **options)

    def record(self) -> dict[str, int]:
        return {}

    def describe(self, training: TrainingSettings, *, batch_norm: bool) -> str:
        """Lines for the user on how the training is distributed; "" for one device."""
        return ""


class Replicas(Coordinator):
    """Copies of one network that take the same steps, one on each device of `cluster` or of this process."""

    distributed = True

    def __init__(self, strategy: tf.distribute.Strategy, cluster: Cluster | None = None):
        self.strategy, self.cluster = strategy, cluster
        self.workers, self.worker = (len(cluster.hosts), cluster.index) if cluster else (1, 0)

    @property
    def count(self) -> int:
        return self.strategy.num_replicas_in_sync

    @property
    def local_count(self) -> int:
        return self.count // self.workers

    def broadcast(self, value: Any) -> Any:
        return self.from_chief(lambda: ([], value))[1]

    def from_chief(self, load: Callable[[], Any]) -> Any:
        if self.workers == 1:
            return load()
        loaded = load() if self.is_chief else None
        data = b"" if loaded is None else to_bytes(*loaded)
        size = int(self._sum(tf.constant([len(data) if self.is_chief else 0], tf.int64))[0])
        data = data if self.is_chief else bytes(size)  # zeros, so that the sum over workers is the chief's data
        words = np.frombuffer(data + bytes(-size % 4), np.int32)
        data = self._sum(tf.constant(words)).numpy().tobytes()[:size]
        return loaded if self.is_chief or not data else from_bytes(data)

    def gather(self, batches: list[tuple[tf.Tensor, ...]]) -> list[tuple[tf.Tensor, ...]]:
        columns = [np.stack([array.numpy() for array in column]) for column in zip(*batches, strict=True)]
        joined = [np.concatenate(self.gathered(column), axis=1) for column in columns]
        return list(zip(*map(tf.constant, joined), strict=True))

    def gathered(self, array: np.ndarray) -> np.ndarray:
        """`array`, of the same shape and dtype on every worker, from all of them: (workers, …)."""
        if self.workers == 1:
            return array[None]
        words = np.frombuffer(array.tobytes() + bytes(-array.nbytes % 4), np.int32)
        rows = np.zeros((self.workers, len(words)), np.int32)
        rows[self.worker] = words
        data = [row.tobytes()[: array.nbytes] for row in self._sum(tf.constant(rows)).numpy()]
        return np.stack([np.frombuffer(row, array.dtype).reshape(array.shape) for row in data])

    def check_same(self, facts: Mapping[str, Any]) -> None:
        digests = [hashlib.sha256(json.dumps(value, sort_keys=True).encode()).digest() for value in facts.values()]
        gathered = self.gathered(np.frombuffer(b"".join(digests), np.uint8).reshape(len(facts), -1))
        differing = (gathered != gathered[0]).any(axis=2)
        for worker in np.flatnonzero(differing.any(axis=1)):
            names = ", ".join(name for name, differs in zip(facts, differing[worker], strict=True) if differs)
            raise ConfigError(
                f"Expected the same run on every worker. Worker {worker} and worker 0 differ in: {names}. Start all "
                f"workers with the same version, settings, weights, images and {ONEDNN}; only --worker-index differs."
            )

    @contextmanager
    def watch(self) -> Iterator[None]:
        """As in `Coordinator`. TensorFlow detects a worker that ended at once, one that hangs after ten seconds."""
        try:
            yield
        except (
            tf.errors.UnavailableError,
            tf.errors.AbortedError,
            tf.errors.CancelledError,
            tf.errors.DeadlineExceededError,
            tf.errors.InternalError,
            tf.errors.FailedPreconditionError,
            tf.errors.UnknownError,
        ) as error:
            if self.cluster is None:
                raise
            lost = [f"worker {i} ({self.cluster.hosts[i]})" for i in self.cluster.unreachable()]
            reason = "" if lost else f" TensorFlow says: {_last_line(error)}"
            raise WorkerLostError(
                f"{' and '.join(lost) or 'Another worker'} has stopped or hangs, so {self.cluster.title} cannot "
                "continue. Find out why, then start every worker again with --resume: the run continues after its "
                f"last finished epoch.{reason}"
            ) from error

    def scope(self) -> AbstractContextManager[Any]:
        return self.strategy.scope()

    def part(self, batches: Batches) -> Batches:
        return batches.part(self.worker, self.workers)

    def learner(self, classifier: Classifier, settings: TrainingSettings, **options: Any) -> Learner:
        return ReplicatedLearner(classifier, settings, replicas=self, **options)

    def record(self) -> dict[str, int]:
        return {"replicas": self.count, "workers": self.workers}

    def describe(self, training: TrainingSettings, *, batch_norm: bool) -> str:
        size, where = training.batch_size // self.count, "on this machine"
        batch = f"batch {training.batch_size} over all replicas, {size} images per replica"
        if self.cluster is not None:
            where = (
                f"in {self.workers} workers, {self.local_count} each; this is {self.cluster.title}; "
                "only worker 0 writes the run folder"
            )
            batch += f"; each worker reads its part of every batch, {size * self.local_count} images"
        rate = f"learning rate {training.learning_rate:g} for the whole batch, not scaled by the number of replicas"
        lines = [f"{self.count} {where}", batch, rate]
        if batch_norm:
            lines.append(
                "batch norm normalizes over the images of one replica; its moving statistics are averaged over "
                "replicas after every step"
            )
        return "\n".join(lines)

    def run(self, function: Callable, *arrays: Any) -> tuple[Any, ...]:
        """Run `function` on every replica of this process with its part of `arrays`; to be called in a tf.function.

        `arrays` are tensors or lists of them, (images of this process, …), split equally between the replicas.
        """

        def part(array: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
            if self.local_count == 1:
                return array
            with tf.device("/device:CPU:0"):  # so that only this part is copied to the device
                return tf.reshape(array, (self.local_count, -1, *array.shape[1:]))[number]

        def on_replica(*arrays: Any) -> Any:
            number = tf.distribute.get_replica_context().replica_id_in_sync_group % self.local_count
            return function(*tf.nest.map_structure(lambda array: part(array, number), arrays))

        return self.strategy.experimental_local_results(self.strategy.run(on_replica, args=arrays))

    @cached_property
    def _sum(self) -> Callable[[tf.Tensor], tf.Tensor]:
        """Sums an array over the workers."""

        def on_replica(array: tf.Tensor) -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            first = context.replica_id_in_sync_group % self.local_count == 0
            return context.all_reduce(_SUM, array * tf.cast(first, array.dtype))

        def total(array: tf.Tensor) -> tf.Tensor:
            return self.strategy.experimental_local_results(self.strategy.run(on_replica, args=(array,)))[0]

        return tf.function(total, reduce_retracing=True)


class ReplicatedLearner(Learner):
    """A `Learner` on several devices; every process creates one and makes the same calls.

    The gradient is that of the whole batch: each replica divides its sum of losses by the images of all, and the
    gradients are summed. Batch norm normalizes over the images of one replica, as usual; after every step the moving
    means and variances are averaged over the replicas, so that all have the same network.

    `train`, `evaluate` and `observe` take this process's part of the batch.
    """

    def __init__(
        self,
        classifier: Classifier,
        settings: TrainingSettings,
        *,
        replicas: Replicas,
        jit: bool,
        frozen: frozenset[str] = frozenset(),
        from_features: bool = False,
    ):
        self._replicas = replicas
        self._replica_gradients = tf.function(super()._gradients, jit_compile=jit)
        self._replica_evaluate = tf.function(super()._evaluate, jit_compile=jit)
        self._replica_logits = tf.function(partial(self._logits, training=True), jit_compile=jit)
        with replicas.scope():
            super().__init__(
                classifier, settings, batch_size=settings.batch_size // replicas.workers, jit=False, frozen=frozen
            )

    def reset(self, class_weights: np.ndarray) -> None:
        """As `Learner.reset`; then every process takes the chief's weights."""
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
        """As `Learner.seed_epoch`, with a different seed on each replica."""
        first = self._replicas.worker * self._replicas.local_count
        numbers = range(first, first + self._replicas.local_count)
        seeds = [derive_seed(seed, "replica", number) if number else seed for number in numbers]
        count = len(seed_states(self.classifier.model))
        self.set_seeds([np.array([[seed, i << 32] for seed in seeds]) for i in range(count)])

    def _seed_copies(self) -> list[tuple[tf.Variable, ...]]:
        copies = self._replicas.strategy.experimental_local_results
        return [copies(state.value) for state in seed_states(self.classifier.model)]

    def _train(self, inputs: Inputs, targets: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        return self._replicas.run(self._train_replica, inputs, targets, weights)[0]

    def _train_replica(self, inputs: Inputs, targets: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        context = tf.distribute.get_replica_context()
        count = tf.maximum(context.all_reduce(_SUM, tf.reduce_sum(weights)), 1.0)
        total, gradients = self._replica_gradients(inputs, targets, weights, count)
        self.optimizer.apply(gradients, self.classifier.model.trainable_variables)  # sums them over the replicas
        self._average(context)
        return context.all_reduce(_SUM, total)

    def _evaluate(self, inputs: Inputs, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        results = self._replicas.run(self._replica_evaluate, inputs, targets)
        probabilities, losses = zip(*results, strict=True)
        return tf.concat(probabilities, axis=0), tf.concat(losses, axis=0)

    def _observe(self, inputs: Inputs) -> None:
        """Statistics that started at zero become those of the whole batch, as on one device."""

        def on_replica(inputs: Inputs) -> tf.Tensor:
            self._replica_logits(inputs)
            self._average(tf.distribute.get_replica_context(), from_zero=True)
            return tf.zeros([])

        self._replicas.run(on_replica, inputs)

    def _average(self, context: tf.distribute.ReplicaContext, *, from_zero: bool = False) -> None:
        """Average the moving statistics over all replicas.

        With `from_zero` the variance is that of all images of the batch: the mean of the replicas' variances plus the
        variance of their means.
        """

        def average(arrays: Sequence[tf.Tensor]) -> list[tf.Tensor]:
            joined = context.all_reduce(_MEAN, tf.concat([tf.convert_to_tensor(array) for array in arrays], axis=0))
            return tf.split(joined, [array.shape[0] for array in arrays])

        layers = trainable_batch_norms(self.classifier.model)
        if not layers:
            return
        own = [layer.moving_mean.value for layer in layers]
        means, variances = average(own), [layer.moving_variance.value for layer in layers]
        if from_zero:
            shares = [1.0 - layer.momentum for layer in layers]
            spread = [tf.square(x - mean) / share for x, mean, share in zip(own, means, shares, strict=True)]
            variances = [variance + more for variance, more in zip(variances, spread, strict=True)]
        for layer, mean, variance in zip(layers, means, average(variances), strict=True):
            layer.moving_mean.assign(mean)
            layer.moving_variance.assign(variance)


_joined: dict[Cluster | None, Replicas] = {}


def join(settings: SystemSettings, *, notify: Callable[[str], None] = lambda _: None) -> Coordinator:
    """The coordinator for the settings; the same one each time.

    Call it before TensorFlow computes anything. With `multiworker` it waits until every worker has started. Raises
    ConfigError if the cluster cannot be used, WorkerLostError if workers are missing.
    """
    cluster = find_cluster(settings)
    if settings.distribute == "none":
        return Coordinator()
    if cluster not in _joined:
        strategy = _mirrored_strategy() if cluster is None else _multiworker_strategy(cluster, notify)
        _joined[cluster] = Replicas(strategy, cluster)
    return _joined[cluster]


def _mirrored_strategy() -> tf.distribute.Strategy:
    wanted = os.environ.get(LOGICAL_CPUS)
    if wanted:
        if not wanted.isdigit() or not 1 <= int(wanted) <= 64:
            raise ConfigError(f"{LOGICAL_CPUS}: expected a whole number from 1 to 64. Received: {wanted}.")
        try:
            parts = [tf.config.LogicalDeviceConfiguration()] * int(wanted)
            tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], parts)
        except RuntimeError:
            raise _too_late(LOGICAL_CPUS) from None
    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    return tf.distribute.MirroredStrategy([device.name for device in tf.config.list_logical_devices(kind)])


def _multiworker_strategy(cluster: Cluster, notify: Callable[[str], None]) -> tf.distribute.Strategy:
    wait_for_workers(cluster, notify)
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(cluster.hosts)}),
        task_type="worker",
        task_id=cluster.index,
        rpc_layer="grpc",
    )
    handler = signal.getsignal(signal.SIGTERM)
    try:
        return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
    except RuntimeError as error:
        if "program startup" in str(error):
            raise _too_late("--distribute multiworker") from None
        raise
    except tf.errors.OpError as error:
        raise WorkerLostError(
            f"{cluster.title} cannot connect to the others. Check that each host can reach every HOST:PORT and that "
            f"all workers have the same list. TensorFlow says: {_last_line(error)}"
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread() and callable(handler):
            signal.signal(signal.SIGTERM, handler)  # TensorFlow installs a handler that only records the signal


def _last_line(error: tf.errors.OpError) -> str:
    """The message of an error without its location in the graph."""
    lines = [line.strip() for line in error.message.splitlines()]
    return next((line for line in reversed(lines) if line and not line.startswith(("[[", "File ", "(0)"))), "nothing")


def _too_late(what: str) -> ConfigError:
    return ConfigError(
        f"{what} must be set up before TensorFlow computes anything, but it already has in this process. Start a new "
        "process, or call radtransfer.training.distributed.join with the settings first."
    )
