"""Given splits: the words for them, and rows of a table folded back to one row per image."""

from collections.abc import Sequence

import numpy as np

from radtransfer.datasets.labels import sorted_names

_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}


def split_name(text: str) -> str | None:
    """The split, "train", "val" or "test", that `text` means; None if it means none."""
    word = text.strip().lower()
    return next((split for split, words in _NAMES.items() if word in words), None)


def place_images(
    entries: Sequence[Sequence[tuple[str, str]]],
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Where each image stands in each fold, from what its rows say.

    An image that stands in two splits of one fold keeps a row for each, so that the leak check can see it.

    Args:
        entries: For each image the (fold, split) of its rows. A split of "" means test in that fold and train
            in all others.

    Returns:
        The image of each row, (rows,); the splits, (folds, rows) of "train", "val", "test" or "" where an
        image takes no part; the folds' names in the source, sorted.
    """
    folds = sorted_names(fold for entry in entries for fold, _ in entry)
    number = {fold: index for index, fold in enumerate(folds)}
    rows, columns = [], []
    for image, entry in enumerate(entries):
        placed = dict.fromkeys(entry)
        if all(not split for _, split in placed):
            found = [_tested_once(len(folds), number[fold]) for fold, _ in placed]
        else:
            found = _layers(len(folds), [(number[fold], split) for fold, split in placed])
        columns += found
        rows += [image] * len(found)
    return np.array(rows), np.array(columns, dtype="U5").T, folds


def _tested_once(folds: int, fold: int) -> list[str]:
    return ["test" if other == fold else "train" for other in range(folds)]


def _layers(folds: int, placed: Sequence[tuple[int, str]]) -> list[list[str]]:
    """As few rows as hold every (fold, split): one, unless an image has two splits in a fold."""
    layers: list[list[str]] = []
    for fold, split in placed:
        layer = next((layer for layer in layers if not layer[fold]), None)
        if layer is None:
            layer = [""] * folds
            layers.append(layer)
        layer[fold] = split
    return layers
