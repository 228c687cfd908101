"""How many images and patients of each class there are, as a whole and in each split of each fold."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from radtransfer.datasets.image_table import ImageTable
from radtransfer.examination.image_survey import ImageRecord
from radtransfer.splits.folds import Fold

SPLITS = ("train", "val", "test")


def class_counts(table: ImageTable) -> dict[str, dict[str, int | None]]:
    """Class or label to its `images` and `patients`; None where patients are not known."""
    return {
        name: {key: value for key, value in _counts(table, np.flatnonzero(column == 1)).items() if key != "classes"}
        for name, column in zip(table.classes, table.targets.T, strict=True)
    }


def split_counts(table: ImageTable, folds: Sequence[Fold]) -> list[dict[str, Any]]:
    """For each fold its number, and for each split `images`, `patients` (None: not known) and `classes` (images)."""
    return [
        {"fold": fold.number} | {name: _counts(table, np.flatnonzero(fold.split == name)) for name in SPLITS}
        for fold in folds
    ]


def size_figures(records: Sequence[ImageRecord]) -> dict[str, Any]:
    """`height` and `width` with their `min`, `median` and `max`, pixels, upright, and how many sizes are `distinct`."""
    facts = [record.facts for record in records if record.facts is not None]
    if not facts:
        return {}
    sides = np.array([(f.width, f.height) if f.orientation > 4 else (f.height, f.width) for f in facts])
    figures = {
        name: {"min": int(values.min()), "median": float(np.median(values)), "max": int(values.max())}
        for name, values in zip(("height", "width"), sides.T, strict=True)
    }
    return figures | {"distinct": len(np.unique(sides, axis=0))}


def mode_counts(records: Sequence[ImageRecord]) -> dict[str, int]:
    """How many images are stored in which mode, the commonest first."""
    counts = Counter(record.mode for record in records if not record.problem)
    return dict(counts.most_common())


def _counts(table: ImageTable, rows: np.ndarray) -> dict[str, Any]:
    patients = None if table.patients is None else len({table.patient_keys[row] for row in rows})
    classes = (table.targets[rows] == 1).sum(axis=0).tolist()
    return {"images": len(rows), "patients": patients, "classes": dict(zip(table.classes, classes, strict=True))}
