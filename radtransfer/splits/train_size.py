"""The small-data regime: training sets cut to a number of images, by whole patients, stratified and nested.

References:
    Raghu et al. 2019, Transfusion (arXiv 1902.07208), Tables 3 and 4.
"""

import numpy as np

from radtransfer.errors import ConfigError
from radtransfer.splits.stratification import group_counts, stratified_parts


def cut_training(
    split: np.ndarray, targets: np.ndarray, groups: np.ndarray, size: int, *, number: int, words: tuple[int, ...]
) -> np.ndarray:
    """A fold's `split` with at most `size` training images; see `leading_groups` for which.

    Args:
        split: (images,) of "train", "val", "test" or "".
        targets: (images, classes), 1 for what an image is.
        groups: A number per image, (images,); images with the same one stay together.
        size: Images.
        number: Of the fold, for messages.
        words: The seed.

    Returns:
        The split in which the training images left out have "" and all others what they had.

    Raises:
        ConfigError: There are fewer images than `size`, or no group fits.
    """
    rows = np.flatnonzero(split == "train")
    if size > len(rows):
        raise ConfigError(
            f"--train-size {size}: fold {number} has {len(rows)} training images. Ask for {len(rows)} or fewer."
        )
    counts, codes = group_counts(targets[rows], groups[rows])
    taken = leading_groups(counts, size, words)
    if not taken.any():
        least = int(counts[:, -1].min())
        raise ConfigError(
            f"--train-size {size}: whole patients are taken, and the first one drawn for fold {number} has more images "
            f"(patients here have {least} or more). Raise it."
        )
    cut = split.copy()
    cut[rows[~taken[codes]]] = ""
    return cut


def leading_groups(counts: np.ndarray, size: int, words: tuple[int, ...]) -> np.ndarray:
    """The groups that stand first in a random stratified order, as many as hold at most `size` images together.

    The order comes from halving: all groups are dealt into two halves that are alike, each of these again, and so on,
    so that whatever stands first is a fair sample. It follows from `words` alone; therefore what a smaller `size`
    takes is part of what a larger one takes. Nothing is skipped: the first group that does not fit is the end, and
    the images taken fall short of `size` by less than that group has.

    Args:
        counts: (groups, quantities), as `stratified_parts` takes them; in the last column images at all.
        size: Images.
        words: The seed.

    Returns:
        Whether each group is taken, bool (groups,).
    """
    taken = np.zeros(len(counts), bool)
    block, node, left = np.arange(len(counts)), 1, size
    # Only the half in which the end lies is halved again: all of it costs about two deals of all groups.
    while len(block) > 1:
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((*words, node))))
        first = _is_first_half(counts[block], rng)
        images = int(counts[block[first], -1].sum())
        if images > left:
            block, node = block[first], 2 * node
            continue
        taken[block[first]] = True
        block, node, left = block[~first], 2 * node + 1, left - images
    taken[block] = counts[block, -1].sum() <= left
    return taken


def _is_first_half(counts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Whether each of two or more groups is in the first of two halves, neither of them empty."""
    first = stratified_parts(counts, [0.5, 0.5], rng) == 0
    if first.all() or not first.any():
        first = rng.permutation(len(counts)) < len(counts) // 2
    # The rounding of the deal prefers the first half; a coin decides which one is it.
    return first if rng.random() < 0.5 else ~first
