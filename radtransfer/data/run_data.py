"""The data of existing runs: their images, overlap with other data, and changes since training."""

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
    from radtransfer.images.pipeline import Batches


@dataclass(frozen=True)
class LocatedImages:
    """Images on disk."""

    paths: tuple[str, ...]
    refs: tuple[ImageRef, ...]
    facts: "tuple[ImageFacts, ...]"
    reading: ImageSettings
    clusters: tuple[str, ...]  # patient of each, or the image itself if patients are unknown

    def __len__(self) -> int:
        return len(self.paths)

    def batches(
        self, *, image_size: int, batch_size: int, workers: int = 1, rows: Sequence[int] | None = None
    ) -> "Batches":
        """Network inputs without targets of all images, or of those in `rows`."""
        from radtransfer.images.pipeline import make_batches

        rows = range(len(self)) if rows is None else rows
        return make_batches(
            *([values[row] for row in rows] for values in (self.paths, self.refs, self.facts)),
            np.zeros((len(rows), 1), np.float32),
            image_size=image_size,
            reading=self.reading,
            batch_size=min(batch_size, len(rows)),
            workers=workers,
        )


@dataclass(frozen=True, eq=False)
class ImageArrays:
    """Images in memory, passed to models unchanged."""

    pixels: np.ndarray  # float32 (images, height, width, 3), 0–255

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def clusters(self) -> tuple[str, ...]:
        """Each image is its own cluster."""
        return tuple(map(str, range(len(self))))


def given_images(files: Sequence[str], data: DataSettings, reading: ImageSettings, progress: Progress) -> LocatedImages:
    """Every image of `files`, else of the data set `data`; labels are not needed.

    Raises ConfigError if neither is given, and DataError if no image is found or one is unreadable.
    """
    table = list_images(files, data, unread=False) if files else read_images(data, progress=progress)
    for note in table.notes:
        if note != NO_PATIENTS:
            progress.note(note)
    return images_of_table(table, table.paths, reading)


def tested_images(run: Path, fold: int) -> LocatedImages:
    """The test images of a fold of a run; RunError without such a fold, DataError if images are missing."""
    tested = tested_paths(run, fold)
    try:
        settings = run_images(run)
        table = read_table(settings.data)
    except DataError as error:
        raise DataError(f"The images of run {run} cannot be read any more; give --data. {error}") from None
    return images_of_table(table, tested, settings.images)


def note_changes(runs: Sequence[Path], progress: Progress) -> None:
    """Note for each run whether its images or labels have changed."""
    for run in dict.fromkeys(runs):
        if (run / "config.yaml").is_file():  # a copy of a run may lack its settings
            for change in data_changes(run, run_images(run).data):
                progress.note(change)


def run_images(run: Path) -> Config:
    """The data and image settings of a run; others are ignored, as they may be of another version."""
    document = read_settings(run)
    with reading(run):
        sections = {section: dict(document.get(section) or {}) for section in ("data", "images")}
    return load_config(
        options={f"{section}.{name}": value for section, items in sections.items() for name, value in items.items()}
    )


def tested_paths(run: Path, fold: int) -> list[str]:
    """The paths of the test images of a fold; RunError if there are none."""
    with reading(run):
        lines = read_folds(run)
        tested = [line["path"] for line in lines if int(line["fold"]) == fold and line["split"] == "test"]
    if not tested:
        raise RunError(f"Run {run} has no test images in fold {fold}. Name another fold, or give --data.")
    return tested


def images_of_table(table: ImageTable, paths: Sequence[str], reading: ImageSettings) -> LocatedImages:
    """The images `paths` of a table; DataError if one is missing or unreadable."""
    rows = {path: row for row, path in enumerate(table.paths)}
    missing = [path for path in paths if path not in rows or table.files[rows[path]] is None]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(paths)} images were not found, first {missing[0]!r}. Give their folder "
            "with --image-root, or other images with --data."
        )
    refs = tuple(table.files[rows[path]] for path in paths)
    clusters = tuple(table.groups[rows[path]] for path in paths)
    return LocatedImages(tuple(paths), refs, examine_images(refs, reading), reading, clusters)


def source_leaks(weights: str, table: ImageTable, folds: Sequence[Fold]) -> Iterator[str]:
    """A sentence for each fold with test images that trained or validated the run `weights`."""
    for fold, leaked in leaked_images(weights, table, folds):
        yield (
            f"{LEAK}in fold {fold.number}, {len(leaked)} of {(fold.split == 'test').sum()} test images were used to "
            f"train or select {weights} (e.g. {table.paths[leaked[0]]}); its AUC is too high. Start from "
            "a run on other images"
        )


def leaked_images(weights: str, table: ImageTable, folds: Sequence[Fold]) -> Iterator[tuple[Fold, list[int]]]:
    """Each fold with test images that trained or validated the run `weights`, and their rows in `table`.

    Empty if `weights` is not a run or its images cannot be read any more.
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


_ROLES = {"train": "trained", "val": "validated"}


@dataclass(frozen=True)
class TrainingOverlap:
    """Test images and patients that were used in training."""

    images: tuple[int, ...]  # rows of the test images: same file, or same bytes
    roles: tuple[str, ...]  # of each: "trained", "validated", or "trained;validated" for several folds
    patients: Mapping[str, str]  # patient ids in the tested table to those in the run
    compared: bool  # whether the run's images were available; else only paths and ids are compared


def training_overlap(table: ImageTable, run: Path, folds: Sequence[int], data: DataSettings) -> TrainingOverlap:
    """The images and patients of the test set `table` that trained or validated `folds` of `run`, made from `data`."""
    lines = [row for row in read_folds(run) if row["split"] in _ROLES and int(row["fold"]) in folds]
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
    roles = tuple(";".join(role for split, role in _ROLES.items() if split in splits) for splits in used)
    return TrainingOverlap(images, roles, patients, compared)


def _patients_of_both(table: ImageTable, lines: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """The tested patients that are also in `lines`, sorted, with their ids there."""
    if table.patients is None:
        return {}
    names = [line["patient"] for line in lines]
    keys = names if table.exact_patient_ids else patient_keys(names, [line["path"] for line in lines])
    trained = dict(zip(keys, names, strict=True)) | {name: name for name in names}
    pairs = sorted(set(zip(table.patients, table.patient_keys, strict=True)))
    return {name: trained.get(name, trained.get(key)) for name, key in pairs if key in trained}


def _same_images(table: ImageTable, trained: ImageTable) -> dict[int, Collection[int]]:
    """Rows of tested images to the rows of training images with the same file or bytes."""
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


def images_digest(refs: Iterable[ImageRef | None], *, workers: int) -> str:
    """SHA-256 of the bytes of all image files, each once; cached while the files do not change. Raises OSError."""
    files = list(dict.fromkeys(file_of(ref) for ref in refs if ref is not None))
    known = cache_folder() / "contents" / f"{unchanged_key(files)}.txt"
    with contextlib.suppress(OSError):
        return known.read_text(encoding="ascii")
    digest = hashlib.sha256()
    for batch in in_parallel(_digest, files, workers=workers):
        digest.update(b"".join(batch))
    found = digest.hexdigest()
    with contextlib.suppress(OSError, RadtransferError):  # the cache is not writable
        known.parent.mkdir(parents=True, exist_ok=True)
        write_text(known, found)
    return found


def data_changes(run: Path, data: DataSettings, *, workers: int = 2) -> list[str]:
    """A sentence for each change of the data of a run since training; none if the data cannot be read any more.

    Raises RunError if the run's own files are damaged.
    """
    if not (run / "folds.csv").is_file():
        return []
    rows, before = read_folds(run), read_run(run).get("images_sha256")
    try:
        table = read_table(data)
        changes = list(_row_changes(rows, table))
        if not changes and before is not None:
            refs = dict(zip(table.paths, table.files, strict=True))
            paths = dict.fromkeys(row["path"] for row in rows)
            if images_digest((refs[path] for path in paths), workers=workers) != before:
                changes.append("image files have other contents than at training")
    except (RadtransferError, OSError, KeyError):
        return []
    return [f"the data of {run} has changed: {change}. Its results are for the earlier data" for change in changes]


def _row_changes(rows: Sequence[dict[str, str]], table: ImageTable) -> Iterable[str]:
    patients = table.patients or ("",) * len(table)
    now = dict(zip(table.paths, zip(table.labels, patients, strict=True), strict=True))
    then = {row["path"]: (row["label"], row["patient"]) for row in rows}
    gone = [path for path in then if path not in now]
    if gone:
        yield f"{len(gone)} of its images are not in the table any more, such as {gone[0]!r}"
    for column, what in enumerate(("label", "patient")):
        other = [path for path in then if path in now and then[path][column] != now[path][column]]
        if other:
            path = other[0]
            before, after = then[path][column], now[path][column]
            yield f"the {what} of {len(other)} images, such as {path!r}: {before!r}, now {after!r}"


def _digest(file: Path) -> bytes:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").digest()
