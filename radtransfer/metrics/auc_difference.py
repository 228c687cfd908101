"""Whether two networks differ in AUC on the same images: DeLong's test, which counts images as independent."""

import math
from dataclasses import dataclass

import numpy as np

from radtransfer.metrics.roc import exact_area, placements


@dataclass(frozen=True)
class DeLong:
    """DeLong's test of one yes-or-no question.

    Attributes:
        question: Which.
        auc_a, auc_b: Exact areas.
        difference: auc_a - auc_b.
        error: Its standard error, images counted as independent.
        p: Of the two-sided test that there is no difference; None where the error is 0.
    """

    question: str
    auc_a: float
    auc_b: float
    difference: float
    error: float
    p: float | None


def delong(question: str, truth: np.ndarray, a: np.ndarray, b: np.ndarray) -> DeLong | None:
    """Compare the areas of two scores of the same images; None with fewer than two positives or negatives.

    Args:
        question: Its name.
        truth: bool (images,).
        a: One network's scores, finite (images,).
        b: The other's.

    References:
        DeLong, DeLong and Clarke-Pearson 1988, Biometrics 44; computed by ranks as
        Sun and Xu 2014, IEEE Signal Processing Letters 21.
    """
    if min(truth.sum(), (~truth).sum()) < 2:
        return None
    areas = [exact_area(truth, scores) for scores in (a, b)]
    # The variance of the difference, without forming the covariance of both.
    gained = placements(truth, a) - placements(truth, b)
    variance = sum(np.var(gained[side], ddof=1) / side.sum() for side in (truth, ~truth))
    difference, error = areas[0] - areas[1], math.sqrt(variance)
    p = math.erfc(abs(difference) / error / math.sqrt(2)) if error > 0 else None
    return DeLong(question, *areas, difference, error, p)
