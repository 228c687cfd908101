"""Runs on the machines of a Ray cluster: each a task of its own process, tried again where a machine was lost.

A Ray cluster as a study needs it: found or started, quiet, and how many runs it has room for.

What happens on a machine of a Ray cluster: one run, in a process of its own.
"""

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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from radtransfer import __version__
from radtransfer.config.load import changed_config
from radtransfer.config.schema import Config
from radtransfer.errors import ConfigError, DataError, RadtransferError, TrainingError, WeightsError
from radtransfer.files import PART
from radtransfer.process import ONEDNN, ONEDNN_CHOSEN, import_keras, pin_variables
from radtransfer.studies.engines import (
    Hear,
    Mailbox,
    Outcome,
    Relay,
    compute_elsewhere,
    run_cell,
    thread_environment,
    with_decoders,
)
from radtransfer.training.address import run_settings

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


@dataclass(frozen=True)
class Task:
    """An attempt at a run.

    Attributes:
        key: Of the run.
        attempt: Its number, of all attempts at all runs.
        config: Its settings, with full paths.
        path: Its folder, in full.
        probe: A file that the study has written into the store: who sees it, sees the store.
        prepare: Called first.
        version: Of radtransfer, where the study is.
    """

    key: str
    attempt: int
    config: Config
    path: Path
    probe: Path
    prepare: Callable[[], None] | None
    version: str


def compute(task: Task, mailbox: Any) -> Outcome:
    """Compute a run; `mailbox` is the handle of the study's `Mailbox`."""
    machine = socket.gethostname()

    def tell(name: str, arguments: tuple) -> None:
        mailbox.tell.remote(task.key, task.attempt, name, arguments)

    if task.version != __version__:
        reason = f"{machine} has radtransfer {__version__}, the study runs with {task.version}. Install the same."
        return Outcome("failed", reason, ConfigError.exit_code)
    tell("placed", (machine,))
    pin_variables()
    try:
        if task.prepare is not None:
            task.prepare()
        import_keras()
    except RadtransferError as error:
        return Outcome("failed", f"On {machine}: {error}", error.exit_code)
    outcome = _compute(task, mailbox, tell)
    if outcome.exit_code in (DataError.exit_code, WeightsError.exit_code):
        return replace(outcome, error=f"On {machine}: {outcome.error}")
    return outcome


def _compute(task: Task, mailbox: Any, tell: Callable[[str, tuple], None]) -> Outcome:
    if task.probe.is_file():
        return run_cell(task.config, task.path, progress=Relay(tell, seconds=1.0))
    tell("away", (socket.gethostname(),))
    return compute_elsewhere(_caller(mailbox), task.key, task.attempt, task.config, task.path, tell)


def _caller(mailbox: Any) -> Callable[..., Any]:
    """Calls the mailbox and waits; its errors come as they were raised."""
    import ray

    def call(method: str, *arguments: Any) -> Any:
        try:
            return ray.get(getattr(mailbox, method).remote(*arguments))
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None

    return call


ATTEMPTS = 5
"""At a run whose process or machine is lost each time, before it counts as failed."""

_PATIENCE = 30.0
"""Seconds that runs have to end an epoch's bookkeeping when they are told to stop."""

_POLL = 0.5
"""Seconds between two looks at what runs tell."""

_ROOM_SECONDS = 5.0
"""For which the size of the cluster is taken as known."""

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
"""What a run takes over from the environment of the study. Keys and passwords are not among it: Ray shows these."""


@dataclass
class _Attempt:
    """A run that is in the hands of Ray, or will be again."""

    config: Config
    path: Path
    number: int = 0
    ticket: int = 0
    reference: Any = None
    not_before: float = field(default=0.0)


class RayEngine:
    """Computes runs on a Ray cluster.

    Args:
        cluster: Where.
        store: The folder of the runs; machines that do not see it send their runs back.
        cpus: Of each run: reserved, and threads that it computes with.
        gpus: Of each run; parts of one where several share it.
        places: Runs at a time; as many as the cluster has room for if not given.
        prepare: Called first in each process; a function of a module.
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
        self._told: set[str] = set()
        self._store.mkdir(parents=True, exist_ok=True)
        self._probe = self._store / f"{PART}probe-{secrets.token_hex(8)}"
        self._mailbox = self._start_mailbox()
        self._compute = self._ray.remote(
            num_cpus=cpus,
            num_gpus=gpus,
            max_calls=1,
            max_retries=0,
            scheduling_strategy="SPREAD",
            runtime_env={"env_vars": self._environment()},
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
        attempt = _Attempt(with_decoders(_everywhere(config, path), self._cpus), path.absolute())
        self._busy[key] = attempt
        self._start(key, attempt)

    def wait(self, hear: Hear, seconds: float) -> list[tuple[str, Outcome]]:
        keys = {attempt.reference: key for key, attempt in self._busy.items() if attempt.reference is not None}
        if keys:
            ready, _ = self._ray.wait(list(keys), timeout=min(seconds, _POLL))
        else:
            ready = []
            time.sleep(min(seconds, _POLL))
        self._hear_all(hear)
        ended = [(keys[reference], self._outcome(keys[reference], reference, hear)) for reference in ready]
        self._start_again()
        return [(key, outcome) for key, outcome in ended if outcome is not None]

    def close(self) -> None:
        running = [attempt.reference for attempt in self._busy.values() if attempt.reference is not None]
        with contextlib.suppress(self._ray.exceptions.RayError):
            for force, seconds in ((False, _PATIENCE), (True, _PATIENCE / 3)):
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

    def _environment(self) -> dict[str, str]:
        taken = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        gpus = {"TF_FORCE_GPU_ALLOW_GROWTH": "true"} if self._gpus else {"CUDA_VISIBLE_DEVICES": "-1"}
        return taken | thread_environment(self._cpus) | gpus

    def _start(self, key: str, attempt: _Attempt) -> None:
        attempt.number, attempt.ticket = attempt.number + 1, next(self._tickets)
        task = Task(key, attempt.ticket, attempt.config, attempt.path, self._probe, self._prepare, __version__)
        attempt.reference = self._compute.options(name=f"run {key}").remote(task, self._mailbox)

    def _start_again(self) -> None:
        for key, attempt in self._busy.items():
            if attempt.reference is None and time.monotonic() > attempt.not_before:
                self._start(key, attempt)

    def _hear_all(self, hear: Hear) -> None:
        """Pass on what runs have told, other than from attempts that were given up."""
        try:
            heard = self._ray.get(self._mailbox.take.remote())
        except self._ray.exceptions.RayError as error:
            raise TrainingError(
                f"The process that hears the runs of this study has ended: {_first(error)} The same command goes on."
            ) from None
        for key, ticket, name, arguments in heard:
            attempt = self._busy.get(key)
            if attempt is None or attempt.ticket != ticket or attempt.reference is None:
                continue
            if name != "away":
                hear(key, name, arguments)
            elif arguments[0] not in self._told:
                self._told.add(arguments[0])
                hear(key, "told", (f"{arguments[0]} does not see {self._store}; what it computes is sent back",))

    def _outcome(self, key: str, reference: Any, hear: Hear) -> Outcome | None:
        """What became of an attempt; None if the run is tried again."""
        attempt, errors = self._busy[key], self._ray.exceptions
        try:
            outcome = self._ray.get(reference)
        except errors.RayTaskError as error:
            outcome = _failed(f"It could not be computed: {_first(error.cause or error)}")
        except errors.RayError as error:
            lost = "memory ran out" if isinstance(error, errors.OutOfMemoryError) else "its process or machine was lost"
            if attempt.number < ATTEMPTS:
                attempt.reference, attempt.not_before = None, time.monotonic() + 2.0 ** (attempt.number - 1)
                hear(key, "told", (f"{lost}; it is tried again",))
                return None
            outcome = _failed(f"In each of {ATTEMPTS} attempts {lost}: {_first(error)}")
        for _ in _listed(attempt.path):
            pass
        del self._busy[key]
        return outcome


def _everywhere(config: Config, path: Path) -> Config:
    """The settings with full paths, so that they run in every process."""
    values = run_settings(config, out=path)
    data = {f"data.{name}": values["data"][name] for name in ("source", "image_root")}
    return changed_config(config, data | {"model.weights": values["model"]["weights"]})


def _listed(path: Path) -> Iterator[Path]:
    """What is in a folder: a network file system looks anew when it is listed, and not always before."""
    with contextlib.suppress(OSError):
        yield from path.rglob("*")


def _failed(reason: str) -> Outcome:
    return Outcome("failed", reason, TrainingError.exit_code)


def _first(error: BaseException) -> str:
    """The first line of what an error says."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
