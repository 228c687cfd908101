"""Images and patients that a run has seen in training or validation, among those it is to be tested on."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from radtransfer.datasets import read_table
from radtransfer.datasets.image_table import ImageTable
from radtransfer.errors import RadtransferError
from radtransfer.image_place import ImagePlace, file_of, read_contents
from radtransfer.runs import read_rows
from radtransfer.settings import DataSettings
from radtransfer.splits.leaks import image_identities


@dataclass(frozen=True)
class Seen:
    """What was seen before.

    Attributes:
        images: Rows of the images that trained or validated: one file, or files of the same bytes.
        patients: Their names that stand in the run's training or validation too.
        compared: Whether the run's images were there to compare with; without them only paths and names are.
    """

    images: tuple[int, ...]
    patients: tuple[str, ...]
    compared: bool


def seen_before(table: ImageTable, run: Path, folds: Sequence[int], data: DataSettings) -> Seen:
    """The images and patients of `table` that trained or validated a fold of `run`.

    Args:
        table: To be tested on.
        run: Folder of the run.
        folds: Of the run.
        data: Where the run's images come from.
    """
    lines = [
        row for row in read_rows(run / "folds.csv") if row["split"] in ("train", "val") and int(row["fold"]) in folds
    ]
    paths = {row["path"] for row in lines}
    names = {row["patient"] for row in lines} - {""}
    patients = sorted(names & set(table.patients or ()))
    try:
        source = read_table(data)
    except RadtransferError:
        source = None
    rows = [] if source is None else [row for row, path in enumerate(source.paths) if path in paths]
    compared = bool(rows) and all(source.files[row] is not None for row in rows)
    if not compared:
        return Seen(tuple(row for row, path in enumerate(table.paths) if path in paths), tuple(patients), False)
    trained = source.select(rows)
    identities = set(image_identities(trained))
    same = {row for row, identity in enumerate(image_identities(table)) if identity in identities}
    same |= _copies(table.files, trained.files)
    return Seen(tuple(sorted(same)), tuple(patients), True)


def _copies(tested: Sequence[ImagePlace | None], trained: Sequence[ImagePlace]) -> set[int]:
    """Numbers of the tested images whose bytes are those of a trained one; only files of one size are read."""
    sizes: dict[int, list[ImagePlace]] = {}
    for place in trained:
        sizes.setdefault(_size(place), []).append(place)
    rows: dict[int, list[int]] = {}
    for row, place in enumerate(tested):
        if place is not None and (size := _size(place)) in sizes:
            rows.setdefault(size, []).append(row)
    found = set()
    for size, members in rows.items():
        known = {_digest(place) for place in sizes[size]} - {None}
        found |= {row for row in members if _digest(tested[row]) in known}
    return found


def _size(place: ImagePlace) -> int:
    length = getattr(place, "length", None)
    try:
        return file_of(place).stat().st_size if length is None else length
    except OSError:
        return -1


def _digest(place: ImagePlace) -> bytes | None:
    try:
        return hashlib.sha256(read_contents(place)).digest()
    except OSError:
        return None
