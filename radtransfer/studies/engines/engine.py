"""What a study asks of whatever computes its runs, and how a run is heard from afar."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from radtransfer.config import changed_config
from radtransfer.progress import Progress
from radtransfer.settings import Config
from radtransfer.studies.run_cell import Outcome

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
