"""Compare what two runs predict about the same test images: whether they err on the same, and which is better.

What a run predicted about its test or validation images, read back from its folder.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from radtransfer.data.readers import read_table
from radtransfer.errors import DataError, RunError
from radtransfer.evaluation.intervals import (
    Agreement,
    AucEstimate,
    DeLong,
    agreement,
    decision_agreement,
    delong,
    difference_interval,
    estimate_auc,
)
from radtransfer.evaluation.scoring import Question, Scoring, main_questions, recorded_scoring
from radtransfer.process import Progress
from radtransfer.runs.folder import find_fold, finished_folds, read_run
from radtransfer.runs.read import read_record, read_rows, reading
from radtransfer.similarity.compare_images import note_changes, run_file, run_images


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
    run, finished = _run_and_folds(given)
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


def run_of(given: str) -> Path:
    """The folder of the run that RUN or RUN/fold_K names."""
    return _run_and_folds(given)[0]


def _run_and_folds(given: str) -> tuple[Path, tuple[int, ...]]:
    path = Path(given)
    if not (path / "run.json").is_file():
        run, fold = find_fold(path)
        return run, (fold,)
    folds = tuple(finished_folds(path))
    if not folds:
        raise RunError(f"Run {path} has no finished fold yet; nothing to compare.")
    return path, folds


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


ROW_COLUMNS = ("path", "patient", "label", "fold", "right_a", "right_b", "p_truth_a", "p_truth_b")
"""Right or wrong as 1 or 0, and the probability that each network gave to the truth."""


@dataclass(frozen=True)
class AucComparison:
    """The main AUC of both runs, all folds pooled; `ci95` is that of the difference, over patients."""

    a: float | None
    b: float | None
    difference: float | None
    ci95: tuple[float, float] | None


@dataclass(frozen=True, eq=False)
class PredictionComparison:
    """What was found.

    Attributes:
        accuracy_a, accuracy_b: Share of right answers.
        errors: Both right or both wrong.
        probabilities: The same when each answer is drawn from the network's probabilities.
        decisions: The same class, right or wrong; None with several labels.
        correlation: Pearson's, of the probabilities of the truth.
        auc: Of both, and the difference.
        delong: A test per main question; empty where images are repeated.
        positive_class: Of two classes; the same in both runs.
        n_images: Different images.
        n_patients: Different patients; None where not known.
        settings: Which runs and folds.
        rows: A line per image, as `ROW_COLUMNS`: with several labels, their mean.
    """

    accuracy_a: float
    accuracy_b: float
    errors: Agreement
    probabilities: Agreement
    decisions: Agreement | None
    correlation: float | None
    auc: AucComparison
    delong: tuple[DeLong, ...]
    n_images: int
    n_patients: int | None
    settings: dict[str, Any]
    rows: tuple[tuple, ...]
    positive_class: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in JSON, without the rows."""
        plain = dataclasses.asdict(dataclasses.replace(self, rows=()))
        return {name: value for name, value in plain.items() if name != "rows"}


def compare_predictions(
    a: str, b: str, *, seed: int = 0, draws: int = 2000, progress: Progress | None = None
) -> PredictionComparison:
    """Compare the test predictions of two runs.

    Args:
        a: A run or RUN/fold_K.
        b: Another, of the same task and images.
        seed: Not used any more: the interval has a formula.
        draws: Not used any more.
        progress: Hears what is left out.

    Raises:
        RunError: Not a run, or not finished.
        DataError: Other classes, other labels, or no image in common.
    """
    first, second = read_predictions(a), read_predictions(b)
    note_changes([run_of(a), run_of(b)], progress or Progress())
    first, second = common_predictions(first, second, progress or Progress())
    known = ~np.isnan(first.targets) if first.scoring.task == "multilabel" else np.ones((len(first.paths), 1), bool)
    right, truth = ([getattr(run, name)[known] for run in (first, second)] for name in ("right", "of_truth"))
    return PredictionComparison(
        accuracy_a=float(right[0].mean()),
        accuracy_b=float(right[1].mean()),
        errors=agreement(*right),
        probabilities=agreement(*truth),
        decisions=_decisions(first, second),
        correlation=_correlation(*truth),
        auc=compare_aucs([(first, second)]),
        delong=() if first.repeated else tuple(_tests(first, second)),
        n_images=len(set(first.paths)),
        n_patients=None if first.patients is None else len(set(first.patients)),
        settings={"a": a, "b": b, "folds": sorted(set(first.folds)), "seed": seed, "draws": draws},
        rows=tuple(_rows(first, second)),
        positive_class=first.scoring.positive_class,
    )


def _check_same_task(a: RunPredictions, b: RunPredictions) -> None:
    if a.scoring != b.scoring:
        each = [
            ", ".join(
                filter(None, (run.scoring.task, f"classes {', '.join(run.scoring.classes)}", run.scoring.subject))
            )
            for run in (a, b)
        ]
        raise DataError(f"Expected runs of one task. {a.given}: {each[0]}; {b.given}: {each[1]}.")


def common_predictions(
    a: RunPredictions, b: RunPredictions, progress: Progress
) -> tuple[RunPredictions, RunPredictions]:
    """The predictions of the images that both tested, in the order of A.

    Raises:
        DataError: Other classes, no image in common, or their labels differ.
    """
    _check_same_task(a, b)
    keys = [run.keys(by_fold=a.repeated or b.repeated) for run in (a, b)]
    place = {key: row for row, key in enumerate(keys[1])}
    mine = [row for row, key in enumerate(keys[0]) if key in place]
    if not mine:
        names = [{Path(path).name for path in run.paths} for run in (a, b)]
        alike = len(names[0] & names[1])
        other = f" {alike} file names are in both, under other paths: train both on one table." if alike else ""
        raise DataError(f"{a.given} and {b.given} have no test image in common.{other} Compare runs of one data set.")
    if len(mine) < max(len(keys[0]), len(keys[1])):
        progress.note(
            f"{len(mine)} test images in common; {a.given} has {len(keys[0])}, {b.given} {len(keys[1])}. "
            "The others are left out"
        )
    first, second = a.select(mine), b.select([place[keys[0][row]] for row in mine])
    if first.labels != second.labels:
        bad = next(i for i, pair in enumerate(zip(first.labels, second.labels, strict=True)) if pair[0] != pair[1])
        raise DataError(
            f"The runs disagree on the label of {first.paths[bad]!r}: {first.labels[bad]!r} in {a.given}, "
            f"{second.labels[bad]!r} in {b.given}. Compare runs of one data set."
        )
    return first, second


def _decisions(a: RunPredictions, b: RunPredictions) -> Agreement | None:
    if a.scoring.task == "multilabel":
        return None
    return decision_agreement(a.probabilities.argmax(axis=1), b.probabilities.argmax(axis=1))


def _correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    return float(np.corrcoef(a, b)[0, 1]) if min(np.ptp(a), np.ptp(b)) > 0 else None


def _questions(run: RunPredictions) -> list[Question]:
    return main_questions(run.targets, run.probabilities, run.scoring)


def _tests(a: RunPredictions, b: RunPredictions) -> Iterator[DeLong]:
    for mine, its in zip(_questions(a), _questions(b), strict=True):
        test = delong(mine.name, mine.truth, mine.scores, its.scores)
        if test is not None:
            yield test


def compare_aucs(pairs: Sequence[tuple[RunPredictions, RunPredictions]]) -> AucComparison:
    """The pooled AUC of A and of B, averaged over repeats and pairs, and the interval of their difference.

    Args:
        pairs: Each as `common_predictions` gives it; of one data set, such as the runs of one seed each.
    """
    a = pooled_auc([a for a, _ in pairs])
    b = pooled_auc([dataclasses.replace(b, patients=a.patients, repeats=a.repeats) for a, b in pairs])
    if a is None or b is None:
        return AucComparison(None, None, None, None)
    return AucComparison(a.area, b.area, a.area - b.area, difference_interval(a, b))


def pooled_auc(runs: Sequence[RunPredictions]) -> AucEstimate | None:
    """The pooled AUC of runs on one data set, averaged over repeats and runs; None where a class is absent."""
    names = np.concatenate([np.array(run.clusters, object) for run in runs])
    _, numbers = np.unique(names, return_inverse=True)
    repeats, start = [], 0
    for run in runs:
        codes = numbers[start : start + len(run.paths)]
        start += len(run.paths)
        for repeat in sorted(set(run.repeats)):
            rows = np.flatnonzero(np.array(run.repeats) == repeat)
            repeats.append((_questions(run.select(rows)), codes[rows]))
    return estimate_auc(repeats)


def _rows(a: RunPredictions, b: RunPredictions) -> Iterator[tuple]:
    """A line per image, as `ROW_COLUMNS`; several labels are averaged."""
    figures = [np.nanmean(values, axis=1).tolist() for values in (a.right, b.right, a.of_truth, b.of_truth)]
    patients = a.patients or ("",) * len(a.paths)
    return zip(a.paths, patients, a.labels, a.folds, *figures, strict=True)
