"""What predictions on test images are worth: AUC with intervals, calibration, operating point, confusion."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from radtransfer.metrics.calibration import BINS, expected_error, judged_confidences, reliability
from radtransfer.metrics.evaluation import Predictions, evaluate, summarize
from radtransfer.metrics.intervals import estimate_auc
from radtransfer.metrics.operating_point import OperatingPoint, rate_intervals, rates
from radtransfer.metrics.scoring import Scoring, class_questions, main_questions
from radtransfer.predictions.predict import decision_text, predicted_names


@dataclass(frozen=True, eq=False)
class Judged:
    """Predictions that are judged together.

    Attributes:
        name: Of the network, or of what joins several.
        parts: Sets of test images, those of one repeat disjoint; one for an external test set.
        calibrated: float64 (images, classes) after temperature scaling, of all parts in order; None without.
    """

    name: str
    parts: tuple[Predictions, ...]
    calibrated: np.ndarray | None = None

    @property
    def whole(self) -> Predictions:
        """All parts as one."""
        if len(self.parts) == 1:
            return self.parts[0]
        known = all(part.patients is not None for part in self.parts)
        return Predictions(
            np.concatenate([part.targets for part in self.parts]),
            np.concatenate([part.probabilities for part in self.parts]),
            [image for part in self.parts for image in part.images],
            [patient for part in self.parts for patient in part.patients] if known else None,
        )


def judge(
    judged: Judged,
    scoring: Scoring,
    *,
    point: OperatingPoint | None,
    bins: int = BINS,
    details: bool = True,
) -> dict[str, Any]:
    """The figures as JSON has them, those of several parts as finetune has them: means over the parts, AUCs pooled.

    Args:
        judged: The predictions.
        scoring: What the outputs mean.
        point: Judged as well, where there is one.
        bins: Of the calibration error.
        details: Intervals of every class, the diagram and the confusion matrix as well.

    Raises:
        TrainingError: An output is not finite.
    """
    whole, summary = judged.whole, summarize(judged.parts, scoring)
    metrics = evaluate(whole, scoring)
    several = len(judged.parts) > 1
    figures = {
        "auc": summary.auc.pooled,
        "ci95": summary.auc.ci95,
        **({"auc_mean": summary.auc.mean, "auc_sd": summary.auc.sd} if several else {}),
        "per_class": summary.auc.per_class,
        "accuracy": summary.accuracy,
        "top5_accuracy": summary.top5_accuracy,
        "sensitivity_at_90_specificity": summary.sensitivity_at_90_specificity,
        "brier": summary.brier,
        "n_images": summary.n_images,
        "n_patients": summary.n_patients,
        "undefined": metrics.undefined,
        "calibration": _calibration(judged, scoring, bins, details=details),
    }
    if point is not None:
        figures["operating_point"] = _point(whole, scoring, point)
    if details:
        figures["per_class"] = _classes(whole, scoring)
        figures["confusion"] = confusion(whole.targets, whole.probabilities, scoring, point)
    return figures


def confusion(
    targets: np.ndarray, probabilities: np.ndarray, scoring: Scoring, point: OperatingPoint | None
) -> dict[str, Any]:
    """How often which class was predicted for which: `counts`, a row per true class, the positive one last.

    With several labels `labels` has, for each, how often it was absent (first row) or present and predicted so.
    `decided` says how classes were predicted.
    """
    said, decided = predicted_names(probabilities, scoring, point), decision_text(scoring, point)
    names = scoring.in_order
    if scoring.task == "multilabel":
        present = np.array([[name in row for name in names] for row in said])
        counts = {}
        for column, name in enumerate(names):
            known = ~np.isnan(targets[:, column])
            truth, yes = targets[known, column] > 0.5, present[known, column]
            counts[name] = [[int((~truth & ~yes).sum()), int((~truth & yes).sum())]]
            counts[name].append([int((truth & ~yes).sum()), int((truth & yes).sum())])
        return {"labels": counts, "decided": decided}
    number = {name: place for place, name in enumerate(names)}
    table = np.zeros((len(names), len(names)), int)
    true = np.array([number[name] for name in scoring.classes])[targets.argmax(axis=1)]
    np.add.at(table, (true, [number[row[0]] for row in said]), 1)
    return {"classes": list(names), "counts": table.tolist(), "decided": decided}


def _classes(whole: Predictions, scoring: Scoring) -> dict[str, dict[str, Any]]:
    """AUC, interval and number of positives of each class or label, all images pooled."""
    _, codes = np.unique(np.asarray(whole.clusters, dtype=object).astype(str), return_inverse=True)
    found = {}
    for question in class_questions(whole.targets, whole.probabilities, scoring):
        auc = estimate_auc([([question], codes)])
        found[question.name] = {
            "auc": None if auc is None else auc.area,
            "ci95": None if auc is None else list(auc.ci95),
            "n_positive": int(question.truth.sum()),
        }
    return found


def _calibration(judged: Judged, scoring: Scoring, bins: int, *, details: bool) -> dict[str, Any]:
    whole = judged.whole
    found = {"bins": bins, "ece": expected_error(whole.targets, whole.probabilities, scoring, bins=bins)}
    if judged.calibrated is not None:
        after = Predictions(whole.targets, judged.calibrated, whole.images, whole.patients)
        found["ece_after"] = expected_error(whole.targets, judged.calibrated, scoring, bins=bins)
        found["brier_before"] = evaluate(whole, scoring).brier
        found["brier_after"] = evaluate(after, scoring).brier
    if details:
        found["diagram"] = diagrams(whole.targets, whole.probabilities, scoring, bins=bins)
    return found


def diagrams(
    targets: np.ndarray, probabilities: np.ndarray, scoring: Scoring, *, bins: int
) -> dict[str, dict[str, Any]]:
    """The reliability diagram of each question that is judged."""
    answers = judged_confidences(targets, probabilities, scoring)
    found = {name: reliability(confidences, right, bins=bins) for name, confidences, right in answers}
    return {name: vars(item) for name, item in found.items() if item is not None}


def _point(whole: Predictions, scoring: Scoring, point: OperatingPoint) -> dict[str, Any]:
    found = {"rule": point.rule, "chosen_on_images": point.n_images, "questions": {}}
    for question in main_questions(whole.targets, whole.probabilities, scoring):
        threshold = point.thresholds[question.name]
        found["questions"][question.name] = {
            **rates(question, threshold),
            "ci95": rate_intervals(question, threshold, np.asarray(whole.clusters, object)[question.images]),
            "validation": {
                "sensitivity": point.sensitivity[question.name],
                "specificity": point.specificity[question.name],
            },
        }
    return found
