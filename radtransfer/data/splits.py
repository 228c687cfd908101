"""Training, validation and test sets: drawn by patient and stratified, or given with the data; never leaking.

With R repeats of k folds there are R·k folds: repeat r holds the folds (r − 1)·k + 1 to r·k, and its seed is
the run's seed + r − 1. What is drawn is drawn anew in every repeat, what the data brings stays.
"""

import contextlib
import hashlib
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from radtransfer.config.schema import SplitSettings
from radtransfer.data.image_files import image_identity
from radtransfer.data.table import ImageTable
from radtransfer.errors import ConfigError, DataError
from radtransfer.images.refs import FilePart, ImageRef, as_part, read_contents
from radtransfer.process import all_in_parallel

TEST_FRACTION = 0.2  # share of the images that is test where there is one fixed split
FOLD_COLUMNS = ("path", "label", "patient", "fold", "split")  # the columns of `folds.csv`


@dataclass(frozen=True)
class Fold:
    """One training, validation and test set."""

    number: int  # from 1, through all repeats
    repeat: int  # from 1
    seed: int  # of its repeat
    split: np.ndarray  # (images,) of "train", "val", "test" or "" (takes no part)


def assign_folds(table: ImageTable, settings: SplitSettings, *, seed: int, allow_leakage: bool) -> tuple[Fold, ...]:
    """The folds that are to run: those the data brings, else `settings.folds` drawn ones (1: a fifth is test).

    The same images give the same folds in whatever order they stand, on every machine. Patients stay together, and so
    do rows that are one file.

    Raises:
        DataError: Too few patients of a class, a set without images or with one class, or a leak that is not allowed.
        ConfigError: There is no fold `settings.fold`, or there are not `settings.train_size` images.
    """
    groups = _group_codes(table)
    given = table.splits is not None
    if not given:
        _check_enough(table, groups, settings.folds)
    for number, split in enumerate(table.splits if given else (), start=1):
        counts = {name: int((split == name).sum()) for name in ("train", "val", "test")}
        if missing := [name for name in ("train", "test") if not counts[name]]:
            found = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise DataError(
                f"Fold {number} of the given split has no {missing[0]} images ({found}). Mark some as "
                f"{missing[0]}, or take the split out of the data, so that folds are drawn (--folds)."
            )
    count = len(table.splits) if given else settings.folds
    folds = []
    for repeat in range(1, settings.repeats + 1):
        repeat_seed = seed + repeat - 1
        tests = table.splits
        if not given:
            shares = [1 / count] * count if count > 1 else [TEST_FRACTION, 1 - TEST_FRACTION]
            parts = _draw(table, groups, np.arange(len(table)), shares, (repeat_seed, 0))
            tests = [np.where(parts == k, "test", "train").astype("U5") for k in range(count)]
        for k, test in enumerate(tests, start=1):
            number, words, split = (repeat - 1) * count + k, (repeat_seed, k), test
            if not (test == "val").any():
                rows = np.flatnonzero(test == "train")
                parts = _draw(table, groups, rows, [1 - settings.val_fraction, settings.val_fraction], words)
                split = test.copy()
                split[rows[parts == 1]] = "val"
            if settings.train_size is not None:
                split = cut_training(split, table.targets, groups, settings.train_size, number=number, words=words)
            folds.append(Fold(number, repeat, repeat_seed, split))
    for fold in folds:
        _check_classes(table, fold, given=given, cut=settings.train_size is not None)
    if not allow_leakage:
        check_leaks(table, [(fold.number, fold.split) for fold in folds])
    unknown = sorted(set(settings.fold) - {fold.number for fold in folds})
    if unknown:
        raise ConfigError(f"No fold {', '.join(map(str, unknown))} (--fold): there are 1 to {len(folds)}.")
    return tuple(fold for fold in folds if not settings.fold or fold.number in settings.fold)


def fold_count(table: ImageTable, settings: SplitSettings) -> int:
    """Folds in all repeats, those that are not to run included."""
    return settings.repeats * (settings.folds if table.splits is None else len(table.splits))


def fold_notes(
    table: ImageTable, settings: SplitSettings, folds: Sequence[Fold], *, folds_given: bool = True
) -> tuple[str, ...]:
    """What the user should know about the folds, one sentence each; `folds_given`: not by default."""
    notes, splits = [], table.splits
    if splits is not None:
        if folds_given and settings.folds != len(splits):
            notes.append(f"--folds {settings.folds} not used: the data brings {len(splits)}")
        if not (splits == "val").any(axis=1).all():
            notes.append(f"no validation set given: {settings.val_fraction:.0%} of train, by patient, validates")
        tested = int((splits == "test").any(axis=0).sum())
        if len(splits) > 1 and tested < len(table):
            notes.append(f"the test sets hold {tested} of {len(table)} images")
    if settings.train_size is not None:
        sizes = [int((fold.split == "train").sum()) for fold in folds]
        held = f"{min(sizes)} to {max(sizes)}" if min(sizes) < max(sizes) else f"{sizes[0]}"
        whole = "" if table.patients is None else "whole patients, "
        notes.append(f"--train-size {settings.train_size}: training sets of {held} images, {whole}stratified")
    for fold in folds:
        trained = (table.targets[fold.split == "train"] == 1).any(axis=0)
        untrained = [name for name, known in zip(table.classes, trained, strict=True) if not known]
        if untrained:
            notes.append(f"fold {fold.number}: no image trains {', '.join(untrained)}")
        for name in ("val", "test"):
            if not _has_auc(table.targets[fold.split == name], table.task):
                notes.append(f"fold {fold.number}: {name} holds one class only, its AUC is undefined")
    tested = np.all([(table.targets[fold.split == "test"] == 1).any(axis=0) for fold in folds], axis=0)
    absent = [name for name, everywhere in zip(table.classes, tested, strict=True) if not everywhere]
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


def stratified_parts(counts: np.ndarray, shares: Sequence[float], rng: np.random.Generator) -> np.ndarray:
    """A part for each group, int (groups,), such that each part gets its share of every quantity as nearly as it goes.

    Large groups and those of rare classes are dealt first, in random order within a factor of two; each goes
    where the sum over quantities of (dealt − due)²/due grows least, which for single images is Sainte-Laguë's
    method. Groups alike are dealt in bulk. A class with as many groups as there are parts is in every part.

    Differs from scikit-learn's `StratifiedGroupKFold`: parts may differ in size, each of several labels is
    balanced, large patients too change places with the seed, and 100,000 groups take a second.

    `counts` are (groups, quantities): images of each class or label, and in the last column images at all; `shares`
    add up to 1; `rng` decides among groups that are alike.
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
    # A class with enough groups gives its smallest, of the part that has most, to each part without one.
    for column in counts[:, :-1].T:
        groups = np.flatnonzero(column)
        for part in range(len(due)) if len(groups) >= len(due) else ():
            held = np.bincount(parts[groups], minlength=len(due))
            if not held[part]:
                donors = groups[parts[groups] == np.argmax(held)]
                parts[donors[np.argmin(counts[donors, -1])]] = part
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


def group_counts(targets: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What `stratified_parts` takes, (groups, classes + 1): images of each class or label, and at all, of each group.

    The groups are sorted; the second result is the place of each image's group among them.
    """
    _, codes = np.unique(groups, return_inverse=True)
    quantities = [*(targets == 1).T, np.ones(len(codes))]
    return np.stack([np.bincount(codes, weights=values) for values in quantities], axis=1), codes


def cut_training(
    split: np.ndarray, targets: np.ndarray, groups: np.ndarray, size: int, *, number: int, words: tuple[int, ...]
) -> np.ndarray:
    """A fold's `split`, (images,), in which training images beyond `size` have ""; `leading_groups` says which.

    `targets` are (images, classes), 1 for what an image is; images with the same of `groups` stay together; `number`
    is that of the fold, for messages, `words` are the seed.
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
    """Which groups stand first in a random stratified order, as many as hold at most `size` images; bool (groups,).

    The order comes from halving: all groups are dealt into two halves that are alike, each of these again, and so on,
    so that whatever stands first is a fair sample. It follows from the seed `words` alone, so what a smaller `size`
    takes is part of what a larger one takes. The first group that does not fit is the end. `counts` are as
    `stratified_parts` takes them.
    """
    taken = np.zeros(len(counts), bool)
    block, node, left = np.arange(len(counts)), 1, size
    # Only the half in which the end lies is halved again: all of it costs about two deals of all groups.
    while len(block) > 1:
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((*words, node))))
        first = stratified_parts(counts[block], [0.5, 0.5], rng) == 0
        if first.all() or not first.any():
            first = rng.permutation(len(block)) < len(block) // 2
        # The rounding of the deal prefers the first half; a coin decides which one is it.
        first = first if rng.random() < 0.5 else ~first
        images = int(counts[block[first], -1].sum())
        if images > left:
            block, node = block[first], 2 * node
            continue
        taken[block[first]] = True
        block, node, left = block[~first], 2 * node + 1, left - images
    taken[block] = counts[block, -1].sum() <= left
    return taken


_PIECE = 4096  # bytes from the middle that tell most images of one size apart


def copies(places: Sequence[ImageRef | None], *, workers: int = 2) -> list[list[int]]:
    """Sets of two or more numbers of images that have the same bytes, each sorted; the frames of one file are none.

    Only images of one size and one middle are read whole, `workers` at a time; what cannot be read has no copy.
    """
    numbers: dict[FilePart, list[int]] = {}
    for number, place in enumerate(places):
        if place is not None:
            part = as_part(place)
            numbers.setdefault(FilePart(part.path, part.offset, part.length), []).append(number)
    keys: dict[FilePart, tuple] = dict.fromkeys(numbers, ())
    for fact in (_size, _middle, _digest):
        count = Counter(keys.values())
        alike = [part for part, key in keys.items() if count[key] > 1]
        facts = all_in_parallel(fact, alike, workers=workers)
        keys = {part: (*keys[part], fact) for part, fact in zip(alike, facts, strict=True) if fact is not None}
    sets: dict[tuple, list[FilePart]] = {}
    for part, key in keys.items():
        sets.setdefault(key, []).append(part)
    return [sorted(number for part in parts for number in numbers[part]) for parts in sets.values() if len(parts) > 1]


def _size(part: FilePart) -> int | None:
    with contextlib.suppress(OSError):
        return part.path.stat().st_size if part.length is None else part.length


def _middle(part: FilePart) -> bytes | None:
    if (size := _size(part)) is None:
        return None
    with contextlib.suppress(OSError):
        return read_contents(FilePart(part.path, part.offset + size // 2, min(_PIECE, size - size // 2)))


def _digest(part: FilePart) -> bytes | None:
    with contextlib.suppress(OSError):
        return hashlib.sha256(read_contents(part)).digest()


LEAK = "leak: "  # how every word begins that a run says, and keeps in `run.json`, of images in two splits
PAIRS = (("train", "test"), ("train", "val"), ("val", "test"))  # splits of a fold that must have nothing in common
_SHOWN = 6  # overlaps named in one message


def image_identities(table: ImageTable) -> list[Hashable]:
    """What makes rows the same image: one place on disk, also by a link, all frames of a file; else the path."""
    return [image_identity(path, place) for path, place in zip(table.paths, table.files, strict=True)]


def frame_identities(table: ImageTable) -> list[Hashable]:
    """The same, and the frames of a file are images of their own."""
    frames = [as_part(place).frame if place else 0 for place in table.files]
    return list(zip(image_identities(table), frames, strict=True))


def check_leaks(table: ImageTable, splits: Iterable[tuple[int, np.ndarray]]) -> None:
    """Raises DataError if an image or a patient stands in two splits of a fold; `splits` are by its number."""
    found = find_leaks(table, splits)
    if found:
        more = [f"and {len(found) - _SHOWN} more such overlaps"] if len(found) > _SHOWN else []
        raise DataError(
            "\n  ".join(found[:_SHOWN] + more)
            + ". Results would be inflated. Fix the split, or pass --allow-leakage to go on."
        )


def find_leaks(table: ImageTable, splits: Iterable[tuple[int, np.ndarray]]) -> list[str]:
    """A phrase for each overlap of images or patients between two splits of a fold."""
    coded: dict[str, np.ndarray] = {}  # an integer for each row, equal where the image or patient is
    for what, keys in (("image", image_identities(table)), ("patient", table.patient_keys)):
        if keys is not None:
            codes: dict[Hashable, int] = {}
            coded[what] = np.array([codes.setdefault(key, len(codes)) for key in keys])
    found = []
    for number, split in splits:
        rows = {name: np.flatnonzero(split == name) for name in ("train", "val", "test")}
        for (one, other), what in product(PAIRS, coded):
            first, in_one = np.unique(coded[what][rows[one]], return_index=True)
            second, in_other = np.unique(coded[what][rows[other]], return_index=True)
            shared, i, j = np.intersect1d(first, second, assume_unique=True, return_indices=True)
            if not len(shared):
                continue
            pair = rows[one][in_one[i[0]]], rows[other][in_other[j[0]]]
            paths = dict.fromkeys(table.paths[row] for row in pair)
            if what == "image":
                example = " and ".join(map(repr, paths)) + " are one file" * (len(paths) > 1)
            else:
                example = f"{' and '.join(dict.fromkeys(table.patients[row] for row in pair))}: {', '.join(paths)}"
            are = f"1 {what} is" if len(shared) == 1 else f"{len(shared)} {what}s are"
            found.append(f"{are} in both {one} and {other} of fold {number} (e.g. {example})")
    return found


def copy_notes(table: ImageTable, splits: Iterable[tuple[int, np.ndarray]], *, workers: int) -> Iterator[str]:
    """A sentence where images have copies, files of the same bytes, in another split of a fold."""
    sets, crossed = copies(table.files, workers=workers), {}
    for number, split in splits:
        for rows in sets:
            names = [name for name in ("train", "val", "test") if (split[rows] == name).any()]
            if len(names) > 1:
                crossed.setdefault(tuple(rows), f"{' and '.join(names)} of fold {number}")
    if crossed:
        rows, where = next(iter(crossed.items()))
        names = " and ".join(repr(table.paths[row]) for row in rows[:3])
        labels = " and ".join(dict.fromkeys(table.labels[row] for row in rows))
        has = "1 image has copies" if len(crossed) == 1 else f"{len(crossed)} images have copies"
        yield (
            f"{LEAK}{has} under another name in another split, so that figures may be too high (e.g. {names}, labelled "
            f"{labels}, in {where}); keep one of each, `radtransfer data check` lists them"
        )


def near_identical_notes(
    table: ImageTable, splits: Iterable[tuple[int, np.ndarray]], sets: Iterable[Sequence[int]]
) -> Iterator[str]:
    """A sentence where nearly identical images, in `sets` of rows, have opposite labels in two splits of a fold."""
    sets, crossed = list(sets), {}
    for number, split in splits:
        for rows in sets:
            if pair := opposite_rows(table.targets, split, rows):
                where = " and ".join(f"{table.paths[row]!r} in {split[row]}, {table.labels[row]}" for row in pair)
                crossed.setdefault(tuple(rows), f"{where}, fold {number}")
    if crossed:
        has = "1 set of images looks" if len(crossed) == 1 else f"{len(crossed)} sets of images look"
        yield (
            f"{LEAK}{has} nearly identical but with opposite labels in two splits (e.g. "
            f"{next(iter(crossed.values()))}); correct the labels, or keep one; `radtransfer data check` lists them"
        )


def opposite_rows(targets: np.ndarray, split: np.ndarray, rows: Sequence[int]) -> tuple[int, int] | None:
    """Two of the rows, in two splits of the fold, of which one has a label that the other has not; None without such.

    Targets are (images, classes), 0 or 1, NaN where not known.
    """
    rows = np.array(rows)
    for one, other in PAIRS:
        first, second = rows[split[rows] == one], rows[split[rows] == other]
        for value in (0, 1):
            has, lacks = targets[first] == value, targets[second] == 1 - value
            clashing = np.flatnonzero(has.any(axis=0) & lacks.any(axis=0))
            if clashing.size:
                return int(first[has[:, clashing[0]]][0]), int(second[lacks[:, clashing[0]]][0])
    return None
