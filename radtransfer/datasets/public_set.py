"""What the readers of public downloads share: a folder with options, the tree expected in it, rows to a table.

A location is `FOLDER`, or `FOLDER,option=value,…`. Each reader says in its docstring which tree, patients, split
and options its set has; the set's labels and patients are known, so settings that name columns are refused.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from radtransfer.datasets.image_files import is_dangling, is_image_name, walk_files
from radtransfer.datasets.image_table import ImageTable
from radtransfer.datasets.labels import listed, multilabel_targets, one_hot
from radtransfer.datasets.location import split_location
from radtransfer.datasets.sheet import read_sheet
from radtransfer.errors import ConfigError, DataError, UnknownNameError
from radtransfer.near_path import near_path
from radtransfer.settings import DataSettings


@dataclass(frozen=True)
class Option:
    """What an option may be: one of the choices, of which the first is the default; or a positive integer."""

    choices: tuple[str, ...]
    number: bool = False


SPLIT = Option(("drawn", "official"))
"""Whether folds are drawn (by patient), or the split is the one that was published with the set."""


@dataclass(frozen=True)
class PublicSet:
    """A data set as it lies on disk after its public download.

    Attributes:
        name: In the table of datasets.
        tree: What the folder holds, as messages print it.
        holds: The names that must stand in the folder.
        inside: Folders of the archive in which they may stand instead, when the folder that holds it is given.
        options: What may be asked for after the folder.
        columns: The settings that name columns and make sense here.
    """

    name: str
    tree: str
    holds: tuple[str, ...] = ()
    inside: tuple[str, ...] = ()
    options: Mapping[str, Option] = field(default_factory=dict)
    columns: tuple[str, ...] = ()

    def open(self, settings: DataSettings, location: str | None) -> tuple[Path, dict[str, str]]:
        """The folder that holds the tree, and the value of every option.

        Raises:
            DataError: No such folder, another tree in it, or a setting that makes no sense for the set.
            ConfigError: An option that the set does not have, or a value that it does not take.
        """
        folder, given = split_location(location or "")
        self._check_settings(settings)
        options = self._values(given)
        root = Path(folder).expanduser().absolute()
        if not folder or not root.is_dir():
            named = folder or "no folder given"
            raise DataError(f"{self.name}: {named} is not a folder.{near_path(folder)} {self._expected()}")
        try:
            places = [root, *(root / name for name in self.inside)]
            for place in places:
                if all((place / name).exists() for name in self.holds):
                    return place, options
        except PermissionError:
            raise DataError(f"The folder {root} may not be read. Check its permissions.") from None
        missing = [name for name in self.holds if not (root / name).exists()]
        raise self.error(root, f"has no {' and no '.join(missing)}")

    def error(self, root: Path, problem: str) -> DataError:
        """That the folder `root` does not hold the set: the problem, the tree that is expected, and what is there."""
        found = sorted(entry.name + "/" * entry.is_dir() for entry in root.iterdir())
        return DataError(f"{self.name}: {root} {problem}. {self._expected()}\nFound: {listed(found) or 'nothing'}.")

    def _expected(self) -> str:
        tree = "\n".join(f"  {line}" for line in self.tree.strip().splitlines())
        return f"Expected:\n{tree}"

    def _check_settings(self, settings: DataSettings) -> None:
        for name in ("path_column", "label_column", "patient_column", "image_root"):
            if getattr(settings, name) and name not in self.columns:
                raise DataError(
                    f"--{name.replace('_', '-')} makes no sense for {self.name}, which brings its own images, labels "
                    "and patients. Leave it out, or read one of the set's tables as a CSV.",
                    misfits=(name,),
                )

    def _values(self, given: Sequence[tuple[str, str]]) -> dict[str, str]:
        values = {name: option.choices[0] for name, option in self.options.items()}
        seen: set[str] = set()
        for name, value in given:
            if name not in self.options:
                raise UnknownNameError(f"option of {self.name}", name, self.options)
            option = self.options[name]
            counts = option.number and value.isdecimal() and int(value) > 0
            if name in seen or not (value in option.choices or counts):
                kinds = [*option.choices, *(["a positive integer"] if option.number else [])]
                problem = "is given twice" if name in seen else f"is {value!r}"
                raise ConfigError(f"{self.name}: option {name} {problem}; expected one of {', '.join(kinds)}.")
            seen.add(name)
            values[name] = value
        return values


@dataclass(frozen=True)
class Row:
    """One image.

    Attributes:
        path: Relative to the folder of the set, with "/".
        label: Its class, or the cells of its label columns.
        patient: Who it is of, or None.
        split: "train", "val", "test"; "" where folds are to be drawn.
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

    Raises:
        DataError: There are no images, none is on disk, or rows of one image contradict each other.
    """
    unique = list(dict.fromkeys(rows))
    _check_rows(unique, root)
    if not settings.outside_root:
        _check_inside(unique, root)
    files = [root / row.path for row in unique]
    files = [file if file.is_file() or is_dangling(file) else None for file in files]
    if not any(files):
        raise DataError(f"None of the {len(files)} images is on disk; expected, for example, {root / unique[0].path}.")
    if labels:
        cells = [row.label for row in unique]
        targets, classes = multilabel_targets(
            labels, cells, settings, error=lambda i, what: DataError(f"{unique[i].path}, {what}")
        )
    else:
        targets, classes = one_hot([row.label for row in unique])
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
        notes=(*notes, *_notes(unique, files, repeated=len(rows) - len(unique))),
    )


def _check_rows(rows: Sequence[Row], root: Path) -> None:
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


def _check_inside(rows: Sequence[Row], root: Path) -> None:
    top = os.path.join(os.path.normpath(root), "")  # noqa: PTH118
    out = [row.path for row in rows if not os.path.normpath(root / row.path).startswith(top)]
    if out:
        raise DataError(
            f"{len(out)} paths in the tables of {root} lead out of it, such as {out[0]!r}. Correct them, or allow it "
            "with --outside-root."
        )


def _notes(rows: Sequence[Row], files: Sequence[Path | None], *, repeated: int) -> list[str]:
    notes = [f"{repeated} repeated rows of one image counted once"] if repeated else []
    missing = [row.path for row, file in zip(rows, files, strict=True) if file is None]
    if missing:
        notes.append(f"{len(missing)} of {len(rows)} images are not on disk, such as {missing[0]!r}")
    return notes


def read_columns(file: Path, *names: str, labels: Sequence[str] = ()) -> list[tuple[str, ...]]:
    """The cells of the columns called `names`, then of those of `labels`, without spaces around them, a tuple per row.

    Raises:
        DataError: The file cannot be read, or a column is not there.
    """
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
    files = walk_files(folder, outside=True)  # `check_folder` has looked
    images = [file for file in files if is_image_name(file.rpartition("/")[2])]
    return images, len(files) - len(images)


def class_folders(data: PublicSet, root: Path, classes: Sequence[str]) -> None:
    """Check that the folders in `root` are the classes of the set; files and hidden folders do not count.

    Raises:
        DataError: One is missing, or there is another.
    """
    found = {entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith((".", "__"))}
    for problem, names in (("has no", set(classes) - found), ("holds, besides the classes,", found - set(classes))):
        if names:
            raise data.error(root, f"{problem} {', '.join(sorted(names))}")


def ignored_note(others: int) -> list[str]:
    """A note on the files that are not images, if there are any."""
    return [f"files that are not images, ignored: {others}"] if others else []
