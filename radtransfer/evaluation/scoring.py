"""The binary questions that the outputs of a network answer, and the area under the ROC curve of one.

The main questions, by task:

    ordered grades, `positive_from` K   grade ≥ K? Score: the share of the outputs for these grades
    two classes                         positive class? Score: its output (softmax or sigmoid)
    more classes                        this class? One question per class (macro one-versus-rest)
    several labels                      label present? One question per label (macro)

Unknown targets (NaN) are never counted. `average="micro"` pools the outputs of all classes into one question, to
reproduce the numbers of Juodelyte et al. 2023; it is too high for classes of unequal size.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from radtransfer.errors import ConfigError, TrainingError


@dataclass(frozen=True)
class Scoring:
    """The meaning of the outputs and the main AUC; ConfigError if its values do not fit together."""

    task: str  # "multiclass" (one label per image) or "multilabel"
    classes: tuple[str, ...]  # in the order of the outputs
    positive_from: int | None = None  # the lowest of ordered grades that counts as positive
    average: Literal["macro", "micro"] = "macro"  # how the AUCs of several classes become one
    positive_class: str | None = None  # of two classes, by default the last; None for all other tasks

    def __post_init__(self) -> None:
        if self.average not in ("macro", "micro"):
            raise ConfigError(f"Expected average macro or micro. Received: {self.average!r}.")
        if self.positive_from is not None:
            if self.task != "multiclass" or self.average != "macro":
                raise ConfigError("positive_from needs one grade per image and average macro. Omit one of the two.")
            try:
                positive = {int(name) >= self.positive_from for name in self.classes}
            except ValueError:
                positive = set()
            if positive != {True, False}:
                raise ConfigError(
                    f"positive_from is {self.positive_from}, but the classes are {', '.join(self.classes)}: "
                    "expected integer grades, some below it and some not. Choose another value or omit it."
                )
        two = self.task == "multiclass" and len(self.classes) == 2 and self.positive_from is None
        if self.positive_class is None:
            object.__setattr__(self, "positive_class", self.classes[-1] if two else None)
        elif not two or self.positive_class not in self.classes:
            raise ConfigError(
                f"positive_class is {self.positive_class!r}, but the classes are {', '.join(self.classes)}: "
                "expected one of two classes of single-label images. Choose another class or omit it."
            )

    @property
    def in_order(self) -> tuple[str, ...]:
        """The classes in the order of figures and tables: as the outputs, but the positive class last."""
        return tuple(sorted(self.classes, key=lambda name: name == self.positive_class))

    @property
    def subject(self) -> str:
        """What AUC, sensitivity and specificity are for, in words; empty if they are means over classes or labels."""
        if self.positive_class is not None:
            return f"positive class {self.positive_class}"
        if self.positive_from is not None:
            return f"grade ≥ {self.positive_from}"
        return f"label {self.classes[0]}" if self.task == "multilabel" and len(self.classes) == 1 else ""


def recorded_scoring(record: Mapping[str, Any], *, positive_from: int | None = None) -> Scoring:
    """The scoring of a stored run, from its run.json; the earliest runs have `positive_from` only in their settings."""
    grade = record.get("positive_from", positive_from)
    return Scoring(record["task"], tuple(record["classes"]), grade, positive_class=record.get("positive_class"))


@dataclass(frozen=True)
class Question:
    """A binary question: row numbers of its images (int), answers (bool) and scores (float64)."""

    name: str
    images: np.ndarray
    truth: np.ndarray
    scores: np.ndarray

    @property
    def area(self) -> float | None:
        """The AUC; None without positives or without negatives."""
        return exact_area(self.truth, self.scores)


def class_questions(targets: np.ndarray, probabilities: np.ndarray, scoring: Scoring) -> list[Question]:
    """One question per class (one-versus-rest) or label; TrainingError if an output is not finite."""
    shape = (len(targets), len(scoring.classes))
    for name, array in (("targets", targets), ("probabilities", probabilities)):
        if array.shape != shape:
            raise ValueError(f"Expected {name} of shape {shape} (images, classes). Received: {array.shape}.")
    broken = np.count_nonzero(~np.isfinite(probabilities))
    if broken:
        raise TrainingError(
            f"{broken} of {probabilities.size} outputs are not finite: training diverged. "
            "Lower --learning-rate, or use --precision float32."
        )
    return [_question(*column) for column in zip(scoring.classes, targets.T, probabilities.T, strict=True)]


def main_questions(targets: np.ndarray, probabilities: np.ndarray, scoring: Scoring) -> list[Question]:
    """The questions whose mean AUC is the main AUC; arguments and errors as in `class_questions`."""
    each = class_questions(targets, probabilities, scoring)
    if scoring.positive_from is not None:
        # The outputs of grades ≥ K over the sum of all outputs; 0.5 if all are 0.
        positive = np.array([int(name) >= scoring.positive_from for name in scoring.classes])
        outputs = probabilities.astype(np.float64)
        total, share = outputs.sum(axis=1), np.full(len(outputs), 0.5)
        np.divide(outputs[:, positive].sum(axis=1), total, out=share, where=total > 0)
        return [_question(f"grade >= {scoring.positive_from}", targets[:, positive].sum(axis=1), share)]
    if scoring.average == "micro":
        parts = ([getattr(question, name) for question in each] for name in ("images", "truth", "scores"))
        return [Question("all classes", *map(np.concatenate, parts))]
    return [question for question in each if scoring.positive_class in (None, question.name)]


def _question(name: str, truth: np.ndarray, scores: np.ndarray) -> Question:
    images = np.flatnonzero(~np.isnan(truth))
    return Question(name, images, truth[images] > 0.5, scores[images].astype(np.float64))


def exact_area(truth: np.ndarray, scores: np.ndarray) -> float | None:
    """The AUC: share of positive-negative pairs in which the positive scores higher, ties counting half.

    `truth` is bool (n,), `scores` finite float (n,). None without positives or without negatives.

    References:
        Hanley and McNeil 1982, Radiology 143: the area is the Wilcoxon statistic over the number of pairs.
    """
    negatives = np.sort(scores[~truth])
    pairs = int(truth.sum()) * negatives.size
    won = [np.searchsorted(negatives, scores[truth], side=end).sum() for end in ("left", "right")]
    return float((won[0] + won[1]) / (2 * pairs)) if pairs else None


def placements(truth: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """For each positive, the share of negatives that score lower; for each negative, of positives that score higher.

    Ties count half; both classes must be present.
    """
    won = np.empty(truth.size)
    for side, sign in ((truth, 1), (~truth, -1)):
        others = np.sort(sign * scores[~side])
        ends = [np.searchsorted(others, sign * scores[side], side=end) for end in ("left", "right")]
        won[side] = (ends[0] + ends[1]) / (2 * others.size)
    return won


def sensitivity_at_specificity(truth: np.ndarray, scores: np.ndarray, specificity: float) -> float | None:
    """The largest sensitivity of any threshold with at least this specificity; None as in `exact_area`."""
    positives, negatives = scores[truth], scores[~truth]
    if not positives.size or not negatives.size:
        return None
    # In floating point, (1 - 0.9) * 10 is slightly less than the one allowed false positive.
    allowed = int((1 - specificity) * negatives.size + 1e-9)
    highest_excluded = np.sort(negatives)[::-1][allowed]
    return float(np.mean(positives > highest_excluded))
