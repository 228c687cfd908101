"""A folder with one sub-folder per class, or with `train`, `val` and `test` folders that hold class folders.

Deeper sub-folders belong to their class; split folders are one fixed split; other files are ignored.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from radtransfer.config.schema import DataSettings
from radtransfer.data.image_files import check_names, images_below, is_dangling, is_image_name, unread_note
from radtransfer.data.labels import is_missing, listed, one_hot
from radtransfer.data.sheet import split_names
from radtransfer.data.table import ImageTable
from radtransfer.errors import DataError, near_path
from radtransfer.images.files import format_by_name

_EXPECTED = "expected one sub-folder of images per class, or train/ val/ test/ folders that hold such"


def read(settings: DataSettings, location: str | None = None) -> ImageTable:
    """The images of the folder `location`, their paths relative to it."""
    root = Path(location or "").expanduser().absolute()
    if not location or not root.is_dir():
        raise DataError(f"image_folder: {location or 'no folder given'} is not a folder; {_EXPECTED}.{near_path(root)}")
    for name in ("path_column", "label_column", "patient_column"):
        if getattr(settings, name):
            raise DataError(
                f"--{name.replace('_', '-')} names a column, but {root} is a folder of images and has none: "
                "its sub-folders are the classes, and --patient-regex finds the patient in the path.",
                misfits=(name,),
            )
    images, others = images_below(root, outside=settings.outside_root)
    check_names(images)
    # Top folders named like splits that hold class folders count as such if `train` is one and there is another.
    names = split_names({file.split("/")[0] for file in images if file.count("/") > 1})
    splits = {folder: split for folder, split in names.items() if split}
    if "train" not in splits.values() or len(set(splits.values())) < 2:
        splits = {}
    depth = 1 if splits else 0
    kept = [file for file in images if file.count("/") > depth and (not splits or file.split("/")[0] in splits)]
    labels = [file.split("/")[depth] for file in kept]
    tops = [root / name for name in splits] or [root]
    folders = {entry.name for top in tops for entry in top.iterdir() if entry.is_dir()}
    empty = sorted(name for name in folders - set(labels) if not name.startswith((".", "__")))
    left_out = list(_left_out(root, others, empty))
    if len(set(labels)) < 2:
        raise DataError(_one_class(root, labels, [*images, *others], left_out))
    targets, classes = one_hot(labels)
    notes = [f"one fixed split from the folders {listed(sorted(splits))}"] if splits else []
    if outside := sorted(set(images) - set(kept)):
        notes.append(f"images outside the class folders, ignored: {len(outside)}, such as {outside[0]!r}")
    if words := [repr(name) for name in classes if is_missing(name)]:
        notes.append(f"the folders {listed(words)} are classes like the others; move them away if they should not be")
    return ImageTable(
        paths=tuple(kept),
        files=tuple(root / file for file in kept),
        targets=targets,
        classes=classes,
        task="multiclass",
        splits=np.array([[splits[file.split("/")[0]] for file in kept]], dtype="U5") if splits else None,
        notes=(*notes, *left_out),
    )


def _left_out(root: Path, others: Sequence[str], empty: Sequence[str]) -> Iterator[str]:
    """A note for each sort of files that are no images, and on the folders that are no classes for want of images."""
    unread = [file for file in others if format_by_name(file.rpartition("/")[2])]
    links = [file for file in set(others) - set(unread) if is_dangling(root / file)]
    if note := unread_note(unread):
        yield note
    if links:
        yield f"links that lead nowhere, ignored: {len(links)}, such as {min(links)!r}"
    if ignored := len(others) - len(unread) - len(links):
        yield f"files that are not images, ignored: {ignored}"
    if empty:
        yield f"folders without an image that is read, which are no classes: {listed(map(repr, empty))}"


def _one_class(root: Path, labels: Sequence[str], files: Sequence[str], hints: Sequence[str]) -> str:
    if labels:
        found = f"found one class: {labels[0]} ({len(labels)} images)"
    else:
        tables = sorted(file for file in files if file.endswith((".csv", ".tsv")) and "/" not in file)
        images = sum(map(is_image_name, files))
        found = f"found {images} images in the folder itself and none in sub-folders"
        hints = [*hints, *([f"to read a table, give it: --data {root / tables[0]}"] if tables else [])]
    return "; ".join([f"{root}: {_EXPECTED}; {found}", *hints]) + "."
