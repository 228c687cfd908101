"""Runs on a Ray cluster: each is a task in a process of its own, tried again if its machine is lost."""

import contextlib
import itertools
import logging
import os
import secrets
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from radtransfer import __version__
from radtransfer.config.load import changed_config
from radtransfer.config.schema import Config
from radtransfer.errors import ConfigError, DataError, RadtransferError, TrainingError, WeightsError
from radtransfer.files import PART
from radtransfer.process import ONEDNN, ONEDNN_CHOSEN, import_keras, pin_variables
from radtransfer.studies.engines import (
    Mailbox,
    Outcome,
    ProgressCallback,
    Relay,
    compute_remotely,
    run_cell,
    thread_environment,
    with_decoders,
)
from radtransfer.training.address import run_settings

ATTEMPTS = 5
"""Attempts at a run whose process or machine is lost, before it counts as failed."""

_TIMEOUT = 30.0
"""Seconds for runs to finish writing when they are stopped."""

_POLL = 0.5
"""Seconds between checks for messages of runs."""

_ROOM_SECONDS = 5.0
"""Seconds for which the size of the cluster is cached."""

_ENVIRONMENT = (
    "TF_CPP_MIN_LOG_LEVEL",
    ONEDNN,
    ONEDNN_CHOSEN,
    "TF_DETERMINISTIC_OPS",
    "RADTRANSFER_CACHE",
    "RADTRANSFER_BREAK_LOCK",
    "MLFLOW_TRACKING_URI",
    "MLFLOW_EXPERIMENT_NAME",
    "WANDB_MODE",
    "WANDB_PROJECT",
)
"""Variables that are passed on to runs; no keys or passwords, as Ray displays them."""


def require_ray() -> Any:
    """The module `ray`, with its usage statistics off; ConfigError if it is not installed."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        from ray import exceptions, init  # noqa: F401  importing `ray` alone would accept any folder of this name
    except ImportError as error:
        raise ConfigError(
            f"--ray needs Ray, which cannot be imported ({error}). Install it: pip install 'radtransfer[ray]'"
        ) from None
    import ray

    return ray


class Cluster:
    """A connection to a Ray cluster; one that this process already has is used and left open.

    Args:
        address: `HOST:PORT` of its head; None for that of RAY_ADDRESS, else the one last started on this machine, else
            a new one until `close`; `local` for a new one in any case.
    """

    def __init__(self, address: str | None = None) -> None:
        self.ray = require_ray()
        self._mine = not self.ray.is_initialized()
        if (address or "").startswith("ray://"):
            raise ConfigError(
                f"--ray {address}: a study must be started on a machine of the cluster. Log in to one, or use "
                "`ray job submit -- radtransfer study … --ray`."
            )
        if not self._mine:
            return
        before = signal.getsignal(signal.SIGTERM)  # Ray replaces it
        try:
            with _silence():
                self.ray.init(address, logging_level=logging.CRITICAL, log_to_driver=False, include_dashboard=False)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise ConfigError(
                f"Cannot join the Ray cluster at {address or 'the default address'}: {_first_line(error)} Start one "
                "with `ray start --head` and name it with --ray HOST:PORT, or give --ray local to use this machine "
                "alone."
            ) from None
        finally:
            with contextlib.suppress(ValueError):  # not the main thread
                signal.signal(signal.SIGTERM, before)

    def machines(self) -> list[Mapping[str, float]]:
        """The resources of each machine that is up."""
        return [node["Resources"] for node in self.ray.nodes() if node["Alive"]]

    def room(self, *, cpus: int, gpus: float) -> int:
        """The number of runs of this size that fit at a time, if nothing else is computed."""
        total = 0
        for machine in self.machines():
            fit = int(machine.get("CPU", 0) // cpus)
            total += min(fit, int(machine.get("GPU", 0) / gpus + 1e-9)) if gpus else fit
        return total

    def check_room(self, *, cpus: int, gpus: float) -> None:
        """Raise ConfigError unless a machine can compute a run of this size."""
        if not self.room(cpus=cpus, gpus=gpus):
            machines = self.machines()
            found = ", ".join(f"{item.get('CPU', 0):g} CPUs and {item.get('GPU', 0):g} GPUs" for item in machines)
            raise ConfigError(
                f"No machine of the Ray cluster has {cpus} CPUs and {gpus:g} GPUs for a run. Found: {found or 'none'}. "
                "Lower --cpus-per-run or --gpus-per-run; if machines are added on demand, give --jobs."
            )

    def close(self) -> None:
        """Disconnect, and stop the cluster if it was started here."""
        if self._mine:
            with _silence():
                self.ray.shutdown()


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Hide stdout and stderr, including those of compiled code."""
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


@dataclass(frozen=True)
class Task:
    """An attempt at a run, as sent to a machine; paths are absolute."""

    key: str
    attempt: int  # counted over all runs
    config: Config
    path: Path
    probe: Path  # a file in the store, to check whether a machine can access it
    prepare: Callable[[], None] | None
    version: str  # of radtransfer on the machine of the study


def compute(task: Task, mailbox: Any) -> Outcome:
    """Compute a run on a machine of the cluster; `mailbox` is the handle of the study's `Mailbox`."""
    import ray

    machine = socket.gethostname()

    def send(name: str, arguments: tuple) -> None:
        mailbox.post.remote(task.key, task.attempt, name, arguments)

    def call(method: str, *arguments: Any) -> Any:
        try:
            return ray.get(getattr(mailbox, method).remote(*arguments))
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None

    if task.version != __version__:
        reason = f"{machine} has radtransfer {__version__}, the study has {task.version}. Install the same version."
        return Outcome("failed", reason, ConfigError.exit_code)
    send("placed", (machine,))
    pin_variables()
    try:
        if task.prepare is not None:
            task.prepare()
        import_keras()
    except RadtransferError as error:
        return Outcome("failed", f"On {machine}: {error}", error.exit_code)
    if task.probe.is_file():
        outcome = run_cell(task.config, task.path, progress=Relay(send, seconds=1.0))
    else:
        send("remote", (machine,))
        outcome = compute_remotely(call, task.key, task.attempt, task.config, task.path, send)
    if outcome.exit_code in (DataError.exit_code, WeightsError.exit_code):
        return replace(outcome, error=f"On {machine}: {outcome.error}")
    return outcome


@dataclass
class _Attempt:
    """A run that Ray computes (`reference`), or will try again after `not_before`."""

    config: Config
    path: Path
    number: int = 0
    ticket: int = 0
    reference: Any = None
    not_before: float = 0.0


class RayEngine:
    """Computes runs on a Ray cluster, each with `cpus` threads and `gpus` GPUs (a fraction shares one).

    Machines that cannot access `store` send their runs back. `places` is the number of runs at a time, by default as
    many as fit on the cluster. `prepare`, a function of a module, is called first in each process.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        store: Path,
        cpus: int = 1,
        gpus: float = 0.0,
        places: int | None = None,
        prepare: Callable[[], None] | None = None,
    ) -> None:
        self._cluster, self._ray, self._store = cluster, cluster.ray, store.absolute()
        self._cpus, self._gpus, self._places, self._prepare = cpus, gpus, places, prepare
        self._room, self._room_until = 0, 0.0
        self._busy: dict[str, _Attempt] = {}
        self._tickets = itertools.count(1)
        self._reported: set[str] = set()
        self._store.mkdir(parents=True, exist_ok=True)
        self._probe = self._store / f"{PART}probe-{secrets.token_hex(8)}"
        self._mailbox = self._start_mailbox()
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        environment |= thread_environment(cpus)
        environment |= {"TF_FORCE_GPU_ALLOW_GROWTH": "true"} if gpus else {"CUDA_VISIBLE_DEVICES": "-1"}
        self._compute = self._ray.remote(
            num_cpus=cpus,
            num_gpus=gpus,
            max_calls=1,
            max_retries=0,
            scheduling_strategy="SPREAD",
            runtime_env={"env_vars": environment},
        )(compute)
        self._write_probe()

    @property
    def places(self) -> int:
        if self._places is not None:
            return self._places
        if time.monotonic() >= self._room_until:
            self._room = self._cluster.room(cpus=self._cpus, gpus=self._gpus)
            self._room_until = time.monotonic() + _ROOM_SECONDS
        return self._room

    def submit(self, key: str, config: Config, path: Path) -> None:
        values = run_settings(config, out=path)  # absolute paths
        full = {f"data.{name}": values["data"][name] for name in ("source", "image_root")}
        config = changed_config(config, full | {"model.weights": values["model"]["weights"]})
        self._busy[key] = _Attempt(with_decoders(config, self._cpus), path.absolute())
        self._start(key)

    def wait(self, callback: ProgressCallback, seconds: float) -> list[tuple[str, Outcome]]:
        keys = {attempt.reference: key for key, attempt in self._busy.items() if attempt.reference is not None}
        if keys:
            ready, _ = self._ray.wait(list(keys), timeout=min(seconds, _POLL))
        else:
            ready = []
            time.sleep(min(seconds, _POLL))
        self._receive(callback)
        ended = [(keys[reference], self._outcome(keys[reference], reference, callback)) for reference in ready]
        for key, attempt in self._busy.items():
            if attempt.reference is None and time.monotonic() > attempt.not_before:
                self._start(key)
        return [(key, outcome) for key, outcome in ended if outcome is not None]

    def close(self) -> None:
        running = [attempt.reference for attempt in self._busy.values() if attempt.reference is not None]
        with contextlib.suppress(self._ray.exceptions.RayError):
            for force, seconds in ((False, _TIMEOUT), (True, _TIMEOUT / 3)):
                for reference in running:
                    self._ray.cancel(reference, force=force)
                if running:
                    _, running = self._ray.wait(running, num_returns=len(running), timeout=seconds)
            self._ray.kill(self._mailbox)
        self._probe.unlink(missing_ok=True)
        self._busy = {}
        self._cluster.close()

    def _write_probe(self) -> None:
        self._probe.touch()

    def _start_mailbox(self) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(self._ray.get_runtime_context().get_node_id(), soft=False)
        always = {"max_restarts": -1, "max_task_retries": -1}
        mailbox = self._ray.remote(num_cpus=0, scheduling_strategy=here, **always)(Mailbox).remote(self._store)
        self._ray.get(mailbox.take.remote())
        return mailbox

    def _start(self, key: str) -> None:
        attempt = self._busy[key]
        attempt.number, attempt.ticket = attempt.number + 1, next(self._tickets)
        task = Task(key, attempt.ticket, attempt.config, attempt.path, self._probe, self._prepare, __version__)
        attempt.reference = self._compute.options(name=f"run {key}").remote(task, self._mailbox)

    def _receive(self, callback: ProgressCallback) -> None:
        """Forward the messages of runs, except those of abandoned attempts."""
        try:
            messages = self._ray.get(self._mailbox.take.remote())
        except self._ray.exceptions.RayError as error:
            raise TrainingError(
                f"The mailbox process of this study has ended: {_first_line(error)} Give the same command to continue."
            ) from None
        for key, ticket, name, arguments in messages:
            attempt = self._busy.get(key)
            if attempt is None or attempt.ticket != ticket or attempt.reference is None:
                continue
            if name != "remote":
                callback(key, name, arguments)
            elif arguments[0] not in self._reported:
                self._reported.add(arguments[0])
                text = f"{arguments[0]} cannot access {self._store}; its runs are sent back to this machine"
                callback(key, "message", (text,))

    def _outcome(self, key: str, reference: Any, callback: ProgressCallback) -> Outcome | None:
        """The outcome of an attempt; None if the run is tried again."""
        attempt, errors = self._busy[key], self._ray.exceptions
        try:
            outcome = self._ray.get(reference)
        except errors.RayTaskError as error:
            reason = f"It could not be computed: {_first_line(error.cause or error)}"
            outcome = Outcome("failed", reason, TrainingError.exit_code)
        except errors.RayError as error:
            lost = "memory ran out" if isinstance(error, errors.OutOfMemoryError) else "its process or machine was lost"
            if attempt.number < ATTEMPTS:
                attempt.reference, attempt.not_before = None, time.monotonic() + 2.0 ** (attempt.number - 1)
                callback(key, "message", (f"{lost}; trying again",))
                return None
            reason = f"In each of {ATTEMPTS} attempts {lost}: {_first_line(error)}"
            outcome = Outcome("failed", reason, TrainingError.exit_code)
        # Listing a folder makes a network file system refresh it.
        with contextlib.suppress(OSError):
            list(attempt.path.rglob("*"))
        del self._busy[key]
        return outcome


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
