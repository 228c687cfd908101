"""Engines that compute the runs of a study: in this process, in worker processes, or on machines without its store.

A machine that cannot access the store fetches a run through a `Mailbox`, computes it in a copy and sends it back. The
absolute paths in its records are rewritten on the way, so that the result equals that of a run in the store.
"""

import contextlib
import json
import multiprocessing
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from radtransfer.config.load import changed_config, load_config
from radtransfer.config.schema import Config
from radtransfer.config.yaml_text import read_yaml, write_yaml
from radtransfer.errors import ConfigError, FoldsFailedError, RadtransferError, RunInUseError, TrainingError
from radtransfer.files import PART, system_error
from radtransfer.process import (
    Progress,
    exit_after_signal,
    import_keras,
    importer,
    pin_variables,
    require_keras,
    variables,
)
from radtransfer.runs.folder import write_json, write_text
from radtransfer.runs.lock import LOCK, locked

if TYPE_CHECKING:  # it imports TensorFlow
    from radtransfer.training.context import ModelCache

CHUNK = 16 << 20
"""Bytes of a file sent at a time."""

_SEND_SECONDS = 300.0
"""Interval at which a run is sent back at the end of an epoch, besides the end of every fold."""

_TIMEOUT = 30.0
"""Seconds for a worker to end by itself."""

_GRACE = 0.8
"""Seconds after which a worker that was asked to stop is killed, before its parent is."""

_RUNS, _GROWTH = 50, 1.5
"""Limits of a worker before a new one replaces it: its runs, and its memory relative to that after its first run.
TensorFlow frees only part of a network's memory; each run leaves about 3.5 times the size of its weights."""

ProgressCallback = Callable[[str, str, tuple], None]
"""Called with the key of a run, an event and its arguments. Events are the methods of `Progress`; "placed" with the
machine that starts or resumes the run; and "message" with a sentence for the user."""


@dataclass(frozen=True)
class Outcome:
    """The result of a run: "partly" if some folds failed, "busy" if another process computes it."""

    status: Literal["finished", "partly", "failed", "busy"]
    error: str | None = None
    exit_code: int = 0
    seconds: float = 0.0


class Engine(Protocol):
    """Computes up to `places` runs at a time; `places` may change.

    The result of a run depends on its settings and number of threads, never on the engine.
    """

    @property
    def places(self) -> int:
        """Number of runs computed at a time."""

    def submit(self, key: str, config: Config, path: Path) -> None:
        """Start a run; only while a place is free."""

    def wait(self, callback: ProgressCallback, seconds: float) -> list[tuple[str, Outcome]]:
        """The runs that ended, as soon as one has or `seconds` have passed."""

    def close(self) -> None:
        """Stop running runs so that they can be resumed."""


def run_cell(
    config: Config, path: Path, *, progress: Progress | None = None, models: "ModelCache | None" = None
) -> Outcome:
    """Compute or resume the run in `path`; errors become outcomes.

    A run that exists keeps its settings as written, as another study may have written equal ones differently.
    """
    start = time.monotonic()
    from radtransfer.training.run import finetune

    try:
        if (path / "run.json").exists():
            begun = load_config(str(path / "config.yaml"))
            system = replace(begun.system, workers=config.system.workers)
            config = replace(begun, track=config.track, system=system)
        config = replace(config, out=str(path))
        finetune(config, resume=True, progress=progress, models=models or new_model_cache())
        outcome = Outcome("finished")
    except RadtransferError as error:
        status = {RunInUseError: "busy", FoldsFailedError: "partly"}.get(type(error), "failed")
        outcome = Outcome(status, str(error), error.exit_code)
    except Exception as error:  # a bug in one run must not stop the others
        known = system_error(error) or RadtransferError(f"Unexpected {type(error).__name__}: {error}")
        outcome = Outcome("failed", str(known), known.exit_code)
    return replace(outcome, seconds=round(time.monotonic() - start, 2))


def new_model_cache() -> "ModelCache":
    """A cache that clears Keras' state before it builds a model.

    Clearing before each run would discard traced functions.
    """
    import keras

    from radtransfer.training.context import ModelCache

    return ModelCache(before_building=keras.utils.clear_session)


class Relay(Progress):
    """Sends progress as method name and arguments; counts at most once per `seconds`."""

    def __init__(self, send: Callable[[str, tuple], None], *, seconds: float = 0.1) -> None:
        self._send, self._seconds, self._counted = send, seconds, 0.0

    def plan(self, rows: Mapping[str, str], short: Mapping[str, str] | None = None) -> None:
        self._send("plan", (dict(rows), short and dict(short)))

    def note(self, text: str) -> None:
        self._send("note", (text,))

    def count(self, what: str, done: int, total: int) -> None:
        if done == total or time.monotonic() - self._counted > self._seconds:
            self._counted = time.monotonic()
            self._send("count", (what, done, total))

    def epoch(self, fold: int, folds: int, epochs: int, row: Mapping[str, Any]) -> None:
        self._send("epoch", (fold, folds, epochs, dict(row)))

    def fold(self, fold: int, folds: int, metrics: Mapping[str, Any]) -> None:
        self._send("fold", (fold, folds, dict(metrics)))


def thread_environment(threads: int | None) -> dict[str, str]:
    """Environment variables for a process with this number of threads, which affects the rounding of sums."""
    names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {} if threads is None else dict.fromkeys(names, str(threads))


def with_decoders(config: Config, threads: int | None) -> Config:
    """The settings with `threads` decoding workers, unless they name a number."""
    if threads is None or config.system.workers != "auto":
        return config
    return changed_config(config, {"system.workers": threads})


class InProcess:
    """Computes the runs one after the other in this process; progress also goes to `progress`."""

    places = 1

    def __init__(self, progress: Progress | None = None) -> None:
        self._progress = progress or Progress()
        self._waiting: list[tuple[str, Config, Path]] = []
        self._models = None

    def submit(self, key: str, config: Config, path: Path) -> None:
        self._waiting.append((key, config, path))

    def wait(self, callback: ProgressCallback, seconds: float) -> list[tuple[str, Outcome]]:
        key, config, path = self._waiting.pop()
        self._models = self._models or new_model_cache()

        def both(name: str, arguments: tuple) -> None:
            getattr(self._progress, name)(*arguments)
            callback(key, name, arguments)

        return [(key, run_cell(config, path, progress=Relay(both), models=self._models))]

    def close(self) -> None:
        self._waiting.clear()


@dataclass(frozen=True)
class _Worker:
    process: multiprocessing.process.BaseProcess
    pipe: Connection


class Workers:
    """Computes runs in `jobs` worker processes, each of which imports TensorFlow once and computes at most `runs` runs.

    A worker that dies is replaced and loses only its current run. `prepare`, a function of a module, is called first in
    each process. By default a worker has as many threads as there are cores.
    """

    def __init__(
        self, jobs: int, *, prepare: Callable[[], None] | None = None, threads: int | None = None, runs: int = _RUNS
    ) -> None:
        self.places, self._prepare, self._threads, self._runs = jobs, prepare, threads, runs
        self._idle: list[_Worker] = []
        self._busy: dict[str, _Worker] = {}

    def submit(self, key: str, config: Config, path: Path) -> None:
        if self._idle:
            worker = self._idle.pop()
        else:
            context = multiprocessing.get_context("spawn")
            pipe, child_pipe = context.Pipe()
            process = context.Process(target=_work, args=(child_pipe, self._prepare, self._runs), daemon=True)
            with variables(thread_environment(self._threads)):
                process.start()
            child_pipe.close()
            worker = _Worker(process, pipe)
        self._busy[key] = worker
        with contextlib.suppress(OSError):  # the worker died idle; `wait` notices
            worker.pipe.send((with_decoders(config, self._threads), path))

    def wait(self, callback: ProgressCallback, seconds: float) -> list[tuple[str, Outcome]]:
        keys = {item: key for key, worker in self._busy.items() for item in (worker.pipe, worker.process.sentinel)}
        ready = dict.fromkeys(keys[item] for item in wait(list(keys), timeout=seconds))
        outcomes = [(key, self._receive(key, callback)) for key in ready]
        return [(key, outcome) for key, outcome in outcomes if outcome is not None]

    def close(self) -> None:
        for worker in self._idle:
            worker.pipe.close()
        for worker in self._busy.values():
            worker.process.terminate()
        deadline = time.monotonic() + _TIMEOUT
        for worker in (*self._idle, *self._busy.values()):
            worker.process.join(max(deadline - time.monotonic(), 0.1))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self._idle, self._busy = [], {}

    def _receive(self, key: str, callback: ProgressCallback) -> Outcome | None:
        """Forward the messages of the worker of `key`, and return the outcome if the run has ended."""
        worker = self._busy[key]
        try:
            while worker.pipe.poll():
                what, value = worker.pipe.recv()
                if isinstance(what, Outcome):
                    del self._busy[key]
                    if value:  # the worker's last run
                        worker.pipe.close()
                        worker.process.join(_TIMEOUT)
                    else:
                        self._idle.append(worker)
                    return what
                callback(key, what, value)
        except (EOFError, OSError):
            worker.process.join()
        if worker.process.is_alive():
            return None
        del self._busy[key]
        code = worker.process.exitcode
        reason = f"Its process ended unexpectedly (exit code {code})."
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            hint = ", as when memory runs out: try a smaller batch or fewer --jobs" if name == "SIGKILL" else ""
            reason = f"Its process was ended by {name}{hint}."
        return Outcome("failed", reason, TrainingError.exit_code)


def _work(pipe: Connection, prepare: Callable[[], None] | None, runs: int) -> None:
    """The main function of a worker; ends after its last run, when the pipe is closed, or by SIGTERM."""

    def end_with_parent() -> None:
        """Without the parent nobody receives the result, and a new study would find the run in use."""
        wait([multiprocessing.parent_process().sentinel])
        os.kill(os.getpid(), signal.SIGTERM)

    def interrupt(signum: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    # Ctrl-C reaches the whole process group; only the parent stops workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()
    pin_variables()
    # Without this the first process takes all memory of a GPU.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    try:
        try:
            if prepare is not None:
                prepare()
            import_keras()
        except RadtransferError as error:  # such as too little memory; reported as the outcome of the first run
            pipe.recv()
            pipe.send((Outcome("failed", str(error), error.exit_code), True))
            return
        # Not earlier, as interrupting the import of compiled modules causes arbitrary errors.
        signal.signal(signal.SIGTERM, interrupt)
        exit_after_signal(_GRACE)
        models, first, last = new_model_cache(), 0, False
        while not last:
            config, path = pipe.recv()
            progress = Relay(lambda name, arguments: pipe.send((name, arguments)))
            outcome = run_cell(config, path, progress=progress, models=models)
            first, runs = first or _memory(), runs - 1
            last = runs == 0 or _memory() > _GROWTH * first
            pipe.send((outcome, last))
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return


def _memory() -> int:
    """Memory of this process in pages; 0 if unknown."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0


class Mailbox:
    """Receives progress and files of remote runs, in a process on the machine of the study.

    Only the latest attempt at a run is served, as an earlier one may continue on a machine that was considered lost.
    The process may be restarted at any time, so that calls may be repeated and its memory may be lost.
    """

    def __init__(self, store: Path) -> None:
        self._store = store
        self._messages: list[tuple[str, int, str, tuple]] = []
        self._latest: dict[str, int] = {}
        self._locks: dict[str, contextlib.ExitStack] = {}

    def post(self, key: str, attempt: int, name: str, arguments: tuple) -> None:
        """Store the progress of a run until it is taken."""
        self._messages.append((key, attempt, name, arguments))

    def take(self) -> list[tuple[str, int, str, tuple]]:
        """The messages since the last call."""
        messages, self._messages = self._messages, []
        return messages

    def open(self, key: str, attempt: int) -> None:
        """Lock the folder of a run, made if needed, for this attempt or a later one.

        Raises RunInUseError if another process holds the lock or there is a later attempt.
        """
        if attempt < self._latest.get(key, 0):
            raise RunInUseError(f"Run {key} continues on another machine; this attempt was abandoned.")
        self._latest[key] = attempt
        if key not in self._locks:
            folder = self._store / key
            folder.mkdir(parents=True, exist_ok=True)
            with contextlib.ExitStack() as stack:
                stack.enter_context(locked(folder))
                self._locks[key] = stack.pop_all()

    def close(self, key: str, attempt: int) -> None:
        """Release the lock."""
        self.open(key, attempt)
        self._locks.pop(key).close()

    def files(self, key: str) -> dict[str, int]:
        """Sizes of the files of a run by their path in its folder."""
        return {name: file.stat().st_size for name, file in _files_below(self._store / key).items()}

    def read(self, key: str, name: str, start: int) -> bytes:
        """The next bytes of a file."""
        with (self._store / key / name).open("rb") as file:
            file.seek(start)
            return file.read(CHUNK)

    def write(self, key: str, attempt: int, name: str, start: int, chunk: bytes) -> None:
        """Write the next bytes of a file to a draft, for `keep`."""
        self.open(key, attempt)
        part = self._part(key, name)
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open("r+b" if start else "wb") as file:
            file.seek(start)
            file.write(chunk)

    def keep(self, key: str, attempt: int, written: list[str], deleted: list[str]) -> None:
        """Rename the drafts of written files, in this order, and delete others."""
        self.open(key, attempt)
        for name in written:
            with contextlib.suppress(FileNotFoundError):  # renamed by an earlier call
                self._part(key, name).replace(self._store / key / name)
        for name in deleted:
            (self._store / key / name).unlink(missing_ok=True)

    def _part(self, key: str, name: str) -> Path:
        file = self._store / key / name
        return file.with_name(f"{PART}sent-{file.name}")


def _files_below(folder: Path) -> dict[str, Path]:
    """The files of a run by their path in its folder; those that mark its progress come last."""
    files = [file for file in folder.rglob("*") if file.is_file() and not file.name.startswith((LOCK, PART))]
    files.sort(key=lambda file: (file.name == "run.json", file.name == "metrics.json", file))
    return {file.relative_to(folder).as_posix(): file for file in files}


def compute_remotely(
    call: Callable[..., Any],
    key: str,
    attempt: int,
    config: Config,
    path: Path,
    send: Callable[[str, tuple], None],
) -> Outcome:
    """Compute a run whose folder, `path`, this machine cannot access; its files are sent back even after an error.

    `call` calls a method of the mailbox by name and waits for the result; `send` receives progress as from `Relay`.
    """
    try:
        call("open", key, attempt)
    except RunInUseError as error:
        return Outcome("busy", str(error), error.exit_code)
    with _scratch() as folder:
        copy = _StoreCopy(call, path.parent, folder)
        sent = time.monotonic()

        def forward(name: str, arguments: tuple) -> None:
            nonlocal sent
            if name == "fold" or (name == "epoch" and time.monotonic() - sent > _SEND_SECONDS):
                copy.send(key, attempt)
                sent = time.monotonic()
            send(name, arguments)

        try:
            weights = Path(config.model.weights)
            if weights.parent == path.parent:  # a run of the store
                config = changed_config(config, {"model.weights": str(copy.fetch(weights.name))})
            outcome = run_cell(config, copy.fetch(key), progress=Relay(forward, seconds=1.0))
            return replace(outcome, error=outcome.error and copy.remote(outcome.error))
        finally:
            copy.send(key, attempt)
            call("close", key, attempt)


class _StoreCopy:
    """Copies in `folder` of runs in `store`, which is on the machine of the study."""

    def __init__(self, call: Callable[..., Any], store: Path, folder: Path) -> None:
        self._call, self._store, self._folder = call, store, folder
        self._known: dict[str, dict[str, tuple[int, int]]] = {}

    def fetch(self, key: str) -> Path:
        """The folder of a copied run."""
        folder = self._folder / key
        folder.mkdir()
        for name, size in self._call("files", key).items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("wb") as handle:
                while handle.tell() < size and (chunk := self._call("read", key, name, handle.tell())):
                    handle.write(chunk)
        for file in _files_below(folder).values():
            _rewrite_record(file, file, self._local)
        self._known[key] = _states(folder)
        return folder

    def send(self, key: str, attempt: int) -> None:
        """Send the files of a run that have changed since it was fetched or last sent."""
        folder = self._folder / key
        states, before = _states(folder), self._known.get(key, {})
        changed = [name for name, state in states.items() if before.get(name) != state]
        with _scratch() as drafts:
            for name in changed:
                file, start = folder / name, 0
                draft = drafts / f"record{file.suffix}"
                source = draft if _rewrite_record(file, draft, self.remote) else file
                with source.open("rb") as handle:
                    while (chunk := handle.read(CHUNK)) or start == 0:
                        self._call("write", key, attempt, name, start, chunk)
                        start += len(chunk)
                        if not chunk:
                            break
        self._call("keep", key, attempt, changed, [name for name in before if name not in states])
        self._known[key] = states

    def remote(self, text: str) -> str:
        """`text` with the paths of the machine of the study."""
        return text.replace(str(self._folder), str(self._store))

    def _local(self, text: str) -> str:
        for run in self._folder.iterdir():
            text = text.replace(str(self._store / run.name), str(run))
        return text


def _rewrite_record(file: Path, target: Path, rewrite: Callable[[str], str]) -> bool:
    """Write a JSON or YAML file to `target` with every text in it rewritten; False if nothing changes."""

    def rewritten(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: rewritten(item) for name, item in value.items()}
        if isinstance(value, list):
            return [rewritten(item) for item in value]
        return rewrite(value) if isinstance(value, str) else value

    if file.suffix not in (".json", ".yaml"):
        return False
    is_json = file.suffix == ".json"
    value = json.loads(file.read_text(encoding="utf-8")) if is_json else read_yaml(file)[0]
    changed = rewritten(value)
    if changed == value:
        return False
    write_json(target, changed) if is_json else write_text(target, write_yaml(changed))
    return True


def _states(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of each file."""
    states = {name: file.stat() for name, file in _files_below(folder).items()}
    return {name: (state.st_size, state.st_mtime_ns) for name, state in states.items()}


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="radtransfer-", ignore_cleanup_errors=True) as folder:
        yield Path(folder).resolve()


@dataclass(frozen=True)
class Places:
    """Where the runs of a study are computed, as the options of the command say; None where one was not given."""

    jobs: int | None  # runs at a time, each in a process; 0 for this process, as None without a cluster
    cluster: str | None  # address of a Ray cluster, or "" for the one there is
    cpus: int | None  # of each run
    gpus: float | None  # of each run

    def check(self) -> None:
        """Raises ConfigError for options that do not go together, or Ray that is not installed."""
        if self.cluster is None and self.gpus is not None:
            raise ConfigError("--gpus-per-run needs --ray: nothing else hands out GPUs.")
        if self.jobs == 0 and self.cluster is not None:
            raise ConfigError("--jobs 0 is this process, --ray is others. Leave one out.")
        if not self.jobs and self.cluster is None and self.cpus is not None:
            raise ConfigError("--cpus-per-run needs runs in processes of their own. Received: --jobs 0.")
        if self.cluster is not None:
            from radtransfer.studies.ray import require_ray

            require_ray()

    def engine(self, store: Path, *, note: Callable[[str], None]) -> Engine:
        """The engine that computes the runs of `store`; `note` gets what the user should know of it."""
        if self.cluster is None and not self.jobs:
            require_keras()
            return InProcess()
        if self.cluster is None:
            return Workers(self.jobs, prepare=importer(), threads=self.cpus)
        from radtransfer.studies.ray import Cluster, RayEngine

        cpus, gpus = self.cpus or 1, self.gpus or 0.0
        cluster = Cluster(self.cluster or None)
        try:
            if self.jobs is None:
                cluster.check_room(cpus=cpus, gpus=gpus)
            engine = RayEngine(cluster, store=store, cpus=cpus, gpus=gpus, places=self.jobs, prepare=importer())
        except BaseException:
            cluster.close()
            raise
        machines, size = cluster.machines(), f"{cpus} threads" if cpus > 1 else "one thread"
        where = f"Ray {cluster.ray.__version__} on {len(machines)} machine{'s' if len(machines) > 1 else ''}"
        note(f"{where}: {engine.places} runs at a time, {size}{f' and {gpus:g} GPUs' if gpus else ''} each")
        idle = sum(machine.get("GPU", 0) for machine in machines)
        if idle and not gpus:
            note(f"no run will use any of its {idle:g} GPUs: ask for them with --gpus-per-run")
        return engine

    def words(self) -> list[str]:
        """The options as they are typed."""
        jobs = 0 if self.jobs is None and self.cluster is None else self.jobs
        options = {"--jobs": jobs, "--cpus-per-run": self.cpus}
        if self.cluster is not None:
            options["--gpus-per-run"] = self.gpus
        words = [word for name, value in options.items() if value is not None for word in (name, f"{value:g}")]
        return words if self.cluster is None else [*words, "--ray", *filter(None, [self.cluster])]
