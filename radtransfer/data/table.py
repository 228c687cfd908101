"""What a dataset gives: one row per image, its labels, its patient, and splits if it brings them.

Whether two patient ids are one person's, whatever their spelling, and whether a spreadsheet has spoilt them.
"""

import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from radtransfer.images.refs import ImagePlace
from radtransfer.process import Progress

_DASHES = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"), "-")
_WHOLE_FLOAT = re.compile(r"([^.,]*\d)(?:\.0*|,0{1,2})")
_LEADING_ZEROS = re.compile(r"(?<!\d)0+(?=\d)")

_ROUNDED = re.compile(r"[+-]?[1-9](?:[.,]\d+e\+?|e\+)\d{2,3}")
"""How a spreadsheet writes a number that is too long for its cell: 1.23457E+11. Ids such as 12E5 are none."""

_DIGITS = 15
"""Of a longer number a spreadsheet keeps so many digits and writes zeros for the others."""

_CERTAIN = 6
"""Such zeros in one column from which on they are no chance: one in a million."""


def patient_key(patient: str) -> str:
    """What all spellings of a patient id share. It is for comparison only: outputs have the id as it is written.

    No difference is made by case, Unicode forms (NFKC), invisible characters, kinds of dashes, quotes and spaces
    around the id, several spaces for one, leading zeros of any number in it, and ".0" behind a number.
    """
    text = _cleaned(patient)
    whole = _WHOLE_FLOAT.fullmatch(text)
    return _LEADING_ZEROS.sub("", whole[1] if whole else text)


def patient_keys(patients: Sequence[str], paths: Sequence[str]) -> tuple[str, ...]:
    """The key of each patient; an image or file that is a patient of its own is compared as it is written."""
    own = {*paths, *(path.rpartition("#")[0] for path in paths)}
    keys = {patient: patient if patient in own else patient_key(patient) for patient in set(patients)}
    return tuple(keys[patient] for patient in patients)


def rounded_ids(patients: Collection[str]) -> set[str]:
    """The ids that a spreadsheet has written as rounded numbers."""
    return {patient for patient in patients if _ROUNDED.fullmatch(_cleaned(patient))}


def cut_off_ids(patients: Collection[str]) -> set[str]:
    """The ids of more digits than a spreadsheet keeps, if what it does not keep is zeros in all of them."""
    long = {patient for patient in patients if patient.isdecimal() and len(patient.lstrip("0")) > _DIGITS}
    rest = "".join(patient.lstrip("0")[_DIGITS:] for patient in long)
    return long if len(rest) >= _CERTAIN and not rest.strip("0") else set()


def _cleaned(patient: str) -> str:
    """The id in one form of Unicode and case, without what is invisible or stands around it."""
    text = patient
    if not text.isascii():
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).translate(_DASHES)
        seen = (character for character in text if unicodedata.category(character) != "Cf")
        text = "".join(str(unicodedata.decimal(character, character)) for character in seen)
    text = " ".join(text.casefold().split())
    return text.strip("'\"= ") or text


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
