"""Programs that show how a training goes, by name; whatever they show stands in the run's CSVs as well.

To add one, write a file with a subclass of `Tracker` and give it a line here.

What every tracker does.

TensorBoard: event files in the run folder.

MLflow: a folder inside the run folder, or the server that MLFLOW_TRACKING_URI names.

Weights & Biases: offline in the run folder, unless the user has logged in or says otherwise.
"""

import importlib.util
import os
import shlex
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from radtransfer.errors import ConfigError, Table

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
        raise ConfigError(f"--track {','.join(missing)}: not installed. Run: {INSTALL}; or leave it away.")


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told of a run when it starts.

    Attributes:
        name: What it is called.
        folder: Where the tracker may write; inside the run folder, and there already.
        settings: Dotted names and values: numbers, booleans, None and text.
        plan: Title and text of each aspect, as the terminal shows it before the first step.
    """

    name: str
    folder: Path
    settings: Mapping[str, Any]
    plan: Mapping[str, str]


class Tracker:
    """Shows one run in one program. Any method may raise: the tracker is then left out, and the training goes on.

    To write your own, override the four methods; `start` sets `where`.

    Attributes:
        package: The module that must be installed.
        where: How the user looks at it, once it has started.
    """

    package: ClassVar[str]
    where: str = ""

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
        """Show the figures of the whole run."""
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
                hparams.hparams({name: _plain(value) for name, value in run.settings.items()})
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


def _plain(value: object) -> object:
    return value if isinstance(value, bool | int | float | str) else str(value)


EXPERIMENT = "radtransfer"
"""Of the runs, where MLFLOW_EXPERIMENT_NAME names no other."""

_LONGEST, _MOST = 500, 100
"""Characters of a parameter's value and parameters in a call: what every MLflow server takes."""

_STATUS = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}


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
        self.where = f"run {self._run} at {uri}" if uri else _local_command(run.folder)
        return {"run_id": self._run} | ({"uri": uri} if uri else {})

    def log(self, metrics: Mapping[str, float], *, step: int) -> None:
        from mlflow.entities import Metric

        at = int(1000 * time.time())
        self._client.log_batch(self._run, metrics=[Metric(name, value, at, step) for name, value in metrics.items()])

    def conclude(self, metrics: Mapping[str, float]) -> None:
        self.log(metrics, step=0)

    def end(self, status: str) -> None:
        self._client.set_terminated(self._run, status=_STATUS[status])

    def _new_run(self, run: TrackedRun) -> str:
        from mlflow.entities import Param

        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        made = self._client.create_run(self._experiment(name), run_name=run.name)
        params = [Param(key, str(value)[:_LONGEST]) for key, value in run.settings.items()]
        for first in range(0, len(params), _MOST):
            self._client.log_batch(made.info.run_id, params=params[first : first + _MOST])
        self._client.set_tag(made.info.run_id, "mlflow.note.content", plan_markdown(run.plan))
        return made.info.run_id

    def _experiment(self, name: str) -> str:
        """The experiment's id; another process may be making the same one."""
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return self._client.create_experiment(name)
            except MlflowException:
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise
        return found.experiment_id


def _local_command(folder: Path) -> str:
    return f"MLFLOW_ALLOW_FILE_STORE=true mlflow ui --backend-store-uri {shlex.quote(str(folder))}"


PROJECT = "radtransfer"
"""Of the runs, where WANDB_PROJECT names no other."""


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
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
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
