"""Training, validation and test sets: given with the data, or drawn by patient and stratified; leak checks.

R repeats of k folds give R·k folds: repeat r has the folds (r − 1)·k + 1 to r·k and the seed of the run + r − 1. Drawn
sets differ between repeats, given ones do not.
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

TEST_FRACTION = 0.2  # share of test images with `--folds 1`
FOLD_COLUMNS = ("path", "label", "patient", "fold", "split")  # the columns of `folds.csv`


@dataclass(frozen=True)
class Fold:
    """One training, validation and test set."""

    number: int  # from 1, over all repeats
    repeat: int  # from 1
    seed: int  # of its repeat
    split: np.ndarray  # (images,) of "train", "val", "test" or "" (not used)


def assign_folds(table: ImageTable, settings: SplitSettings, *, seed: int, allow_leakage: bool) -> tuple[Fold, ...]:
    """The folds to run: those given with the data, else `settings.folds` drawn ones (1: one fifth is test).

    Folds do not depend on the order of the images or the machine. Patients, and rows of one file, stay together.

    Raises:
        DataError: Too few patients of a class, a set without images or with one class, or a leak that is not allowed.
        ConfigError: No fold `settings.fold`, or fewer than `settings.train_size` images.
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
                f"{missing[0]}, or remove the split from the data to draw folds (--folds)."
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
            number, seeds, split = (repeat - 1) * count + k, (repeat_seed, k), test
            if not (test == "val").any():
                rows = np.flatnonzero(test == "train")
                parts = _draw(table, groups, rows, [1 - settings.val_fraction, settings.val_fraction], seeds)
                split = test.copy()
                split[rows[parts == 1]] = "val"
            if settings.train_size is not None:
                split = cut_training(split, table.targets, groups, settings.train_size, number=number, seeds=seeds)
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
    """Number of folds in all repeats, including those not run."""
    return settings.repeats * (settings.folds if table.splits is None else len(table.splits))


def fold_notes(
    table: ImageTable, settings: SplitSettings, folds: Sequence[Fold], *, folds_given: bool = True
) -> tuple[str, ...]:
    """Sentences for the user about the folds; `folds_given`: `--folds` is not the default."""
    notes, splits = [], table.splits
    if splits is not None:
        if folds_given and settings.folds != len(splits):
            notes.append(f"--folds {settings.folds} not used: the data has {len(splits)} given folds")
        if not (splits == "val").any(axis=1).all():
            notes.append(f"no validation set given: {settings.val_fraction:.0%} of train, by patient, is used")
        tested = int((splits == "test").any(axis=0).sum())
        if len(splits) > 1 and tested < len(table):
            notes.append(f"the test sets contain {tested} of {len(table)} images")
    if settings.train_size is not None:
        sizes = [int((fold.split == "train").sum()) for fold in folds]
        held = f"{min(sizes)} to {max(sizes)}" if min(sizes) < max(sizes) else f"{sizes[0]}"
        whole = "" if table.patients is None else "whole patients, "
        notes.append(f"--train-size {settings.train_size}: training sets of {held} images, {whole}stratified")
    for fold in folds:
        trained = (table.targets[fold.split == "train"] == 1).any(axis=0)
        untrained = [name for name, known in zip(table.classes, trained, strict=True) if not known]
        if untrained:
            notes.append(f"fold {fold.number}: no training image of {', '.join(untrained)}")
        for name in ("val", "test"):
            if not _has_auc(table.targets[fold.split == name], table.task):
                notes.append(f"fold {fold.number}: {name} has one class only, its AUC is undefined")
    tested = np.all([(table.targets[fold.split == "test"] == 1).any(axis=0) for fold in folds], axis=0)
    absent = [name for name, everywhere in zip(table.classes, tested, strict=True) if not everywhere]
    if absent:
        notes.append(f"not in the test set of every fold: {', '.join(absent)}; no AUC for them there")
    leaks = find_leaks(table, [(fold.number, fold.split) for fold in folds])
    return (*notes, *(f"{LEAK}{leak}; results are inflated" for leak in leaks))


def fold_rows(table: ImageTable, folds: Sequence[Fold]) -> Iterator[tuple[str, str, str, int, str]]:
    """The rows of `folds.csv` (`FOLD_COLUMNS`): one per image and fold that uses it."""
    patients = table.patients or ("",) * len(table)
    for fold in folds:
        for path, label, patient, split in zip(table.paths, table.labels, patients, fold.split, strict=True):
            if split:
                yield path, label, patient, fold.number, str(split)


def _group_codes(table: ImageTable) -> np.ndarray:
    """A number per image, equal for images that stay together; independent of the order of rows."""
    first: dict = {}
    identities = image_identities(table) if table.patients is None else table.patient_keys
    for identity, name in zip(identities, table.groups, strict=True):
        first[identity] = min(name, first.get(identity, name))
    names = [first[identity] for identity in identities]
    return np.unique(np.array(names, dtype=object), return_inverse=True)[1]


def _draw(
    table: ImageTable, groups: np.ndarray, rows: np.ndarray, shares: Sequence[float], seeds: tuple[int, int]
) -> np.ndarray:
    """The part of each row: whole groups, stratified by class or label."""
    counts, codes = group_counts(table.targets[rows], groups[rows])
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seeds)))
    return stratified_parts(counts, shares, rng)[codes]


def _check_enough(table: ImageTable, groups: np.ndarray, folds: int) -> None:
    """Raises DataError without enough patients of each class for every test, train and validation set."""
    what = "images" if table.patients is None else "patients"
    needed = max(folds, 3)
    counts = [len(np.unique(groups[column == 1])) for column in table.targets.T]
    few = [(name, count) for name, count in zip(table.classes, counts, strict=True) if count < needed]
    # A rare label of a multi-label set only loses its own AUC.
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
    """Raises DataError unless train (in drawn folds also val and test) has two classes."""
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
    """The part of each group, int (groups,), so that each part gets its share of every quantity as closely as possible.

    Large groups and groups of rare classes are assigned first, in random order within a factor of two, each to the part
    where the sum over quantities of (assigned − target)²/target grows least (for single images Sainte-Laguë's method);
    groups with equal counts are assigned in bulk. A class with at least as many groups as parts is in every part.

    Unlike scikit-learn's `StratifiedGroupKFold`, parts may differ in size, each of several labels is balanced, large
    patients change parts with the seed, and 100,000 groups take a second.

    `counts` is (groups, quantities): images of each class or label, in the last column all images; `shares` sum to 1.
    """
    counts = counts[:, counts.sum(axis=0) > 0].astype(float)
    target = np.outer(shares, counts.sum(axis=0))
    keys = rng.random(len(counts))
    parts = np.full(len(counts), -1)
    assigned = np.zeros_like(target)
    # Rounded here and below, since the last bits of sums differ between machines.
    rank = np.floor(np.round(np.log2((counts / counts.sum(axis=0)).sum(axis=1)), 9))
    for value in np.unique(rank)[::-1]:
        members = np.flatnonzero(rank == value)
        left = _assign_equal(counts, members[np.argsort(keys[members])], np.asarray(shares), parts, assigned)
        for group in left[np.argsort(keys[left])]:
            growth = ((2 * (assigned - target) + counts[group]) * counts[group] / target).sum(axis=1)
            parts[group] = np.argmin(np.round(growth, 9))
            assigned[parts[group]] += counts[group]
    # A part without a class that has enough groups gets the smallest group of the part with most.
    for column in counts[:, :-1].T:
        groups = np.flatnonzero(column)
        for part in range(len(target)) if len(groups) >= len(target) else ():
            sizes = np.bincount(parts[groups], minlength=len(target))
            if not sizes[part]:
                donors = groups[parts[groups] == np.argmax(sizes)]
                parts[donors[np.argmin(counts[donors, -1])]] = part
    return parts


def _assign_equal(
    counts: np.ndarray, members: np.ndarray, shares: np.ndarray, parts: np.ndarray, assigned: np.ndarray
) -> np.ndarray:
    """Assign groups with equal counts to the parts by their shares, rounded down; returns the groups left over."""
    patterns, pattern_of = np.unique(counts[members], axis=0, return_inverse=True)
    by_pattern = members[np.argsort(pattern_of.reshape(-1), kind="stable")]
    left, start = [], 0
    for pattern, size in zip(patterns, np.bincount(pattern_of.reshape(-1)), strict=True):
        equal = by_pattern[start : start + size]
        start += size
        whole = np.floor(size * shares + 1e-9).astype(int)
        parts[equal[: whole.sum()]] = np.repeat(np.arange(len(shares)), whole)
        assigned += np.outer(whole, pattern)
        left.append(equal[whole.sum() :])
    return np.concatenate(left)


def group_counts(targets: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`counts` for `stratified_parts`, (groups, classes + 1), and the row in it of each image's group."""
    _, codes = np.unique(groups, return_inverse=True)
    quantities = [*(targets == 1).T, np.ones(len(codes))]
    return np.stack([np.bincount(codes, weights=values) for values in quantities], axis=1), codes


def cut_training(
    split: np.ndarray, targets: np.ndarray, groups: np.ndarray, size: int, *, number: int, seeds: tuple[int, ...]
) -> np.ndarray:
    """`split` of fold `number` with at most `size` training images in whole `groups` (`leading_groups`); others ""."""
    rows = np.flatnonzero(split == "train")
    if size > len(rows):
        raise ConfigError(
            f"--train-size {size}: fold {number} has {len(rows)} training images. Use {len(rows)} or fewer."
        )
    counts, codes = group_counts(targets[rows], groups[rows])
    taken = leading_groups(counts, size, seeds)
    if not taken.any():
        least = int(counts[:, -1].min())
        raise ConfigError(
            f"--train-size {size}: whole patients are taken, and the first one drawn for fold {number} has more images "
            f"(patients here have {least} or more). Raise it."
        )
    cut = split.copy()
    cut[rows[~taken[codes]]] = ""
    return cut


def leading_groups(counts: np.ndarray, size: int, seeds: tuple[int, ...]) -> np.ndarray:
    """The first groups in a random stratified order with at most `size` images in total; bool (groups,).

    The order comes from repeated stratified halving, so that every prefix is a representative sample; it depends only
    on the seed `seeds`, so a smaller `size` gives a subset. `counts` as for `stratified_parts`.
    """
    taken = np.zeros(len(counts), bool)
    block, node, left = np.arange(len(counts)), 1, size
    # Only the half that contains the end is halved again, which costs about two passes over all groups.
    while len(block) > 1:
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((*seeds, node))))
        first = stratified_parts(counts[block], [0.5, 0.5], rng) == 0
        if first.all() or not first.any():
            first = rng.permutation(len(block)) < len(block) // 2
        # Rounding favours the first half, so its position is random.
        first = first if rng.random() < 0.5 else ~first
        images = int(counts[block[first], -1].sum())
        if images > left:
            block, node = block[first], 2 * node
            continue
        taken[block[first]] = True
        block, node, left = block[~first], 2 * node + 1, left - images
    taken[block] = counts[block, -1].sum() <= left
    return taken


_PIECE = 4096  # bytes from the middle, compared before whole files


def copies(refs: Sequence[ImageRef | None], *, workers: int = 2) -> list[list[int]]:
    """Sets of two or more indices of image files with the same bytes, each sorted; frames of one file do not count.

    Only files with the same size and middle are read whole; unreadable files have no copies.
    """
    numbers: dict[FilePart, list[int]] = {}
    for number, ref in enumerate(refs):
        if ref is not None:
            part = as_part(ref)
            numbers.setdefault(FilePart(part.path, part.offset, part.length), []).append(number)
    keys: dict[FilePart, tuple] = dict.fromkeys(numbers, ())
    for fact in (_size, _middle, _digest):
        count = Counter(keys.values())
        same = [part for part, key in keys.items() if count[key] > 1]
        facts = all_in_parallel(fact, same, workers=workers)
        keys = {part: (*keys[part], fact) for part, fact in zip(same, facts, strict=True) if fact is not None}
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


LEAK = "leak: "  # prefix of all notes, also in `run.json`, on images in two splits
PAIRS = (("train", "test"), ("train", "val"), ("val", "test"))  # splits of a fold that must not overlap
_SHOWN = 6  # overlaps named in one message


def image_identities(table: ImageTable) -> list[Hashable]:
    """A key for each row, equal for the same file, also through links and for its frames."""
    return [image_identity(path, ref) for path, ref in zip(table.paths, table.files, strict=True)]


def frame_identities(table: ImageTable) -> list[Hashable]:
    """As `image_identities`, but different for the frames of a file."""
    frames = [as_part(ref).frame if ref else 0 for ref in table.files]
    return list(zip(image_identities(table), frames, strict=True))


def check_leaks(table: ImageTable, splits: Iterable[tuple[int, np.ndarray]]) -> None:
    """Raises DataError if an image or a patient is in two splits of a fold; `splits` are (fold number, split)."""
    found = find_leaks(table, splits)
    if found:
        more = [f"and {len(found) - _SHOWN} more such overlaps"] if len(found) > _SHOWN else []
        raise DataError(
            "\n  ".join(found[:_SHOWN] + more)
            + ". Results would be inflated. Correct the split, or continue with --allow-leakage."
        )


def find_leaks(table: ImageTable, splits: Iterable[tuple[int, np.ndarray]]) -> list[str]:
    """A phrase for each overlap of images or patients between two splits of a fold."""
    coded: dict[str, np.ndarray] = {}  # an integer for each row, equal for the same image or patient
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
    """A sentence if images have copies (files with the same bytes) in another split of a fold."""
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
            f"{LEAK}{has} under another name in another split, so results may be too high (e.g. {names}, labelled "
            f"{labels}, in {where}); keep one of each (see `radtransfer data check`)"
        )


def near_identical_notes(
    table: ImageTable, splits: Iterable[tuple[int, np.ndarray]], sets: Iterable[Sequence[int]]
) -> Iterator[str]:
    """A sentence if nearly identical images (`sets` of rows) have opposite labels in two splits of a fold."""
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
            f"{next(iter(crossed.values()))}); correct the labels, or keep one (see `radtransfer data check`)"
        )


def opposite_rows(targets: np.ndarray, split: np.ndarray, rows: Sequence[int]) -> tuple[int, int] | None:
    """Two of the rows that are in different splits and have opposite values of a label; None if there are none."""
    rows = np.array(rows)
    for one, other in PAIRS:
        first, second = rows[split[rows] == one], rows[split[rows] == other]
        for value in (0, 1):
            has, lacks = targets[first] == value, targets[second] == 1 - value
            clashing = np.flatnonzero(has.any(axis=0) & lacks.any(axis=0))
            if clashing.size:
                return int(first[has[:, clashing[0]]][0]), int(second[lacks[:, clashing[0]]][0])
    return None
