"""Whether two networks differ in AUC on the same images: DeLong's test, and a bootstrap over patients."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from radtransfer.metrics.roc import Ranking, mean_area, rank_scores


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
    of_a, of_b = _placements(truth, a), _placements(truth, b)
    areas = of_a[0].mean(), of_b[0].mean()
    # The variance of the difference, without forming the covariance of both.
    variance = sum(np.var(mine - its, ddof=1) / mine.size for mine, its in zip(of_a, of_b, strict=True))
    difference, error = float(areas[0] - areas[1]), math.sqrt(variance)
    p = math.erfc(abs(difference) / error / math.sqrt(2)) if error > 0 else None
    return DeLong(question, float(areas[0]), float(areas[1]), difference, error, p)


def difference_interval(
    repeats: Sequence[tuple[Sequence[Ranking], Sequence[Ranking]]], clusters: int, *, draws: int = 2000, seed: int = 0
) -> tuple[float, float] | None:
    """The 95 % percentile interval of mean AUC of A less mean AUC of B, whole clusters drawn with replacement.

    Args:
        repeats: For each repeat, the rankings of A's questions and of B's.
        clusters: How many patients there are.
        draws: Bootstrap samples.
        seed: Of the draws.

    Returns:
        Low and high end; None with fewer than two clusters.

    References:
        As `roc.bootstrap_interval`; both networks are given the same patients in each draw.
    """
    if clusters < 2:
        return None
    rng = np.random.default_rng(seed)
    differences = np.empty(draws)
    for draw in range(draws):
        weights = np.bincount(rng.integers(clusters, size=clusters), minlength=clusters)
        differences[draw] = np.mean([mean_area(a, weights) - mean_area(b, weights) for a, b in repeats])
    defined = differences[~np.isnan(differences)]
    return tuple(np.percentile(defined, [2.5, 97.5]).tolist()) if defined.size else None


def _placements(truth: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each positive, the share of negatives below it; of each negative, the share of positives above; ties half."""
    alone = np.zeros(truth.size, np.int64)
    up, down = rank_scores(truth, scores, alone), rank_scores(~truth, -scores, alone)
    return (up.below + up.up_to) / (2 * (~truth).sum()), (down.below + down.up_to) / (2 * truth.sum())
