"""Shows a run in the trackers that were asked for: they follow the files of the run folder and decide nothing.

A figure is shown once it is in the folder, so that a run which goes on after a kill loses no point of a tracker.
TensorBoard writes event files into the run folder, MLflow a folder there, or to the server that MLFLOW_TRACKING_URI
names, Weights & Biases offline into the run folder, unless the user has logged in or says otherwise. To add a tracker,
write a subclass of `Tracker` and give it a line in `TRACKERS`.
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
    """Raises ConfigError if a tracker is unknown or its package is not installed; imports no such package."""
    missing = [name for name in names if importlib.util.find_spec(TRACKERS[name].package) is None]
    if missing:
        raise ConfigError(f"--track {','.join(missing)}: not installed. Run: {INSTALL}; or remove it.")


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told of a run when it starts."""

    name: str
    folder: Path  # where the tracker may write; inside the run folder, and there already
    settings: Mapping[str, Any]  # dotted names and values: numbers, booleans, None and text
    plan: Mapping[str, str]  # title and text of each aspect, as the terminal shows it before the first step


class Tracker:
    """Shows one run in one program. Any method may raise: the tracker is then left out, and the training goes on.

    To write your own, override the four methods; `start` sets `where`.
    """

    package: ClassVar[str]  # the module that must be installed
    where: str = ""  # how the user looks at it, once it has started

    def start(self, run: TrackedRun, kept: Mapping[str, str]) -> dict[str, str]:
        """Begin, or go on.

        Args:
            run: What is tracked.
            kept: What this method gave when the run was started first; empty then. The settings and the plan are
                those of that first start and are shown already.

        Returns:
            What the next start needs to go on in the same place; at least one entry.
        """
        raise NotImplementedError

    def log(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Show these figures at `step`, the number of training steps; a point may come twice, with equal values."""
        raise NotImplementedError

    def conclude(self, metrics: Mapping[str, float]) -> None:
        raise NotImplementedError

    def end(self, status: str) -> None:
        """Close; `status` is "finished", "failed" or "interrupted", and the run may go on later after the last two."""
        raise NotImplementedError


def plan_markdown(plan: Mapping[str, str]) -> str:
    """The plan block as Markdown that keeps its columns."""
    indented = (f"{title:<10}" + text.replace("\n", "\n" + " " * 10) for title, text in plan.items())
    return "\n".join(f"    {line}" for line in "\n".join(indented).split("\n"))


class TensorBoard(Tracker):
    """Scalars by training step, the plan as text, the settings under HParams.

    A run that goes on adds an event file; TensorBoard reads all of a folder as one run.
    """

    package = "tensorboard"

    def start(self, run: TrackedRun, kept: Mapping[str, str]) -> dict[str, str]:
        import tensorflow as tf
        from tensorboard.plugins.hparams import api as hparams

        self._summary = tf.summary
        self._writer = tf.summary.create_file_writer(str(run.folder))
        self.where = f"tensorboard --logdir {shlex.quote(str(run.folder))}"
        if not kept:
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
    """Settings as parameters, the plan as the run's note, figures as metrics.

    Uses the client alone, so that an MLflow run of the user's own that is active in this process is left alone.
    """

    package = "mlflow"

    def start(self, run: TrackedRun, kept: Mapping[str, str]) -> dict[str, str]:
        # Read by MLflow: it sends statistics of use otherwise, and refuses folders of files, which need no database.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        # A server that does not answer would hold a training up for four minutes each time.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        uri = kept.get("uri") or os.environ.get("MLFLOW_TRACKING_URI")
        from mlflow import MlflowClient

        self._client = MlflowClient(tracking_uri=uri or run.folder.absolute().as_uri())
        self._run = kept.get("run_id") or self._new_run(run)
        if kept:
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
            except MlflowException:  # another process may be making the same one
                found = client.get_experiment_by_name(name)
                if found is None:
                    raise
                experiment = found.experiment_id
        made = client.create_run(experiment, run_name=run.name)
        # Every MLflow server takes values of 500 characters and 100 parameters in a call.
        params = [Param(key, str(value)[:500]) for key, value in run.settings.items()]
        for first in range(0, len(params), 100):
            client.log_batch(made.info.run_id, params=params[first : first + 100])
        client.set_tag(made.info.run_id, "mlflow.note.content", plan_markdown(run.plan))
        return made.info.run_id


class WeightsAndBiases(Tracker):
    """Settings as config, the plan as notes, figures over the training step.

    WANDB_MODE decides between online, offline and disabled; without it, a login does. What the terminal shows and
    the source code stay here.
    """

    package = "wandb"

    def start(self, run: TrackedRun, kept: Mapping[str, str]) -> dict[str, str]:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        mode = os.environ.get("WANDB_MODE") or ("online" if wandb.login(prompt=False, verify=False) else "offline")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or "radtransfer",
            name=run.name,
            id=kept.get("id"),
            resume="allow",
            config=None if kept else dict(run.settings),
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
        # W&B takes the last value of a figure as its summary.
        self.log(metrics, step=self._step)

    def end(self, status: str) -> None:
        self._run.finish(exit_code=0 if status == "finished" else 1)


FOLDER = "trackers"  # of a run folder: what trackers write, and `state.json`, which says how far they have come


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
            not_scores = ("fold", "repeat", "seed", "best_epoch", "epochs", "val")
            of_test = {key: item for key, item in scores.items() if key not in not_scores}
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

    def plan(self, rows: Mapping[str, str], short: Mapping[str, str] | None = None) -> None:
        self._progress.plan(rows, short)
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
        from radtransfer.training.address import dotted_values

        values = dotted_values({**config_values(self._config), "out": str(self._path)})
        settings = {name: ", ".join(map(str, x)) if isinstance(x, list | Mapping) else x for name, x in values}
        run = TrackedRun(self._path.name, folder, settings, dict(plan))
        follower.kept = follower.tracker.start(run, follower.kept)
        self._progress.note(f"{follower.name}: {follower.tracker.where}")

    def _follow(self, follower: _Follower) -> None:
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
