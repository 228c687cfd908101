"""Given splits: the words for them, and rows of a table folded back to one row per image."""

import re
from collections.abc import Iterable, Sequence

import numpy as np

from radtransfer.datasets.labels import sorted_names

SPLIT_WORDS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validate", "validation", "dev", "tune", "tuning"),
    "test": ("test", "testing"),
}
EVALUATION = ("eval", "evaluation")
"""Validation where there is a test set besides, else the test set."""


def split_names(texts: Iterable[str]) -> dict[str, str | None]:
    """The split, "train", "val" or "test", that each of the texts of one data set means; None if it means none.

    Case, punctuation and "set" at the end do not count: "Training set" is train.
    """
    words = {text: re.sub(r"[\W_]+", "", text.lower()) for text in texts}
    words = {text: word.removesuffix("set") for text, word in words.items()}
    found = {
        text: next((split for split in SPLIT_WORDS if word in SPLIT_WORDS[split]), None) for text, word in words.items()
    }
    evaluation = "val" if "test" in found.values() else "test"
    return {text: evaluation if words[text] in EVALUATION else split for text, split in found.items()}


def place_images(
    entries: Sequence[Sequence[tuple[str, str]]],
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Where each image stands in each fold, from what its rows say.

    An image that stands in two splits of one fold keeps a row for each, so that the leak check can see it.

    Args:
        entries: For each image the (fold, split) of its rows; none where it is not assigned to any. A split of ""
            means test in that fold and train in all others.

    Returns:
        The image of each row, (rows,); the splits, (folds, rows) of "train", "val", "test" or "" where an
        image takes no part; the folds' names in the source, sorted.
    """
    folds = sorted_names(fold for entry in entries for fold, _ in entry)
    number = {fold: index for index, fold in enumerate(folds)}
    rows, columns = [], []
    for image, entry in enumerate(entries):
        placed = dict.fromkeys(entry)
        if not placed:
            found = [[""] * len(folds)]
        elif all(not split for _, split in placed):
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
