"""Processes of this machine that each take run after run.

A worker is a fresh interpreter that imports TensorFlow once. It tells what it does over a pipe; one that dies takes
only the run with it that it was computing, and a new one takes its place.

Where the runs of a study are computed: here, in processes of this machine, or on a Ray cluster.

What a study asks of whatever computes its runs, and how a run is heard from afar.

One run of a study, from settings to outcome: the unit of work that any engine calls, in any process.

A run on a machine that does not see the study's store: fetched, computed in a copy of the store, sent back.

The records of a run hold full paths. They are rewritten on the way, so that a run that was sent back is the one that
would have been computed in the store.

One run after the other in this process.

The near end of runs computed elsewhere: what they tell, and the files of those that do not see the study's store.
"""

import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from radtransfer.config.load import changed_config, load_config
from radtransfer.config.schema import Config
from radtransfer.config.yaml_text import read_yaml, write_yaml
from radtransfer.errors import FoldsFailedError, RadtransferError, RunInUseError, TrainingError
from radtransfer.files import PART, system_error
from radtransfer.process import Progress, end_after_signals, import_keras, pin_variables, variables
from radtransfer.runs.folder import write_json, write_text
from radtransfer.runs.lock import LOCK, locked

if TYPE_CHECKING:  # it imports TensorFlow
    from radtransfer.training.context import ModelCache

Status = Literal["finished", "partly", "failed", "busy"]


@dataclass(frozen=True)
class Outcome:
    """What became of a run.

    Attributes:
        status: "finished"; "partly" if some folds failed; "failed"; "busy" if another process is computing it.
        error: Why it, or a fold of it, failed.
        exit_code: Of the error; 0 if there is none.
        seconds: That this call took.
    """

    status: Status
    error: str | None = None
    exit_code: int = 0
    seconds: float = 0.0


def run_cell(
    config: Config, path: Path, *, progress: Progress | None = None, models: "ModelCache | None" = None
) -> Outcome:
    """Compute the run in `path`, or go on with it; errors are outcomes.

    The result depends on the settings alone: nothing that this process did before matters.

    Args:
        config: The settings; those that a run begun in `path` was begun with count where both mean the same.
        path: The run folder.
        progress: Hears what happens.
        models: Those of earlier runs in this process; from `new_model_cache`.
    """
    started = time.monotonic()
    outcome = _outcome(config, path, progress, models)
    return replace(outcome, seconds=round(time.monotonic() - started, 2))


def new_model_cache() -> "ModelCache":
    """A cache for a process that computes nothing but runs: what Keras keeps of earlier ones is forgotten.

    Not for each run: what was traced would have to be compiled again.
    """
    import keras

    from radtransfer.training.context import ModelCache

    return ModelCache(before_building=keras.utils.clear_session)


def _outcome(config: Config, path: Path, progress: Progress | None, models: "ModelCache | None") -> Outcome:
    from radtransfer.training.run import finetune

    try:
        finetune(_as_begun(config, path), resume=True, progress=progress, models=models or new_model_cache())
    except RunInUseError as error:
        return Outcome("busy", str(error), error.exit_code)
    except FoldsFailedError as error:
        return Outcome("partly", str(error), error.exit_code)
    except RadtransferError as error:
        return Outcome("failed", str(error), error.exit_code)
    except Exception as error:  # a bug in one run must not stop the others
        known = system_error(error)
        if known is not None:
            return Outcome("failed", str(known), known.exit_code)
        return Outcome("failed", f"Unexpected {type(error).__name__}: {error}", RadtransferError.exit_code)
    return Outcome("finished")


def _as_begun(config: Config, path: Path) -> Config:
    """The settings of the run that stands in `path`: another study may have written the same ones differently."""
    if not (path / "run.json").exists():
        return replace(config, out=str(path))
    begun = load_config(str(path / "config.yaml"))
    return replace(
        begun, out=str(path), track=config.track, system=replace(begun.system, workers=config.system.workers)
    )


Hear = Callable[[str, str, tuple], None]
"""Told the key of a run, what happened, and its arguments: a method of `Progress` by name; `placed` with the name of
the machine that computes the run from its beginning, or from where it was lost; or `told` with a sentence for the
user."""


class Engine(Protocol):
    """Computes runs, at most `places` at a time; these may become more or fewer.

    What a run gives depends on its settings and the threads it computes with, never on the engine.
    """

    @property
    def places(self) -> int:
        """Runs that it computes at a time."""

    def submit(self, key: str, config: Config, path: Path) -> None:
        """Take a run; only while a place is free."""

    def wait(self, hear: Hear, seconds: float) -> list[tuple[str, Outcome]]:
        """The runs that ended, after the first has or `seconds` have passed."""

    def close(self) -> None:
        """Stop what is running, so that it can go on later."""


class Relay(Progress):
    """Passes on what a run tells, by method name and arguments; of counts, one each `seconds` is enough."""

    def __init__(self, tell: Callable[[str, tuple], None], *, seconds: float = 0.1) -> None:
        self._tell, self._seconds, self._counted = tell, seconds, 0.0

    def plan(self, rows: Mapping[str, str]) -> None:
        self._tell("plan", (dict(rows),))

    def note(self, text: str) -> None:
        self._tell("note", (text,))

    def count(self, what: str, done: int, total: int) -> None:
        if done == total or time.monotonic() - self._counted > self._seconds:
            self._counted = time.monotonic()
            self._tell("count", (what, done, total))

    def epoch(self, fold: int, folds: int, epochs: int, row: Mapping[str, Any]) -> None:
        self._tell("epoch", (fold, folds, epochs, dict(row)))

    def fold(self, fold: int, folds: int, metrics: Mapping[str, Any]) -> None:
        self._tell("fold", (fold, folds, dict(metrics)))


def thread_environment(threads: int | None) -> dict[str, str]:
    """What to set in the environment of a process, before it starts, so that it computes with so many threads.

    A sum that is split over another number of threads is rounded otherwise.
    """
    names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {} if threads is None else dict.fromkeys(names, str(threads))


def with_decoders(config: Config, threads: int | None) -> Config:
    """The settings with as many images decoded in parallel, where they leave that open."""
    if threads is None or config.system.workers != "auto":
        return config
    return changed_config(config, {"system.workers": threads})


class InProcess:
    """Computes one run after the other in this process; its progress is heard as it comes.

    Args:
        progress: Hears what a run does, besides whoever waits.
    """

    places = 1

    def __init__(self, progress: Progress | None = None) -> None:
        self._progress = progress or Progress()
        self._waiting: list[tuple[str, Config, Path]] = []
        self._models = None

    def submit(self, key: str, config: Config, path: Path) -> None:
        self._waiting.append((key, config, path))

    def wait(self, hear: Hear, seconds: float) -> list[tuple[str, Outcome]]:
        key, config, path = self._waiting.pop()
        self._models = self._models or new_model_cache()

        def both(name: str, arguments: tuple) -> None:
            getattr(self._progress, name)(*arguments)
            hear(key, name, arguments)

        return [(key, run_cell(config, path, progress=Relay(both), models=self._models))]

    def close(self) -> None:
        self._waiting.clear()


PIECE = 16 << 20
"""Bytes of a file that travel at a time."""


class Mailbox:
    """Stands on the machine of the study, in a process of its own.

    Of a run only its latest attempt is served: an earlier one may go on for a while on a machine thought lost. Every
    call may come twice, and what is only remembered may be forgotten in between: the process can be ended and started
    again at any time, as when memory runs out.

    Args:
        store: The folder of the runs.
    """

    def __init__(self, store: Path) -> None:
        self._store = store
        self._heard: list[tuple[str, int, str, tuple]] = []
        self._latest: dict[str, int] = {}
        self._locks: dict[str, contextlib.ExitStack] = {}

    def tell(self, key: str, attempt: int, name: str, arguments: tuple) -> None:
        """Keep what a run tells until it is taken."""
        self._heard.append((key, attempt, name, arguments))

    def take(self) -> list[tuple[str, int, str, tuple]]:
        """What was told since the last time."""
        heard, self._heard = self._heard, []
        return heard

    def open(self, key: str, attempt: int) -> None:
        """Hold the lock of the folder of a run, made if needed, for this attempt or a later one.

        Raises:
            RunInUseError: Another process holds it, or there is a later attempt already.
        """
        if attempt < self._latest.get(key, 0):
            raise RunInUseError(f"Run {key} goes on elsewhere; this attempt was given up.")
        self._latest[key] = attempt
        if key not in self._locks:
            folder = self._store / key
            folder.mkdir(parents=True, exist_ok=True)
            with contextlib.ExitStack() as stack:
                stack.enter_context(locked(folder))
                self._locks[key] = stack.pop_all()

    def close(self, key: str, attempt: int) -> None:
        """Free the lock again."""
        self.open(key, attempt)
        self._locks.pop(key).close()

    def files(self, key: str) -> dict[str, int]:
        """The files of a run by their path in its folder, with their sizes."""
        return {name: file.stat().st_size for name, file in files_below(self._store / key).items()}

    def read(self, key: str, name: str, start: int) -> bytes:
        """The next bytes of a file."""
        with (self._store / key / name).open("rb") as file:
            file.seek(start)
            return file.read(PIECE)

    def write(self, key: str, attempt: int, name: str, start: int, piece: bytes) -> None:
        """The next bytes of a file that will be kept."""
        self.open(key, attempt)
        part = self._part(key, name)
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open("r+b" if start else "wb") as file:
            file.seek(start)
            file.write(piece)

    def keep(self, key: str, attempt: int, written: list[str], gone: list[str]) -> None:
        """Let files that were written take their places, in this order, and delete others."""
        self.open(key, attempt)
        for name in written:
            with contextlib.suppress(FileNotFoundError):  # it took its place when this was called before
                self._part(key, name).replace(self._store / key / name)
        for name in gone:
            (self._store / key / name).unlink(missing_ok=True)

    def _part(self, key: str, name: str) -> Path:
        place = self._store / key / name
        return place.with_name(f"{PART}sent-{place.name}")


def files_below(folder: Path) -> dict[str, Path]:
    """The files of a run by their path in its folder; those that say how far it is come last."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    files = [file for file in files if not file.name.startswith((LOCK, PART))]
    files.sort(key=lambda file: (file.name == "run.json", file.name == "metrics.json", file))
    return {file.relative_to(folder).as_posix(): file for file in files}


SECONDS = 300.0
"""After which a run is sent back at the end of an epoch; at the end of a fold it always is."""

Call = Callable[..., Any]
"""Calls a method of the mailbox by name, with its arguments, and waits for what it gives."""


def compute_elsewhere(
    call: Call, key: str, attempt: int, config: Config, path: Path, tell: Callable[[str, tuple], None]
) -> Outcome:
    """Compute the run `path`, which this machine does not see; however it ends, what there is of it is sent back.

    Args:
        call: To the mailbox of the study.
        key: Of the run.
        attempt: At it.
        config: Its settings.
        path: Its folder, on the machine of the study.
        tell: Hears what it does, by method of `Progress`.
    """
    try:
        call("open", key, attempt)
    except RunInUseError as error:
        return Outcome("busy", str(error), error.exit_code)
    with _scratch() as place:
        copy = StoreCopy(call, path.parent, place)
        sent = time.monotonic()

        def hear(name: str, arguments: tuple) -> None:
            nonlocal sent
            if name == "fold" or (name == "epoch" and time.monotonic() - sent > SECONDS):
                copy.send(key, attempt)
                sent = time.monotonic()
            tell(name, arguments)

        try:
            config = changed_config(config, {"model.weights": copy.source(config.model.weights)})
            outcome = run_cell(config, copy.fetch(key), progress=Relay(hear, seconds=1.0))
            return replace(outcome, error=outcome.error and copy.there(outcome.error))
        finally:
            copy.send(key, attempt)
            call("close", key, attempt)


class StoreCopy:
    """Some runs of a store in a folder of this machine.

    Args:
        call: To the mailbox of the study.
        store: The store, on the machine of the study.
        place: The folder.
    """

    def __init__(self, call: Call, store: Path, place: Path) -> None:
        self._call, self._store, self._place = call, store, place
        self._known: dict[str, dict[str, tuple[int, int]]] = {}

    def source(self, weights: str) -> str:
        """Where the weights are that a run starts from, fetched if they are a run of the store."""
        if Path(weights).parent != self._store:
            return weights
        return str(self.fetch(Path(weights).name))

    def fetch(self, key: str) -> Path:
        """The folder of a run, with what the store holds of it."""
        folder = self._place / key
        folder.mkdir()
        for name, size in self._call("files", key).items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("wb") as handle:
                while handle.tell() < size and (piece := self._call("read", key, name, handle.tell())):
                    handle.write(piece)
        for file in files_below(folder).values():
            if file.suffix in _RECORDS:
                _rewrite_record(file, self._here)
        self._known[key] = _states(folder)
        return folder

    def send(self, key: str, attempt: int) -> None:
        """What of a run has changed since it was fetched, or sent the last time."""
        folder = self._place / key
        states, before = _states(folder), self._known.get(key, {})
        changed = [name for name, state in states.items() if before.get(name) != state]
        with _scratch() as letters:
            for name in changed:
                self._write(key, attempt, name, _letter(folder / name, letters, self.there))
        self._call("keep", key, attempt, changed, [name for name in before if name not in states])
        self._known[key] = states

    def there(self, text: str) -> str:
        """A text with the paths as they are on the machine of the study."""
        return text.replace(str(self._place), str(self._store))

    def _here(self, text: str) -> str:
        for run in self._place.iterdir():
            text = text.replace(str(self._store / run.name), str(run))
        return text

    def _write(self, key: str, attempt: int, name: str, file: Path) -> None:
        with file.open("rb") as handle:
            start = 0
            while (piece := handle.read(PIECE)) or start == 0:
                self._call("write", key, attempt, name, start, piece)
                start += len(piece)
                if not piece:
                    return


def _letter(file: Path, folder: Path, rewrite: Callable[[str], str]) -> Path:
    """The file as it is sent: a record with its paths rewritten, anything else as it is."""
    if file.suffix not in _RECORDS:
        return file
    letter = folder / f"record{file.suffix}"
    shutil.copyfile(file, letter)
    _rewrite_record(letter, rewrite)
    return letter


def _rewrite_record(file: Path, rewrite: Callable[[str], str]) -> None:
    read, write = _RECORDS[file.suffix]
    value = read(file)
    changed = _rewritten(value, rewrite)
    if changed != value:
        write(file, changed)


def _rewritten(value: Any, rewrite: Callable[[str], str]) -> Any:
    """`value` with every text in it rewritten."""
    if isinstance(value, Mapping):
        return {name: _rewritten(item, rewrite) for name, item in value.items()}
    if isinstance(value, list):
        return [_rewritten(item, rewrite) for item in value]
    return rewrite(value) if isinstance(value, str) else value


def _states(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of each file."""
    states = {name: file.stat() for name, file in files_below(folder).items()}
    return {name: (state.st_size, state.st_mtime_ns) for name, state in states.items()}


@contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="radtransfer-", ignore_cleanup_errors=True) as folder:
        yield Path(folder).resolve()


_RECORDS = {
    ".json": (lambda file: json.loads(file.read_text(encoding="utf-8")), write_json),
    ".yaml": (lambda file: read_yaml(file)[0], lambda file, value: write_text(file, write_yaml(value))),
}


_PATIENCE = 30.0
"""Seconds that a worker has to end by itself."""


_GRACE = 0.8
"""Seconds after which a worker that was told to stop is ended wherever it is, before its parent is."""

_RUNS, _GROWTH = 50, 1.5
"""Of a worker before a fresh one takes its place: runs, and memory by that after its first run. TensorFlow gives back
only part of what a network took: measured, 3.5 times the size of its weights stay with each run."""


class Workers:
    """Computes runs in `jobs` worker processes.

    Args:
        jobs: How many.
        prepare: Called first in each; a function of a module, such as one that imports TensorFlow quietly.
        threads: That each computes with; as many as there are cores if not given.
        runs: That each computes, at most.
    """

    def __init__(
        self,
        jobs: int,
        *,
        prepare: Callable[[], None] | None = None,
        threads: int | None = None,
        runs: int = _RUNS,
    ) -> None:
        self.places, self._prepare, self._threads, self._runs = jobs, prepare, threads, runs
        self._idle: list[_Worker] = []
        self._busy: dict[str, _Worker] = {}

    def submit(self, key: str, config: Config, path: Path) -> None:
        worker = self._idle.pop() if self._idle else _start_worker(self._prepare, self._threads, self._runs)
        self._busy[key] = worker
        with contextlib.suppress(OSError):  # it died idle; `wait` sees that
            worker.pipe.send((with_decoders(config, self._threads), path))

    def wait(self, hear: Hear, seconds: float) -> list[tuple[str, Outcome]]:
        places = {item: key for key, worker in self._busy.items() for item in (worker.pipe, worker.process.sentinel)}
        ended = []
        for key in dict.fromkeys(places[item] for item in wait(list(places), timeout=seconds)):
            outcome = self._hear_out(key, hear)
            if outcome is not None:
                ended.append((key, outcome))
        return ended

    def close(self) -> None:
        for worker in self._idle:
            worker.pipe.close()
        for worker in self._busy.values():
            worker.process.terminate()
        deadline = time.monotonic() + _PATIENCE
        for worker in (*self._idle, *self._busy.values()):
            worker.process.join(max(deadline - time.monotonic(), 0.1))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self._idle, self._busy = [], {}

    def _dismiss(self, worker: "_Worker") -> None:
        worker.pipe.close()
        worker.process.join(_PATIENCE)

    def _hear_out(self, key: str, hear: Hear) -> Outcome | None:
        """Everything that the worker of `key` has said by now; the outcome, if it has come to one."""
        worker = self._busy[key]
        try:
            while worker.pipe.poll():
                what, value = worker.pipe.recv()
                if isinstance(what, Outcome):
                    del self._busy[key]
                    self._dismiss(worker) if value else self._idle.append(worker)
                    return what
                hear(key, what, value)
        except (EOFError, OSError):
            worker.process.join()
        if worker.process.is_alive():
            return None
        del self._busy[key]
        return Outcome("failed", _death(worker.process.exitcode), TrainingError.exit_code)


@dataclass(frozen=True)
class _Worker:
    process: multiprocessing.process.BaseProcess
    pipe: Connection


def _start_worker(prepare: Callable[[], None] | None, threads: int | None, runs: int) -> _Worker:
    context = multiprocessing.get_context("spawn")
    mine, its = context.Pipe()
    process = context.Process(target=_work, args=(its, prepare, runs), daemon=True)
    with variables(thread_environment(threads)):
        process.start()
    its.close()
    return _Worker(process, mine)


def _work(pipe: Connection, prepare: Callable[[], None] | None, runs: int) -> None:
    """The life of a worker: until it has done enough, the pipe is closed, or it is told to stop."""
    # Ctrl-C reaches the whole group; the parent alone says when to stop, once.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    pin_variables()
    # Several processes share a GPU only if none takes all its memory at once.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    try:
        try:
            if prepare is not None:
                prepare()
            import_keras()
        except RadtransferError as error:  # the limits of the machine, which are the answer to the first run
            pipe.recv()
            pipe.send((Outcome("failed", str(error), error.exit_code), True))
            return
        # Not before: an interrupted import of compiled modules ends in any error, and until here nothing is lost.
        signal.signal(signal.SIGTERM, _interrupt)
        end_after_signals(_GRACE)
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
    """Of this process, in pages; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0


def _interrupt(signum: int, frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _die_with_parent() -> None:
    """Stop when the parent was killed: nobody would hear the result, and a new study would find the run in use."""
    parent = multiprocessing.parent_process()
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        reason = ", as when memory runs out: try a smaller batch or fewer --jobs" if name == "SIGKILL" else ""
        return f"Its process was ended by {name}{reason}."
    return f"Its process ended unexpectedly (exit code {code})."
