"""Exact figures of the ROC curve: area, the share that each image has in it, sensitivity."""

import numpy as np


def placements(truth: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Of each positive, the share of negatives that score lower; of each negative, of positives that score higher.

    Ties count half; both classes must be present.

    Args:
        truth: bool (n,).
        scores: float (n,), finite; higher means more likely true.
    """
    won = np.empty(truth.size)
    for side, sign in ((truth, 1), (~truth, -1)):
        others = np.sort(sign * scores[~side])
        ends = [np.searchsorted(others, sign * scores[side], side=end) for end in ("left", "right")]
        won[side] = (ends[0] + ends[1]) / (2 * others.size)
    return won


def exact_area(truth: np.ndarray, scores: np.ndarray) -> float | None:
    """The share of positive-negative pairs in which the positive scores higher, ties counting half.

    Args:
        truth: bool (n,).
        scores: float (n,), finite; higher means more likely true.

    Returns:
        0–1; None where there is no positive or no negative.

    References:
        Hanley and McNeil 1982, Radiology 143: the area is the Wilcoxon statistic over the number of pairs.
    """
    negatives = np.sort(scores[~truth])
    pairs = int(truth.sum()) * negatives.size
    won = [np.searchsorted(negatives, scores[truth], side=end).sum() for end in ("left", "right")]
    return float((won[0] + won[1]) / (2 * pairs)) if pairs else None


def sensitivity_at_specificity(truth: np.ndarray, scores: np.ndarray, specificity: float) -> float | None:
    """The largest sensitivity of any threshold with at least this specificity; None as in `exact_area`."""
    positives, negatives = scores[truth], scores[~truth]
    if not positives.size or not negatives.size:
        return None
    # In floating point, (1 - 0.9) * 10 is a little less than the one false positive that is allowed.
    allowed = int((1 - specificity) * negatives.size + 1e-9)
    highest_excluded = np.sort(negatives)[::-1][allowed]
    return float(np.mean(positives > highest_excluded))
