"""Computes the missing runs of a study, and writes its folder: study.yaml, progress.json, table.csv, table.json."""

import contextlib
import json
import shlex
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from radtransfer.data.readers import absolute_source
from radtransfer.errors import (
    ConfigError,
    DataError,
    DiskError,
    FoldsFailedError,
    RunError,
    TrainingError,
    WeightsError,
)
from radtransfer.files import PART, delete_part, writing
from radtransfer.pretrained.source import absolute_weights
from radtransfer.process import Progress, on_forced_exit
from radtransfer.runs.folder import write_json, write_text
from radtransfer.runs.lock import LOCK, locked, made_folder
from radtransfer.studies.engines import Engine, Outcome, Places
from radtransfer.studies.file import study_text
from radtransfer.studies.grid import PlannedRun, Speeds, StudyPlan, changed_data, store_speeds
from radtransfer.studies.study import Study, StudyArm
from radtransfer.studies.tables import write_study_table

BUSY_SECONDS = 1.0
"""Seconds until a run that another process computes is tried again."""

_WRITE_SECONDS = 1.0
"""Minimum seconds between two writes of `progress.json`."""

_ABSOLUTE = {
    "data.source": absolute_source,
    "data.image_root": lambda path: str(Path(path).expanduser().absolute()),
    # The backbone only serves to recognize the name of a family, such as imagenet.
    "model.weights": lambda weights: absolute_weights(weights, backbone="resnet50"),
}
"""Setting to the function that makes its path absolute."""


@dataclass
class RunningRun:
    """A run that is being computed; `row` is its latest progress: machine, fold, folds, epoch, epochs, val_auc."""

    run: PlannedRun
    started: float
    row: dict[str, Any] = field(default_factory=dict)


@dataclass
class StudyState:
    """The progress of a study; runs are named by their keys."""

    plan: StudyPlan
    done: list[str]
    waiting: list[str]  # in order
    places: int = 1
    left: list[str] = field(default_factory=list)  # not computed because of a limit
    failed: dict[str, Outcome] = field(default_factory=dict)  # failed now, completely or in part
    running: dict[str, RunningRun] = field(default_factory=dict)
    speeds: Speeds = field(default_factory=Speeds)

    def seconds_left(self) -> float | None:
        """The maximum time for running and waiting runs; None if no similar run was timed."""
        keys = [*self.running, *self.waiting]
        estimates = [self.speeds.seconds(self.plan.runs[key]) for key in keys]
        if None in estimates:
            return None
        passed = sum(time.monotonic() - item.started for item in self.running.values())
        return max(sum(estimates) - passed, 0.0) / max(min(self.places, len(keys)), 1)

    def record(self) -> dict[str, Any]:
        """The content of `progress.json`."""
        seconds = self.seconds_left()
        return {
            "study": self.plan.study.name,
            "total": len(self.plan.runs),
            "done": len(self.done),
            "failed": {key: outcome.error for key, outcome in self.failed.items()},
            "running": [{"run": key, "name": item.run.cell.name, **item.row} for key, item in self.running.items()],
            "waiting": len(self.waiting),
            "left": len(self.left),
            "seconds_left": None if seconds is None else round(seconds),
        }


def compute_study(
    plan: StudyPlan, path: Path, places: Places, progress: Progress, *, limit: int | None = None
) -> StudyState:
    """`run_study` with its files and tables in the folder `path`; prints the command to resume if interrupted."""
    words = ["radtransfer", "study", str(path / "study.yaml"), "--out", str(path), "--runs", str(plan.store)]
    again = shlex.join([*words, *places.words()])

    def interrupted() -> None:
        progress.note(f"stopping; resume with: {again}")

    with open_study_folder(path) as folder:
        for note in folder.begin(plan):
            progress.note(note)
        with on_forced_exit(interrupted):
            engine = places.engine(plan.store, note=progress.note)
        try:
            with on_forced_exit(interrupted):
                state = run_study(plan, engine, progress, limit=limit, folder=folder)
            folder.write_progress(state, now=True)
        except (KeyboardInterrupt, DiskError):
            interrupted()
            raise
        finally:
            progress.clear()
            engine.close()
            write_study_table(plan, path)
    if state.left:
        progress.note(f"{len(state.left)} runs are left, because of --limit; resume with: {again}")
    return state


def run_study(
    plan: StudyPlan,
    engine: Engine,
    progress: Progress,
    *,
    limit: int | None = None,
    folder: "StudyFolder | None" = None,
) -> StudyState:
    """Compute every missing run, or `limit` of them; errors of runs are part of the result.

    The files in the `folder` of the study are kept up to date. After a KeyboardInterrupt, the next call resumes the
    interrupted runs. Raises RunError if the store cannot be used.
    """
    done = [key for key, run in plan.runs.items() if run.done]
    todo = [key for key in plan.runs if key not in done]
    waiting = todo if limit is None else todo[:limit]
    left, speeds = todo[len(waiting) :], store_speeds(plan.store)
    state = StudyState(plan, done, waiting, left=left, speeds=speeds, places=engine.places)
    loop = _Loop(state, engine, progress, folder)
    with writing(plan.store):
        plan.store.mkdir(parents=True, exist_ok=True)
    loop.changed()
    while loop.start() or state.running:
        for key, outcome in engine.wait(loop.progress, 1.0) if state.running else ():
            loop.end(key, outcome)
        loop.changed()
    return state


def check_complete(state: StudyState, *, what: str = "runs") -> None:
    """Raise FoldsFailedError if runs failed, or their error if all failed with the same one."""
    failed = {state.plan.runs[key].cell.name: outcome for key, outcome in state.failed.items()}
    if not failed:
        return
    errors, total = {(outcome.error, outcome.exit_code) for outcome in failed.values()}, len(state.plan.runs)
    if len(failed) == total and len(errors) == 1:
        (error, code), *_ = errors
        kinds = {kind.exit_code: kind for kind in (ConfigError, DataError, WeightsError)}
        raise kinds.get(code, TrainingError)(f"every run failed: {error}")
    reasons = " ".join(f"{name}: {outcome.error}" for name, outcome in failed.items())
    raise FoldsFailedError(f"{len(failed)} of {total} {what} failed; the others are saved. {reasons}")


class _Loop:
    """Starts runs as places become free, and records their outcomes."""

    def __init__(self, state: StudyState, engine: Engine, shown: Progress, folder: "StudyFolder | None") -> None:
        self.state, self.engine, self.shown, self.folder = state, engine, shown, folder
        self._not_before: dict[str, float] = {}
        self._bad_data: dict[tuple, Outcome] = {}
        self._noted_full = False

    def start(self) -> bool:
        """Start runs in the free places; returns whether runs are still waiting."""
        state = self.state
        places = state.places = self.engine.places
        for key in list(state.waiting):
            run = state.plan.runs[key]
            blocked = self._bad_data.get(_data_settings(run))
            if run.source in state.failed:
                reason = f"The run that it starts from, {run.source}, failed."
                blocked = Outcome("failed", reason, state.failed[run.source].exit_code)
            ready = self._not_before.get(key, 0.0) <= time.monotonic()
            ready = ready and (run.source is None or run.source in state.done)
            if blocked is not None:
                state.waiting.remove(key)
                self._record(run, blocked)
            elif len(state.running) < places and ready:
                state.waiting.remove(key)
                run.write_note(failure=None)
                state.running[key] = RunningRun(run, time.monotonic())
                self.shown.run_started(run)
                self.engine.submit(key, run.config, run.path)
        if state.waiting and not state.running:
            if places == 0 and not self._noted_full:
                self._noted_full = True
                self.shown.note("no machine has room for a run; waiting for one")
            time.sleep(BUSY_SECONDS)  # another process computes the run, or there is no free place
        return bool(state.waiting)

    def progress(self, key: str, name: str, arguments: tuple) -> None:
        """A `ProgressCallback`."""
        running = self.state.running[key]
        row = running.row
        if name == "epoch":
            fold, folds, epochs, figures = arguments
            row.update(fold=fold, folds=folds, epoch=figures["epoch"], epochs=epochs, val_auc=figures["val_auc"])
        elif name == "count":
            row["doing"] = "{} {}/{}".format(*arguments)
        elif name == "placed":
            row.clear()
            row["machine"] = arguments[0]
        elif name == "message":
            self.shown.note(f"{running.run.cell.name}: {arguments[0]}")
        if name in ("epoch", "count", "placed"):
            self.changed()

    def changed(self) -> None:
        if self.folder is not None:
            self.folder.write_progress(self.state)
        self.shown.study_changed(self.state)

    def end(self, key: str, outcome: Outcome) -> None:
        run = self.state.running.pop(key).run
        if outcome.status == "busy":
            if key not in self._not_before:
                self.shown.note(f"{run.cell.name} ({run.path}) is being computed by another process; waiting for it")
            self._not_before[key] = time.monotonic() + BUSY_SECONDS
            self.state.waiting.append(key)
            return
        if outcome.exit_code == DataError.exit_code:
            self._bad_data[_data_settings(run)] = outcome
        self._record(run, outcome)

    def _record(self, run: PlannedRun, outcome: Outcome) -> None:
        run.write_note(failure=outcome.error)
        if outcome.status == "finished":
            self.state.done.append(run.key)
            self.state.speeds.learn_run(run.identity, run.path)
        else:
            self.state.failed[run.key] = outcome
        if self.folder is not None:
            self.folder.write_progress(self.state, now=True)
            write_study_table(self.state.plan, self.folder.path)
        self.shown.run_ended(self.state, run, outcome)


def _data_settings(run: PlannedRun) -> tuple:
    """The settings that decide whether the data of a run can be used."""
    return run.config.data, run.config.images, run.config.splits


class StudyFolder:
    """A study's folder in use by this process; from `open_study_folder`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._written = 0.0

    def begin(self, plan: StudyPlan) -> list[str]:
        """Write `study.yaml`; returns notes for the user, mainly on changed data."""
        before = None
        # A damaged table is ignored and written again.
        with contextlib.suppress(OSError, ValueError, RecursionError, TypeError, KeyError):
            before = json.loads((self.path / "table.json").read_text(encoding="utf-8"))["data"]
        notes = [*plan.notes, *changed_data(plan, before if isinstance(before, dict) else {})]
        write_text(self.path / "study.yaml", study_text(with_absolute_paths(plan.study)))
        return notes

    def write_progress(self, state: StudyState, *, now: bool = False) -> None:
        """Write `progress.json`, at most once a second unless `now`."""
        if now or time.monotonic() - self._written > _WRITE_SECONDS:
            self._written = time.monotonic()
            write_json(self.path / "progress.json", state.record())


@contextlib.contextmanager
def open_study_folder(path: Path) -> Iterator[StudyFolder]:
    """Hold the lock of a study's folder, made if needed; RunError if it is in use, not a study or not writable."""
    with made_folder(path):
        names = {item.name for item in path.iterdir() if not item.name.startswith((LOCK, PART))}
        if names and "study.yaml" not in names:
            raise RunError(
                f"{path} is not the folder of a study: it contains {', '.join(sorted(names)[:3])}. Use another --out."
            )
        with locked(path):
            for part in path.glob(f"{PART}*"):
                delete_part(part)
            yield StudyFolder(path)


def with_absolute_paths(study: Study) -> Study:
    """The study with absolute paths of its data and weights, so that it works from any folder."""

    def absolute(name: str, value: Any) -> Any:
        return _ABSOLUTE[name](value) if name in _ABSOLUTE and value else value

    def settings(values: Mapping[str, Any]) -> dict[str, Any]:
        return {name: absolute(name, value) for name, value in values.items()}

    def grid(lists: Mapping[str, tuple]) -> dict[str, tuple]:
        return {name: tuple(absolute(name, value) for value in values) for name, values in lists.items()}

    arms = {name: StudyArm(settings(arm.settings), grid(arm.grid)) for name, arm in study.arms.items()}
    sources = {name: replace(source, settings=settings(source.settings)) for name, source in study.sources.items()}
    return replace(study, base=settings(study.base), arms=arms, sources=sources, grid=grid(study.grid))
