"""What was found in the images of a data set before: files that have not changed are not decoded again."""

import contextlib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from radtransfer.cache import cache_folder, cache_note
from radtransfer.errors import RadtransferError
from radtransfer.image_formats import ImageFacts
from radtransfer.image_place import ImagePlace, as_part
from radtransfer.runs import write_text
from radtransfer.settings import ImageSettings

_VERSION = 4
"""Raised whenever more is found out about an image, or more is objected to."""

_MOST = 100
"""Data sets that are remembered."""


def recall(
    places: Sequence[ImagePlace | None], reading: ImageSettings
) -> tuple[tuple[ImageFacts, ...], list[list[int]]] | None:
    """What was remembered of these images, if all of them were found good before and none has changed since."""
    file = _file(places, reading)
    if file is None:
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        facts, alike = tuple(_facts(row) for row in found["facts"]), found["near_identical"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    with contextlib.suppress(OSError):
        file.touch()
    return facts, alike


def remember(
    places: Sequence[ImagePlace], reading: ImageSettings, facts: Sequence[ImageFacts], alike: Sequence[Sequence[int]]
) -> str | None:
    """Keep the facts and the sets of nearly identical images; gives what is to be said where they cannot be kept."""
    file = _file(places, reading)
    if file is None:
        return None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        rows = [list(asdict(fact).values()) for fact in facts]
        write_text(file, json.dumps({"facts": rows, "near_identical": alike}))
        kept = sorted(file.parent.glob("*.json"), key=lambda item: item.stat().st_mtime)
        for old in kept[:-_MOST]:
            old.unlink(missing_ok=True)
    except (OSError, RadtransferError) as error:
        return cache_note(error)
    return None


def _file(places: Sequence[ImagePlace | None], reading: ImageSettings) -> Path | None:
    """Named after every file's place, number, size and times; None where one is missing."""
    digest = hashlib.sha256(f"{_VERSION} {reading.window} {reading.fundus_crop}".encode())
    for place in places:
        if place is None:
            return None
        try:
            status = as_part(place).path.stat()
        except OSError:
            return None
        times = f"{status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
        digest.update(f"{place} {times}\n".encode())
    return cache_folder() / "checked" / f"{digest.hexdigest()[:32]}.json"


def _facts(row: list) -> ImageFacts:
    return ImageFacts(*(tuple(value) if isinstance(value, list) else value for value in row))
