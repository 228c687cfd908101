"""One image under several names: files of the same bytes."""

import hashlib
from collections import Counter
from collections.abc import Sequence

from radtransfer.image_place import FilePart, ImagePlace, as_part, read_contents
from radtransfer.parallel import all_in_parallel

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
