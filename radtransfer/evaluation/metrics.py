"""Metrics of predictions on held-out images: one registry for all outputs.

A new metric is one entry of `METRICS`. It then appears in the metrics.json of folds and runs, in the output of
`finetune` and `evaluate`, in model cards and exports, and in the tables of studies.

The main AUC and the sensitivity at 90 % specificity are means over the main questions of `scoring.py`. A class or label
without positive or without negative images has no AUC: it is left out of the mean, and the reason is given.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from radtransfer.evaluation.intervals import estimate_auc
from radtransfer.evaluation.scoring import (
    Question,
    Scoring,
    class_questions,
    main_questions,
    sensitivity_at_specificity,
)

NEEDS: dict[str, Callable[[Scoring], bool]] = {
    "one label": lambda scoring: scoring.task == "multiclass",
    "several labels": lambda scoring: scoring.task == "multilabel",
    "two classes": lambda scoring: scoring.positive_class is not None,
    "grades": lambda scoring: scoring.positive_from is not None,
    "six classes": lambda scoring: len(scoring.classes) > 5,
}
"""Requirements of metrics on the task; "patients" is a requirement on the predictions."""


@dataclass(frozen=True)
class Predictions:
    """The test images of one fold and their predictions."""

    targets: np.ndarray  # float (images, classes), 0 or 1; NaN if unknown
    probabilities: np.ndarray  # float (images, classes), 0–1, in the order of the classes
    images: Sequence[str]  # identity of each image, such as its path
    patients: Sequence[str] | None = None  # of each image; None if unknown
    repeat: int = 0  # folds of one repeat are disjoint and are pooled; repeats are averaged

    @property
    def clusters(self) -> Sequence[str]:
        """The units of resampling: patients, or images if patients are unknown."""
        return self.images if self.patients is None else self.patients


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: Key in JSON and column in CSV.
        function: From targets, probabilities, float (images, classes), and scoring to the value; None if undefined. A
            metric that needs patients gets them as `patients`.
        label: In sentences and tables.
        heading: In narrow columns.
        range: The smallest and the largest value.
        higher_is_better: The direction.
        needs: Names of `NEEDS`, or "patients"; if one is not met, the value is None and texts omit the metric.
        names_subject: Whether texts add the positive class, grade or label.
        left_out_of: Tables without this metric, whose columns must not change: "studies", "exports".
    """

    name: str
    function: Callable[..., float | None]
    label: str
    heading: str
    range: tuple[float, float] = (0.0, 1.0)
    higher_is_better: bool = True
    needs: tuple[str, ...] = ()
    names_subject: bool = False
    left_out_of: tuple[str, ...] = ()

    def applies(self, scoring: Scoring) -> bool:
        """Whether the task meets its needs."""
        return all(NEEDS[need](scoring) for need in self.needs if need != "patients")

    def value(self, predictions: Predictions, scoring: Scoring) -> float | None:
        """The metric of one fold; None if it is undefined or its needs are not met."""
        by_patient = "patients" in self.needs
        if not self.applies(scoring) or (by_patient and predictions.patients is None):
            return None
        more = {"patients": predictions.patients} if by_patient else {}
        return self.function(predictions.targets, predictions.probabilities, scoring, **more)


def exact_auc(targets: np.ndarray, probabilities: np.ndarray, scoring: Scoring) -> float | None:
    """The main AUC; TrainingError if an output is not finite."""
    return _mean([question.area for question in main_questions(targets, probabilities, scoring)])


def accuracy(targets: np.ndarray, probabilities: np.ndarray, scoring: Scoring) -> float | None:
    """Share of images whose largest output is their class (or exact grade); of known labels correct at 0.5."""
    known = ~np.isnan(targets)
    if scoring.task == "multilabel":
        return _mean(((probabilities > 0.5) == (targets > 0.5))[known])
    labelled = known.all(axis=1)
    return _mean((probabilities.argmax(axis=1) == targets.argmax(axis=1))[labelled])


def top5_accuracy(targets: np.ndarray, probabilities: np.ndarray, scoring: Scoring) -> float | None:
    """Share of images whose class is among the five largest outputs."""
    if len(targets) == 0:
        return None
    of_class = probabilities[targets == 1]
    return float(np.mean((probabilities > of_class[:, None]).sum(axis=1) < 5))


def sensitivity_at_90_specificity(targets: np.ndarray, probabilities: np.ndarray, scoring: Scoring) -> float | None:
    """The largest sensitivity at a specificity of at least 0.9 on the ROC curve; mean over the main questions."""
    main = main_questions(targets, probabilities, scoring)
    return _mean([sensitivity_at_specificity(question.truth, question.scores, 0.9) for question in main])


def brier(targets: np.ndarray, probabilities: np.ndarray, scoring: Scoring) -> float | None:
    """Mean squared error of the probabilities (Brier 1950), on the scale of scikit-learn's `brier_score_loss`.

    With two classes or grades, of the positive score (0–1); with more classes, summed over the classes (0–2); with
    several labels, averaged over the known ones (0–1).
    """
    if scoring.task == "multilabel" or (len(scoring.classes) > 2 and scoring.positive_from is None):
        errors = (probabilities.astype(np.float64) - targets) ** 2
        per_image = errors[~np.isnan(errors)] if scoring.task == "multilabel" else errors.sum(axis=1)
        return _mean(per_image[~np.isnan(per_image)])
    (question,) = main_questions(targets, probabilities, replace(scoring, average="macro"))
    return _mean((question.scores - question.truth) ** 2)


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("auc", exact_auc, "AUC", "AUC"),
        Metric("accuracy", accuracy, "accuracy", "accuracy"),
        Metric(
            "top5_accuracy",
            top5_accuracy,
            "top-5 accuracy",
            "top-5",
            needs=("one label", "six classes"),
            left_out_of=("exports",),
        ),
        Metric(
            "sensitivity_at_90_specificity",
            sensitivity_at_90_specificity,
            "sensitivity at 90 % specificity",
            "sens@90%spec",
            names_subject=True,
            left_out_of=("studies", "exports"),
        ),
        Metric(
            "brier",
            brier,
            "Brier score",
            "Brier",
            range=(0.0, 2.0),
            higher_is_better=False,
            left_out_of=("studies", "exports"),
        ),
    )
}
"""Name to metric, in the order of all files and tables, the AUC first."""


def shown_metrics(values: Mapping[str, Any]) -> list[Metric]:
    """The metrics that texts show besides the AUC: all without needs, and those with a value."""
    return [item for name, item in METRICS.items() if name != "auc" and not (item.needs and values.get(name) is None)]


def stored_metrics(place: str) -> tuple[str, ...]:
    """The names of the metrics besides the AUC in the table "studies" or "exports"."""
    return tuple(name for name, metric in METRICS.items() if name != "auc" and place not in metric.left_out_of)


def evaluate(predictions: Predictions, scoring: Scoring) -> dict[str, Any]:
    """The metrics of one fold as in its metrics.json; None if undefined. TrainingError if an output is not finite.

    `per_class`: one-versus-rest AUC of each class or label; `undefined`: why an AUC ("auc" or a class) is None;
    `n_per_class`: without unknown labels.
    """
    targets, probabilities = predictions.targets, predictions.probabilities
    each = class_questions(targets, probabilities, scoring)
    per_class = {question.name: question.area for question in each}
    figures = {name: metric.value(predictions, scoring) for name, metric in METRICS.items()}
    undefined = {question.name: _one_sided(question) for question in each if per_class[question.name] is None}
    if figures["auc"] is None:
        main = main_questions(targets, probabilities, scoring)
        undefined["auc"] = "; ".join(f"{question.name}: {_one_sided(question)}" for question in main)
    return {
        "auc": figures.pop("auc"),
        "per_class": per_class,
        **figures,
        "n_images": len(set(predictions.images)),
        "n_patients": None if predictions.patients is None else len(set(predictions.patients)),
        "undefined": undefined,
        "n_per_class": _counts(targets, scoring),
    }


def summarize(folds: Sequence[Predictions], scoring: Scoring) -> dict[str, Any]:
    """The metrics of a run as in its metrics.json, from the predictions of its folds, in order.

    Metrics are means over the folds in which they are defined. In `auc`, `sd` is over folds (ddof 1; not a confidence
    interval), `pooled` is computed from all out-of-fold predictions of a repeat and averaged over repeats, and `ci95`
    is its 95 % interval over patients, or over images if patients are unknown (`intervals.py`).
    """
    each = [evaluate(predictions, scoring) for predictions in folds]
    means = {name: _mean([figures[name] for figures in each]) for name in METRICS}
    areas = _defined([figures["auc"] for figures in each])
    names = sorted({name for predictions in folds for name in predictions.clusters})
    number = {name: index for index, name in enumerate(names)}
    repeats = []
    for repeat in sorted({predictions.repeat for predictions in folds}):
        members = [predictions for predictions in folds if predictions.repeat == repeat]
        targets = np.concatenate([predictions.targets for predictions in members])
        probabilities = np.concatenate([predictions.probabilities for predictions in members])
        clusters = np.array([number[name] for predictions in members for name in predictions.clusters])
        repeats.append((main_questions(targets, probabilities, scoring), clusters))
    pooled = estimate_auc(repeats)
    known = {image: row for fold in folds for image, row in zip(fold.images, fold.targets, strict=True)}
    no_patients = any(predictions.patients is None for predictions in folds)
    auc = {
        "mean": means.pop("auc"),
        "sd": float(areas.std(ddof=1)) if areas.size > 1 else None,
        "per_fold": [figures["auc"] for figures in each],
        "pooled": None if pooled is None else pooled.area,
        "ci95": None if pooled is None else list(pooled.ci95),
        "per_class": {name: _mean([figures["per_class"][name] for figures in each]) for name in scoring.classes},
    }
    return {
        "auc": auc,
        **means,
        "n_images": len(known),
        "n_patients": None if no_patients else len({patient for fold in folds for patient in fold.patients}),
        "n_per_class": _counts(np.array(list(known.values())), scoring),
    }


def auc_interval(
    y_true: np.ndarray, y_score: np.ndarray, *, groups: Sequence[Any] | None = None
) -> tuple[float, float] | None:
    """95 % interval of an AUC over patients.

    Args:
        y_true: (n,) 0 or 1; or class numbers or 0 and 1 per class, (n, classes), for the mean over classes.
        y_score: (n,) scores of the positive class, or (n, classes).
        groups: (n,) the patient of each; by default, images are independent.

    Returns:
        Low and high, 0 to 1; None where a class is absent.

    Raises:
        ValueError: The shapes do not fit, or a value is NaN.

    References:
        DeLong, DeLong and Clarke-Pearson 1988; Obuchowski 1997 (clusters); Wilson-type, see `evaluation/intervals.py`.

    Example:
        >>> low, high = auc_interval([0, 0, 1, 1, 1], [0.1, 0.4, 0.35, 0.8, 0.9])
        >>> bool(0 <= low < 5 / 6 < high <= 1)
        True
    """
    truth, scores = np.asarray(y_true), np.asarray(y_score, np.float64)
    if scores.ndim == 2 and truth.ndim == 1:
        truth = np.eye(scores.shape[1])[truth.astype(int)]
    truth = truth.astype(np.float64)
    if truth.shape != scores.shape or scores.ndim not in (1, 2) or (groups is not None and len(groups) != len(scores)):
        raise ValueError(
            f"Expected y_true, y_score and groups of one length. Received: {truth.shape}, {scores.shape}"
            f"{'' if groups is None else f', {len(groups)}'}."
        )
    if not (np.isfinite(truth).all() and np.isfinite(scores).all() and np.isin(truth, (0, 1)).all()):
        raise ValueError("Expected y_true of 0 and 1, and finite y_score.")
    columns = zip(np.atleast_2d(truth.T), np.atleast_2d(scores.T), strict=True)
    rows = np.arange(len(scores))
    questions = [Question(str(number), rows, column > 0.5, score) for number, (column, score) in enumerate(columns)]
    codes = rows if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    found = estimate_auc([(questions, codes)])
    return None if found is None else tuple(map(float, found.ci95))


def curve_figures(
    targets: np.ndarray, probabilities: np.ndarray, *, scoring: Scoring
) -> tuple[float | None, dict[str, float | None]]:
    """The main AUC and the AUC of each class, for curves during training."""
    each = class_questions(targets, probabilities, scoring)
    return exact_auc(targets, probabilities, scoring), {question.name: question.area for question in each}


def _counts(targets: np.ndarray, scoring: Scoring) -> dict[str, dict[str, int]]:
    return {
        name: {"positive": int((column == 1).sum()), "negative": int((column == 0).sum())}
        for name, column in zip(scoring.classes, targets.reshape(-1, len(scoring.classes)).T, strict=True)
    }


def _one_sided(question: Question) -> str:
    if not question.truth.size:
        return "no image with a known label"
    return f"all {question.truth.size} images are {'positive' if question.truth[0] else 'negative'}"


def _mean(values: Sequence[float | None] | np.ndarray) -> float | None:
    """The mean of the defined values; None if there are none."""
    defined = _defined(values)
    return float(defined.mean()) if defined.size else None


def _defined(values: Sequence[float | None] | np.ndarray) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    return array[~np.isnan(array)]
