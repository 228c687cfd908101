"""Exact figures of the ROC curve: area, its bootstrap interval over patients, sensitivity."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ranking:
    """Scores of one yes-or-no question, sorted once, so that every weighting of the clusters takes O(images).

    Attributes:
        positives: Cluster (patient) of each positive, int (positives,).
        negatives: Cluster of each negative in ascending order of score, int (negatives,).
        below: How many negatives score lower than each positive, int (positives,).
        up_to: How many negatives score lower or the same, int (positives,).
    """

    positives: np.ndarray
    negatives: np.ndarray
    below: np.ndarray
    up_to: np.ndarray


def rank_scores(truth: np.ndarray, scores: np.ndarray, clusters: np.ndarray) -> Ranking:
    """Sort once what `weighted_area` needs.

    Args:
        truth: bool (n,).
        scores: float (n,), finite; higher means more likely true.
        clusters: int (n,), from 0; what is drawn together.
    """
    order = np.argsort(scores[~truth], kind="stable")
    negatives = scores[~truth][order]
    return Ranking(
        positives=clusters[truth],
        negatives=clusters[~truth][order],
        below=np.searchsorted(negatives, scores[truth], side="left"),
        up_to=np.searchsorted(negatives, scores[truth], side="right"),
    )


def weighted_area(ranking: Ranking, weights: np.ndarray) -> float:
    """The share of positive-negative pairs in which the positive scores higher, ties counting half.

    Args:
        ranking: The sorted scores.
        weights: int (clusters,): how often each cluster counts. Integers keep the sum exact.

    Returns:
        0–1; NaN where there is no positive or no negative.

    References:
        Hanley and McNeil 1982, Radiology 143: the area is the Wilcoxon statistic over the number of pairs.
    """
    positive = weights[ranking.positives]
    below = np.concatenate([[0], np.cumsum(weights[ranking.negatives])])
    pairs = positive.sum() * below[-1]
    return float(positive @ (below[ranking.below] + below[ranking.up_to]) / (2 * pairs)) if pairs else np.nan


def mean_area(rankings: Sequence[Ranking], weights: np.ndarray) -> float:
    """The mean over the questions that have an AUC under these weights; NaN if none has."""
    areas = np.array([weighted_area(ranking, weights) for ranking in rankings])
    defined = areas[~np.isnan(areas)]
    return float(defined.mean()) if defined.size else np.nan


def exact_area(truth: np.ndarray, scores: np.ndarray) -> float | None:
    """The area for bool and float arrays (n,); None where there is no positive or no negative."""
    ranking = rank_scores(truth, scores, np.zeros(len(truth), dtype=np.int64))
    area = weighted_area(ranking, np.ones(1, dtype=np.int64))
    return None if np.isnan(area) else area


def sensitivity_at_specificity(truth: np.ndarray, scores: np.ndarray, specificity: float) -> float | None:
    """The largest sensitivity of any threshold with at least this specificity; None as in `exact_area`."""
    positives, negatives = scores[truth], scores[~truth]
    if not positives.size or not negatives.size:
        return None
    # In floating point, (1 - 0.9) * 10 is a little less than the one false positive that is allowed.
    allowed = int((1 - specificity) * negatives.size + 1e-9)
    highest_excluded = np.sort(negatives)[::-1][allowed]
    return float(np.mean(positives > highest_excluded))


def bootstrap_interval(
    repeats: Sequence[Sequence[Ranking]], clusters: int, *, draws: int, seed: int
) -> tuple[float, float] | None:
    """The 95 % percentile interval of the mean AUC when whole clusters are drawn with replacement.

    A patient's images are not independent, so patients are drawn, not images; a draw gives a patient the same
    weight in every repeat. In a draw that lacks a class entirely, the mean is over the other classes.

    Args:
        repeats: For each repeat, the questions whose AUCs are averaged.
        clusters: How many clusters there are.
        draws: Bootstrap samples.
        seed: Of the draws.

    Returns:
        Low and high end; None with fewer than two clusters or where no draw has an AUC.

    References:
        Field and Welsh 2007, J. R. Stat. Soc. B 69, the cluster bootstrap;
        Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13, percentile interval.
    """
    if clusters < 2:
        return None
    rng = np.random.default_rng(seed)
    areas = np.empty((draws, len(repeats)))
    for draw in range(draws):
        weights = np.bincount(rng.integers(clusters, size=clusters), minlength=clusters)
        areas[draw] = [mean_area(rankings, weights) for rankings in repeats]
    means = areas[~np.isnan(areas).any(axis=1)].mean(axis=1)
    return tuple(np.percentile(means, [2.5, 97.5]).tolist()) if means.size else None
