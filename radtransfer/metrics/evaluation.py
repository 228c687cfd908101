"""What the predictions on held-out images are worth: exact AUCs, and intervals over patients.

The main AUC is the mean of the AUCs of the main questions of `scoring.py`, and so is the sensitivity at 90 %
specificity. A class or label that lacks positive or negative images has no AUC: it is left out of the mean,
and the reason is given.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from radtransfer.metrics.intervals import estimate_auc
from radtransfer.metrics.roc import exact_area, sensitivity_at_specificity
from radtransfer.metrics.scoring import Question, Scoring, class_questions, main_questions


@dataclass(frozen=True)
class Predictions:
    """The test images of one fold and what the network said about them.

    Attributes:
        targets: float (images, classes), 0 or 1; NaN where not known.
        probabilities: float (images, classes), 0–1, in the order of the classes.
        images: What identifies each image, such as its path.
        patients: Patient of each image; None where patients are not known.
        repeat: Folds of one repeat are disjoint and are pooled; repeats are averaged.
    """

    targets: np.ndarray
    probabilities: np.ndarray
    images: Sequence[str]
    patients: Sequence[str] | None = None
    repeat: int = 0

    @property
    def clusters(self) -> Sequence[str]:
        return self.images if self.patients is None else self.patients


@dataclass(frozen=True)
class Metrics:
    """The figures of one fold; None where a figure is undefined.

    Attributes:
        auc: The main AUC (see the module).
        per_class: Each class' or label's one-versus-rest AUC.
        accuracy: Share of images whose largest output is their class (or exact grade); with several labels,
            share of the known labels on the right side of 0.5.
        top5_accuracy: Share of images whose class is among the five largest outputs; None up to five classes.
        sensitivity_at_90_specificity: The largest at a specificity of at least 0.9, on the ROC curve itself.
        brier: Mean squared error of the main question's score, if there is one main question (0–1), so that of two
            classes one counts, half of the sum over both; with more classes, of all outputs, summed over the classes
            (Brier 1950; 0–2); with several labels, averaged over the known ones (0–1). scikit-learn's
            `brier_score_loss` has the same scales.
        undefined: Why an AUC is None, by "auc" or class.
        n_per_class: How many images the AUC of each class or label is of: those that have it, and those that are known
            not to.
    """

    auc: float | None
    per_class: dict[str, float | None]
    accuracy: float | None
    top5_accuracy: float | None
    sensitivity_at_90_specificity: float | None
    brier: float | None
    n_images: int
    n_patients: int | None
    undefined: dict[str, str] = field(default_factory=dict)
    n_per_class: dict[str, dict[str, int]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class AucSummary:
    """The main AUC over folds.

    Attributes:
        mean: Over the folds in which it is defined.
        sd: Standard deviation over them, ddof 1; None for a single one. It is no confidence interval.
        per_fold: In the order of the folds; None where undefined.
        pooled: Of all out-of-fold predictions of a repeat taken together; the mean over the repeats.
        ci95: 95 % interval of `pooled` over patients (images where patients are not known), as in `intervals.py`.
        per_class: The mean over folds of each class' AUC.
    """

    mean: float | None
    sd: float | None
    per_fold: list[float | None]
    pooled: float | None
    ci95: list[float] | None
    per_class: dict[str, float | None]


@dataclass(frozen=True)
class Summary:
    """The figures of a whole run: means over its folds, except `auc.pooled`, `auc.ci95` and the counts.

    Attributes:
        n_images: Different images tested.
        n_patients: Different patients tested; None where not known.
        n_per_class: Of the different images, as in `Metrics`.
    """

    auc: AucSummary
    accuracy: float | None
    top5_accuracy: float | None
    sensitivity_at_90_specificity: float | None
    brier: float | None
    n_images: int
    n_patients: int | None
    n_per_class: dict[str, dict[str, int]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def exact_auc(targets: np.ndarray, probabilities: np.ndarray, scoring: Scoring) -> float | None:
    """The main AUC, for watching the validation images while training; None where undefined.

    Raises:
        TrainingError: An output is not finite.
    """
    return _mean(_areas(main_questions(targets, probabilities, scoring)))


def evaluate(predictions: Predictions, scoring: Scoring) -> Metrics:
    """The figures of one fold.

    Raises:
        TrainingError: An output is not finite.
    """
    targets, probabilities = predictions.targets, predictions.probabilities
    main = main_questions(targets, probabilities, scoring)
    each = class_questions(targets, probabilities, scoring)
    return Metrics(
        auc=_mean(_areas(main)),
        per_class=dict(zip(scoring.classes, _areas(each), strict=True)),
        accuracy=accuracy(targets, probabilities, scoring),
        top5_accuracy=_top5_accuracy(targets, probabilities, scoring),
        sensitivity_at_90_specificity=_mean(
            [sensitivity_at_specificity(question.truth, question.scores, 0.9) for question in main]
        ),
        brier=_brier(targets, probabilities, scoring),
        n_images=len(set(predictions.images)),
        n_patients=None if predictions.patients is None else len(set(predictions.patients)),
        undefined=_reasons(main, each),
        n_per_class=_counts(targets, scoring),
    )


def summarize(folds: Sequence[Predictions], scoring: Scoring) -> Summary:
    """The figures of a run from its folds' predictions, in order.

    Raises:
        TrainingError: An output is not finite.
    """
    each = [evaluate(predictions, scoring) for predictions in folds]
    areas = [metrics.auc for metrics in each]
    per_class = {name: _mean([metrics.per_class[name] for metrics in each]) for name in scoring.classes}
    pooled, interval = _pooled(folds, scoring)
    known = {image: row for fold in folds for image, row in zip(fold.images, fold.targets, strict=True)}
    no_patients = any(predictions.patients is None for predictions in folds)
    return Summary(
        auc=AucSummary(_mean(areas), _sd(areas), areas, pooled, interval, per_class),
        accuracy=_mean([metrics.accuracy for metrics in each]),
        top5_accuracy=_mean([metrics.top5_accuracy for metrics in each]),
        sensitivity_at_90_specificity=_mean([metrics.sensitivity_at_90_specificity for metrics in each]),
        brier=_mean([metrics.brier for metrics in each]),
        n_images=len({image for predictions in folds for image in predictions.images}),
        n_patients=None if no_patients else len({patient for fold in folds for patient in fold.patients}),
        n_per_class=_counts(np.array(list(known.values())), scoring),
    )


def _counts(targets: np.ndarray, scoring: Scoring) -> dict[str, dict[str, int]]:
    return {
        name: {"positive": int((column == 1).sum()), "negative": int((column == 0).sum())}
        for name, column in zip(scoring.classes, targets.reshape(-1, len(scoring.classes)).T, strict=True)
    }


def _areas(questions: Sequence[Question]) -> list[float | None]:
    return [exact_area(question.truth, question.scores) for question in questions]


def accuracy(targets: np.ndarray, probabilities: np.ndarray, scoring: Scoring) -> float | None:
    """As `Metrics.accuracy`, for watching the validation images while training."""
    known = ~np.isnan(targets)
    if scoring.task == "multilabel":
        return _mean(((probabilities > 0.5) == (targets > 0.5))[known])
    labelled = known.all(axis=1)
    return _mean((probabilities.argmax(axis=1) == targets.argmax(axis=1))[labelled])


def curve_figures(
    targets: np.ndarray, probabilities: np.ndarray, *, scoring: Scoring
) -> tuple[float | None, dict[str, float | None]]:
    """The main AUC and that of each class, for watching a network while it learns."""
    each = _areas(class_questions(targets, probabilities, scoring))
    return exact_auc(targets, probabilities, scoring), dict(zip(scoring.classes, each, strict=True))


def _top5_accuracy(targets: np.ndarray, probabilities: np.ndarray, scoring: Scoring) -> float | None:
    if scoring.task != "multiclass" or len(scoring.classes) <= 5 or len(targets) == 0:
        return None
    of_class = probabilities[targets == 1]
    return float(np.mean((probabilities > of_class[:, None]).sum(axis=1) < 5))


def _brier(targets: np.ndarray, probabilities: np.ndarray, scoring: Scoring) -> float | None:
    """As `Metrics.brier`: summed over several classes, of one class where there are two."""
    if scoring.task == "multilabel" or (len(scoring.classes) > 2 and scoring.positive_from is None):
        errors = (probabilities.astype(np.float64) - targets) ** 2
        per_image = errors[~np.isnan(errors)] if scoring.task == "multilabel" else errors.sum(axis=1)
        return _mean(per_image[~np.isnan(per_image)])
    (question,) = main_questions(targets, probabilities, replace(scoring, average="macro"))
    return _mean((question.scores - question.truth) ** 2)


def _reasons(main: Sequence[Question], each: Sequence[Question]) -> dict[str, str]:
    """Why each AUC that is None is so."""
    areas = zip(each, _areas(each), strict=True)
    reasons = {question.name: _one_sided(question) for question, area in areas if area is None}
    if _mean(_areas(main)) is None:
        reasons["auc"] = "; ".join(f"{question.name}: {_one_sided(question)}" for question in main)
    return reasons


def _one_sided(question: Question) -> str:
    if not question.truth.size:
        return "no image with a known label"
    return f"all {question.truth.size} images are {'positive' if question.truth[0] else 'negative'}"


def _pooled(folds: Sequence[Predictions], scoring: Scoring) -> tuple[float | None, list[float] | None]:
    """The pooled AUC and its interval."""
    names = sorted({name for predictions in folds for name in predictions.clusters})
    number = {name: index for index, name in enumerate(names)}
    repeats = []
    for repeat in sorted({predictions.repeat for predictions in folds}):
        members = [predictions for predictions in folds if predictions.repeat == repeat]
        clusters = np.array([number[name] for predictions in members for name in predictions.clusters])
        targets = np.concatenate([predictions.targets for predictions in members])
        probabilities = np.concatenate([predictions.probabilities for predictions in members])
        repeats.append((main_questions(targets, probabilities, scoring), clusters))
    found = estimate_auc(repeats)
    return (None, None) if found is None else (found.area, list(found.ci95))


def _mean(values: Sequence[float | None] | np.ndarray) -> float | None:
    """The mean of the defined values; None where there is none."""
    defined = _defined(values)
    return float(defined.mean()) if defined.size else None


def _sd(values: Sequence[float | None]) -> float | None:
    defined = _defined(values)
    return float(defined.std(ddof=1)) if defined.size > 1 else None


def _defined(values: Sequence[float | None] | np.ndarray) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    return array[~np.isnan(array)]
