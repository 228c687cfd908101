"""Deal groups of images into parts of given sizes so that every class is shared out alike."""

from collections.abc import Sequence

import numpy as np


def stratified_parts(counts: np.ndarray, shares: Sequence[float], rng: np.random.Generator) -> np.ndarray:
    """A part for each group, such that each part gets its share of every quantity as nearly as it goes.

    Large groups and those of rare classes are dealt first, in random order within a factor of two; each goes
    where the sum over quantities of (dealt − due)²/due grows least, which for single images is Sainte-Laguë's
    method. Groups alike are dealt in bulk. A class with as many groups as there are parts is in every part.

    Differs from scikit-learn's `StratifiedGroupKFold`: parts may differ in size, each of several labels is
    balanced, large patients too change places with the seed, and 100,000 groups take a second.

    Args:
        counts: (groups, quantities): images of each class or label, and in the last column images at all.
        shares: Fractions that add up to 1.
        rng: Decides among groups that are alike.

    Returns:
        Index of the part of each group, int (groups,).
    """
    counts = counts[:, counts.sum(axis=0) > 0].astype(float)
    due = np.outer(shares, counts.sum(axis=0))
    keys = rng.random(len(counts))
    parts = np.full(len(counts), -1)
    dealt = np.zeros_like(due)
    # Rounded, here and below: the last bits of a sum differ between machines.
    rank = np.floor(np.round(np.log2((counts / counts.sum(axis=0)).sum(axis=1)), 9))
    for value in np.unique(rank)[::-1]:
        members = np.flatnonzero(rank == value)
        left = _deal_alike(counts, members[np.argsort(keys[members])], np.asarray(shares), parts, dealt)
        for group in left[np.argsort(keys[left])]:
            growth = ((2 * (dealt - due) + counts[group]) * counts[group] / due).sum(axis=1)
            parts[group] = np.argmin(np.round(growth, 9))
            dealt[parts[group]] += counts[group]
    _fill_gaps(counts[:, :-1] > 0, counts[:, -1], parts, len(due))
    return parts


def _deal_alike(
    counts: np.ndarray, members: np.ndarray, shares: np.ndarray, parts: np.ndarray, dealt: np.ndarray
) -> np.ndarray:
    """Deal each part its whole number of the groups with equal counts; gives the groups left over."""
    patterns, pattern_of = np.unique(counts[members], axis=0, return_inverse=True)
    by_pattern = members[np.argsort(pattern_of.reshape(-1), kind="stable")]
    left, start = [], 0
    for pattern, size in zip(patterns, np.bincount(pattern_of.reshape(-1)), strict=True):
        alike = by_pattern[start : start + size]
        start += size
        whole = np.floor(size * shares + 1e-9).astype(int)
        parts[alike[: whole.sum()]] = np.repeat(np.arange(len(shares)), whole)
        dealt += np.outer(whole, pattern)
        left.append(alike[whole.sum() :])
    return np.concatenate(left)


def _fill_gaps(has: np.ndarray, sizes: np.ndarray, parts: np.ndarray, number: int) -> None:
    """Move the smallest group of a class into each part that lacks it, if the class has enough groups.

    The group comes from the part with most groups of that class.
    """
    for column in has.T:
        groups = np.flatnonzero(column)
        if len(groups) < number:
            continue
        for part in range(number):
            held = np.bincount(parts[groups], minlength=number)
            if not held[part]:
                donors = groups[parts[groups] == np.argmax(held)]
                parts[donors[np.argmin(sizes[donors])]] = part


def group_counts(targets: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What `stratified_parts` takes: images of each class or label, and at all, of each group.

    Args:
        targets: (images, classes), 1 for what an image is.
        groups: The group of each image, (images,).

    Returns:
        (groups, classes + 1), the groups sorted, and the place of each image's group among them.
    """
    _, codes = np.unique(groups, return_inverse=True)
    quantities = [*(targets == 1).T, np.ones(len(codes))]
    return np.stack([np.bincount(codes, weights=values) for values in quantities], axis=1), codes
