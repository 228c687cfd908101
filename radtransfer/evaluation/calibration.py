"""Whether probabilities mean what they say: reliability, expected calibration error, temperature scaling.

Judged are confidences. With two classes, ordered grades (`positive_from`) or several labels these are the scores of the
main questions of `scoring.py`, each against its answer; with more classes the largest output, against whether its class
is right (top-label calibration).

Below: operating points. A threshold is chosen on validation images, and judged on others.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from radtransfer.errors import ConfigError, DataError
from radtransfer.evaluation.intervals import share_interval, wilson_interval
from radtransfer.evaluation.scoring import Question, Scoring, main_questions

BINS = 10
"""Bins of equal width from 0 to 1."""

_RANGE = (0.05, 20.0)
"""Temperatures that are looked at."""

_SMALLEST = 1e-12
"""A probability of a float32 network may be exactly 0, or 1, which has no logit."""


@dataclass(frozen=True)
class Reliability:
    """Confidences and how often they were right, by bins of equal width; empty bins are left out.

    Attributes:
        confidence: Mean of each bin.
        frequency: Share of its answers that are yes.
        ci95: 95 % interval of that share, as if answers were independent.
        count: How many answers it holds.
        start: Where it begins.
        ece: The expected calibration error: mean distance of confidence and frequency, weighted by the counts.
        bins: How many there were, the empty ones included.
    """

    confidence: list[float]
    frequency: list[float]
    ci95: list[list[float]]
    count: list[int]
    start: list[float]
    ece: float
    bins: int


def reliability(confidences: np.ndarray, right: np.ndarray, *, bins: int = BINS) -> Reliability | None:
    """The reliability diagram and its error; None without any answer.

    Args:
        confidences: float (answers,), 0–1.
        right: bool (answers,).
        bins: Of equal width; bin k holds k/bins up to but not including (k + 1)/bins, the last one 1 as well.

    References:
        Naeini, Cooper and Hauskrecht 2015, AAAI; Guo et al. 2017, ICML, section 2.
    """
    if not confidences.size:
        return None
    number = np.clip((confidences * bins).astype(int), 0, bins - 1)
    counts = np.bincount(number, minlength=bins)
    held = counts > 0
    mean = np.bincount(number, confidences, minlength=bins)[held] / counts[held]
    yes = np.bincount(number, right, minlength=bins)[held]
    frequency = yes / counts[held]
    ece = float(np.sum(np.abs(mean - frequency) * counts[held]) / confidences.size)
    intervals = np.stack(wilson_interval(frequency, counts[held]), axis=1)
    start = np.flatnonzero(held) / bins
    return Reliability(
        mean.tolist(), frequency.tolist(), intervals.tolist(), counts[held].tolist(), start.tolist(), ece, bins
    )


def judged_confidences(
    targets: np.ndarray, probabilities: np.ndarray, scoring: Scoring
) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """What is judged, as the module says: name, confidences float64 (answers,) and bool (answers,) of each question.

    Args:
        targets: float (images, classes), 0 or 1; NaN where not known.
        probabilities: float (images, classes).
        scoring: What the columns mean.
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
    """The expected calibration error, the mean over the questions that are judged; None without any answer."""
    found = [reliability(*answers, bins=bins) for _, *answers in judged_confidences(targets, probabilities, scoring)]
    errors = [item.ece for item in found if item is not None]
    return float(np.mean(errors)) if errors else None


def fit_temperature(targets: np.ndarray, probabilities: np.ndarray, *, activation: str) -> float | None:
    """The temperature that makes the known targets most likely; None without any known target.

    It is searched from 0.05 to 20. Where all are right with room to spare, colder is always likelier: then it is 0.05,
    of which `edge_note` tells. It is 1 where it makes no difference.

    A softmax keeps its ranking of the classes, sigmoids keep their side of 0.5. Above 1 the network was too sure.

    Args:
        targets: float (images, classes), 0 or 1; NaN where not known. Of images that the network did not train on.
        probabilities: float (images, classes).
        activation: "softmax" or "sigmoid".

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
    """What to tell of temperatures at an end of the range that is searched; None where there are none."""
    at_edge = sorted(set(temperatures) & set(_RANGE))
    if not at_edge:
        return None
    return (
        f"temperature {' and '.join(f'{value:g}' for value in at_edge)} is an end of the range that is searched "
        f"({_RANGE[0]:g} to {_RANGE[1]:g}): the validation images do not tell how sure to be. Use more of them, or "
        "leave the probabilities as they are"
    )


def with_temperature(probabilities: np.ndarray, temperature: float, *, activation: str) -> np.ndarray:
    """The probabilities that logits divided by `temperature` give, float64 (images, classes).

    Args:
        probabilities: float (images, classes); their logits are known up to a constant, which makes no difference.
        temperature: Above 0.
        activation: "softmax" or "sigmoid".
    """
    logits = _logits(probabilities, activation) / temperature
    if activation == "softmax":
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)
    return 1 / (1 + np.exp(-logits))


def mean_with_temperatures(members: np.ndarray, temperatures: Sequence[float | None], *, activation: str) -> np.ndarray:
    """The mean over networks, each scaled by its own temperature, float64 (images, classes).

    Args:
        members: float (networks, images, classes).
        temperatures: Of each network; None leaves it as it is.
        activation: Of all.
    """
    scaled = [
        item if value is None else with_temperature(item, value, activation=activation)
        for item, value in zip(members, temperatures, strict=True)
    ]
    return np.mean(np.asarray(scaled, np.float64), axis=0)


def _logits(probabilities: np.ndarray, activation: str) -> np.ndarray:
    p = np.clip(probabilities.astype(np.float64), _SMALLEST, 1 - _SMALLEST)
    return np.log(p) if activation == "softmax" else np.log(p) - np.log1p(-p)


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
    tp, fp = (int((positive & side).sum()) for side in (question.truth, ~question.truth))
    tn, fn = (int((~positive & side).sum()) for side in (~question.truth, question.truth))

    def share(part: int, other: int) -> float | None:
        return part / (part + other) if part + other else None

    return {
        "threshold": threshold,
        "tp": tp,
        "fp": fp,
        "tn": tn,
        "fn": fn,
        "accuracy": share(tp + tn, fp + fn),
        "sensitivity": share(tp, fn),
        "specificity": share(tn, fp),
        "ppv": share(tp, fp),
        "npv": share(tn, fn),
    }


def rate_intervals(question: Question, threshold: float, patients: np.ndarray) -> dict[str, list[float] | None]:
    """95 % intervals of sensitivity and specificity over the `patients` of the answers; None for a share of nothing."""
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
