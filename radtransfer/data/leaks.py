"""Images, copies of them, and patients that stand in two splits of one fold.

One image under several names: files of the same bytes.
"""

import hashlib
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence

import numpy as np

from radtransfer.data.image_files import image_identity
from radtransfer.data.table import ImageTable
from radtransfer.errors import DataError
from radtransfer.images.refs import FilePart, ImagePlace, as_part, read_contents
from radtransfer.process import all_in_parallel

_PIECE = 4096
"""Bytes from the middle that tell most images of one size apart."""


def copies(places: Sequence[ImagePlace | None], *, workers: int = 2) -> list[list[int]]:
    """Sets of two or more numbers of images that have the same bytes, each sorted; the frames of one file are none.

    Only images of one size and one middle are read whole; what cannot be read has no copy.

    Args:
        places: Of the images.
        workers: Files read at the same time.
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
    try:
        return part.path.stat().st_size if part.length is None else part.length
    except OSError:
        return None


def _middle(part: FilePart) -> bytes | None:
    size = _size(part)
    if size is None:
        return None
    try:
        return read_contents(FilePart(part.path, part.offset + size // 2, min(_PIECE, size - size // 2)))
    except OSError:
        return None


def _digest(part: FilePart) -> bytes | None:
    try:
        return hashlib.sha256(read_contents(part)).digest()
    except OSError:
        return None


LEAK = "leak: "
"""How every word begins that a run says, and keeps in `run.json`, of images in two splits."""

PAIRS = (("train", "test"), ("train", "val"), ("val", "test"))
"""Splits of a fold that must have nothing in common."""

_SHOWN = 6
"""Overlaps named in one message."""


def image_identities(table: ImageTable) -> list[Hashable]:
    """What makes rows the same image: one place on disk, also by a link; the path where there is no file.

    All frames of a file count as the same image.
    """
    return [image_identity(path, place) for path, place in zip(table.paths, table.files, strict=True)]


def frame_identities(table: ImageTable) -> list[Hashable]:
    """The same, and the frames of a file are images of their own."""
    frames = [as_part(place).frame if place else 0 for place in table.files]
    return list(zip(image_identities(table), frames, strict=True))


def check_leaks(table: ImageTable, splits: Iterable[tuple[int, np.ndarray]]) -> None:
    """Check that no image and no patient stands in two splits of a fold.

    Args:
        table: The images.
        splits: Number and split of each fold.

    Raises:
        DataError: One does; names it and counts the others.
    """
    found = find_leaks(table, splits)
    if found:
        more = [f"and {len(found) - _SHOWN} more such overlaps"] if len(found) > _SHOWN else []
        raise DataError(
            "\n  ".join(found[:_SHOWN] + more)
            + ". Results would be inflated. Fix the split, or pass --allow-leakage to go on."
        )


def find_leaks(table: ImageTable, splits: Iterable[tuple[int, np.ndarray]]) -> list[str]:
    """A phrase for each overlap of images or patients between two splits of a fold."""
    images = _codes(image_identities(table))
    patients = None if table.patients is None else _codes(table.patient_keys)
    found = []
    for number, split in splits:
        rows = {name: np.flatnonzero(split == name) for name in ("train", "val", "test")}
        for one, other in PAIRS:
            where = f"in both {one} and {other} of fold {number}"
            found += _shared_images(table, _shared(images, rows[one], rows[other]), where)
            if patients is not None:
                found += _shared_patients(table, _shared(patients, rows[one], rows[other]), where)
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

    Args:
        targets: (images, classes), 0 or 1, NaN where not known.
        split: (images,), of the fold.
        rows: Of images that should have one label.
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


def _codes(keys: Sequence[Hashable]) -> np.ndarray:
    """An integer for each key, equal where the keys are."""
    codes: dict[Hashable, int] = {}
    return np.array([codes.setdefault(key, len(codes)) for key in keys])


def _shared(codes: np.ndarray, one: np.ndarray, other: np.ndarray) -> list[tuple[int, int]]:
    """A row of `one` and a row of `other` for each code that both hold."""
    first, in_one = np.unique(codes[one], return_index=True)
    second, in_other = np.unique(codes[other], return_index=True)
    _, i, j = np.intersect1d(first, second, assume_unique=True, return_indices=True)
    return list(zip(one[in_one[i]].tolist(), other[in_other[j]].tolist(), strict=True))


def _shared_images(table: ImageTable, pairs: Sequence[tuple[int, int]], where: str) -> list[str]:
    if not pairs:
        return []
    names = dict.fromkeys(repr(table.paths[row]) for row in pairs[0])
    same = " are one file" if len(names) > 1 else ""
    return [f"{_counted(len(pairs), 'image')} {where} (e.g. {' and '.join(names)}{same})"]


def _shared_patients(table: ImageTable, pairs: Sequence[tuple[int, int]], where: str) -> list[str]:
    if not pairs:
        return []
    names, images = ([values[row] for row in pairs[0]] for values in (table.patients, table.paths))
    example = f"{' and '.join(dict.fromkeys(names))}: {', '.join(dict.fromkeys(images))}"
    return [f"{_counted(len(pairs), 'patient')} {where} (e.g. {example})"]


def _counted(number: int, what: str) -> str:
    return f"1 {what} is" if number == 1 else f"{number} {what}s are"
