"""The workers of a distributed training, and waiting until all of them have started.

TensorFlow's own wait is silent and cannot be interrupted; this one names the missing workers and stops with Ctrl-C.
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
        """The indices of the other workers that accept no connection now."""
        missing = []
        for i, host in enumerate(self.hosts):
            name, _, port = host.rpartition(":")
            try:
                if i != self.index:
                    socket.create_connection((name.strip("[]"), int(port)), timeout=2.0).close()
            except OSError:
                missing.append(i)
        return missing


def find_cluster(settings: SystemSettings) -> Cluster | None:
    """The cluster that the settings or the variable TF_CONFIG describe; None without `multiworker`.

    TF_CONFIG is TensorFlow's: `{"cluster": {"worker": ["HOST:PORT", …]}, "task": {"type": "worker", "index": 0}}`,
    optionally with a "chief", which counts first. Raises ConfigError if no valid cluster is described.
    """
    if settings.distribute != "multiworker":
        if settings.hosts or settings.worker_index is not None:
            given = "--workers HOST:PORT,…" if settings.hosts else "--worker-index"
            raise ConfigError(f"{given} needs --distribute multiworker. Received: --distribute {settings.distribute}.")
        return None
    if settings.hosts:
        source, hosts, index = "--workers", settings.hosts, settings.worker_index
        if index is None:
            raise ConfigError("--worker-index: expected the index of this process, from 0. Received: none.")
    elif os.environ.get("TF_CONFIG"):
        source, (hosts, index) = "TF_CONFIG", _read_tf_config(os.environ["TF_CONFIG"])
        if settings.worker_index is not None:
            raise ConfigError(
                "--worker-index belongs to --workers HOST:PORT,…; TF_CONFIG already contains an index. Remove it."
            )
    else:
        raise ConfigError(
            "--distribute multiworker: expected --workers HOST:PORT,… with --worker-index K, or TF_CONFIG in the "
            "environment. Received: neither. To use only the devices of this machine, give --distribute mirrored."
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


def _read_tf_config(text: str) -> tuple[Sequence[str], int]:
    try:
        record = json.loads(text)
        cluster, task = record["cluster"], record["task"]
        jobs = {name: list(cluster.get(name, [])) for name in ("chief", "worker")}
        first = {"chief": 0, "worker": len(jobs["chief"])}
        return [*jobs["chief"], *jobs["worker"]], first[task["type"]] + int(task["index"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            'TF_CONFIG: expected {"cluster": {"worker": ["HOST:PORT", …]}, "task": {"type": "worker", "index": 0}}. '
            f"Received: {text[:200]} ({type(error).__name__}: {error})."
        ) from None


def wait_for_workers(cluster: Cluster, notify: Callable[[str], None], *, timeout: float = 1800.0) -> None:
    """Wait until every other worker accepts connections at its port; meanwhile this one does so at its own.

    Afterwards the port is free for TensorFlow, which then answers workers that still wait. Raises WorkerLostError,
    with the names of the missing workers, after `timeout` seconds.
    """
    name, _, port = cluster.hosts[cluster.index].rpartition(":")
    family = socket.AF_INET6 if name.startswith("[") else socket.AF_INET
    try:
        server = socket.create_server(("", int(port)), family=family, backlog=128)
    except OSError as error:
        raise ConfigError(
            f"{cluster.title}: its port cannot be used on this machine ({os.strerror(error.errno)}). Check that no "
            "other worker with this index is running and that --worker-index is right."
        ) from None
    started, notified = time.monotonic(), False
    with server:
        while missing := cluster.unreachable():
            waited = time.monotonic() - started
            names = ", ".join(f"worker {i} ({cluster.hosts[i]})" for i in missing)
            if waited > timeout:
                raise WorkerLostError(
                    f"{cluster.title} waited {timeout / 60:.0f} minutes for {names}. Start it with the same --workers "
                    "and its own --worker-index, and check that this machine can reach its host and port."
                )
            if waited > 3.0 and not notified:
                notify(f"{cluster.title} waits for {names}")
                notified = True
            time.sleep(0.3)
