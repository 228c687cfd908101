"""A folder with one sub-folder per class, or with `train`, `val` and `test` folders that hold class folders.

Deeper sub-folders belong to their class; split folders are one fixed split; other files are ignored.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from radtransfer.config.schema import DataSettings
from radtransfer.data.image_files import is_dangling, is_dicom_file, is_image_name, unread_note, walk_files
from radtransfer.data.labels import is_missing, listed, one_hot
from radtransfer.data.sheet import split_names
from radtransfer.data.table import ImageTable
from radtransfer.errors import DataError, near_path
from radtransfer.images.files import format_by_name

_EXPECTED = "expected one sub-folder of images per class, or train/ val/ test/ folders that hold such"


def read(settings: DataSettings, location: str | None = None) -> ImageTable:
    """The images of the folder `location`, their paths relative to it.

    Raises:
        DataError: No such folder, no or one class in it, images between split folders and classes, or
            settings that name columns.
    """
    root = _folder(settings, location)
    files = walk_files(root, outside=settings.outside_root)
    images = [file for file in files if is_image_name(file.rpartition("/")[2]) or is_dicom_file(root / file)]
    _check_names(images)
    split_folders = _split_folders(images)
    depth = 1 if split_folders else 0
    kept = [file for file in images if file.count("/") > depth]
    splits = None
    if split_folders:
        kept = [file for file in kept if file.split("/")[0] in split_folders]
        splits = np.array([[split_folders[file.split("/")[0]] for file in kept]], dtype="U5")
    others = sorted(set(files) - set(images))
    without = _classes_without_images(root, kept, split_folders)
    _check_classes(root, files, kept, depth, hints=_left_out(root, others, without))
    targets, classes = one_hot([file.split("/")[depth] for file in kept])
    return ImageTable(
        paths=tuple(kept),
        files=tuple(root / file for file in kept),
        targets=targets,
        classes=classes,
        task="multiclass",
        splits=splits,
        notes=_notes(images, kept, split_folders, classes) + _left_out(root, others, without),
    )


def _folder(settings: DataSettings, location: str | None) -> Path:
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
    return root


def _check_names(images: Sequence[str]) -> None:
    """Every output is UTF-8 and holds the path."""
    for name in images:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise DataError(f"The file name {name!r} is not valid Unicode. Rename it.") from None


def _split_folders(images: Sequence[str]) -> dict[str, str]:
    """The top folders named like splits that hold class folders, if `train` is one and there is another; and which."""
    names = split_names({file.split("/")[0] for file in images if file.count("/") > 1})
    splits = {folder: split for folder, split in names.items() if split}
    return splits if "train" in splits.values() and len(set(splits.values())) > 1 else {}


def _classes_without_images(root: Path, kept: Sequence[str], split_folders: Collection[str]) -> list[str]:
    """The folders that would be classes if an image in them could be read; in split folders, of no split."""
    tops = [root / name for name in sorted(split_folders)] or [root]
    found = {entry.name for top in tops for entry in top.iterdir() if entry.is_dir()}
    classes = {file.split("/")[1 if split_folders else 0] for file in kept}
    return sorted(name for name in found - classes if not name.startswith((".", "__")))


def _left_out(root: Path, others: Sequence[str], without: Sequence[str]) -> tuple[str, ...]:
    """A note for each sort of what is no image, and on the folders that hold nothing else.

    Args:
        root: The folder of all.
        others: Files that are no images.
        without: Folders that hold no images and are no classes therefore.
    """
    unread = [file for file in others if format_by_name(file.rpartition("/")[2])]
    links = [file for file in set(others) - set(unread) if is_dangling(root / file)]
    notes = [note] if (note := unread_note(unread)) else []
    if links:
        notes.append(f"links that lead nowhere, ignored: {len(links)}, such as {min(links)!r}")
    if ignored := len(others) - len(unread) - len(links):
        notes.append(f"files that are not images, ignored: {ignored}")
    if without:
        notes.append(f"folders without an image that is read, which are no classes: {listed(map(repr, without))}")
    return tuple(notes)


def _check_classes(root: Path, files: Sequence[str], kept: Sequence[str], depth: int, *, hints: Sequence[str]) -> None:
    counts = Counter(file.split("/")[depth] for file in kept)
    if len(counts) > 1:
        return
    if counts:
        found = f"found one class: {next(iter(counts))} ({len(kept)} images)"
    else:
        tables = [file for file in files if file.endswith((".csv", ".tsv")) and "/" not in file]
        images = sum(map(is_image_name, files))
        found = f"found {images} images in the folder itself and none in sub-folders"
        hints = (*hints, *([f"to read a table, give it: --data {root / tables[0]}"] if tables else []))
    raise DataError("; ".join([f"{root}: {_EXPECTED}; {found}", *hints]) + ".")


def _notes(
    images: Sequence[str], kept: Sequence[str], split_folders: Collection[str], classes: Sequence[str]
) -> tuple[str, ...]:
    notes = []
    if split_folders:
        notes.append(f"one fixed split from the folders {listed(sorted(split_folders))}")
    if len(images) > len(kept):
        left = sorted(set(images) - set(kept))
        notes.append(f"images outside the class folders, ignored: {len(left)}, such as {left[0]!r}")
    if words := [repr(name) for name in classes if is_missing(name)]:
        notes.append(f"the folders {listed(words)} are classes like the others; move them away if they should not be")
    return tuple(notes)
