"""Processes of this machine that each take run after run.

A worker is a fresh interpreter that imports TensorFlow once. It tells what it does over a pipe; one that dies takes
only the run with it that it was computing, and a new one takes its place.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

from radtransfer.config.schema import Config
from radtransfer.errors import RadtransferError, TrainingError
from radtransfer.process import end_after_signals, import_keras, pin_variables, variables
from radtransfer.studies.engines import (
    Hear,
    Outcome,
    Relay,
    new_model_cache,
    run_cell,
    thread_environment,
    with_decoders,
)

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
