"""Fine-tunes a network on medical images, fold by fold, and writes the run folder."""

import os
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from radtransfer.config.load import flat_settings
from radtransfer.config.recipes import head_phase
from radtransfer.config.schema import Config, TrainingSettings
from radtransfer.config.yaml_text import write_yaml
from radtransfer.data.splits import FOLD_COLUMNS, Fold, fold_rows
from radtransfer.errors import DiskError, FoldsFailedError, OutOfMemoryError, RadtransferError, RunError, TrainingError
from radtransfer.evaluation.metrics import Predictions, evaluate, summarize
from radtransfer.evaluation.scoring import recorded_scoring
from radtransfer.process import (
    ONEDNN,
    EpochReporter,
    Progress,
    keras_defaults,
    on_forced_exit,
    onednn_by_default,
    onednn_decided_by,
    versions,
)
from radtransfer.runs.folder import (
    FREE_SETTINGS,
    Run,
    atomic_write,
    differences,
    now,
    open_run,
    run_folder,
    write_json,
    write_rows,
    write_text,
)
from radtransfer.runs.read import read_record, read_rows, reading
from radtransfer.training.address import run_settings
from radtransfer.training.context import ModelCache, TrainingContext
from radtransfer.training.distributed import join
from radtransfer.training.loop import FitState, fit, memory_errors, predict
from radtransfer.training.plan import plan_lines, run_record, short_plan
from radtransfer.training.prepare import RunInputs, prepare
from radtransfer.training.step import Learner
from radtransfer.training.trackers import tracked


@dataclass(frozen=True)
class FoldResult:
    """A finished fold."""

    fold: Fold
    test: np.ndarray  # table rows of the test images
    probabilities: np.ndarray  # float32 (test images, classes)
    metrics: dict[str, Any]  # the content of metrics.json


def write_fold_result(context: TrainingContext, fold: Fold, state: FitState, folder: Path) -> FoldResult:
    """Save the model, predict and score the validation and test images, and delete the checkpoints.

    `metrics.json` is written last: a fold that has it is finished.
    """
    evaluator = context.float32_evaluator()
    with atomic_write(folder / "model.keras") as part:
        evaluator.classifier.model.save(part)
    rows = context.rows(fold, "val", "test")
    probabilities, _ = predict(evaluator, context.batches.in_order(rows))
    write_rows(folder / "predictions.csv", _header(context), _prediction_rows(context, fold, rows, probabilities))
    in_test = fold.split[rows] == "test"
    test, val = (
        evaluate(_predictions(context, fold, rows[chosen], probabilities[chosen]), context.scoring)
        for chosen in (in_test, ~in_test)
    )
    metrics = {
        **test,
        "fold": fold.number,
        "repeat": fold.repeat,
        "seed": fold.seed,
        "best_epoch": state.best_epoch,
        "epochs": state.epoch,
        "batch_norm_reestimated": state.reestimated,
        "val": val,
        "positive_from": context.scoring.positive_from,
        "positive_class": context.scoring.positive_class,
    }
    write_json(folder / "metrics.json", metrics)
    _clear_checkpoints(folder)
    return FoldResult(fold, rows[in_test], probabilities[in_test], metrics)


def read_fold_result(context: TrainingContext, fold: Fold, folder: Path) -> FoldResult:
    """The result of a fold that was finished earlier."""
    _clear_checkpoints(folder)
    metrics, test = read_record(folder / "metrics.json"), context.rows(fold, "test")
    with reading(folder):
        lines = [line for line in read_rows(folder / "predictions.csv") if line["split"] == "test"]
        if [line["path"] for line in lines] != [context.table.paths[row] for row in test]:
            raise ValueError("its predictions do not match the test images of the fold")
        names = context.table.classes
        probabilities = np.array([[line[f"p_{name}"] for name in names] for line in lines], np.float32)
    return FoldResult(fold, test, probabilities, metrics)


def write_summary(context: TrainingContext, results: Sequence[FoldResult], folder: Path) -> dict[str, Any]:
    """Write the test predictions of all folds into one table, and their metrics."""
    lines = [
        [*line, result.fold.number]
        for result in results
        for line in _prediction_rows(context, result.fold, result.test, result.probabilities)
    ]
    write_rows(folder / "predictions.csv", [*_header(context), "fold"], lines)
    predictions = [_predictions(context, result.fold, result.test, result.probabilities) for result in results]
    metrics = summarize(predictions, context.scoring) | {
        "folds": [result.fold.number for result in results],
        "positive_from": context.scoring.positive_from,
        "positive_class": context.scoring.positive_class,
    }
    write_json(folder / "metrics.json", metrics)
    return metrics


def _clear_checkpoints(folder: Path) -> None:
    for phase in (folder, folder / "head_phase"):
        for checkpoint in ("checkpoint.npz", "best.npz"):
            (phase / checkpoint).unlink(missing_ok=True)


def _predictions(context: TrainingContext, fold: Fold, rows: np.ndarray, probabilities: np.ndarray) -> Predictions:
    table = context.table
    return Predictions(
        targets=table.targets[rows],
        probabilities=probabilities,
        images=[table.paths[i] for i in rows],
        patients=None if table.patients is None else [table.patients[i] for i in rows],
        repeat=fold.repeat,
    )


def _header(context: TrainingContext) -> list[str]:
    return ["path", "patient", "label", "split", *(f"p_{name}" for name in context.table.classes)]


def _prediction_rows(
    context: TrainingContext, fold: Fold, rows: np.ndarray, probabilities: np.ndarray
) -> Iterator[list[Any]]:
    table, labels = context.table, context.table.labels
    patients = table.patients or [""] * len(table)
    for row, values in zip(rows, probabilities, strict=True):
        # Nine significant digits restore a float32 exactly.
        numbers = [f"{value:.9g}" for value in values]
        yield [table.paths[row], patients[row], labels[row], fold.split[row], *numbers]


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
"""Entries of `run.json` that decide the numbers: equal on all workers, and unchanged when a run is resumed."""

_MAY_DIFFER = FREE_SETTINGS | {"data.source", "data.image_root", "model.weights"}
"""Settings that may differ between workers; the contents of these paths are compared instead."""


@dataclass(frozen=True)
class Result:
    """A finished run: its folder and the content of its `metrics.json`."""

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
    models: ModelCache | None = None,
    callbacks: Sequence[Any] = (),
) -> Result:
    """Train, validate and test on every fold, and write a run folder.

    Args:
        config: From `load_config`.
        name: Of the run folder in `runs/`, if `config.out` is not given.
        resume: Continue the same run where it stopped; the result is the same as without the stop.
        overwrite: Replace the run in `config.out`.
        progress: Receives all progress and notes.
        inputs: From `read_inputs` of these settings, if it was called before.
        models: Networks of earlier runs in this process. Reusing one saves tracing and changes no number.
        callbacks: Keras callbacks, called in every fold; see `fit`.

    Raises:
        ConfigError: A setting cannot be used; RunError if it is the run folder.
        DataError: The images, labels or splits cannot be used.
        WeightsError: The weights cannot be used.
        TrainingError: Every fold failed.
        FoldsFailedError: Some folds failed; the results of the others are saved.
        WorkerLostError: Another worker of a distributed training has stopped.
    """
    progress = progress or Progress()
    coordinator = join(config.system, notify=progress.note)
    out = run_folder(config, name=name, reuse=resume or overwrite)
    settings = run_settings(config, out=out)

    def prepared(report_file: Path | None) -> tuple[TrainingContext, dict[str, Any]]:
        """The context, which is checked to be the same on every worker, and its `run.json`."""
        coordinator.check_same(versions())  # first, as other versions may have other settings
        given = flat_settings(settings, source="config.yaml", mistakes=[])
        coordinator.check_same({name: value for name, value in given.items() if name not in _MAY_DIFFER})
        context = prepare(
            config, report_file=report_file, progress=progress, inputs=inputs, models=models, coordinator=coordinator
        )
        context = replace(context, callbacks=tuple(callbacks))
        record = run_record(context)
        coordinator.check_same({name: record[name] for name in DECISIVE})
        return context, record

    if not coordinator.is_chief:  # takes the same steps and writes nothing
        with coordinator.watch():
            finished = coordinator.broadcast(None)
            return Result(out, finished) if finished else _train(prepared(None)[0], None, out, progress)
    with open_run(out, settings, resume=resume, overwrite=overwrite) as run, _noted_interrupt(run, settings, progress):
        with coordinator.watch():
            finished = None
            if run.finished:
                with reading(run.path):
                    # Earlier versions did not write the positive class.
                    positive = {"positive_class": recorded_scoring(run.record).positive_class}
                    finished = positive | read_record(run.path / "metrics.json")
            finished = coordinator.broadcast(finished)
            if finished:
                progress.note(f"{out} is already finished")
                return Result(out, finished)
            context, record = prepared(out / "bad_images.txt")
        _check_unchanged(run, record)
        run.begin(settings)
        with _recorded_status(run, progress), coordinator.watch(), tracked(config, out, progress) as progress:
            rows = list(fold_rows(context.table, context.folds))
            write_rows(run.path / "folds.csv", FOLD_COLUMNS, rows)
            if "versions" in run.record:  # resumed
                resumption = {"at": now(), "versions": record["versions"], "device": record["device"]}
                run.update(resumed=[*run.record.get("resumed", []), resumption])
            else:
                run.update(**record, fold_rows=len(rows))
            return _train(context, run, out, progress)


def _train(context: TrainingContext, run: Run | None, out: Path, progress: Progress) -> Result:
    """Train and summarize all folds; a worker without `run` writes nothing. Raises an error that names failed folds."""
    folder = None if run is None else out
    progress.plan(plan_lines(context, folder), short_plan(context, folder))
    context = context.with_cached_images(progress)
    results, failures = [], {}
    for fold in context.folds:
        try:
            results.append(train_fold(context, fold, run, progress))
        except TrainingError as error:
            if isinstance(error, OutOfMemoryError) and context.coordinator.workers > 1:
                raise  # only this worker fails, so the job must end; other errors occur on every worker
            failures[fold.number] = str(error)
            progress.note(f"fold {fold.number} failed: {error}")
    if not results:
        raise TrainingError(next(iter(failures.values())))
    metrics = context.coordinator.broadcast(None if run is None else write_summary(context, results, out))
    result = Result(out, metrics)
    if failures:
        raise FoldsFailedError(
            f"{len(failures)} of {len(context.folds)} folds failed; {out / 'metrics.json'} contains the others. "
            + " ".join(f"Fold {number}: {reason}" for number, reason in failures.items()),
            result,
        )
    return result


def train_fold(context: TrainingContext, fold: Fold, run: Run | None, progress: Progress) -> FoldResult | None:
    """Train, validate and test one fold."""
    folder = Path(f"fold_{fold.number}") if run is None else run.fold(fold.number)
    finished = context.coordinator.broadcast((folder / "metrics.json").exists())
    if finished:
        return None if run is None else read_fold_result(context, fold, folder)
    with memory_errors(context.config.training.batch_size):
        state = _fit_fold(context, fold, run, folder, progress)
        if run is None:
            return None
        per_fold = dict(run.record.get("timings", {}).get("seconds_per_fold", {}))
        per_fold[str(fold.number)] = round(state.seconds, 1)  # training and validation, over all resumptions
        run.update(timings={"seconds": round(sum(per_fold.values()), 1), "seconds_per_fold": per_fold})
        result = write_fold_result(context, fold, state, folder)
    progress.fold(fold.number, context.fold_count, result.metrics)
    return result


def _fit_fold(context: TrainingContext, fold: Fold, run: Run | None, folder: Path, progress: Progress) -> FitState:
    """Initialize and train the network, which ends with the weights of its best epoch."""

    def train(learner: Learner, settings: TrainingSettings, folder: Path) -> FitState:
        context.reset(learner, fold)
        return fit(
            learner,
            context.fold_data(fold, context.inputs(learner, progress)),
            settings,
            seed=context.seed(fold),
            folder=folder,
            settled_after=context.settled_after,
            coordinator=context.coordinator,
            reporter=EpochReporter(progress, fold.number, context.fold_count, settings.epochs),
            callbacks=context.callbacks,
        )

    settings = context.config.training
    context.initialize(fold)
    if run is not None:
        with atomic_write(folder / "initial.weights.h5") as part:
            context.classifier.model.save_weights(part)
    if context.head_learner is not None:
        progress.note(f"fold {fold.number}: the head trains alone first")
        head_folder = folder / "head_phase" if run is None else run.head_phase(fold.number)
        train(context.head_learner, head_phase(settings), head_folder)
        progress.note(f"fold {fold.number}: now all layers train")
    return train(context.learner, settings, folder)


def _check_unchanged(run: Run, record: dict[str, Any]) -> None:
    """Raise RunError if anything that decides the numbers has changed since the run was started."""
    if "versions" not in run.record:
        return
    before = {name: run.record[name] for name in DECISIVE if name in run.record}  # earlier versions wrote fewer
    if onednn_decided_by() == "radtransfer":
        before.setdefault("onednn", onednn_by_default())  # the arithmetic of earlier versions
    changes = []
    for name, old, new in differences(before, {name: record[name] for name in before}):
        advice = {
            "images_sha256": " (the content of image files has changed)",
            "onednn": f" (set {ONEDNN}={1 if old else 0} before radtransfer starts)",
        }
        changes.append(f"{name} was {old}, is {new}{advice.get(name, '')}")
    if changes:
        raise RunError(
            f"--resume: {run.path} was started with something else: {'; '.join(changes)}. Restore it (arithmetic: with "
            "--precision and --jit), or start a new run with another --out."
        )


@contextmanager
def _noted_interrupt(run: Run, settings: dict[str, Any], progress: Progress) -> Iterator[None]:
    """After an interrupt, print the command that resumes the run."""

    def interrupted() -> None:
        if run.replaces and not run.record:
            progress.note(f"interrupted before the new run began; the old run in {run.path} is unchanged")
            return
        with suppress(RadtransferError):  # the disk may be full
            if not run.record:
                write_text(run.path / "config.yaml", write_yaml(settings))
        progress.note(f"interrupted; resume with: {_resume_command(run)}")

    try:
        with on_forced_exit(interrupted):
            yield
    except KeyboardInterrupt:
        interrupted()
        raise


@contextmanager
def _recorded_status(run: Run, progress: Progress) -> Iterator[None]:
    """Write to `run.json` how the block ended, unless the process is killed."""

    def interrupted() -> None:
        run.update(status="interrupted", ended=now())

    try:
        with on_forced_exit(interrupted):
            yield
    except KeyboardInterrupt:
        interrupted()
        raise
    except BaseException as error:
        if isinstance(error, DiskError):
            progress.note(f"stopped by a disk error; free some space, then resume with: {_resume_command(run)}")
        with suppress(RadtransferError):  # the disk may be full
            run.update(status="failed", ended=now(), error=str(error))
        raise
    run.update(status="finished", ended=now(), error=None)


def _resume_command(run: Run) -> str:
    if run.record.get("replicas", {}).get("workers", 1) > 1:
        return "the same command for every worker, with --resume"
    join_words = subprocess.list2cmdline if os.name == "nt" else shlex.join
    return join_words(["radtransfer", "finetune", str(run.path / "config.yaml"), "--out", str(run.path), "--resume"])
