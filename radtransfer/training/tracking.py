"""Shows a run in the trackers that were asked for: they follow the files of the run folder and decide nothing.

A figure is shown once it stands in the folder, so that a run which goes on after a kill loses no point of a tracker.
"""

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from radtransfer.config.load import config_values
from radtransfer.config.schema import Config
from radtransfer.process import Progress
from radtransfer.runs.folder import read_rows, write_json
from radtransfer.runs.read import read_record
from radtransfer.training.trackers import TRACKERS, TrackedRun, Tracker

FOLDER = "trackers"
"""Of a run folder: what trackers write, and `state.json`, which says how far they have come."""

_NO_TEST_SCORE = ("fold", "repeat", "seed", "best_epoch", "epochs", "val")


@contextlib.contextmanager
def tracked(config: Config, path: Path, progress: Progress) -> Iterator[Progress]:
    """A progress that passes everything on to `progress`, and keeps the trackers of the run in `path` up to date.

    Without trackers it is `progress` itself. A tracker that fails is left out, which is told once.
    """
    if not config.track:
        yield progress
        return
    tracking = _Tracking(config, path, progress)
    try:
        yield tracking
    except BaseException as error:
        tracking.end("interrupted" if isinstance(error, KeyboardInterrupt) else "failed")
        raise
    tracking.end("finished")


def points(path: Path) -> Iterator[tuple[str, int, int, dict[str, float]]]:
    """Everything that the folds in the run folder `path` hold by now, a point for each epoch and for each test.

    A point is the series that it is a part of, its place there (upwards from 1), training steps, and figures by name.
    """
    for folder in sorted(path.glob("fold_*"), key=lambda item: int(item.name[5:])):
        step = 0
        for phase, prefix in ((folder / "head_phase", "head_"), (folder, "")):
            file = phase / "history.csv"
            for row in read_rows(file) if file.is_file() else ():
                step = int(row.pop("step"))
                named = {f"{prefix}{key}/{folder.name}": float(text) for key, text in row.items() if text}
                yield str(phase.relative_to(path)), int(row["epoch"]), step, named
        if (folder / "metrics.json").is_file():
            scores = read_record(folder / "metrics.json")
            of_test = {key: item for key, item in scores.items() if key not in _NO_TEST_SCORE}
            named = figures(of_test, prefix="test_", suffix=f"/{folder.name}")
            named |= figures(scores.get("val", {}), prefix="best_val_", suffix=f"/{folder.name}")
            yield f"{folder.name}/test", 1, step, named


def figures(values: Mapping[str, Any], *, prefix: str = "", suffix: str = "") -> dict[str, float]:
    """The numbers in nested mappings, named in letters that every tracker takes."""
    found: dict[str, float] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= figures(value, prefix=f"{prefix}{key}_", suffix=suffix)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[re.sub(r"[^\w./ -]", "_", f"{prefix}{key}{suffix}", flags=re.ASCII)] = float(value)
    return found


@dataclass
class _Follower:
    """A tracker with its name, what it needs to go on, and the number of the last point shown of each series."""

    name: str
    tracker: Tracker
    kept: dict[str, str] = field(default_factory=dict)
    shown: dict[str, int] = field(default_factory=dict)


class _Tracking(Progress):
    """Passes on what a run tells; trackers start with its plan."""

    def __init__(self, config: Config, path: Path, progress: Progress) -> None:
        self._config, self._path, self._progress = config, path, progress
        self._all: list[_Follower] = []
        self._live: list[_Follower] = []

    def plan(self, rows: Mapping[str, str]) -> None:
        self._progress.plan(rows)
        self._all = [_Follower(name, TRACKERS[name]()) for name in dict.fromkeys(self._config.track)]
        self._live = list(self._all)
        self._for_each(lambda follower: self._start(follower, rows))
        self._for_each(self._follow)

    def note(self, text: str) -> None:
        self._progress.note(text)

    def count(self, what: str, done: int, total: int) -> None:
        self._progress.count(what, done, total)

    def epoch(self, fold: int, folds: int, epochs: int, row: Mapping[str, Any]) -> None:
        self._progress.epoch(fold, folds, epochs, row)
        self._for_each(self._follow)

    def fold(self, fold: int, folds: int, metrics: Mapping[str, Any]) -> None:
        self._progress.fold(fold, folds, metrics)
        self._for_each(self._follow)

    def end(self, status: str) -> None:
        """The run ended, well or not."""

        def end(follower: _Follower) -> None:
            self._follow(follower)
            if (self._path / "metrics.json").is_file():
                follower.tracker.conclude(figures(read_record(self._path / "metrics.json"), prefix="run/"))
            follower.tracker.end(status)

        self._for_each(end)

    def _start(self, follower: _Follower, plan: Mapping[str, str]) -> None:
        folder = self._path / FOLDER / follower.name
        folder.mkdir(parents=True, exist_ok=True)
        before = self._state().get(follower.name, {})
        follower.kept, follower.shown = before.get("kept", {}), before.get("shown", {})
        settings = dict(_flat({**config_values(self._config), "out": str(self._path)}))
        run = TrackedRun(self._path.name, folder, settings, dict(plan))
        follower.kept = follower.tracker.start(run, follower.kept)
        self._progress.note(f"{follower.name}: {follower.tracker.where}")

    def _follow(self, follower: _Follower) -> None:
        """Show what is new in the run folder."""
        for series, number, step, metrics in points(self._path):
            if number > follower.shown.get(series, 0):
                follower.tracker.log(metrics, step=step)
                follower.shown[series] = number

    def _for_each(self, work: Callable[[_Follower], None]) -> None:
        """Do `work` for each follower; one that fails is left out from then on."""
        for follower in list(self._live):
            try:
                work(follower)
            except Exception as error:  # whatever goes wrong in a tracker is no reason to lose a training
                self._live.remove(follower)
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                self._progress.note(
                    f"{follower.name} failed and is left out until the run is resumed; the training goes on: {reason}"
                )
                with contextlib.suppress(Exception):
                    follower.tracker.end("failed")
        # Of every tracker that ever started, those that were left out included: they go on there when resumed.
        mine = {item.name: {"kept": item.kept, "shown": item.shown} for item in self._all if item.kept}
        with contextlib.suppress(OSError, ValueError):  # without it a point may come twice
            write_json(self._path / FOLDER / "state.json", self._state() | mine)

    def _state(self) -> dict[str, Any]:
        file = self._path / FOLDER / "state.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names; a list is one text."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list | Mapping):
            yield f"{prefix}{key}", ", ".join(map(str, value))
        else:
            yield f"{prefix}{key}", value
