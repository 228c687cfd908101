"""Weights & Biases: offline in the run folder, unless the user has logged in or says otherwise."""

import os
import shlex
from collections.abc import Mapping

from radtransfer.trackers.tracker import TrackedRun, Tracker, plan_markdown

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
