"""Waits until every worker has been started.

TensorFlow's own wait is silent and cannot be interrupted; this one says whom it waits for, and ends with Ctrl-C.
"""

import os
import socket
import time
from collections.abc import Callable

from radtransfer.distribution.cluster import Cluster
from radtransfer.errors import ConfigError, WorkerLostError

PATIENCE = 1800.0
"""Seconds until the others must have come."""

_TOLD_AFTER = 3.0
_LOOKED_EVERY = 0.3


def meet(cluster: Cluster, notify: Callable[[str], None], *, patience: float = PATIENCE) -> None:
    """Return when each of the other workers takes connections at its port, as this one does meanwhile.

    The port is free again then. A worker that finds this one gone on finds TensorFlow at its port.

    Args:
        cluster: Of this worker.
        notify: Hears, once it takes some time, who is missing.
        patience: Seconds to wait.

    Raises:
        ConfigError: The port of this worker is taken.
        WorkerLostError: Another worker did not come in time.
    """
    started, told = time.monotonic(), False
    with _listening(cluster):
        while missing := cluster.unreachable():
            waited = time.monotonic() - started
            names = ", ".join(f"worker {i} ({cluster.hosts[i]})" for i in missing)
            if waited > patience:
                raise WorkerLostError(
                    f"{cluster.title} waited {patience / 60:.0f} minutes for {names}. Start it with the same --workers "
                    "and its own --worker-index, and see that hosts and ports can be reached from here."
                )
            if waited > _TOLD_AFTER and not told:
                notify(f"{cluster.title} waits for {names}")
                told = True
            time.sleep(_LOOKED_EVERY)


def _listening(cluster: Cluster) -> socket.socket:
    name, _, port = cluster.hosts[cluster.index].rpartition(":")
    family = socket.AF_INET6 if name.startswith("[") else socket.AF_INET
    try:
        return socket.create_server(("", int(port)), family=family, backlog=128)
    except OSError as error:
        raise ConfigError(
            f"{cluster.title}: its port cannot be used here ({os.strerror(error.errno)}). Is another worker of this "
            "index running, or is --worker-index wrong?"
        ) from None
