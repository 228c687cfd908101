"""The devices that train together, and what the processes that hold them tell each other."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf

from radtransfer.checkpoint import packed, unpacked
from radtransfer.distribution.cluster import Cluster
from radtransfer.environment import ONEDNN
from radtransfer.errors import ConfigError


@dataclass(frozen=True)
class Replicas:
    """Copies of one network, one for each device, that take the same steps.

    Attributes:
        strategy: TensorFlow's.
        cluster: The processes they are spread over; None for one.
    """

    strategy: tf.distribute.Strategy
    cluster: Cluster | None = None

    @property
    def count(self) -> int:
        """Replicas in all processes."""
        return self.strategy.num_replicas_in_sync

    @property
    def workers(self) -> int:
        """Processes."""
        return len(self.cluster.hosts) if self.cluster else 1

    @property
    def worker(self) -> int:
        """The number of this process, from 0."""
        return self.cluster.index if self.cluster else 0

    @property
    def is_chief(self) -> bool:
        """Whether this process is the one that writes."""
        return self.worker == 0

    @property
    def local_count(self) -> int:
        """Replicas of this process."""
        return self.count // self.workers

    def record(self) -> dict[str, int]:
        """For `run.json`; what decides the numbers."""
        return {"replicas": self.count, "workers": self.workers}

    def run(self, function: Callable, *arrays: Any) -> tuple[Any, ...]:
        """What each replica of this process makes of its part of `arrays`, in order; to be called in a tf.function.

        Args:
            function: Runs in the context of a replica.
            arrays: Tensors, or lists of them, (images of this process, …): each replica gets an equal part.
        """

        def of_replica(*arrays: Any) -> Any:
            number = tf.distribute.get_replica_context().replica_id_in_sync_group % self.local_count
            return function(*tf.nest.map_structure(lambda array: self._part(array, number), arrays))

        results = self.strategy.run(of_replica, args=arrays)
        return self.strategy.experimental_local_results(results)

    def _part(self, array: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        if self.local_count == 1:
            return array
        with tf.device("/device:CPU:0"):  # so that no more than the part goes to the device
            return tf.reshape(array, (self.local_count, -1, *array.shape[1:]))[number]

    def gathered(self, array: np.ndarray) -> np.ndarray:
        """(workers, …): `array`, of one shape and dtype everywhere, from each process."""
        if self.workers == 1:
            return array[None]
        words = np.frombuffer(array.tobytes() + bytes(-array.nbytes % 4), np.int32)
        mine = np.zeros((self.workers, len(words)), np.int32)
        mine[self.worker] = words
        all_words = self._sum(tf.constant(mine)).numpy()
        return np.stack(
            [np.frombuffer(row.tobytes()[: array.nbytes], array.dtype).reshape(array.shape) for row in all_words]
        )

    def from_chief(self, load: Callable[[], Any]) -> Any:
        """What the chief loads, to every process: arrays and a record (see `checkpoint`), or None."""
        if self.workers == 1:
            return load()
        loaded = load() if self.is_chief else None
        data = self._broadcast(b"" if loaded is None else packed(*loaded))
        if self.is_chief or not data:
            return loaded
        return unpacked(data)

    def record_from_chief(self, value: Any) -> Any:
        """`value`, plain, as the chief has it."""
        return self.from_chief(lambda: ([], value))[1]

    def check_same(self, facts: Mapping[str, Any]) -> None:
        """Nothing is trained together that differs.

        Raises:
            ConfigError: Another process has other values of `facts` than the chief.
        """
        digests = [hashlib.sha256(json.dumps(value, sort_keys=True).encode()).digest() for value in facts.values()]
        every = self.gathered(np.frombuffer(b"".join(digests), np.uint8).reshape(len(facts), -1))
        differing = (every != every[0]).any(axis=2)
        for worker in np.flatnonzero(differing.any(axis=1)):
            names = ", ".join(name for name, differs in zip(facts, differing[worker], strict=True) if differs)
            raise ConfigError(
                f"Expected the same run on every worker. Worker {worker} and worker 0 differ in: {names}. Start all "
                f"with the same version, settings, weights, images and {ONEDNN}; only --worker-index differs."
            )

    def _broadcast(self, data: bytes) -> bytes:
        size = int(self._sum(tf.constant([len(data) if self.is_chief else 0], tf.int64))[0])
        data = data if self.is_chief else bytes(size)
        words = np.frombuffer(data + bytes(-size % 4), np.int32)
        return self._sum(tf.constant(words)).numpy().tobytes()[:size]

    @cached_property
    def _sum(self) -> Callable[[tf.Tensor], tf.Tensor]:
        """The sum of an integer tensor over all processes."""

        def of_replica(array: tf.Tensor) -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            first = context.replica_id_in_sync_group % self.local_count == 0
            return context.all_reduce(tf.distribute.ReduceOp.SUM, array * tf.cast(first, array.dtype))

        def total(array: tf.Tensor) -> tf.Tensor:
            return self.strategy.experimental_local_results(self.strategy.run(of_replica, args=(array,)))[0]

        return tf.function(total, reduce_retracing=True)
