"""Splitting images: patients kept together, classes kept even, leaks found.

Training, validation and test sets: drawn by patient and stratified, or given with the data; never leaking.

With R repeats of k folds there are R·k folds: repeat r holds the folds (r − 1)·k + 1 to r·k, and its seed is
the run's seed + r − 1. What is drawn is drawn anew in every repeat, what the data brings stays.

Deal groups of images into parts of given sizes so that every class is shared out alike.

The small-data regime: training sets cut to a number of images, by whole patients, stratified and nested.

References:
    Raghu et al. 2019, Transfusion (arXiv 1902.07208), Tables 3 and 4.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from radtransfer.config.schema import SplitSettings
from radtransfer.data.leaks import LEAK, check_leaks, find_leaks, image_identities
from radtransfer.data.table import ImageTable
from radtransfer.errors import ConfigError, DataError


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


TEST_FRACTION = 0.2
"""Share of the images that is test where there is one fixed split."""

FOLD_COLUMNS = ("path", "label", "patient", "fold", "split")
"""The columns of `folds.csv`."""


@dataclass(frozen=True)
class Fold:
    """One training, validation and test set.

    Attributes:
        number: From 1, through all repeats.
        repeat: From 1.
        seed: Of its repeat.
        split: (images,) of "train", "val", "test" or "" (takes no part).
    """

    number: int
    repeat: int
    seed: int
    split: np.ndarray


def assign_folds(table: ImageTable, settings: SplitSettings, *, seed: int, allow_leakage: bool) -> tuple[Fold, ...]:
    """The folds that are to run: those the data brings, else `settings.folds` drawn ones.

    The same images give the same folds in whatever order they stand, on every machine.

    Args:
        table: The images; patients stay together, and so do rows that are one file.
        settings: Number of folds (1 is one fixed split with a fifth for test), which of them to run, share of
            validation images, images that train, repeats.
        seed: The run's seed.
        allow_leakage: Go on although an image or patient stands in two splits.

    Raises:
        DataError: Too few patients of a class, a set without images or with one class, or a leak.
        ConfigError: `settings.fold` names a fold that does not exist, or `settings.train_size` asks for more images
            than there are.
    """
    groups = _group_codes(table)
    given = table.splits is not None
    if given:
        _check_given(table.splits)
    else:
        _check_enough(table, groups, settings.folds)
    count = len(table.splits) if given else settings.folds
    folds = []
    for repeat in range(1, settings.repeats + 1):
        repeat_seed = seed + repeat - 1
        tests = table.splits if given else _draw_tests(table, groups, settings.folds, repeat_seed)
        for k, split in enumerate(tests, start=1):
            number, words = (repeat - 1) * count + k, (repeat_seed, k)
            whole = _with_validation(table, groups, split, settings.val_fraction, words)
            if settings.train_size is not None:
                whole = cut_training(whole, table.targets, groups, settings.train_size, number=number, words=words)
            folds.append(Fold(number, repeat, repeat_seed, whole))
    for fold in folds:
        _check_classes(table, fold, given=given, cut=settings.train_size is not None)
    if not allow_leakage:
        check_leaks(table, [(fold.number, fold.split) for fold in folds])
    return _chosen(folds, settings.fold)


def fold_count(table: ImageTable, settings: SplitSettings) -> int:
    """Folds in all repeats, those that are not to run included."""
    return settings.repeats * (settings.folds if table.splits is None else len(table.splits))


def fold_notes(
    table: ImageTable, settings: SplitSettings, folds: Sequence[Fold], *, folds_given: bool = True
) -> tuple[str, ...]:
    """What the user should know about the folds, one sentence each.

    Args:
        table: The images.
        settings: As of `assign_folds`.
        folds: From `assign_folds`.
        folds_given: Whether the user asked for `settings.folds`, rather than had them by default.
    """
    notes = []
    if table.splits is not None:
        notes += _given_notes(table, settings, folds_given=folds_given)
    if settings.train_size is not None:
        sizes = [int((fold.split == "train").sum()) for fold in folds]
        held = f"{min(sizes)} to {max(sizes)}" if min(sizes) < max(sizes) else f"{sizes[0]}"
        whole = "" if table.patients is None else "whole patients, "
        notes.append(f"--train-size {settings.train_size}: training sets of {held} images, {whole}stratified")
    for fold in folds:
        untrained = [name for name, n in zip(table.classes, _images_of(table, fold, "train"), strict=True) if not n]
        if untrained:
            notes.append(f"fold {fold.number}: no image trains {', '.join(untrained)}")
        for name in ("val", "test"):
            if not _has_auc(table.targets[fold.split == name], table.task):
                notes.append(f"fold {fold.number}: {name} holds one class only, its AUC is undefined")
    tested = np.min([_images_of(table, fold, "test") for fold in folds], axis=0)
    absent = [name for name, least in zip(table.classes, tested, strict=True) if not least]
    if absent:
        notes.append(f"not in the test set of every fold: {', '.join(absent)}; no AUC of theirs there")
    leaks = find_leaks(table, [(fold.number, fold.split) for fold in folds])
    return (*notes, *(f"{LEAK}{leak}; results are inflated" for leak in leaks))


def fold_rows(table: ImageTable, folds: Sequence[Fold]) -> Iterator[tuple[str, str, str, int, str]]:
    """The rows of `folds.csv`, as `FOLD_COLUMNS` has them: one per image and fold in which it takes part."""
    patients = table.patients or ("",) * len(table)
    for fold in folds:
        for path, label, patient, split in zip(table.paths, table.labels, patients, fold.split, strict=True):
            if split:
                yield path, label, patient, fold.number, str(split)


def _group_codes(table: ImageTable) -> np.ndarray:
    """A number per image; images with the same one stay together. Numbered by name, not by row."""
    first: dict = {}
    identities = image_identities(table) if table.patients is None else table.patient_keys
    for identity, name in zip(identities, table.groups, strict=True):
        first[identity] = min(name, first.get(identity, name))
    names = [first[identity] for identity in identities]
    return np.unique(np.array(names, dtype=object), return_inverse=True)[1]


def _draw_tests(table: ImageTable, groups: np.ndarray, folds: int, seed: int) -> list[np.ndarray]:
    shares = [1 / folds] * folds if folds > 1 else [TEST_FRACTION, 1 - TEST_FRACTION]
    parts = _draw(table, groups, np.arange(len(table)), shares, (seed, 0))
    return [np.where(parts == k, "test", "train").astype("U5") for k in range(folds)]


def _with_validation(
    table: ImageTable, groups: np.ndarray, split: np.ndarray, fraction: float, words: tuple[int, int]
) -> np.ndarray:
    """`split`, with a validation set drawn from its training images if it has none."""
    if (split == "val").any():
        return split
    rows = np.flatnonzero(split == "train")
    parts = _draw(table, groups, rows, [1 - fraction, fraction], words)
    whole = split.copy()
    whole[rows[parts == 1]] = "val"
    return whole


def _draw(
    table: ImageTable, groups: np.ndarray, rows: np.ndarray, shares: Sequence[float], words: tuple[int, int]
) -> np.ndarray:
    """The part of each of the rows: whole groups, stratified by class or label."""
    counts, codes = group_counts(table.targets[rows], groups[rows])
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))
    return stratified_parts(counts, shares, rng)[codes]


def _check_enough(table: ImageTable, groups: np.ndarray, folds: int) -> None:
    """Enough patients of each class that each test set gets one, and train and validation too."""
    what = "images" if table.patients is None else "patients"
    needed = max(folds, 3)
    counts = [len(np.unique(groups[column == 1])) for column in table.targets.T]
    few = [(name, count) for name, count in zip(table.classes, counts, strict=True) if count < needed]
    # A rare label of many costs its own AUC only.
    if not few or (table.task == "multilabel" and len(few) < len(counts)):
        return
    found = ", ".join(f"{name!r} has {count}" for name, count in few[:10])
    least = min(count for _, count in few)
    others = len(counts) - len(few)
    leave = "Leave the class out, or add" if len(few) == 1 else "Leave these classes out, or add"
    advice = f"Use --folds {least} or fewer, or add" if least >= 3 else leave if others > 1 else "Add"
    plan = f"{folds} folds" if folds > 1 else "A train, a val and a test set"
    of = "of it" if len(few) == 1 else "of them"
    raise DataError(f"{plan} need {needed} {what} of every class; {found}. {advice} {what} {of}.")


def _check_given(splits: np.ndarray) -> None:
    for number, split in enumerate(splits, start=1):
        counts = {name: int((split == name).sum()) for name in ("train", "val", "test")}
        missing = [name for name in ("train", "test") if not counts[name]]
        if missing:
            found = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise DataError(
                f"Fold {number} of the given split has no {missing[0]} images ({found}). Mark some as "
                f"{missing[0]}, or take the split out of the data, so that folds are drawn (--folds)."
            )


def _check_classes(table: ImageTable, fold: Fold, *, given: bool, cut: bool) -> None:
    """Two classes to learn from; in drawn folds also two to validate and test on."""
    advice = {
        "train": f"It needs two to learn from: {'raise --train-size' if cut else 'change the split'}.",
        "val": "Its AUC would be undefined. Raise --val-fraction or use fewer --folds.",
        "test": "Its AUC would be undefined. Use fewer --folds.",
    }
    for name in ("train",) if given else ("train", "val", "test"):
        targets = table.targets[fold.split == name]
        if not len(targets):
            raise DataError(f"Fold {fold.number} has no {name} images: too few patients. Use fewer --folds.")
        if not _has_auc(targets, table.task):
            raise DataError(f"Fold {fold.number} has images of one class only in {name}. {advice[name]}")


def _has_auc(targets: np.ndarray, task: str) -> bool:
    """Whether there are positive and negative images of any class or label."""
    positive, negative = (targets == 1).any(axis=0), (targets == 0).any(axis=0)
    return bool((positive & negative).any())


def _images_of(table: ImageTable, fold: Fold, name: str) -> np.ndarray:
    """How many images of each class stand in one of its splits, int (classes,)."""
    return (table.targets[fold.split == name] == 1).sum(axis=0)


def _given_notes(table: ImageTable, settings: SplitSettings, *, folds_given: bool) -> list[str]:
    splits, notes = table.splits, []
    if folds_given and settings.folds != len(splits):
        notes.append(f"--folds {settings.folds} not used: the data brings {len(splits)}")
    if not (splits == "val").any(axis=1).all():
        notes.append(f"no validation set given: {settings.val_fraction:.0%} of train, by patient, validates")
    tested = int((splits == "test").any(axis=0).sum())
    if len(splits) > 1 and tested < len(table):
        notes.append(f"the test sets hold {tested} of {len(table)} images")
    return notes


def _chosen(folds: Sequence[Fold], numbers: Sequence[int]) -> tuple[Fold, ...]:
    unknown = sorted(set(numbers) - {fold.number for fold in folds})
    if unknown:
        raise ConfigError(f"No fold {', '.join(map(str, unknown))} (--fold): there are 1 to {len(folds)}.")
    return tuple(fold for fold in folds if not numbers or fold.number in numbers)
