"""Where yes begins: a threshold that is chosen on validation images, and what it is worth on others."""

import re
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from radtransfer.errors import ConfigError, DataError
from radtransfer.metrics.intervals import share_interval
from radtransfer.metrics.scoring import Question, Scoring, main_questions

_RULE = re.compile(r"(sensitivity|specificity)=(0?\.\d+|1(?:\.0*)?)|youden")


@dataclass(frozen=True)
class OperatingPoint:
    """The thresholds of the main questions: an image is positive where its score reaches them.

    Attributes:
        rule: How they were chosen: "youden", "sensitivity=0.9", ….
        thresholds: Question to threshold, 0–1, of the probabilities as the network gives them.
        sensitivity: Question to what was reached where they were chosen.
        specificity: Likewise.
        n_images: Images they were chosen on.
    """

    rule: str
    thresholds: dict[str, float]
    sensitivity: dict[str, float]
    specificity: dict[str, float]
    n_images: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def check_rule(rule: str) -> str:
    """`rule` in one spelling.

    Raises:
        ConfigError: It is none.
    """
    match = _RULE.fullmatch(rule.replace(" ", "").lower())
    if not match or (match[2] and not 0 < float(match[2]) <= 1):
        raise ConfigError(
            "--operating-point expects youden, sensitivity=X or specificity=X, X above 0 and up to 1. "
            f"Received: {rule}."
        )
    return f"{match[1]}={float(match[2]):g}" if match[1] else "youden"


def check_questions(scoring: Scoring) -> None:
    """See that there is a yes to begin somewhere.

    Raises:
        ConfigError: One of several classes is asked for.
    """
    if scoring.task == "multiclass" and len(scoring.classes) > 2 and scoring.positive_from is None:
        raise ConfigError(
            "--operating-point needs a yes-or-no question: two classes, several labels, or grades with "
            f"--positive-from. This model tells {len(scoring.classes)} classes apart: {', '.join(scoring.classes)}."
        )


def choose_point(rule: str, targets: np.ndarray, probabilities: np.ndarray, scoring: Scoring) -> OperatingPoint:
    """The operating point that `rule` chooses.

    `sensitivity=X` is the highest threshold with at least this sensitivity, `specificity=X` the lowest with at least
    this specificity, `youden` the one with the largest sum of both (of several, the highest). A threshold lies in the
    middle between two scores that were seen.

    Args:
        rule: As `check_rule` gives it.
        targets: float (images, classes) of validation images; NaN where not known.
        probabilities: float (images, classes).
        scoring: What the columns mean.

    Raises:
        ConfigError: There is no yes-or-no question.
        DataError: A question has no positive or no negative image.

    References:
        Youden 1950, Cancer 3.
    """
    check_questions(scoring)
    thresholds, sensitivities, specificities = {}, {}, {}
    for question in main_questions(targets, probabilities, scoring):
        if not question.truth.any() or question.truth.all():
            known = f"{question.truth.sum()} positive and {(~question.truth).sum()} negative"
            raise DataError(
                f"--operating-point {rule}: the validation images have {known} ones of {question.name}; expected some "
                "of both. Train with a larger --val-fraction."
            )
        name, (cut, sensitivity, specificity) = question.name, _choose(rule, question)
        thresholds[name], sensitivities[name], specificities[name] = cut, sensitivity, specificity
    return OperatingPoint(rule, thresholds, sensitivities, specificities, len(targets))


def decisions(probabilities: np.ndarray, scoring: Scoring, point: OperatingPoint) -> np.ndarray:
    """Whether each image reaches the threshold of each main question, bool (images, questions)."""
    known = np.zeros(probabilities.shape)
    return np.stack(
        [item.scores >= point.thresholds[item.name] for item in main_questions(known, probabilities, scoring)], axis=1
    )


def rates(question: Question, threshold: float) -> dict[str, float | int | None]:
    """What a threshold is worth: counts, and the shares that they give; None where a share is of nothing."""
    positive = question.scores >= threshold
    counts = {
        "tp": int((positive & question.truth).sum()),
        "fp": int((positive & ~question.truth).sum()),
        "tn": int((~positive & ~question.truth).sum()),
        "fn": int((~positive & question.truth).sum()),
    }
    tp, fp, tn, fn = counts.values()
    shares = {
        "accuracy": (tp + tn, fp + fn),
        "sensitivity": (tp, fn),
        "specificity": (tn, fp),
        "ppv": (tp, fp),
        "npv": (tn, fn),
    }
    return {"threshold": threshold, **counts, **{name: _share(*pair) for name, pair in shares.items()}}


def rate_intervals(question: Question, threshold: float, patients: np.ndarray) -> dict[str, list[float] | None]:
    """95 % intervals of sensitivity and specificity over patients; None where a share is of nothing.

    Args:
        question: With the truth.
        threshold: Of its scores.
        patients: The patient of each of its answers.
    """
    right = (question.scores >= threshold) == question.truth
    sides = {"sensitivity": question.truth, "specificity": ~question.truth}
    return {
        name: list(share_interval(right[side], patients[side])) if side.any() else None for name, side in sides.items()
    }


def _choose(rule: str, question: Question) -> tuple[float, float, float]:
    """Threshold, sensitivity and specificity."""
    scores = np.unique(question.scores)
    # Every threshold that decides otherwise than the next one: below all scores, between two, above all.
    edges = np.concatenate([[min(0.0, scores[0])], scores, [max(1.0, scores[-1])]])
    cuts = (edges[:-1] + edges[1:]) / 2
    if scores[-1] >= 1:
        cuts[-1] = np.nextafter(scores[-1], np.inf)
    positives, negatives = np.sort(question.scores[question.truth]), np.sort(question.scores[~question.truth])
    sensitivity = 1 - np.searchsorted(positives, cuts) / positives.size
    specificity = np.searchsorted(negatives, cuts) / negatives.size
    name, _, least = rule.partition("=")
    if name == "sensitivity":
        place = np.flatnonzero(sensitivity >= float(least) - 1e-9)[-1]
    elif name == "specificity":
        place = np.flatnonzero(specificity >= float(least) - 1e-9)[0]
    else:
        both = sensitivity + specificity
        place = np.flatnonzero(both >= both.max() - 1e-12)[-1]
    return float(cuts[place]), float(sensitivity[place]), float(specificity[place])


def _share(part: int, other: int) -> float | None:
    return part / (part + other) if part + other else None
