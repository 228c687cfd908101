"""What the parsers of public sets share: rows that become a table, tables and class folders that become rows."""

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from radtransfer.config.schema import DataSettings
from radtransfer.data.image_files import is_dangling, is_image_name, walk_files
from radtransfer.data.labels import multilabel_targets, one_hot
from radtransfer.data.sheet import read_sheet
from radtransfer.data.table import ImageTable
from radtransfer.errors import DataError


class WrongTreeError(Exception):
    """What a folder (default: that of the set) lacks or holds besides; `public.py` adds which tree is expected."""

    def __init__(self, problem: str, folder: Path | None = None):
        self.folder = folder
        super().__init__(problem)


class Row(NamedTuple):
    """One image: its path below the folder of the set, its class or the cells of its label columns, patient and split.

    The split is "train", "val" or "test", and "" where folds are to be drawn.
    """

    path: str
    label: str | tuple[str, ...]
    patient: str | None = None
    split: str = ""


def table_of_rows(
    rows: Sequence[Row],
    root: Path,
    settings: DataSettings,
    *,
    labels: Sequence[str] = (),
    positive_from: int | None = None,
    notes: Sequence[str] = (),
) -> ImageTable:
    """The table of the images in `root`.

    Args:
        rows: One per image; a repeated one counts once.
        root: The folder that the paths are relative to.
        settings: `patient_regex` goes before the patients of the rows.
        labels: Names of the label columns of a set with several labels per image.
        positive_from: The grade that counts as positive, for a set of grades.
        notes: To be shown before those that are made here.
    """
    unique = list(dict.fromkeys(rows))
    _check_rows(unique, root, inside=not settings.outside_root)
    files = [root / row.path for row in unique]
    files = [file if file.is_file() or is_dangling(file) else None for file in files]
    missing = [row.path for row, file in zip(unique, files, strict=True) if file is None]
    if len(missing) == len(files):
        raise DataError(f"None of the {len(files)} images is on disk; expected, for example, {root / unique[0].path}.")
    if labels:
        cells = [row.label for row in unique]
        targets, classes = multilabel_targets(
            labels, cells, settings, error=lambda i, what: DataError(f"{unique[i].path}, {what}")
        )
    else:
        targets, classes = one_hot([row.label for row in unique])
    notes = list(notes)
    if len(rows) > len(unique):
        notes.append(f"{len(rows) - len(unique)} repeated rows of one image counted once")
    if missing:
        notes.append(f"{len(missing)} of {len(unique)} images are not on disk, such as {missing[0]!r}")
    known = settings.patient_regex is None and all(row.patient is not None for row in unique)
    return ImageTable(
        paths=tuple(row.path for row in unique),
        files=tuple(files),
        targets=targets,
        classes=classes,
        task="multilabel" if labels else "multiclass",
        patients=tuple(row.patient for row in unique) if known else None,
        splits=np.array([[row.split for row in unique]], dtype="U5") if any(row.split for row in unique) else None,
        positive_from=positive_from,
        notes=tuple(notes),
    )


def _check_rows(rows: Sequence[Row], root: Path, *, inside: bool) -> None:
    if not rows:
        raise DataError(f"{root} holds no images of the set.")
    by_path: dict[str, Row] = {}
    for row in rows:
        other = by_path.setdefault(row.path, row)
        if other != row:
            differs = next(name for name in ("label", "patient", "split") if getattr(other, name) != getattr(row, name))
            raise DataError(
                f"{row.path!r} stands twice in the tables in {root}, with {differs} {getattr(other, differs)!r} and "
                f"{getattr(row, differs)!r}. Correct the wrong row."
            )
    top = os.path.join(os.path.normpath(root), "")  # noqa: PTH118
    out = [row.path for row in rows if not os.path.normpath(root / row.path).startswith(top)] if inside else []
    if out:
        raise DataError(
            f"{len(out)} paths in the tables of {root} lead out of it, such as {out[0]!r}. Correct them, or allow it "
            "with --outside-root."
        )


def read_columns(file: Path, *names: str, labels: Sequence[str] = ()) -> list[tuple[str, ...]]:
    """The cells of the columns called `names`, then of those of `labels`, stripped, a tuple per row."""
    sheet = read_sheet(file)
    names += tuple(labels)
    missing = [name for name in names if name not in sheet.columns]
    if missing:
        raise DataError(
            f"{file} has no column {', '.join(missing)}: expected {', '.join(names)}. "
            f"Columns: {', '.join(sheet.columns)}.",
            misfits=("label_column",) if labels and set(labels) <= set(missing) else (),
        )
    positions = [sheet.columns.index(name) for name in names]
    return [tuple(row[i].strip() for i in positions) for row in sheet.rows]


def images_below(folder: Path) -> tuple[list[str], int]:
    """The images below `folder`, sorted and relative to it, and the number of other files."""
    files = walk_files(folder, outside=True)  # links were looked at before
    images = [file for file in files if is_image_name(file.rpartition("/")[2])]
    return images, len(files) - len(images)


def images_of_classes(root: Path, classes: Sequence[str], folder: str = "") -> tuple[list[tuple[str, str]], int]:
    """Path and class of the images in the class folders of `root`/`folder`, and the number of other files."""
    place = root / folder
    found = {entry.name for entry in place.iterdir() if entry.is_dir() and not entry.name.startswith((".", "__"))}
    for problem, names in (("has no", set(classes) - found), ("holds, besides the classes,", found - set(classes))):
        if names:
            raise WrongTreeError(f"{problem} {', '.join(sorted(names))}", place)
    images, others = [], 0
    for name in classes:
        below, ignored = images_below(place / name)
        images += [(str(PurePosixPath(folder, name, image)), name) for image in below]
        others += ignored
    return images, others


def ignored_note(others: int) -> list[str]:
    return [f"files that are not images, ignored: {others}"] if others else []


def patient_count(rows: Sequence[Row]) -> int:
    return len({row.patient for row in rows})
