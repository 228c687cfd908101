"""Calibration (reliability, expected calibration error, temperature scaling) and operating points.

With two classes, ordered grades (`positive_from`) or several labels, confidences are the scores of the main questions
of `scoring.py`; with more classes, the largest output (top-label calibration). The threshold of an operating point is
chosen on validation images and evaluated on others.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from radtransfer.errors import ConfigError, DataError
from radtransfer.evaluation.intervals import share_interval, wilson_interval
from radtransfer.evaluation.scoring import Question, Scoring, main_questions

BINS = 10  # bins of equal width from 0 to 1
_RANGE = (0.05, 20.0)  # range of temperatures
_SMALLEST = 1e-12  # probabilities are clipped to this: in float32 they may be exactly 0 or 1, which have no logit


@dataclass(frozen=True)
class Reliability:
    """Mean confidence and observed frequency in bins of equal width, without empty bins."""

    confidence: list[float]  # mean of each bin
    frequency: list[float]  # share of positive answers in it
    ci95: list[list[float]]  # 95 % interval of that share, answers taken as independent
    count: list[int]
    start: list[float]
    ece: float  # expected calibration error: mean |confidence - frequency|, weighted by the counts
    bins: int  # with the empty ones


def reliability(confidences: np.ndarray, right: np.ndarray, *, bins: int = BINS) -> Reliability | None:
    """The reliability diagram and the expected calibration error; None without answers.

    Confidences are float (answers,), 0–1, `right` bool (answers,). Bins have equal width and include their lower limit,
    the last one also 1.

    References:
        Naeini, Cooper and Hauskrecht 2015, AAAI; Guo et al. 2017, ICML, section 2.
    """
    if not confidences.size:
        return None
    number = np.clip((confidences * bins).astype(int), 0, bins - 1)
    counts = np.bincount(number, minlength=bins)
    held = counts > 0
    mean = np.bincount(number, confidences, minlength=bins)[held] / counts[held]
    frequency = np.bincount(number, right, minlength=bins)[held] / counts[held]
    return Reliability(
        confidence=mean.tolist(),
        frequency=frequency.tolist(),
        ci95=np.stack(wilson_interval(frequency, counts[held]), axis=1).tolist(),
        count=counts[held].tolist(),
        start=(np.flatnonzero(held) / bins).tolist(),
        ece=float(np.sum(np.abs(mean - frequency) * counts[held]) / confidences.size),
        bins=bins,
    )


def calibration_answers(
    targets: np.ndarray, probabilities: np.ndarray, scoring: Scoring
) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Name, confidences float64 (answers,) and correctness bool (answers,) of each question for the calibration.

    Targets (NaN if unknown) and probabilities are float (images, classes).
    """
    if scoring.task == "multiclass" and len(scoring.classes) > 2 and scoring.positive_from is None:
        labelled = ~np.isnan(targets).any(axis=1)
        targets, probabilities = targets[labelled], probabilities[labelled].astype(np.float64)
        right = probabilities.argmax(axis=1) == targets.argmax(axis=1)
        return [("largest output", probabilities.max(axis=1), right)]
    return [(item.name, item.scores, item.truth) for item in main_questions(targets, probabilities, scoring)]


def expected_error(
    targets: np.ndarray, probabilities: np.ndarray, scoring: Scoring, *, bins: int = BINS
) -> float | None:
    """The expected calibration error, mean over the questions; None without answers."""
    found = [reliability(*answers, bins=bins) for _, *answers in calibration_answers(targets, probabilities, scoring)]
    errors = [item.ece for item in found if item is not None]
    return float(np.mean(errors)) if errors else None


def fit_temperature(targets: np.ndarray, probabilities: np.ndarray, *, activation: str) -> float | None:
    """The temperature that maximizes the likelihood of the known targets, from 0.05 to 20; None without known targets.

    Above 1, the network was overconfident. If all predictions are clearly correct, there is no maximum, and the result
    is 0.05 (see `edge_note`); it is 1 if temperature makes no difference. The ranking of classes stays the same.

    Targets are float (images, classes), 0 or 1, NaN if unknown, of images that the network was not trained on;
    `activation` is "softmax" or "sigmoid".

    References:
        Guo et al. 2017, On Calibration of Modern Neural Networks, ICML, section 4.2.
    """
    from scipy.optimize import minimize_scalar

    known = ~np.isnan(targets)
    known = known & known.all(axis=1, keepdims=True) if activation == "softmax" else known
    if not known.any():
        return None
    logits = _logits(probabilities, activation)

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        if activation == "softmax":
            return float((np.logaddexp.reduce(scaled, axis=1, keepdims=True) - scaled)[known & (targets == 1)].mean())
        return float(np.logaddexp(0, np.where(targets == 1, -scaled, scaled))[known].mean())

    found = minimize_scalar(loss, bounds=tuple(np.log(_RANGE)), method="bounded", options={"xatol": 1e-6})
    ends = {end: loss(np.log(end)) for end in _RANGE}
    if all(abs(end - found.fun) < 1e-9 for end in ends.values()):
        return 1.0
    best = min(ends, key=ends.get)
    return best if ends[best] <= found.fun + 1e-9 else float(np.exp(found.x))


def edge_note(temperatures: Sequence[float | None]) -> str | None:
    """A note on temperatures at a limit of the range; None if there are none."""
    at_edge = sorted(set(temperatures) & set(_RANGE))
    if not at_edge:
        return None
    return (
        f"temperature {' and '.join(f'{value:g}' for value in at_edge)} is an end of the range ({_RANGE[0]:g} to "
        f"{_RANGE[1]:g}): the validation images do not determine it. Use more of them, or no temperature scaling"
    )


def with_temperature(probabilities: np.ndarray, temperature: float, *, activation: str) -> np.ndarray:
    """The probabilities after dividing the logits by `temperature`, float64 (images, classes)."""
    logits = _logits(probabilities, activation) / temperature
    if activation == "softmax":
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)
    return 1 / (1 + np.exp(-logits))


def mean_with_temperatures(members: np.ndarray, temperatures: Sequence[float | None], *, activation: str) -> np.ndarray:
    """The mean over networks, each scaled by its temperature if it has one, float64 (images, classes)."""
    scaled = [
        item if value is None else with_temperature(item, value, activation=activation)
        for item, value in zip(members, temperatures, strict=True)
    ]
    return np.mean(np.asarray(scaled, np.float64), axis=0)


def _logits(probabilities: np.ndarray, activation: str) -> np.ndarray:
    """Logits; those of a softmax up to a constant, which makes no difference."""
    p = np.clip(probabilities.astype(np.float64), _SMALLEST, 1 - _SMALLEST)
    return np.log(p) if activation == "softmax" else np.log(p) - np.log1p(-p)


_RULE = re.compile(r"(sensitivity|specificity)=(0?\.\d+|1(?:\.0*)?)|youden")


@dataclass(frozen=True)
class OperatingPoint:
    """The thresholds of the main questions: an image is positive if its score is at least the threshold."""

    rule: str  # "youden", "sensitivity=0.9", …
    thresholds: dict[str, float]  # by question, 0–1, for probabilities without temperature scaling
    sensitivity: dict[str, float]  # by question, on the validation images
    specificity: dict[str, float]
    n_images: int  # number of validation images


def check_rule(rule: str) -> str:
    """`rule` in its standard spelling; ConfigError if it is not valid."""
    match = _RULE.fullmatch(rule.replace(" ", "").lower())
    if not match or (match[2] and not 0 < float(match[2]) <= 1):
        raise ConfigError(
            "--operating-point expects youden, sensitivity=X or specificity=X, X above 0 and up to 1. "
            f"Received: {rule}."
        )
    return f"{match[1]}={float(match[2]):g}" if match[1] else "youden"


def check_questions(scoring: Scoring) -> None:
    """Raise ConfigError if there is no binary question."""
    if scoring.task == "multiclass" and len(scoring.classes) > 2 and scoring.positive_from is None:
        raise ConfigError(
            "--operating-point expects two classes, several labels, or grades with --positive-from. Received a model "
            f"of {len(scoring.classes)} classes: {', '.join(scoring.classes)}. Omit the option."
        )


def choose_point(rule: str, targets: np.ndarray, probabilities: np.ndarray, scoring: Scoring) -> OperatingPoint:
    """Choose the operating point on validation images; `rule` as from `check_rule`.

    `sensitivity=X`: the highest threshold with at least this sensitivity; `specificity=X`: the lowest with at least
    this specificity; `youden`: the (highest) one with the largest sum of both (Youden 1950, Cancer 3). Thresholds are
    midway between two observed scores.
    """
    check_questions(scoring)
    thresholds, sensitivities, specificities = {}, {}, {}
    for question in main_questions(targets, probabilities, scoring):
        name, truth = question.name, question.truth
        if not truth.any() or truth.all():
            raise DataError(
                f"--operating-point {rule}: expected positive and negative validation images for {name}, received "
                f"{truth.sum()} positive and {(~truth).sum()} negative. Train with a larger --val-fraction."
            )
        thresholds[name], sensitivities[name], specificities[name] = _choose(rule, question)
    return OperatingPoint(rule, thresholds, sensitivities, specificities, len(targets))


def _choose(rule: str, question: Question) -> tuple[float, float, float]:
    """Threshold, sensitivity and specificity."""
    scores = np.unique(question.scores)
    # All thresholds with different decisions: below all scores, between two scores, above all scores.
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


def decisions(probabilities: np.ndarray, scoring: Scoring, point: OperatingPoint) -> np.ndarray:
    """Whether each image reaches the threshold of each main question, bool (images, questions)."""
    questions = main_questions(np.zeros(probabilities.shape), probabilities, scoring)
    return np.stack([item.scores >= point.thresholds[item.name] for item in questions], axis=1)


def rates(question: Question, threshold: float) -> dict[str, float | int | None]:
    """Counts and rates at a threshold; None for a rate without images."""
    positive = question.scores >= threshold
    tp, fp = (int((positive & side).sum()) for side in (question.truth, ~question.truth))
    tn, fn = (int((~positive & side).sum()) for side in (~question.truth, question.truth))
    shares = {
        "accuracy": (tp + tn, fp + fn),
        "sensitivity": (tp, fn),
        "specificity": (tn, fp),
        "ppv": (tp, fp),
        "npv": (tn, fn),
    }
    shares = {name: part / (part + other) if part + other else None for name, (part, other) in shares.items()}
    return {"threshold": threshold, "tp": tp, "fp": fp, "tn": tn, "fn": fn, **shares}


def rate_intervals(question: Question, threshold: float, patients: np.ndarray) -> dict[str, list[float] | None]:
    """95 % intervals of sensitivity and specificity over `patients`; None for a rate without images."""
    right = (question.scores >= threshold) == question.truth
    sides = {"sensitivity": question.truth, "specificity": ~question.truth}
    return {
        name: list(share_interval(right[side], patients[side])) if side.any() else None for name, side in sides.items()
    }
