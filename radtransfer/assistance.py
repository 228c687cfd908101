"""Several workers train one network: what the others do while the chief keeps the run, and what they agree on."""

from pathlib import Path
from typing import Any

from radtransfer.config import flat_settings
from radtransfer.device import versions
from radtransfer.distribution.joining import lost_workers
from radtransfer.distribution.replicas import Replicas
from radtransfer.errors import OutOfMemoryError, TrainingError
from radtransfer.experiment import Experiment, with_kept_images
from radtransfer.fold_training import train_fold
from radtransfer.plan_block import plan_lines, run_record
from radtransfer.preparation import RunInputs, prepare
from radtransfer.progress import Progress
from radtransfer.run_address import run_settings
from radtransfer.runs import FREE
from radtransfer.settings import Config

DECISIVE = (
    "weights_sha256",
    "preprocessing",
    "precision",
    "jit",
    "onednn",
    "classes",
    "head",
    "table_sha256",
    "images_sha256",
    "replicas",
)
"""What of `run.json` must not change between the start of a run and its resumption."""

_PLACES = FREE | {"data.source", "data.image_root", "model.weights"}
"""Settings that may differ between workers; of what lies in these places the contents are compared."""


def assist(
    config: Config, replicas: Replicas, progress: Progress, inputs: RunInputs | None = None
) -> tuple[dict[str, Any], dict[int, str], int]:
    """What a worker that is not the chief does: the same steps, and nothing is written.

    `inputs` are those of `read_inputs`, if it was called already.

    Returns:
        What `metrics.json` holds, why folds failed, and how many there are.

    Raises:
        RadtransferError: Whatever `finetune` raises before training.
        TrainingError: Every fold failed.
        WorkerLostError: Another worker is gone.
    """
    with lost_workers(replicas):
        finished = replicas.record_from_chief(None)
        if finished is not None:
            return finished, {}, 0
        compare_settings(replicas, run_settings(config, out=Path()))
        experiment = prepare(config, report_file=None, progress=progress, inputs=inputs, replicas=replicas)
        compare_data(experiment)
        progress.plan(plan_lines(experiment, None))
        experiment, failures = with_kept_images(experiment, progress), {}
        for fold in experiment.folds:
            if replicas.record_from_chief(None):
                continue
            try:
                train_fold(experiment, fold, None, Path(f"fold_{fold.number}"), progress)
            except TrainingError as error:
                failures[fold.number] = failure(experiment, error)
        if len(failures) == len(experiment.folds):
            raise TrainingError(next(iter(failures.values())))
        return replicas.record_from_chief(None), failures, len(experiment.folds)


def compare_settings(replicas: Replicas | None, settings: dict[str, Any]) -> None:
    """Raises ConfigError if the workers were not started alike."""
    if replicas is not None:
        replicas.check_same(versions())  # first: others have other settings
        given = flat_settings(settings, source="config.yaml", mistakes=[])
        replicas.check_same({name: value for name, value in given.items() if name not in _PLACES})


def compare_data(experiment: Experiment) -> None:
    """Raises ConfigError if the workers read other images or weights."""
    if experiment.replicas is not None:
        record = run_record(experiment)
        experiment.replicas.check_same({name: record[name] for name in DECISIVE})


def tell(replicas: Replicas | None, value: Any) -> None:
    """Let the other workers know `value`, which is plain."""
    if replicas is not None:
        replicas.record_from_chief(value)


def failure(experiment: Experiment, error: TrainingError) -> str:
    """What failed a fold on every worker alike; memory runs out on one, which ends the job."""
    if isinstance(error, OutOfMemoryError) and experiment.replicas is not None and experiment.replicas.workers > 1:
        raise error
    return str(error)
