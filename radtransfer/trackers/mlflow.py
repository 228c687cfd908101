"""MLflow: a folder inside the run folder, or the server that MLFLOW_TRACKING_URI names."""

import os
import shlex
import time
from collections.abc import Mapping
from pathlib import Path

from radtransfer.trackers.tracker import TrackedRun, Tracker, plan_markdown

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
