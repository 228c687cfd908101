"""Compare the predictions of two runs on the same test images: agreement of errors, and AUC."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from radtransfer.data.run_data import note_changes
from radtransfer.errors import DataError
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
from radtransfer.evaluation.predictions import RunPredictions, read_predictions
from radtransfer.evaluation.scoring import main_questions
from radtransfer.files import atomic_folder, decimal, printable
from radtransfer.process import Progress
from radtransfer.reports.figures import save_figure
from radtransfer.reports.result_figures import prediction_agreement
from radtransfer.runs.folder import run_and_folds, write_json, write_rows

PREDICTION_FILES = ("predictions.csv", "predictions.json", "predictions.png")


ROW_COLUMNS = ("path", "patient", "label", "fold", "right_a", "right_b", "p_truth_a", "p_truth_b")
"""Correct (1) or wrong (0), and the predicted probability of the truth."""


@dataclass(frozen=True)
class AucComparison:
    """The main AUC of both runs, all folds pooled; `ci95` is the interval of the difference over patients."""

    a: float | None
    b: float | None
    difference: float | None
    ci95: tuple[float, float] | None


@dataclass(frozen=True, eq=False)
class PredictionComparison:
    """The result of a comparison.

    Attributes:
        errors: Agreement: both correct or both wrong.
        probabilities: Expected agreement of answers sampled from the probabilities.
        decisions: Agreement on the predicted class; None with several labels.
        correlation: Pearson's, of the predicted probabilities of the truth.
        delong: One test per main question; empty if images are repeated.
        n_patients: None if unknown.
        rows: One per image, see `ROW_COLUMNS`; with several labels, their mean.
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

    def lines(self) -> Iterator[str]:
        """How often the two agree, and their AUCs, line by line."""
        patients = "patients unknown" if self.n_patients is None else f"{self.n_patients} patients"
        yield f"images         {self.n_images}, {patients}, fold {', '.join(map(str, self.settings['folds']))}"
        if self.positive_class is not None:
            yield f"positive class {self.positive_class}"
        yield f"accuracy       A {self.accuracy_a:.3f}   B {self.accuracy_b:.3f}"
        for title, value in (
            ("errors", self.errors),
            ("probabilities", self.probabilities),
            ("decisions", self.decisions),
        ):
            if value is not None:
                yield (
                    f"{title:<15}agree on {value.observed:.3f}, independent {value.independent:.3f}, "
                    f"kappa {decimal(value.kappa)}"
                )
        yield f"correlation    {decimal(self.correlation)} of the probabilities of the truth"
        auc = self.auc
        low, high = auc.ci95 or (None, None)
        yield (
            f"AUC            A {decimal(auc.a)}   B {decimal(auc.b)}   A - B {decimal(auc.difference, '+.3f')}  "
            f"95 % interval {decimal(low, '+.3f')} to {decimal(high, '+.3f')}"
        )
        for test in self.delong:
            p = decimal(test.p, ".3g")
            yield f"DeLong         {test.question}: A - B {test.difference:+.3f} ± {test.error:.3f}, p = {p}"

    def __repr__(self) -> str:
        return "\n".join(map(printable, self.lines()))

    def to_dict(self) -> dict[str, Any]:
        plain = dataclasses.asdict(dataclasses.replace(self, rows=()))
        return {name: value for name, value in plain.items() if name != "rows"}


def compare_predictions(
    a: str, b: str, *, seed: int = 0, draws: int = 2000, progress: Progress | None = None
) -> PredictionComparison:
    """Compare the test predictions of two runs, RUN or RUN/fold_K, of the same task and images.

    `seed` and `draws` are recorded, but not needed: the interval is not a bootstrap.
    """
    first, second = read_predictions(a), read_predictions(b)
    note_changes([run_and_folds(run)[0] for run in (a, b)], progress or Progress())
    first, second = common_predictions(first, second, progress or Progress())
    known = ~np.isnan(first.targets) if first.scoring.task == "multilabel" else np.ones((len(first.paths), 1), bool)
    right, truth = ([getattr(run, name)[known] for run in (first, second)] for name in ("right", "p_truth"))
    tests = []
    if not first.repeated:
        questions = (main_questions(run.targets, run.probabilities, run.scoring) for run in (first, second))
        for mine, its in zip(*questions, strict=True):
            tests.append(delong(mine.name, mine.truth, mine.scores, its.scores))
    figures = [np.nanmean(v, axis=1).tolist() for v in (first.right, second.right, first.p_truth, second.p_truth)]
    patients = first.patients or ("",) * len(first.paths)
    return PredictionComparison(
        accuracy_a=float(right[0].mean()),
        accuracy_b=float(right[1].mean()),
        errors=agreement(*right),
        probabilities=agreement(*truth),
        decisions=None
        if first.scoring.task == "multilabel"
        else decision_agreement(*(run.probabilities.argmax(axis=1) for run in (first, second))),
        correlation=float(np.corrcoef(*truth)[0, 1]) if min(map(np.ptp, truth)) > 0 else None,
        auc=compare_aucs([(first, second)]),
        delong=tuple(test for test in tests if test is not None),
        n_images=len(set(first.paths)),
        n_patients=None if first.patients is None else len(set(first.patients)),
        settings={"a": a, "b": b, "folds": sorted(set(first.folds)), "seed": seed, "draws": draws},
        rows=tuple(zip(first.paths, patients, first.labels, first.folds, *figures, strict=True)),
        positive_class=first.scoring.positive_class,
    )


def common_predictions(
    a: RunPredictions, b: RunPredictions, progress: Progress
) -> tuple[RunPredictions, RunPredictions]:
    """The predictions for the common test images, in the order of A; DataError if classes or labels differ."""
    if a.scoring != b.scoring:
        tasks = [(r.scoring.task, f"classes {', '.join(r.scoring.classes)}", r.scoring.subject) for r in (a, b)]
        each = [", ".join(filter(None, task)) for task in tasks]
        raise DataError(f"Expected runs of one task. {a.given}: {each[0]}; {b.given}: {each[1]}.")
    keys = [run.keys(by_fold=a.repeated or b.repeated) for run in (a, b)]
    place = {key: row for row, key in enumerate(keys[1])}
    mine = [row for row, key in enumerate(keys[0]) if key in place]
    if not mine:
        names = [{Path(path).name for path in run.paths} for run in (a, b)]
        shared = len(names[0] & names[1])
        hint = f" {shared} file names are in both, under different paths: train both on one table." if shared else ""
        raise DataError(f"{a.given} and {b.given} have no test image in common.{hint} Compare runs of one data set.")
    if len(mine) < max(len(keys[0]), len(keys[1])):
        progress.note(
            f"{len(mine)} test images in common ({a.given} has {len(keys[0])}, {b.given} {len(keys[1])}); the others "
            "are left out"
        )
    first, second = a.select(mine), b.select([place[keys[0][row]] for row in mine])
    if first.labels != second.labels:
        bad = next(i for i, pair in enumerate(zip(first.labels, second.labels, strict=True)) if pair[0] != pair[1])
        raise DataError(
            f"Expected the same labels in both runs. {first.paths[bad]!r} is {first.labels[bad]!r} in {a.given}, "
            f"{second.labels[bad]!r} in {b.given}. Compare runs of one data set."
        )
    return first, second


def compare_aucs(pairs: Sequence[tuple[RunPredictions, RunPredictions]]) -> AucComparison:
    """The AUCs of A and B, averaged over repeats and pairs, and the interval of the difference."""
    a = pooled_auc([a for a, _ in pairs])
    b = pooled_auc([dataclasses.replace(b, patients=a.patients, repeats=a.repeats) for a, b in pairs])
    if a is None or b is None:
        return AucComparison(None, None, None, None)
    return AucComparison(a.area, b.area, a.area - b.area, difference_interval(a, b))


def pooled_auc(runs: Sequence[RunPredictions]) -> AucEstimate | None:
    """The pooled AUC of runs on one data set, averaged over repeats and runs; None if a class is absent."""
    names = np.concatenate([np.array(run.clusters, object) for run in runs])
    _, numbers = np.unique(names, return_inverse=True)
    repeats, start = [], 0
    for run in runs:
        codes = numbers[start : start + len(run.paths)]
        start += len(run.paths)
        for repeat in sorted(set(run.repeats)):
            rows = np.flatnonzero(np.array(run.repeats) == repeat)
            picked = run.select(rows)
            repeats.append((main_questions(picked.targets, picked.probabilities, picked.scoring), codes[rows]))
    return estimate_auc(repeats)


def write_predictions(comparison: PredictionComparison, out: Path) -> list[Path]:
    """Write predictions.csv (one line per image), predictions.json and predictions.png."""
    columns = dict(zip(ROW_COLUMNS, zip(*comparison.rows, strict=True), strict=True))
    a, b = comparison.accuracy_a, comparison.accuracy_b
    figure = prediction_agreement(
        columns["p_truth_a"],
        columns["p_truth_b"],
        right_a=columns["right_a"],
        right_b=columns["right_b"],
        independent=[a * b, a * (1 - b), (1 - a) * b, (1 - a) * (1 - b)],
        title_a=Path(comparison.settings["a"]).name,
        title_b=Path(comparison.settings["b"]).name,
    )
    table, values, picture = PREDICTION_FILES
    with atomic_folder(out, PREDICTION_FILES, last=values) as folder:
        write_rows(folder / table, ROW_COLUMNS, comparison.rows)
        write_json(folder / values, comparison.to_dict())
        save_figure(figure, folder / picture)
    return [out / name for name in PREDICTION_FILES]
