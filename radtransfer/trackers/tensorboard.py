"""TensorBoard: event files in the run folder."""

import shlex
from collections.abc import Mapping

from radtransfer.trackers.tracker import TrackedRun, Tracker, plan_markdown


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
