"""Logs a run to experiment trackers, which read the files of the run folder and do not affect the run.

Values are logged after they are in the folder, so that a run that was killed and resumed loses no point. TensorBoard
writes event files into the run folder; MLflow writes there too, or to the server in MLFLOW_TRACKING_URI; Weights &
Biases writes there offline, unless the user has logged in or set another mode. To add a tracker, write a subclass of
`Tracker` and add it to `TRACKERS`.
"""

import contextlib
import importlib.util
import json
import os
import re
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from radtransfer.config.load import config_values
from radtransfer.config.schema import Config
from radtransfer.errors import ConfigError, Table
from radtransfer.process import Progress
from radtransfer.runs.folder import read_rows, write_json
from radtransfer.runs.read import read_record

TRACKERS = Table(
    "tracker",
    {
        "tensorboard": "radtransfer.training.trackers:TensorBoard",
        "mlflow": "radtransfer.training.trackers:MLflow",
        "wandb": "radtransfer.training.trackers:WeightsAndBiases",
    },
)

INSTALL = "pip install 'radtransfer[track]'"


def check_trackers(names: Iterable[str]) -> None:
    """Raise ConfigError if a tracker is unknown or its package is not installed, without importing it."""
    missing = [name for name in names if importlib.util.find_spec(TRACKERS[name].package) is None]
    if missing:
        raise ConfigError(f"--track {','.join(missing)}: not installed. Run: {INSTALL}; or remove the option.")


@dataclass(frozen=True)
class TrackedRun:
    """A run at its start, for a tracker."""

    name: str
    folder: Path  # an existing folder for the tracker inside the run folder
    settings: Mapping[str, Any]  # dotted names and values: numbers, booleans, None and text
    plan: Mapping[str, str]  # the plan block of the terminal: title to text


class Tracker:
    """Logs one run to one program. If a method raises, the tracker is dropped and training continues.

    To write your own, override the four methods; `start` sets `where`.
    """

    package: ClassVar[str]  # the module that must be installed
    where: str = ""  # how to view the run, set by `start`

    def start(self, run: TrackedRun, state: Mapping[str, str]) -> dict[str, str]:
        """Start, or resume.

        Args:
            run: The run.
            state: The result of this method at the first start; empty then. Settings and plan are logged only then.

        Returns:
            The state for resuming, with at least one entry.
        """
        raise NotImplementedError

    def log(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Log values at the training step `step`; a point may be logged twice, with equal values."""
        raise NotImplementedError

    def conclude(self, metrics: Mapping[str, float]) -> None:
        """Log the metrics of the whole run."""
        raise NotImplementedError

    def end(self, status: str) -> None:
        """Close; `status` is "finished", "failed" or "interrupted". The run may be resumed after the last two."""
        raise NotImplementedError


def plan_markdown(plan: Mapping[str, str]) -> str:
    """The plan block as a Markdown code block."""
    indented = (f"{title:<10}" + text.replace("\n", "\n" + " " * 10) for title, text in plan.items())
    return "\n".join(f"    {line}" for line in "\n".join(indented).split("\n"))


class TensorBoard(Tracker):
    """Scalars by training step, the plan as text, the settings under HParams.

    A resumed run adds an event file; TensorBoard reads all files in a folder as one run.
    """

    package = "tensorboard"

    def start(self, run: TrackedRun, state: Mapping[str, str]) -> dict[str, str]:
        import tensorflow as tf
        from tensorboard.plugins.hparams import api as hparams

        self._summary = tf.summary
        self._writer = tf.summary.create_file_writer(str(run.folder))
        self.where = f"tensorboard --logdir {shlex.quote(str(run.folder))}"
        if not state:
            with self._writer.as_default():
                settings = run.settings.items()
                plain = (bool, int, float, str)
                hparams.hparams({name: x if isinstance(x, plain) else str(x) for name, x in settings})
                tf.summary.text("plan", plan_markdown(run.plan), step=0)
            self._writer.flush()
        return {"folder": run.folder.name}

    def log(self, metrics: Mapping[str, float], *, step: int) -> None:
        with self._writer.as_default():
            for name, value in metrics.items():
                self._summary.scalar(name, value, step=step)
        self._writer.flush()

    def conclude(self, metrics: Mapping[str, float]) -> None:
        self.log(metrics, step=0)

    def end(self, status: str) -> None:
        self._writer.close()


class MLflow(Tracker):
    """Settings as parameters, the plan as the run's note, values as metrics.

    Uses only the client, so that an active MLflow run of the user in this process is not affected.
    """

    package = "mlflow"

    def start(self, run: TrackedRun, state: Mapping[str, str]) -> dict[str, str]:
        # By default MLflow sends usage statistics, and refuses to write to a folder instead of a database.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        # Otherwise each call to a server that does not answer takes four minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        uri = state.get("uri") or os.environ.get("MLFLOW_TRACKING_URI")
        from mlflow import MlflowClient

        self._client = MlflowClient(tracking_uri=uri or run.folder.absolute().as_uri())
        self._run = state.get("run_id") or self._new_run(run)
        if state:
            self._client.update_run(self._run, status="RUNNING")
        local = f"MLFLOW_ALLOW_FILE_STORE=true mlflow ui --backend-store-uri {shlex.quote(str(run.folder))}"
        self.where = f"run {self._run} at {uri}" if uri else local
        return {"run_id": self._run} | ({"uri": uri} if uri else {})

    def log(self, metrics: Mapping[str, float], *, step: int) -> None:
        from mlflow.entities import Metric

        at = int(1000 * time.time())
        self._client.log_batch(self._run, metrics=[Metric(name, value, at, step) for name, value in metrics.items()])

    def conclude(self, metrics: Mapping[str, float]) -> None:
        self.log(metrics, step=0)

    def end(self, status: str) -> None:
        terms = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
        self._client.set_terminated(self._run, status=terms[status])

    def _new_run(self, run: TrackedRun) -> str:
        from mlflow.entities import Param
        from mlflow.exceptions import MlflowException

        name, client = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "radtransfer", self._client
        found = client.get_experiment_by_name(name)
        if found is not None:
            experiment = found.experiment_id
        else:
            try:
                experiment = client.create_experiment(name)
            except MlflowException:  # another process may have created it at the same time
                found = client.get_experiment_by_name(name)
                if found is None:
                    raise
                experiment = found.experiment_id
        made = client.create_run(experiment, run_name=run.name)
        # Limits of MLflow servers: 500 characters per value and 100 parameters per call.
        params = [Param(key, str(value)[:500]) for key, value in run.settings.items()]
        for first in range(0, len(params), 100):
            client.log_batch(made.info.run_id, params=params[first : first + 100])
        client.set_tag(made.info.run_id, "mlflow.note.content", plan_markdown(run.plan))
        return made.info.run_id


class WeightsAndBiases(Tracker):
    """Settings as config, the plan as notes, values by training step.

    WANDB_MODE is online, offline or disabled; without it, online if the user has logged in. Terminal output and source
    code are not uploaded.
    """

    package = "wandb"

    def start(self, run: TrackedRun, state: Mapping[str, str]) -> dict[str, str]:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        mode = os.environ.get("WANDB_MODE") or ("online" if wandb.login(prompt=False, verify=False) else "offline")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or "radtransfer",
            name=run.name,
            id=state.get("id"),
            resume="allow",
            config=None if state else dict(run.settings),
            notes=plan_markdown(run.plan),
            dir=str(run.folder.absolute()),
            mode=mode,
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off", disable_git=True, save_code=False),
        )
        self._step = 0
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")
        offline = f"offline; upload with: wandb sync {shlex.quote(str(run.folder / 'wandb'))}/offline-run-*"
        self.where = str(self._run.url) if mode in ("online", "shared") else offline if mode == "offline" else mode
        return {"id": self._run.id}

    def log(self, metrics: Mapping[str, float], *, step: int) -> None:
        self._run.log({**metrics, "step": step})
        self._step = step

    def conclude(self, metrics: Mapping[str, float]) -> None:
        # W&B uses the last value of a metric as its summary.
        self.log(metrics, step=self._step)

    def end(self, status: str) -> None:
        self._run.finish(exit_code=0 if status == "finished" else 1)


FOLDER = "trackers"  # in a run folder: the files of the trackers, and `state.json` with their progress


@contextlib.contextmanager
def tracked(config: Config, path: Path, progress: Progress) -> Iterator[Progress]:
    """A progress that forwards to `progress` and updates the trackers of the run in `path`.

    Without trackers it is `progress` itself. A tracker that fails is dropped, with a note.
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
    """All points of the folds in the run folder `path`, one for each epoch and each test.

    A point is the name of its series, its number there (from 1), the training step, and values by name.
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
            not_scores = ("fold", "repeat", "seed", "best_epoch", "epochs", "val")
            of_test = {key: item for key, item in scores.items() if key not in not_scores}
            named = figures(of_test, prefix="test_", suffix=f"/{folder.name}")
            named |= figures(scores.get("val", {}), prefix="best_val_", suffix=f"/{folder.name}")
            yield f"{folder.name}/test", 1, step, named


def figures(values: Mapping[str, Any], *, prefix: str = "", suffix: str = "") -> dict[str, float]:
    """The numbers in nested mappings, with names that every tracker accepts."""
    found: dict[str, float] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= figures(value, prefix=f"{prefix}{key}_", suffix=suffix)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[re.sub(r"[^\w./ -]", "_", f"{prefix}{key}{suffix}", flags=re.ASCII)] = float(value)
    return found


@dataclass
class _ActiveTracker:
    """A tracker with its state for resuming, and the number of the last point logged of each series."""

    name: str
    tracker: Tracker
    state: dict[str, str] = field(default_factory=dict)
    shown: dict[str, int] = field(default_factory=dict)


class _Tracking(Progress):
    """Forwards the progress of a run; trackers start with its plan."""

    def __init__(self, config: Config, path: Path, progress: Progress) -> None:
        self._config, self._path, self._progress = config, path, progress
        self._all: list[_ActiveTracker] = []
        self._live: list[_ActiveTracker] = []

    def plan(self, rows: Mapping[str, str], short: Mapping[str, str] | None = None) -> None:
        self._progress.plan(rows, short)
        self._all = [_ActiveTracker(name, TRACKERS[name]()) for name in dict.fromkeys(self._config.track)]
        self._live = list(self._all)
        self._for_each(lambda active: self._start(active, rows))
        self._for_each(self._update)

    def note(self, text: str) -> None:
        self._progress.note(text)

    def count(self, what: str, done: int, total: int) -> None:
        self._progress.count(what, done, total)

    def epoch(self, fold: int, folds: int, epochs: int, row: Mapping[str, Any]) -> None:
        self._progress.epoch(fold, folds, epochs, row)
        self._for_each(self._update)

    def fold(self, fold: int, folds: int, metrics: Mapping[str, Any]) -> None:
        self._progress.fold(fold, folds, metrics)
        self._for_each(self._update)

    def end(self, status: str) -> None:
        def end(active: _ActiveTracker) -> None:
            self._update(active)
            if (self._path / "metrics.json").is_file():
                active.tracker.conclude(figures(read_record(self._path / "metrics.json"), prefix="run/"))
            active.tracker.end(status)

        self._for_each(end)

    def _start(self, active: _ActiveTracker, plan: Mapping[str, str]) -> None:
        folder = self._path / FOLDER / active.name
        folder.mkdir(parents=True, exist_ok=True)
        before = self._state().get(active.name, {})
        active.state, active.shown = before.get("kept", {}), before.get("shown", {})
        from radtransfer.training.address import dotted_values

        values = dotted_values({**config_values(self._config), "out": str(self._path)})
        settings = {name: ", ".join(map(str, x)) if isinstance(x, list | Mapping) else x for name, x in values}
        run = TrackedRun(self._path.name, folder, settings, dict(plan))
        active.state = active.tracker.start(run, active.state)
        self._progress.note(f"{active.name}: {active.tracker.where}")

    def _update(self, active: _ActiveTracker) -> None:
        for series, number, step, metrics in points(self._path):
            if number > active.shown.get(series, 0):
                active.tracker.log(metrics, step=step)
                active.shown[series] = number

    def _for_each(self, work: Callable[[_ActiveTracker], None]) -> None:
        """Do `work` for each active tracker; one that fails is dropped."""
        for active in list(self._live):
            try:
                work(active)
            except Exception as error:  # errors of a tracker must not stop a training
                self._live.remove(active)
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                self._progress.note(
                    f"{active.name} failed and is off until the run is resumed; training continues: {reason}"
                )
                with contextlib.suppress(Exception):
                    active.tracker.end("failed")
        # Dropped trackers are included: they continue there when the run is resumed.
        mine = {item.name: {"kept": item.state, "shown": item.shown} for item in self._all if item.state}
        with contextlib.suppress(OSError, ValueError):  # otherwise a point may be logged twice
            write_json(self._path / FOLDER / "state.json", self._state() | mine)

    def _state(self) -> dict[str, Any]:
        file = self._path / FOLDER / "state.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
