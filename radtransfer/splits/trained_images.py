"""Images and patients that a run has seen in training or validation, among those it is to be tested on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from radtransfer.datasets import read_table
from radtransfer.datasets.image_table import ImageTable
from radtransfer.errors import RadtransferError
from radtransfer.image_place import ImagePlace
from radtransfer.runs import read_rows
from radtransfer.settings import DataSettings
from radtransfer.splits.copies import copies
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
    """Numbers of the tested images whose bytes are those of a trained one."""
    found = set()
    for rows in copies([*tested, *trained]):
        if rows[-1] >= len(tested):
            found.update(row for row in rows if row < len(tested))
    return found
