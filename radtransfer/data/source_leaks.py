"""Test images that the weights have seen: a run that starts from another run on the same images.

Images and patients that a run has seen in training or validation, among those it is to be tested on.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from radtransfer.config.load import load_config
from radtransfer.config.schema import DataSettings
from radtransfer.data.readers import read_table
from radtransfer.data.splits import LEAK, Fold, copies, image_identities
from radtransfer.data.table import ImageTable, is_own_patient, patient_keys
from radtransfer.errors import RadtransferError, RunError
from radtransfer.runs.folder import find_fold, read_folds
from radtransfer.runs.read import reading


def source_leaks(weights: str, table: ImageTable, folds: Sequence[Fold]) -> Iterator[str]:
    """A sentence for each fold some of whose test images trained the run that `weights` names."""
    for fold, leaked in leaked_images(weights, table, folds):
        yield (
            f"{LEAK}in fold {fold.number}, {len(leaked)} of {(fold.split == 'test').sum()} test images trained or "
            f"chose the weights of {weights} (e.g. {table.paths[leaked[0]]}); its AUC is too high. Start from "
            "a run on other images"
        )


def leaked_images(weights: str, table: ImageTable, folds: Sequence[Fold]) -> Iterator[tuple[Fold, list[int]]]:
    """Each fold some of whose test images trained the run that `weights` names, and their rows in `table`.

    Weights that are no run, and runs whose images cannot be found any more, give none.
    """
    try:
        run, number = find_fold(weights)
        source = read_table(load_config(str(run / "config.yaml")).data)
    except (RunError, RadtransferError):
        return
    with reading(run):
        rows = [row for row in read_folds(run) if int(row["fold"]) == number]
        trained = {row["path"] for row in rows if row["split"] != "test"}
    identities = zip(source.paths, image_identities(source), strict=True)
    seen = {identity for path, identity in identities if path in trained}
    mine = image_identities(table)
    for fold in folds:
        leaked = [row for row, split in enumerate(fold.split) if split == "test" and mine[row] in seen]
        if leaked:
            yield fold, leaked


_WAYS = {"train": "trained", "val": "validated"}
"""What the images of a split did, in the order in which it is told."""


@dataclass(frozen=True)
class Seen:
    """What was seen before.

    Attributes:
        images: Rows of the images that trained or validated: one file, or files of the same bytes.
        ways: Of each of them: "trained", "validated", or "trained;validated" where several folds used it.
        patients: Those of the tested table that stand in the run's training or validation too, each with the name
            that it has there; spelling makes no difference.
        compared: Whether the run's images were there to compare with; without them only paths and names are.
    """

    images: tuple[int, ...]
    ways: tuple[str, ...]
    patients: Mapping[str, str]
    compared: bool


def seen_before(table: ImageTable, run: Path, folds: Sequence[int], data: DataSettings) -> Seen:
    """The images and patients of `table` that trained or validated a fold of `run`.

    Args:
        table: To be tested on.
        run: Folder of the run.
        folds: Of the run.
        data: Where the run's images come from.
    """
    lines = [row for row in read_folds(run) if row["split"] in _WAYS and int(row["fold"]) in folds]
    splits = {}
    for line in lines:
        splits.setdefault(line["path"], set()).add(line["split"])
    known = [line for line in lines if line["patient"] and not is_own_patient(line["patient"])]
    patients = _patients_of_both(table, known)
    try:
        source = read_table(data)
    except RadtransferError:
        source = None
    rows = [] if source is None else [row for row, path in enumerate(source.paths) if path in splits]
    compared = bool(rows) and all(source.files[row] is not None for row in rows)
    if compared:
        trained = source.select(rows)
        same = {row: [trained.paths[k] for k in found] for row, found in _same_images(table, trained).items()}
    else:
        same = {row: [path] for row, path in enumerate(table.paths) if path in splits}
    images = tuple(sorted(same))
    ways = tuple(_way(split for path in same[row] for split in splits[path]) for row in images)
    return Seen(images, ways, patients, compared)


def _patients_of_both(table: ImageTable, lines: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """The tested patients that stand in `lines` too, sorted, and what each is called there: itself, if it is there."""
    if table.patients is None:
        return {}
    names = [line["patient"] for line in lines]
    keys = names if table.alike_patients else patient_keys(names, [line["path"] for line in lines])
    there = dict(zip(keys, names, strict=True)) | {name: name for name in names}
    pairs = sorted(set(zip(table.patients, table.patient_keys, strict=True)))
    return {name: there.get(name, there.get(key)) for name, key in pairs if key in there}


def _way(splits: Iterable[str]) -> str:
    used = set(splits)
    return ";".join(way for split, way in _WAYS.items() if split in used)


def _same_images(table: ImageTable, trained: ImageTable) -> dict[int, Collection[int]]:
    """Rows of the tested images that are trained ones or have the bytes of some, to the rows of those."""
    of_identity, found = {}, {}
    for row, identity in enumerate(image_identities(trained)):
        of_identity.setdefault(identity, set()).add(row)
    for row, identity in enumerate(image_identities(table)):
        if identity in of_identity:
            found[row] = of_identity[identity]
    tested = len(table)
    for rows in copies([*table.files, *trained.files]):
        theirs = {row - tested for row in rows if row >= tested}
        for row in rows if theirs else ():
            if row < tested:
                found[row] = found.get(row, set()) | theirs
    return found
