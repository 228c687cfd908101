"""Numbers of images: one_class (error or warning), few_patients, uneven_folds (warnings), imbalance (note)."""

import re
from collections.abc import Iterator

import numpy as np

from radtransfer.checks.evidence import Evidence, Finding, counted, shortened

FEW = 5
"""Patients of a class in a test set below which its AUC hangs on single ones."""

RATIO = 10
"""Images of the largest class to those of the smallest from which on a note is due."""

UNEVEN = 1.5
"""Images of the largest training set to those of the smallest above which folds are no repeats of one experiment."""


def check(evidence: Evidence) -> Iterator[Finding]:
    """Findings about the whole, then about validation and test sets."""
    table = evidence.table
    known = [column[~np.isnan(column)] for column in table.targets.T]
    varied = [bool(len(values)) and values.min() < values.max() for values in known]
    if not any(varied):
        yield Finding("one_class", "error", f"all images are alike in their labels: {shortened(table.classes)}")
        return
    yield from _imbalance(evidence)
    yield from _uneven_folds(evidence)
    questions = _questions(evidence)
    for fold in evidence.folds:
        for name in ("val", "test"):
            targets = np.stack(list(questions.values()), axis=1)[fold.split == name]
            if not ((targets == 1).any(axis=0) & (targets == 0).any(axis=0)).any():
                message = f"{name} of fold {fold.number} has images of one class only, or none: its AUC is undefined"
                yield Finding("one_class", "warning", message)
    yield from _few_patients(evidence)


def _questions(evidence: Evidence) -> dict[str, np.ndarray]:
    """What AUCs are computed of, and where it is 1, 0 or not known: the classes, or grades on two sides of a limit."""
    table, limit = evidence.table, evidence.positive_from
    if limit is None or table.task == "multilabel" or not all(re.fullmatch(r"[+-]?\d+", n) for n in table.classes):
        return dict(zip(table.classes, table.targets.T, strict=True))
    reached = table.targets[:, [int(name) >= limit for name in table.classes]].any(axis=1)
    return {f"grade {limit} or worse": reached * 1.0, f"a grade below {limit}": ~reached * 1.0}


def _uneven_folds(evidence: Evidence) -> Iterator[Finding]:
    sizes = {fold.number: int((fold.split == "train").sum()) for fold in evidence.folds}
    if sizes and max(sizes.values()) > UNEVEN * min(sizes.values()):
        most, least = max(sizes, key=sizes.get), min(sizes, key=sizes.get)
        message = (
            f"fold {most} trains on {counted(sizes[most], 'image')}, fold {least} on {sizes[least]}: the folds are not "
            "repeats of one experiment, and their mean and standard deviation mislead; even them out"
        )
        yield Finding("uneven_folds", "warning", message)


def _imbalance(evidence: Evidence) -> Iterator[Finding]:
    table = evidence.table
    counts = (table.targets == 1).sum(axis=0)
    if table.task != "multilabel" and counts.max() >= RATIO * counts.min():
        most, least = table.classes[counts.argmax()], table.classes[counts.argmin()]
        yield Finding(
            "imbalance",
            "note",
            f"{counts.max()} images of {most} and {counts.min()} of {least}; consider --class-weights balanced",
        )


def _few_patients(evidence: Evidence) -> Iterator[Finding]:
    """A finding for each class of which a test set has few: the fold with fewest, and how many."""
    table = evidence.table
    what = "image" if table.patients is None else "patient"
    groups = np.unique(np.array(table.patient_keys or table.paths, dtype=object), return_inverse=True)[1]
    for name, column in _questions(evidence).items():
        held = {fold.number: len(np.unique(groups[(fold.split == "test") & (column == 1)])) for fold in evidence.folds}
        if held and min(held.values()) < FEW:
            fold = min(held, key=held.get)
            message = f"the test set of fold {fold} has {counted(held[fold], what)} of {name}: its AUC rests on them"
            yield Finding("few_patients", "warning", message)
