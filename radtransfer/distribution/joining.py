"""How a process joins those it trains with, and what it says when one of them is gone."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import tensorflow as tf

from radtransfer.distribution.cluster import Cluster, find_cluster
from radtransfer.distribution.rendezvous import meet
from radtransfer.distribution.replicas import Replicas
from radtransfer.errors import ConfigError, WorkerLostError
from radtransfer.settings import SystemSettings

LOGICAL_CPUS = "RADTRANSFER_LOGICAL_CPUS"
"""Environment variable: as how many devices the CPU counts for `mirrored`, to try it where there is no GPU."""

_GONE = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
    tf.errors.FailedPreconditionError,
    tf.errors.UnknownError,
)
"""What TensorFlow raises in a process when another one is gone."""

_joined: dict[Cluster | None, Replicas] = {}


def join(settings: SystemSettings, *, notify: Callable[[str], None] = lambda _: None) -> Replicas | None:
    """The replicas that the settings ask for; None for an ordinary run.

    To be called before TensorFlow computes anything; again, it gives the same ones. Under `multiworker` it returns
    when every worker is there.

    Args:
        settings: Of the run.
        notify: Hears whom it waits for.

    Raises:
        ConfigError: The cluster cannot be used, or TensorFlow has computed already.
        WorkerLostError: The others did not come.
    """
    cluster = find_cluster(settings)
    if settings.distribute == "none":
        return None
    if cluster not in _joined:
        _joined[cluster] = Replicas(_mirrored() if cluster is None else _of_workers(cluster, notify), cluster)
    return _joined[cluster]


@contextmanager
def lost_workers(replicas: Replicas | None) -> Iterator[None]:
    """Turns the loss of another process into an error that names it.

    TensorFlow notices at once when a process ends, and after about ten seconds when it hangs or is cut off.

    Raises:
        WorkerLostError: It is gone.
    """
    try:
        yield
    except _GONE as error:
        if replicas is None or replicas.cluster is None:
            raise
        cluster = replicas.cluster
        gone = [f"worker {i} ({cluster.hosts[i]})" for i in cluster.unreachable()]
        said = "" if gone else f" TensorFlow says: {_last_line(error)}"
        raise WorkerLostError(
            f"{' and '.join(gone) or 'Another worker'} is gone or hangs, so that {cluster.title} cannot go on. "
            "See what ended it there, then start every worker again with --resume: the run goes on after its last "
            f"finished epoch.{said}"
        ) from error


def _last_line(error: tf.errors.OpError) -> str:
    """What an error says, without where in the graph."""
    lines = [line.strip() for line in error.message.splitlines()]
    return next((line for line in reversed(lines) if line and not line.startswith(("[[", "File ", "(0)"))), "nothing")


def _mirrored() -> tf.distribute.Strategy:
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


def _of_workers(cluster: Cluster, notify: Callable[[str], None]) -> tf.distribute.Strategy:
    meet(cluster, notify)
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
            f"{cluster.title} cannot work with the others: each host must reach every HOST:PORT, and all must be given "
            f"the same list. TensorFlow says: {_last_line(error)}"
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread() and callable(handler):
            signal.signal(signal.SIGTERM, handler)  # TensorFlow has put its own in its place, which only takes note


def _too_late(what: str) -> ConfigError:
    return ConfigError(
        f"{what}: TensorFlow has computed something in this process already. Start a new process, or call "
        "radtransfer.distribution.joining.join with the settings first."
    )
