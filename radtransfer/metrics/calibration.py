"""Whether probabilities mean what they say: reliability, expected calibration error, temperature scaling.

Judged are confidences. With two classes, ordered grades (`positive_from`) or several labels these are the scores of the
main questions of `scoring.py`, each against its answer; with more classes the largest output, against whether its class
is right (top-label calibration).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from radtransfer.metrics.intervals import wilson_interval
from radtransfer.metrics.scoring import Scoring, main_questions

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
