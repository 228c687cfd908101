"""The data of runs seen again: their images found again, which of them were trained on, and what has changed."""

import contextlib
import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from radtransfer.config.load import load_config
from radtransfer.config.schema import Config, DataSettings, ImageSettings
from radtransfer.data.image_check import examine_images
from radtransfer.data.image_files import unchanged_key
from radtransfer.data.image_list import list_images, read_images
from radtransfer.data.readers import read_table
from radtransfer.data.splits import LEAK, Fold, copies, image_identities
from radtransfer.data.table import NO_PATIENTS, ImageTable, is_own_patient, patient_keys
from radtransfer.errors import DataError, RadtransferError, RunError
from radtransfer.images.refs import ImageRef, file_of
from radtransfer.process import Progress, in_parallel
from radtransfer.runs.cache import cache_folder
from radtransfer.runs.folder import find_fold, read_folds, read_run, write_text
from radtransfer.runs.read import read_settings, reading

if TYPE_CHECKING:
    from radtransfer.images.formats import ImageFacts


@dataclass(frozen=True)
class LocatedImages:
    """Images on disk."""

    paths: tuple[str, ...]  # the identity of each
    places: tuple[ImageRef, ...]  # where each lies
    facts: "tuple[ImageFacts, ...]"  # how each is decoded
    reading: ImageSettings  # how it becomes a square
    clusters: tuple[str, ...]  # patient of each, or the image itself where patients are not known

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True, eq=False)
class ImageArrays:
    """Images in memory, which networks get as they are.

    Attributes:
        pixels: float32 (images, height, width, 3), 0–255.
    """

    pixels: np.ndarray

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def clusters(self) -> tuple[str, ...]:
        """Every image by itself."""
        return tuple(map(str, range(len(self))))


def given_images(files: Sequence[str], data: DataSettings, reading: ImageSettings, progress: Progress) -> LocatedImages:
    """Every image of the files, or else of a data set, read as `reading` says; neither needs labels.

    Raises ConfigError if neither is given, and DataError if nothing usable is there, or an image is unreadable.
    """
    table = list_images(files, data, unread=False) if files else read_images(data, progress=progress)
    for note in table.notes:
        if note != NO_PATIENTS:
            progress.note(note)
    return images_of_table(table, table.paths, reading)


def tested_images(run: Path, fold: int) -> LocatedImages:
    """The test images of a fold of a run.

    Raises RunError if the run has no such fold, and DataError if its images are not where the run found them.
    """
    tested = tested_paths(run, fold)
    try:
        settings = run_images(run)
        table = read_table(settings.data)
    except DataError as error:
        raise DataError(f"The images of run {run} are not there any more; give --data. {error}") from None
    return images_of_table(table, tested, settings.images)


def note_changes(runs: Sequence[Path], progress: Progress) -> None:
    """Tell of each run whose images or labels are not what they were."""
    for run in dict.fromkeys(runs):
        if (run / "config.yaml").is_file():  # a copy of a run may lack its settings
            for change in data_changes(run, run_images(run).data):
                progress.note(change)


def run_images(run: Path) -> Config:
    """Where the images of a run come from and how they are read; its other settings may be of another version."""
    document = read_settings(run)
    with reading(run):
        sections = {section: dict(document.get(section) or {}) for section in ("data", "images")}
    return load_config(
        options={f"{section}.{name}": value for section, items in sections.items() for name, value in items.items()}
    )


def tested_paths(run: Path, fold: int) -> list[str]:
    """The paths of the test images of a fold, as the run's table writes them; RunError if there are none."""
    with reading(run):
        lines = read_folds(run)
        tested = [line["path"] for line in lines if int(line["fold"]) == fold and line["split"] == "test"]
    if not tested:
        raise RunError(f"Run {run} has no test images in fold {fold}. Name another fold, or give --data.")
    return tested


def images_of_table(table: ImageTable, paths: Sequence[str], reading: ImageSettings) -> LocatedImages:
    """Some images of a table, read as `reading` says; DataError if one is missing or unreadable."""
    rows = {path: row for row, path in enumerate(table.paths)}
    missing = [path for path in paths if path not in rows or table.files[rows[path]] is None]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(paths)} images were not found, first {missing[0]!r}. Give their folder "
            "with --image-root, or other images with --data."
        )
    places = tuple(table.files[rows[path]] for path in paths)
    clusters = tuple(table.groups[rows[path]] for path in paths)
    return LocatedImages(tuple(paths), places, examine_images(places, reading), reading, clusters)


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


_WAYS = {"train": "trained", "val": "validated"}  # what the images of a split did, in the order in which it is told


@dataclass(frozen=True)
class Seen:
    """What was seen before."""

    images: tuple[int, ...]  # rows of the images that trained or validated: one file, or files of the same bytes
    ways: tuple[str, ...]  # of each of them: "trained", "validated", or "trained;validated" where several folds used it
    patients: Mapping[str, str]  # those of the tested table that stand there too, and their names there
    compared: bool  # whether the run's images were there to compare with; without them only paths and names are


def seen_before(table: ImageTable, run: Path, folds: Sequence[int], data: DataSettings) -> Seen:
    """The images and patients of `table`, to be tested on, that trained or validated one of `folds` of `run`.

    `data` says where the run's images come from.
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
    used = [set().union(*(splits[path] for path in same[row])) for row in images]
    ways = tuple(";".join(way for split, way in _WAYS.items() if split in those) for those in used)
    return Seen(images, ways, patients, compared)


def _patients_of_both(table: ImageTable, lines: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """The tested patients that stand in `lines` too, sorted, and what each is called there: itself, if it is there."""
    if table.patients is None:
        return {}
    names = [line["patient"] for line in lines]
    keys = names if table.exact_patient_ids else patient_keys(names, [line["path"] for line in lines])
    there = dict(zip(keys, names, strict=True)) | {name: name for name in names}
    pairs = sorted(set(zip(table.patients, table.patient_keys, strict=True)))
    return {name: there.get(name, there.get(key)) for name, key in pairs if key in there}


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


def images_digest(places: Iterable[ImageRef | None], *, workers: int) -> str:
    """SHA-256 of the bytes of all image files in turn, each once: 64 hexadecimal digits.

    Files whose place, number, size and times are those of an earlier call are not read again. Raises OSError.
    """
    files = list(dict.fromkeys(file_of(place) for place in places if place is not None))
    known = cache_folder() / "contents" / f"{unchanged_key(files)}.txt"
    with contextlib.suppress(OSError):
        return known.read_text(encoding="ascii")
    digest = hashlib.sha256()
    for batch in in_parallel(_digest, files, workers=workers):
        digest.update(b"".join(batch))
    found = digest.hexdigest()
    with contextlib.suppress(OSError, RadtransferError):  # a cache that cannot be written keeps nothing
        known.parent.mkdir(parents=True, exist_ok=True)
        write_text(known, found)
    return found


def data_changes(run: Path, data: DataSettings, *, workers: int = 2) -> list[str]:
    """A sentence for each way in which the data of a run is not what it was; `data` is as its `config.yaml` says.

    Nothing is said where the data is not there any more, or cannot be read: nothing is known of it then. Raises
    RunError if the run's own files are not as they were written.
    """
    if not (run / "folds.csv").is_file():
        return []
    rows, before = read_folds(run), read_run(run).get("images_sha256")
    try:
        table = read_table(data)
        changes = list(_row_changes(rows, table))
        if not changes and before is not None:
            places = dict(zip(table.paths, table.files, strict=True))
            paths = dict.fromkeys(row["path"] for row in rows)
            if images_digest((places[path] for path in paths), workers=workers) != before:
                changes.append("image files have other contents than when it was made")
    except (RadtransferError, OSError, KeyError):
        return []
    return [f"the data of {run} has changed: {change}. Its figures are of the data as it was" for change in changes]


def _row_changes(rows: Sequence[dict[str, str]], table: ImageTable) -> Iterable[str]:
    patients = table.patients or ("",) * len(table)
    now = dict(zip(table.paths, zip(table.labels, patients, strict=True), strict=True))
    then = {row["path"]: (row["label"], row["patient"]) for row in rows}
    gone = [path for path in then if path not in now]
    if gone:
        yield f"{len(gone)} of its images are not in the table any more, such as {gone[0]!r}"
    for place, what in enumerate(("label", "patient")):
        other = [path for path in then if path in now and then[path][place] != now[path][place]]
        if other:
            path = other[0]
            was, is_now = then[path][place], now[path][place]
            yield f"the {what} of {len(other)} images, such as {path!r}: {was!r}, now {is_now!r}"


def _digest(file: Path) -> bytes:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").digest()
