"""Which processes train together, which of them this one is, and waiting until all have been started.

TensorFlow's own wait is silent and cannot be interrupted; this one says whom it waits for, and ends with Ctrl-C.
"""

import json
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from radtransfer.config.schema import SystemSettings
from radtransfer.errors import ConfigError, WorkerLostError


@dataclass(frozen=True)
class Cluster:
    """The workers of a job, each as HOST:PORT, and the index of this process, from 0."""

    hosts: tuple[str, ...]
    index: int

    @property
    def title(self) -> str:
        return f"worker {self.index} of {len(self.hosts)} ({self.hosts[self.index]})"

    def unreachable(self) -> list[int]:
        """The other workers that take no connection now."""

        def takes_connection(host: str) -> bool:
            name, _, port = host.rpartition(":")
            try:
                socket.create_connection((name.strip("[]"), int(port)), timeout=2.0).close()
            except OSError:
                return False
            return True

        return [i for i, host in enumerate(self.hosts) if i != self.index and not takes_connection(host)]


def find_cluster(settings: SystemSettings) -> Cluster | None:
    """The cluster of `multiworker`, from the settings or the variable TF_CONFIG; None without `multiworker`.

    TF_CONFIG is TensorFlow's: `{"cluster": {"worker": ["HOST:PORT", …]}, "task": {"type": "worker", "index": 0}}`,
    with a "chief" before the workers or without. ConfigError: Neither describes a cluster, or the settings name workers
    without `multiworker`.
    """
    if settings.distribute != "multiworker":
        if settings.hosts or settings.worker_index is not None:
            given = "--workers HOST:PORT,…" if settings.hosts else "--worker-index"
            raise ConfigError(
                f"{given} belongs to --distribute multiworker. Received: --distribute {settings.distribute}."
            )
        return None
    if settings.hosts:
        source, hosts, index = "--workers", settings.hosts, settings.worker_index
        if index is None:
            raise ConfigError(
                "--worker-index: expected the number of this process among --workers, from 0. Received: none."
            )
    elif os.environ.get("TF_CONFIG"):
        source, (hosts, index) = "TF_CONFIG", _of_environment(os.environ["TF_CONFIG"])
        if settings.worker_index is not None:
            raise ConfigError("--worker-index goes with --workers HOST:PORT,…; TF_CONFIG has an index of its own.")
    else:
        raise ConfigError(
            "--distribute multiworker: expected --workers HOST:PORT,… with --worker-index K, or TF_CONFIG in the "
            "environment. Received: neither. To use the devices of this machine alone: --distribute mirrored."
        )
    hosts = tuple(hosts)
    for host in hosts:
        name, _, port = str(host).rpartition(":")
        if not name or not port.isdigit() or not 0 < int(port) < 65536:
            raise ConfigError(f"{source}: expected HOST:PORT for each worker. Received: {host}.")
    if len(hosts) < 2 or len(set(hosts)) < len(hosts):
        raise ConfigError(f"{source}: expected two or more different HOST:PORT. Received: {', '.join(hosts)}.")
    if not 0 <= index < len(hosts):
        raise ConfigError(
            f"{source}: expected a worker index from 0 to {len(hosts) - 1} for {len(hosts)} workers. Received: {index}."
        )
    return Cluster(hosts, index)


def _of_environment(text: str) -> tuple[Sequence[str], int]:
    try:
        record = json.loads(text)
        cluster, task = record["cluster"], record["task"]
        jobs = {name: list(cluster.get(name, [])) for name in ("chief", "worker")}
        before = {"chief": 0, "worker": len(jobs["chief"])}
        return [*jobs["chief"], *jobs["worker"]], before[task["type"]] + int(task["index"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            'TF_CONFIG: expected {"cluster": {"worker": ["HOST:PORT", …]}, "task": {"type": "worker", "index": 0}}. '
            f"Received: {text[:200]} ({type(error).__name__}: {error})."
        ) from None


PATIENCE = 1800.0  # seconds until the others must have come


def meet(cluster: Cluster, notify: Callable[[str], None], *, patience: float = PATIENCE) -> None:
    """Return when each of the other workers takes connections at its port, as this one does meanwhile.

    The port is free again then. A worker that finds this one gone on finds TensorFlow at its port. After `patience`
    seconds a WorkerLostError names those that did not come.
    """
    name, _, port = cluster.hosts[cluster.index].rpartition(":")
    family = socket.AF_INET6 if name.startswith("[") else socket.AF_INET
    try:
        server = socket.create_server(("", int(port)), family=family, backlog=128)
    except OSError as error:
        raise ConfigError(
            f"{cluster.title}: its port cannot be used here ({os.strerror(error.errno)}). Is another worker of this "
            "index running, or is --worker-index wrong?"
        ) from None
    started, told = time.monotonic(), False
    with server:
        while missing := cluster.unreachable():
            waited = time.monotonic() - started
            names = ", ".join(f"worker {i} ({cluster.hosts[i]})" for i in missing)
            if waited > patience:
                raise WorkerLostError(
                    f"{cluster.title} waited {patience / 60:.0f} minutes for {names}. Start it with the same --workers "
                    "and its own --worker-index, and see that hosts and ports can be reached from here."
                )
            if waited > 3.0 and not told:
                notify(f"{cluster.title} waits for {names}")
                told = True
            time.sleep(0.3)
