"""`--frames all`: every frame of a file with several becomes an image of its own."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from radtransfer.datasets.image_files import is_dicom_file
from radtransfer.datasets.image_table import ImageTable
from radtransfer.errors import BadImageError, DataError
from radtransfer.image_formats import count_frames
from radtransfer.image_formats.file_parts import MOST_FRAMES
from radtransfer.image_place import FilePart, ImagePlace
from radtransfer.parallel import all_in_parallel
from radtransfer.settings import DataSettings

_READERS = 4
"""Files opened at the same time."""

_SEVERAL = frozenset([".tif", ".tiff", ".gif"])
"""Names of files that hold several images at times, DICOM apart."""


def with_frames(table: ImageTable, settings: DataSettings) -> ImageTable:
    """`table` with a row per frame, if the settings ask for it.

    Frame 3 of `x.dcm` is called `x.dcm#3`, from 1. It has the label, the splits and the patient of its file; where
    there are no patients, the file is the patient, so that its frames are never split between sets.

    Raises:
        DataError: A file has more than `MOST_FRAMES`.
    """
    if settings.frames == "first":
        return table
    counts = _counts(table.files)
    if (counts > MOST_FRAMES).any():
        file = table.files[int(np.argmax(counts > MOST_FRAMES))]
        raise DataError(
            f"--frames all: {file} holds more than {MOST_FRAMES:,} frames. Store it in several files, or use "
            "--frames first."
        )
    several, damaged = counts > 1, np.flatnonzero(counts == 0)
    notes = table.notes
    if len(damaged):
        what = f"the frames of {len(damaged)} damaged files cannot be counted, such as {table.paths[damaged[0]]}"
        notes += (f"--frames all: {what}; at most the first of each is used",)
    if not several.any():
        return replace(table, notes=(*notes, "--frames all: no file holds further frames"))
    counts = np.maximum(counts, 1)
    rows = np.repeat(np.arange(len(table)), counts)
    frames = np.concatenate([np.arange(count) for count in counts])
    note = f"{several.sum()} files with several frames give {counts[several].sum()} images"
    if table.patients is None:
        note += "; frames of one file stay together"
    wide = table.select(rows)
    return replace(
        wide,
        paths=tuple(
            f"{path}#{frame + 1}" if several[row] else path
            for path, row, frame in zip(wide.paths, rows, frames, strict=True)
        ),
        files=tuple(
            FilePart(file, frame=int(frame)) if several[row] else file
            for file, row, frame in zip(wide.files, rows, frames, strict=True)
        ),
        patients=wide.patients or wide.paths,
        notes=(*notes, note),
    )


def _counts(files: Sequence[ImagePlace | None]) -> np.ndarray:
    """Frames of each file, int; 1 for one that is not there, which is found later, and 0 for one that is damaged."""
    return np.array(all_in_parallel(_count, files, workers=_READERS), int)


def _count(file: ImagePlace | None) -> int:
    if not isinstance(file, Path) or not (file.suffix.lower() in _SEVERAL or is_dicom_file(file)):
        return 1
    try:
        return count_frames(file)
    except BadImageError:
        return 0
