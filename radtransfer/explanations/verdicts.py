"""What a network said about each image, which of it is explained, and in which order: confident mistakes first."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Decision:
    """What is explained about an image: that output number `output` is there, or that it is not."""

    output: int
    present: bool = True


@dataclass(frozen=True)
class Verdict:
    """One image and what is explained about it.

    Attributes:
        row: Of the image.
        name: What the network said: a class, or "not" and a label.
        decision: What is explained.
        probability: That the network gave to what it said.
        truth: The image's labels; empty where they are not known.
        wrong: Whether it was; None where that is not known.
    """

    row: int
    name: str
    decision: Decision
    probability: float
    truth: str
    wrong: bool | None


def single_label_verdicts(probabilities: np.ndarray, truth: np.ndarray | None, classes: Sequence[str]) -> list[Verdict]:
    """The class with the largest output of each image.

    Args:
        probabilities: float (images, outputs). One output is the probability of the second of two classes.
        truth: float (images, classes), 0 or 1, NaN where not known; None without labels.
        classes: Their names.
    """
    alone = probabilities.shape[1] == 1
    each = np.concatenate([1 - probabilities, probabilities], axis=1) if alone else probabilities
    found = []
    for row, (values, chosen) in enumerate(zip(each, each.argmax(axis=1), strict=True)):
        decision = Decision(0, present=bool(chosen)) if alone else Decision(int(chosen))
        known = truth is not None and not np.isnan(truth[row]).any()
        labels = _named(truth[row], classes) if known else ""
        wrong = bool(truth[row][chosen] < 0.5) if known else None
        found.append(Verdict(row, classes[chosen], decision, float(values[chosen]), labels, wrong))
    return found


def multi_label_verdicts(probabilities: np.ndarray, truth: np.ndarray | None, classes: Sequence[str]) -> list[Verdict]:
    """Of each image the label about which the network is most wrong; without known labels, its surest finding."""
    found = []
    for row, values in enumerate(probabilities):
        known = np.full(len(classes), np.nan) if truth is None else truth[row]
        if np.isnan(known).all():
            label, wrong = int(values.argmax()), None
        else:
            label = int(np.nanargmax(np.abs(values - known)))
            wrong = bool((values[label] > 0.5) != (known[label] > 0.5))
        present = bool(values[label] > 0.5)
        name = classes[label] if present else f"not {classes[label]}"
        probability = float(values[label] if present else 1 - values[label])
        labels = "" if np.isnan(known).all() else _named(known, classes) or "none of the labels"
        found.append(Verdict(row, name, Decision(label, present), probability, labels, wrong))
    return found


def confident_mistakes_first(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Mistakes, the surest first; then images without a label and right answers, the least sure first."""

    def key(verdict: Verdict) -> tuple:
        if verdict.wrong:
            return 0, -verdict.probability, verdict.row
        return 1 if verdict.wrong is None else 2, verdict.probability, verdict.row

    return sorted(verdicts, key=key)


def _named(row: np.ndarray, classes: Sequence[str]) -> str:
    return "; ".join(name for name, value in zip(classes, row, strict=True) if value > 0.5)
