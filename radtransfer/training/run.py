"""Fine-tune a network on medical images: the main job, read like the method section of a paper.

One fold from its first weights to those of its best epoch.

Several workers train one network: what the others do while the chief keeps the run, and what they agree on.
"""

import os
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from radtransfer.config.load import flat_settings
from radtransfer.config.recipes import head_phase
from radtransfer.config.schema import Config, TrainingSettings
from radtransfer.config.yaml_text import write_yaml
from radtransfer.data.splits import FOLD_COLUMNS, Fold, fold_rows
from radtransfer.errors import DiskError, FoldsFailedError, OutOfMemoryError, RadtransferError, RunError, TrainingError
from radtransfer.evaluation.scoring import recorded_scoring
from radtransfer.process import (
    ONEDNN,
    EpochReporter,
    Progress,
    before_hard_end,
    keras_defaults,
    onednn_by_default,
    onednn_decided_by,
    versions,
)
from radtransfer.runs.folder import (
    FREE,
    Run,
    differences,
    now,
    open_run,
    run_folder,
    whole_file,
    write_rows,
    write_text,
)
from radtransfer.runs.read import read_record, reading
from radtransfer.training.address import run_settings
from radtransfer.training.context import Experiment, Networks, with_kept_images
from radtransfer.training.distributed import Replicas, join, lost_workers
from radtransfer.training.fold_results import FoldResult, read_fold_result, write_fold_result, write_summary
from radtransfer.training.loop import FitState, fit, memory_errors
from radtransfer.training.plan import plan_lines, run_record
from radtransfer.training.prepare import RunInputs, prepare
from radtransfer.training.step import Learner
from radtransfer.training.tracking import tracked
from radtransfer.transfer.initialize import start


def train_fold(experiment: Experiment, fold: Fold, run: Run | None, folder: Path, progress: Progress) -> FitState:
    """Train `fold`; the network then has the weights of its best epoch.

    Args:
        experiment: Of the run.
        fold: Which.
        run: Where the weights at the start go; None for a worker that writes nothing.
        folder: Of the fold.
        progress: Hears what happens.

    Raises:
        TrainingError: The loss is no longer a number, or memory ran out.
        RunError: A checkpoint is damaged, or of another network.
    """
    settings, seed = experiment.config.training, experiment.fold_seed(fold)
    with memory_errors(settings):
        start(experiment.classifier.model, experiment.plan, experiment.starting_weights, seed=seed)
        if run is not None:
            with whole_file(folder / "initial.weights.h5") as part:
                experiment.classifier.model.save_weights(part)
        if experiment.head_learner is not None:
            progress.note(f"fold {fold.number}: the head trains alone first")
            head_folder = folder / "head_phase" if run is None else run.head_phase(fold.number)
            _fit(experiment, experiment.head_learner, head_phase(settings), fold, head_folder, progress)
            progress.note(f"fold {fold.number}: now everything trains")
        return _fit(experiment, experiment.learner, settings, fold, folder, progress)


def _fit(
    experiment: Experiment,
    learner: Learner,
    settings: TrainingSettings,
    fold: Fold,
    folder: Path,
    progress: Progress,
) -> FitState:
    """Train what `learner` trains, from the weights as they stand."""
    learner.reset(experiment.class_weights(fold))
    return fit(
        learner,
        experiment.fold_data(fold, experiment.inputs(learner, progress)),
        settings,
        seed=experiment.fold_seed(fold),
        folder=folder,
        settled_after=experiment.settled_after,
        reporter=EpochReporter(progress, fold.number, experiment.fold_count, settings.epochs),
    )


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


@dataclass(frozen=True)
class Result:
    """A finished run: its folder, and what its `metrics.json` holds."""

    path: Path
    metrics: dict[str, Any]


@keras_defaults()
def finetune(
    config: Config,
    *,
    name: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    inputs: RunInputs | None = None,
    networks: Networks | None = None,
) -> Result:
    """Train, validate and test on every fold, and leave a run folder.

    Args:
        config: From `load_config`.
        name: Of the run folder below `runs/`, where `config.out` is not given.
        resume: Go on with the same run where it stopped, to the same result.
        overwrite: Replace the run in `config.out`.
        progress: Hears what happens.
        inputs: From `read_inputs` of these settings, if it was called already.
        networks: Those of earlier runs in this process: one that fits is taken over, to the same result, and the
            first step comes many times sooner.

    Raises:
        ConfigError: A setting cannot be used; RunError where it is the run folder.
        DataError: The images, labels or splits cannot be used.
        WeightsError: The weights cannot be used.
        TrainingError: Every fold failed.
        FoldsFailedError: Some folds failed; the others are kept and summarized.
        WorkerLostError: Another worker of a distributed training is gone.
    """
    progress = progress or Progress()
    replicas = join(config.system, notify=progress.note)
    out = run_folder(config, name=name, reuse=resume or overwrite)
    if replicas is not None and not replicas.is_chief:
        return _result(out, *assist(config, replicas, progress, inputs))
    settings = run_settings(config, out=out)
    with (
        open_run(out, settings, resume=resume, overwrite=overwrite) as run,
        _interrupts(run, settings, progress),
        lost_workers(replicas),
    ):
        finished = _finished_metrics(run) if run.finished else None
        tell(replicas, finished)
        if finished is not None:
            progress.note(f"{out} is finished; nothing is left to do")
            return Result(out, finished)
        compare_settings(replicas, settings)
        experiment = prepare(
            config,
            report_file=out / "bad_images.txt",
            progress=progress,
            inputs=inputs,
            networks=networks,
            replicas=replicas,
        )
        compare_data(experiment)
        _check_unchanged(run, run_record(experiment))
        run.begin(settings)
        with _status_kept(run, progress), lost_workers(replicas), tracked(config, out, progress) as progress:
            _record_start(run, experiment)
            progress.plan(plan_lines(experiment, out))
            experiment = with_kept_images(experiment, progress)
            results, failures = [], {}
            for fold in experiment.folds:
                try:
                    results.append(_train_fold(experiment, fold, run, progress))
                except TrainingError as error:
                    failures[fold.number] = failure(experiment, error)
                    progress.note(f"fold {fold.number} failed: {error}")
            return _conclude(experiment, run, results, failures)


def _finished_metrics(run: Run) -> dict[str, Any]:
    with reading(run.path):
        # Those of earlier versions do not say which class is positive.
        return {"positive_class": recorded_scoring(run.record).positive_class} | read_record(run.path / "metrics.json")


def _record_start(run: Run, experiment: Experiment) -> None:
    """What `run.json` says of the making; a resumed run keeps it and adds what it goes on with."""
    record, rows = run_record(experiment), list(fold_rows(experiment.table, experiment.folds))
    write_rows(run.path / "folds.csv", FOLD_COLUMNS, rows)
    if "versions" in run.record:
        again = {"at": now(), "versions": record["versions"], "device": record["device"]}
        run.update(resumed=[*run.record.get("resumed", []), again])
        return
    run.update(**record, fold_rows=len(rows))


def _train_fold(experiment: Experiment, fold: Fold, run: Run, progress: Progress) -> FoldResult:
    """One fold, from its first weights to its test predictions."""
    folder = run.fold(fold.number)
    finished = (folder / "metrics.json").exists()
    tell(experiment.replicas, finished)
    if finished:
        return read_fold_result(experiment, fold, folder)
    state = train_fold(experiment, fold, run, folder, progress)
    _record_seconds(run, fold, state.seconds)
    with memory_errors(experiment.config.training):
        result = write_fold_result(experiment, fold, state, folder)
    progress.fold(fold.number, experiment.fold_count, result.metrics)
    return result


def _record_seconds(run: Run, fold: Fold, seconds: float) -> None:
    """Keep what training and validation of a fold took in `run.json`, over every resumption."""
    per_fold = run.record.get("timings", {}).get("seconds_per_fold", {}) | {str(fold.number): round(seconds, 1)}
    run.update(timings={"seconds": round(sum(per_fold.values()), 1), "seconds_per_fold": per_fold})


def _conclude(experiment: Experiment, run: Run, results: list[FoldResult], failures: dict[int, str]) -> Result:
    """Summarize the finished folds; failed ones are named, and decide the exit code."""
    if not results:
        raise TrainingError(next(iter(failures.values())))
    metrics = write_summary(experiment, results, run.path)
    tell(experiment.replicas, metrics)
    return _result(run.path, metrics, failures, len(experiment.folds))


def _result(path: Path, metrics: dict[str, Any], failures: dict[int, str], folds: int) -> Result:
    result = Result(path, metrics)
    if failures:
        raise FoldsFailedError(
            f"{len(failures)} of {folds} folds failed; {path / 'metrics.json'} holds the others. "
            + " ".join(f"Fold {number}: {reason}" for number, reason in failures.items()),
            result,
        )
    return result


def _check_unchanged(run: Run, record: dict[str, Any]) -> None:
    """What decides the numbers must be as it was when the run was started.

    Raises:
        RunError: The data, the weights' file or the arithmetic are other ones now.
    """
    # Runs of earlier versions recorded less.
    before = {name: run.record[name] for name in DECISIVE if name in run.record}
    if onednn_decided_by() == "radtransfer":
        before.setdefault("onednn", onednn_by_default())  # what earlier versions computed with
    after = {name: record[name] for name in before}
    changed = [] if "versions" not in run.record else list(differences(before, after))
    if changed:
        what = "; ".join(f"{name} was {old}, is {new}{_restored_by(name, old)}" for name, old, new in changed)
        raise RunError(
            f"--resume: this is not what {run.path} was started with: {what}. Restore it (arithmetic: with --precision "
            "and --jit), or start a new run with another --out."
        )


def _restored_by(name: str, old: Any) -> str:
    """What is worth saying of a value that was `old`."""
    if name == "images_sha256":
        return " (image files have other contents)"
    return f" (set {ONEDNN}={1 if old else 0} before radtransfer starts)" if name == "onednn" else ""


@contextmanager
def _interrupts(run: Run, settings: dict[str, Any], progress: Progress) -> Iterator[None]:
    """Say how to go on after an interrupt: also while the images are looked at, which may take long."""

    def tell() -> None:
        if run.replaces and not run.record:
            progress.note(f"interrupted before the new run began; the one in {run.path} still stands")
            return
        with suppress(RadtransferError):  # the disk may be full
            if not run.record:
                write_text(run.path / "config.yaml", write_yaml(settings))
        progress.note(f"interrupted; go on with: {_again(run)}")

    try:
        with before_hard_end(tell):
            yield
    except KeyboardInterrupt:
        tell()
        raise


@contextmanager
def _status_kept(run: Run, progress: Progress) -> Iterator[None]:
    """Keep `status` in `run.json` true, however the block ends short of a kill."""

    def interrupted() -> None:
        run.update(status="interrupted", ended=now())

    try:
        with before_hard_end(interrupted):
            yield
    except KeyboardInterrupt:
        interrupted()
        raise
    except BaseException as error:
        if isinstance(error, DiskError):
            progress.note(f"stopped by the disk; when there is space, go on with: {_again(run)}")
        with suppress(RadtransferError):  # as above
            run.update(status="failed", ended=now(), error=str(error))
        raise
    run.update(status="finished", ended=now(), error=None)


def _again(run: Run) -> str:
    """The command that goes on with the run."""
    if run.record.get("replicas", {}).get("workers", 1) > 1:
        return "the same command for every worker, with --resume"
    return f"radtransfer finetune {_quoted(run.path / 'config.yaml')} --out {_quoted(run.path)} --resume"


def _quoted(path: Path) -> str:
    """`path` as the shell takes it."""
    return subprocess.list2cmdline([str(path)]) if os.name == "nt" else shlex.quote(str(path))
