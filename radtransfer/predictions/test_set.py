"""The labelled images that a model is evaluated on: any data set, its classes matched with the model's by name."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from radtransfer.datasets import read_table
from radtransfer.datasets.image_table import ImageTable
from radtransfer.errors import ConfigError, DataError, closest_names
from radtransfer.metrics.scoring import Scoring
from radtransfer.progress import Progress
from radtransfer.settings import DataSettings

SPLITS = ("all", "train", "val", "test")


def read_test_set(
    data: DataSettings,
    scoring: Scoring,
    *,
    model: str,
    split: Literal["all", "train", "val", "test"] = "all",
    class_map: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> ImageTable:
    """The images of a data set, their targets in the order of the model's classes.

    Args:
        data: Where they come from.
        scoring: Of the model.
        model: What the user calls it.
        split: Of a data set that brings splits, the images that have this one in any fold.
        class_map: Class of the data to the class of the model that it counts as; "" leaves its images out.
        progress: Hears of images that are copied here first.

    Raises:
        ConfigError: A split or class that is not there.
        DataError: Nothing usable is there, or its classes are not those of the model.
    """
    # It is a class of the model, which may be called otherwise here, or not be there at all.
    table = _of_split(read_table(replace(data, positive_class=None), progress=progress), split)
    table = matched(table, scoring, model=model, class_map=class_map or {})
    if not len(table):
        raise DataError("No image is left to evaluate.")
    return table


def matched(table: ImageTable, scoring: Scoring, *, model: str, class_map: Mapping[str, str]) -> ImageTable:
    """`table` with the model's classes; arguments and errors as of `read_test_set`."""
    if table.task != scoring.task:
        kind = {"multilabel": "several labels per image", "multiclass": "one class per image"}
        cells = " Several labels in one cell need --label-separator." if scoring.task == "multilabel" else ""
        raise DataError(
            f"{model} gives {kind[scoring.task]} ({', '.join(scoring.classes)}), the data has {kind[table.task]} "
            f"({', '.join(table.classes)}). Choose the columns with --label-column, and the task with --task.{cells}"
        )
    _check_map(table, scoring, class_map)
    becomes = {name: class_map.get(name, name) for name in table.classes}
    extra = [name for name, other in becomes.items() if other and other not in scoring.classes]
    counts = dict(zip(table.classes, np.nansum(table.targets == 1, axis=0).astype(int), strict=True))
    extra = [name for name in extra if counts[name] or table.task == "multilabel"]
    missing = [name for name in scoring.classes if name not in becomes.values()]
    if len(missing) == len(scoring.classes) or (extra and table.task == "multiclass"):
        raise DataError(_mismatch(model, scoring, counts, extra, missing))
    notes = [f"labels of the data that {model} does not know, left out: {', '.join(extra)}"] if extra else []
    if missing:
        kind = "label" if table.task == "multilabel" else "class"
        notes.append(f"the data has no {kind} {', '.join(missing)}; what depends on it is undefined")
    return _renamed(table, scoring, becomes, notes)


def _renamed(table: ImageTable, scoring: Scoring, becomes: Mapping[str, str], notes: Sequence[str]) -> ImageTable:
    unknown = np.nan if table.task == "multilabel" else 0.0
    targets = np.full((len(table), len(scoring.classes)), unknown, "float32")
    for column, name in enumerate(scoring.classes):
        sources = [place for place, source in enumerate(table.classes) if becomes[source] == name]
        if sources:
            targets[:, column] = table.targets[:, sources].max(axis=1)
    out = replace(table, targets=targets, classes=scoring.classes, splits=None, notes=(*table.notes, *notes))
    if table.task == "multilabel":
        return out
    left_out = [place for place, source in enumerate(table.classes) if not becomes[source]]
    return out.select(table.targets[:, left_out].sum(axis=1) == 0) if left_out else out


def _of_split(table: ImageTable, split: str) -> ImageTable:
    """The rows of a split, each path once."""
    if table.splits is None and split != "all":
        raise ConfigError(f"--split {split}: the data brings no splits. Leave it out to evaluate all images.")
    keep = np.ones(len(table), bool) if split == "all" else (table.splits == split).any(axis=0)
    if not keep.any():
        raise ConfigError(f"--split {split}: no image has it. The data has {', '.join(np.unique(table.splits))}.")
    first = {path: row for row, path in reversed(list(enumerate(table.paths)))}
    rows = [row for row in sorted(first.values()) if keep[row]]
    if table.splits is None or split != "all":
        return table.select(np.array(rows))
    note = "the data brings splits; all its images are evaluated (--split test takes those alone)"
    return replace(table.select(np.array(rows)), notes=(*table.notes, note))


def _check_map(table: ImageTable, scoring: Scoring, class_map: Mapping[str, str]) -> None:
    for name, other in class_map.items():
        if name not in table.classes:
            raise ConfigError(
                f"--class-map {name}={other}: the data has no class {name!r}. Known: {', '.join(table.classes)}."
            )
        if other and other not in scoring.classes:
            raise ConfigError(
                f"--class-map {name}={other}: the model has no class {other!r}. {closest_names(other, scoring.classes)}"
            )


def _mismatch(
    model: str, scoring: Scoring, counts: Mapping[str, int], extra: Sequence[str], missing: Sequence[str]
) -> str:
    listed = ", ".join(f"{name} ({counts[name]} images)" for name in extra)
    lacks = f" The data lacks {', '.join(missing)}." if missing else " The data has all of them."
    option = " ".join(f"--class-map {_quoted(name)}={_like(name, scoring.classes)}" for name in extra[:4])
    more = " …" if len(extra) > 4 else ""
    two_left = len(scoring.classes) - len(missing) > 1
    leave = ", or leave their images out with --class-map NAME=" if two_left else ""
    return (
        f"The classes of the data are not those of {model}. It knows {', '.join(scoring.classes)}.{lacks} Unknown to "
        f"it: {listed}. Say what they count as, as in {option}{more}{leave}"
    )


def _like(name: str, classes: Sequence[str]) -> str:
    """The class that is spelt like `name`; where there is none it is not for us to guess."""
    squeezed = name.lower().replace("_", " ").strip()
    alike = [item for item in classes if item.lower().replace("_", " ").strip() == squeezed]
    return _quoted(alike[0]) if alike else "CLASS"


def _quoted(name: str) -> str:
    return f'"{name}"' if " " in name else name
