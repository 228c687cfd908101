"""What a dataset gives: one row per image, its labels, its patient, and splits if it brings them."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from radtransfer.datasets.patient_keys import patient_keys
from radtransfer.image_place import ImagePlace
from radtransfer.progress import Progress

NOTE_KINDS = {
    "split ignored": ("split_ignored", "warning"),
    "missing patients": ("missing_patients", "warning"),
    "missing labels": ("missing_labels", "note"),
    "not assigned": ("not_assigned", "note"),
    "joined labels": ("joined_labels", "warning"),
    "one-hot columns": ("one_hot_columns", "note"),
    "label column": ("label_column", "note"),
}
"""Kind and severity of notes on a table, by the words before their colon."""


def note_kind(note: str) -> tuple[str, str]:
    """The kind of a note on a table, and whether it is a "warning" or a "note"."""
    return NOTE_KINDS.get(note.partition(":")[0], ("table", "note"))


def tell_notes(notes: Iterable[str], progress: Progress) -> None:
    """Tell `progress` each of the notes on a table, as a warning or as a note."""
    for note in notes:
        (progress.warning if note_kind(note)[1] == "warning" else progress.note)(note)


@dataclass(frozen=True)
class ImageTable:
    """Every image of a data set.

    Attributes:
        paths: As the source writes them; the identity of an image in every output.
        files: Where each image is on disk, its own file or a part of one, or None where it was not found.
        targets: float32 (images, classes), 0 or 1; one label per image is one-hot. NaN: not known,
            takes no part in loss or metrics (only with several labels).
        classes: Class or label names, sorted (integers by value).
        task: "multiclass" (one label per image, also with two classes) or "multilabel".
        patients: Patient id of each image, as it is written; None where the source has none.
        patients_from: Where these stand, for messages: "column 'pid'".
        alike_patients: Whether ids that differ in spelling only are different people (`data.allow_alike_patients`).
        splits: (folds, images) of "train", "val", "test" or "" (not used in that fold), where the
            source brings its own; None where they are to be drawn.
        positive_from: The lowest of the grades that counts as positive where the user names none; None where the
            set has no such grade.
        notes: What was ignored, guessed or counted, one sentence each, shown to the user.
    """

    paths: tuple[str, ...]
    files: tuple[ImagePlace | None, ...]
    targets: np.ndarray
    classes: tuple[str, ...]
    task: str
    patients: tuple[str, ...] | None = None
    patients_from: str = "the data set"
    alike_patients: bool = False
    splits: np.ndarray | None = None
    positive_from: int | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def groups(self) -> tuple[str, ...]:
        """What must not be split: the patient, or the image itself where patients are unknown."""
        return self.patients if self.patients is not None else self.paths

    @cached_property
    def patient_keys(self) -> tuple[str, ...] | None:
        """By which patients are compared: equal where they are one person, whatever the spelling."""
        if self.patients is None or self.alike_patients:
            return self.patients
        return patient_keys(self.patients, self.paths)

    @property
    def labels(self) -> tuple[str, ...]:
        """The label of each image as text; several labels are joined by ";"."""
        return tuple(
            ";".join(name for name, value in zip(self.classes, row, strict=True) if value == 1) for row in self.targets
        )

    def select(self, keep: np.ndarray) -> "ImageTable":
        """The rows where `keep`, a boolean array or indices, says so."""
        index = np.arange(len(self))[keep]
        return replace(
            self,
            paths=tuple(self.paths[i] for i in index),
            files=tuple(self.files[i] for i in index),
            targets=self.targets[index],
            patients=None if self.patients is None else tuple(self.patients[i] for i in index),
            splits=None if self.splits is None else self.splits[:, index],
        )
