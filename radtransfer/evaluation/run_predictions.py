"""What a run predicted about its test or validation images, read back from its folder."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from radtransfer.data.readers import read_table
from radtransfer.data.run_data import run_images
from radtransfer.errors import DataError, RunError
from radtransfer.evaluation.scoring import Scoring, recorded_scoring
from radtransfer.runs.folder import read_run, run_and_folds
from radtransfer.runs.read import read_record, read_rows, reading, run_file


@dataclass(frozen=True, eq=False)
class RunPredictions:
    """The predictions of a run about images of one split, fold after fold.

    Attributes:
        given: What the user called the run.
        scoring: What the outputs mean.
        paths: Of the images.
        labels: Of the images, as text.
        patients: Of the images; None where not known.
        folds: In which each was predicted.
        repeats: To which the fold belongs.
        probabilities: float32 (images, classes).
        targets: float32 (images, classes), 0 or 1, NaN where not known.
    """

    given: str
    scoring: Scoring
    paths: tuple[str, ...]
    labels: tuple[str, ...]
    patients: tuple[str, ...] | None
    folds: tuple[int, ...]
    repeats: tuple[int, ...]
    probabilities: np.ndarray
    targets: np.ndarray

    @property
    def repeated(self) -> bool:
        """Whether an image was tested more than once."""
        return len(set(self.paths)) < len(self.paths)

    @property
    def clusters(self) -> tuple[str, ...]:
        """What is drawn together: patients, or images where patients are not known."""
        return self.paths if self.patients is None else self.patients

    def keys(self, *, by_fold: bool) -> list[tuple]:
        """What identifies each prediction: the image, or the image in its fold."""
        return list(zip(self.paths, self.folds, strict=True)) if by_fold else [(path,) for path in self.paths]

    def select(self, rows: Sequence[int]) -> "RunPredictions":
        """Some of them, in the order of `rows`."""
        lists = {
            name: tuple(getattr(self, name)[row] for row in rows) for name in ("paths", "labels", "folds", "repeats")
        }
        patients = None if self.patients is None else tuple(self.patients[row] for row in rows)
        arrays = {"probabilities": self.probabilities[rows], "targets": self.targets[rows]}
        return replace(self, patients=patients, **lists, **arrays)

    @property
    def right(self) -> np.ndarray:
        """1 where right, 0 where wrong, NaN where not known: float64 (images, 1), or (images, labels)."""
        if self.scoring.task == "multilabel":
            return np.where(np.isnan(self.targets), np.nan, (self.probabilities > 0.5) == (self.targets > 0.5))
        return (self.probabilities.argmax(axis=1) == self.targets.argmax(axis=1)).astype(np.float64)[:, None]

    @property
    def of_truth(self) -> np.ndarray:
        """The probability that was given to the truth, of the shape of `right`."""
        probabilities = self.probabilities.astype(np.float64)
        if self.scoring.task == "multilabel":
            known = np.where(self.targets > 0.5, probabilities, 1 - probabilities)
            return np.where(np.isnan(self.targets), np.nan, known)
        return (probabilities * self.targets).sum(axis=1, keepdims=True)


def read_predictions(
    given: str, *, split: Literal["test", "val"] = "test", folds: Sequence[int] = ()
) -> RunPredictions:
    """The predictions of a run's finished folds, or of RUN/fold_K.

    Args:
        given: The run.
        split: Of which images.
        folds: Only these.

    Raises:
        RunError: Not a run, no fold of it is finished, or its predictions are gone.
        DataError: With several labels, the data set is not there any more; it alone tells which are not known.
    """
    run, finished = run_and_folds(given)
    with reading(run):
        return _read(given, run, split, folds or finished)


def _read(given: str, run: Path, split: str, folds: Sequence[int]) -> RunPredictions:
    record = read_run(run)
    classes = tuple(record["classes"])
    grade = None if "positive_from" in record else run_images(run).data.positive_from
    scoring = recorded_scoring(record, positive_from=grade)
    lines, repeats = [], []
    for number in folds:
        predictions = read_rows(run_file(run, f"fold_{number}/predictions.csv"))
        tested = [row | {"fold": number} for row in predictions if row["split"] == split]
        lines += tested
        metrics = read_record(run / f"fold_{number}" / "metrics.json")
        counts = Counter(row["split"] for row in predictions)
        _check_count(run, number, counts["test"], metrics)
        _check_count(run, number, counts["val"], metrics.get("val", {}))
        repeats += [metrics["repeat"]] * len(tested)
    labels, paths = tuple(line["label"] for line in lines), tuple(line["path"] for line in lines)
    return RunPredictions(
        given=given,
        scoring=scoring,
        paths=paths,
        labels=labels,
        patients=tuple(line["patient"] for line in lines) if lines and lines[0]["patient"] else None,
        folds=tuple(line["fold"] for line in lines),
        repeats=tuple(repeats),
        probabilities=_probabilities(run, lines, classes),
        targets=_of_table(run, paths) if scoring.task == "multilabel" else _one_hot(labels, classes),
    )


def _check_count(run: Path, fold: int, found: int, scored: Mapping[str, Any]) -> None:
    """Raises RunError if predictions were lost, or added, since they were scored."""
    counted = scored.get("n_images", found)
    if found != counted:
        raise RunError(
            f"Run {run}: fold_{fold}/predictions.csv holds {found} images, and its metrics.json is of {counted}. "
            "Restore the files."
        )


def _probabilities(run: Path, lines: Sequence[dict], classes: Sequence[str]) -> np.ndarray:
    """float32 (images, classes)."""
    values = np.array([[line[f"p_{name}"] for name in classes] for line in lines], np.float32)
    if not ((values >= 0) & (values <= 1)).all():
        raise RunError(f"Run {run}: its predictions are not all from 0 to 1; the files were changed. Restore them.")
    return values


def _one_hot(labels: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    unknown = set(labels) - set(classes)
    if unknown:
        raise ValueError(f"label {min(unknown)!r} is none of its classes")
    return np.array([[label == name for name in classes] for label in labels], np.float32)


def _of_table(run: Path, paths: Sequence[str]) -> np.ndarray:
    table = read_table(run_images(run).data)
    rows = {path: row for row, path in enumerate(table.paths)}
    missing = [path for path in paths if path not in rows]
    if missing:
        raise DataError(f"The data of run {run} has changed: {missing[0]!r} is not in it any more. Restore it.")
    return table.targets[[rows[path] for path in paths]]
