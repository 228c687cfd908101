"""A Ray cluster as a study needs it: found or started, quiet, and how many runs it has room for."""

import contextlib
import logging
import os
import signal
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

from radtransfer.errors import ConfigError

INSTALL = "pip install 'radtransfer[ray]'"


def require_ray() -> Any:
    """The module `ray`, which reports nothing to its makers.

    Raises:
        ConfigError: It is not installed.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        from ray import exceptions, init  # noqa: F401  a folder of this name can be imported too
    except ImportError as error:
        raise ConfigError(f"--ray needs Ray, which cannot be imported ({error}). Install it: {INSTALL}") from None
    import ray

    return ray


class Cluster:
    """A connection to a Ray cluster; one that this process has already is used, and left as it is.

    Args:
        address: `HOST:PORT` of its head; None for the one of RAY_ADDRESS, else the one that was started last on
            this machine, else one that is started here until `close`; `local` for the last in any case.

    Raises:
        ConfigError: Ray is missing, nothing answers there, or its version or Python's is another one.
    """

    def __init__(self, address: str | None = None) -> None:
        self.ray = require_ray()
        self._mine = not self.ray.is_initialized()
        if (address or "").startswith("ray://"):
            raise ConfigError(
                f"--ray {address}: a study runs on a machine of the cluster. Log in to one, or send the command with "
                "`ray job submit -- radtransfer study … --ray`."
            )
        if self._mine:
            self._connect(address)

    def machines(self) -> list[Mapping[str, float]]:
        """The resources of each machine that is up."""
        return [node["Resources"] for node in self.ray.nodes() if node["Alive"]]

    def room(self, *, cpus: int, gpus: float) -> int:
        """How many runs of this size fit at a time, if nothing else is computed there."""
        return sum(_fits(machine, cpus, gpus) for machine in self.machines())

    def check_room(self, *, cpus: int, gpus: float) -> None:
        """Raise unless some machine can compute a run of this size.

        Raises:
            ConfigError: None can.
        """
        machines = self.machines()
        if not any(_fits(machine, cpus, gpus) for machine in machines):
            found = ", ".join(f"{item.get('CPU', 0):g} CPUs and {item.get('GPU', 0):g} GPUs" for item in machines)
            raise ConfigError(
                f"No machine of the Ray cluster has {cpus} CPUs and {gpus:g} GPUs for a run. Found: {found or 'none'}. "
                "Ask for less with --cpus-per-run and --gpus-per-run; where machines are added on demand, give --jobs."
            )

    def close(self) -> None:
        """Leave the cluster; it ends if it was started here."""
        if self._mine:
            with _silence():
                self.ray.shutdown()

    def _connect(self, address: str | None) -> None:
        # Ray takes SIGTERM for itself.
        before = signal.getsignal(signal.SIGTERM)
        try:
            with _silence():
                self.ray.init(address, logging_level=logging.CRITICAL, log_to_driver=False, include_dashboard=False)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise ConfigError(
                f"Cannot join the Ray cluster at {address or 'the default address'}: {reason[0]} Start one with "
                "`ray start --head`, name it as --ray HOST:PORT, or give --ray local for one of this machine's own."
            ) from None
        finally:
            with contextlib.suppress(ValueError):  # not the main thread
                signal.signal(signal.SIGTERM, before)


def _fits(machine: Mapping[str, float], cpus: int, gpus: float) -> int:
    by_cpu = int(machine.get("CPU", 0) // cpus)
    return min(by_cpu, int(machine.get("GPU", 0) / gpus + 1e-9)) if gpus else by_cpu


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Nothing reaches stdout or stderr, from compiled code neither."""
    shown = [os.dup(number) for number in (1, 2)]
    with tempfile.TemporaryFile() as hidden:
        for number in (1, 2):
            os.dup2(hidden.fileno(), number)
        try:
            yield
        finally:
            for number, copy in zip((1, 2), shown, strict=True):
                os.dup2(copy, number)
                os.close(copy)
