"""What a fold leaves behind: a model to take home, its predictions and its metrics; and their summary."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from radtransfer.data.splits import Fold
from radtransfer.evaluation.metrics import Predictions, evaluate, summarize
from radtransfer.runs.folder import whole_file, write_json, write_rows
from radtransfer.runs.read import read_record, read_rows, reading
from radtransfer.training.context import Experiment
from radtransfer.training.loop import FitState, predict


@dataclass(frozen=True)
class FoldResult:
    """A finished fold.

    Attributes:
        fold: Which.
        test: Table rows of the test images.
        probabilities: float32 (test images, classes).
        metrics: What its `metrics.json` holds.
    """

    fold: Fold
    test: np.ndarray
    probabilities: np.ndarray
    metrics: dict[str, Any]


def write_fold_result(experiment: Experiment, fold: Fold, state: FitState, folder: Path) -> FoldResult:
    """Save the model, predict validation and test images with it, score, and clear the checkpoints.

    `metrics.json` is written last: a fold that has it is finished.
    """
    exact = experiment.exact_evaluator()
    with whole_file(folder / "model.keras") as part:
        exact.classifier.model.save(part)
    rows = experiment.rows(fold, "val", "test")
    probabilities, _ = predict(exact, experiment.batches.in_order(rows))
    write_rows(folder / "predictions.csv", _header(experiment), _prediction_rows(experiment, fold, rows, probabilities))
    in_test = fold.split[rows] == "test"
    of_test, of_val = (
        evaluate(_predictions(experiment, fold, rows[which], probabilities[which]), experiment.scoring)
        for which in (in_test, ~in_test)
    )
    metrics = {
        **of_test,
        "fold": fold.number,
        "repeat": fold.repeat,
        "seed": fold.seed,
        "best_epoch": state.best_epoch,
        "epochs": state.epoch,
        "batch_norm_reestimated": state.reestimated,
        "val": of_val,
        **_positive(experiment),
    }
    write_json(folder / "metrics.json", metrics)
    _clear_checkpoints(folder)
    return FoldResult(fold, rows[in_test], probabilities[in_test], metrics)


def read_fold_result(experiment: Experiment, fold: Fold, folder: Path) -> FoldResult:
    """What `write_fold_result` wrote."""
    _clear_checkpoints(folder)
    metrics, test = read_record(folder / "metrics.json"), experiment.rows(fold, "test")
    with reading(folder):
        lines = [line for line in read_rows(folder / "predictions.csv") if line["split"] == "test"]
        if [line["path"] for line in lines] != [experiment.table.paths[row] for row in test]:
            raise ValueError("its predictions are not of the fold's test images")
        names = experiment.table.classes
        probabilities = np.array([[line[f"p_{name}"] for name in names] for line in lines], np.float32)
    return FoldResult(fold, test, probabilities, metrics)


def write_summary(experiment: Experiment, results: Sequence[FoldResult], folder: Path) -> dict[str, Any]:
    """The test predictions of all folds in one table, and their metrics."""
    lines = [
        [*line, result.fold.number]
        for result in results
        for line in _prediction_rows(experiment, result.fold, result.test, result.probabilities)
    ]
    write_rows(folder / "predictions.csv", [*_header(experiment), "fold"], lines)
    predictions = [_predictions(experiment, result.fold, result.test, result.probabilities) for result in results]
    numbers = [result.fold.number for result in results]
    metrics = summarize(predictions, experiment.scoring) | {"folds": numbers} | _positive(experiment)
    write_json(folder / "metrics.json", metrics)
    return metrics


def _clear_checkpoints(folder: Path) -> None:
    for phase in (folder, folder / "head_phase"):
        for checkpoint in ("checkpoint.npz", "best.npz"):
            (phase / checkpoint).unlink(missing_ok=True)


def _positive(experiment: Experiment) -> dict[str, Any]:
    """What sensitivity and the like are of."""
    return {"positive_from": experiment.scoring.positive_from, "positive_class": experiment.scoring.positive_class}


def _predictions(experiment: Experiment, fold: Fold, rows: np.ndarray, probabilities: np.ndarray) -> Predictions:
    table = experiment.table
    return Predictions(
        targets=table.targets[rows],
        probabilities=probabilities,
        images=[table.paths[i] for i in rows],
        patients=None if table.patients is None else [table.patients[i] for i in rows],
        repeat=fold.repeat,
    )


def _header(experiment: Experiment) -> list[str]:
    return ["path", "patient", "label", "split", *(f"p_{name}" for name in experiment.table.classes)]


def _prediction_rows(
    experiment: Experiment, fold: Fold, rows: np.ndarray, probabilities: np.ndarray
) -> Iterator[list[Any]]:
    table, labels = experiment.table, experiment.table.labels
    patients = table.patients or [""] * len(table)
    for row, values in zip(rows, probabilities, strict=True):
        # Nine significant digits bring a float32 back exactly.
        numbers = [f"{value:.9g}" for value in values]
        yield [table.paths[row], patients[row], labels[row], fold.split[row], *numbers]
