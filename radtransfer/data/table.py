"""What a dataset gives: one row per image, its labels, its patient, and splits if it brings them."""

import contextlib
import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np

from radtransfer.config.schema import DataSettings
from radtransfer.data.image_files import image_identity, is_dangling, is_dicom_file
from radtransfer.data.labels import is_missing, missing_words
from radtransfer.errors import BadImageError, ConfigError, DataError
from radtransfer.images.dicom import DicomHeader, read_header
from radtransfer.images.files import MOST_FRAMES
from radtransfer.images.formats import count_frames
from radtransfer.images.refs import FilePart, ImageRef, as_part, file_of
from radtransfer.process import Progress, all_in_parallel

_DASHES = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"), "-")
_WHOLE_FLOAT = re.compile(r"([^.,]*\d)(?:\.0*|,0{1,2})")
_LEADING_ZEROS = re.compile(r"(?<!\d)0+(?=\d)")

_ROUNDED = re.compile(r"[+-]?[1-9](?:[.,]\d+e\+?|e\+)\d{2,3}")
"""How a spreadsheet writes a number that is too long for its cell: 1.23457E+11. Ids such as 12E5 are none."""

_DIGITS = 15  # of a longer number a spreadsheet keeps so many digits and writes zeros for the others
_CERTAIN = 6  # such zeros in one column from which on they are no chance: one in a million


def patient_key(patient: str) -> str:
    """What all spellings of a patient id share, for comparison only: outputs have the id as it is written.

    No difference is made by case, Unicode forms (NFKC), invisible characters, kinds of dashes, quotes and spaces
    around the id, several spaces for one, leading zeros of any number in it, and ".0" behind a number.
    """
    text = _cleaned(patient)
    whole = _WHOLE_FLOAT.fullmatch(text)
    return _LEADING_ZEROS.sub("", whole[1] if whole else text)


def patient_keys(patients: Sequence[str], paths: Sequence[str]) -> tuple[str, ...]:
    """By what each patient is compared; an image or file that is a patient of its own, as it is written."""
    own = {*paths, *(path.rpartition("#")[0] for path in paths)}
    keys = {patient: patient if patient in own else patient_key(patient) for patient in set(patients)}
    return tuple(keys[patient] for patient in patients)


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


def show_notes(notes: Iterable[str], progress: Progress) -> None:
    """Tell `progress` each of the notes on a table, as a warning or as a note."""
    for note in notes:
        (progress.warning if note_kind(note)[1] == "warning" else progress.note)(note)


@dataclass(frozen=True)
class ImageTable:
    """Every image of a data set."""

    paths: tuple[str, ...]  # as the source writes them; the identity of an image in every output
    files: tuple[ImageRef | None, ...]  # where each is on disk, a file or a part of one; None: it was not found
    targets: np.ndarray  # float32 (images, classes), 0 or 1, one label as one-hot; NaN: not known (several labels only)
    classes: tuple[str, ...]  # class or label names, sorted (integers by value)
    task: str  # "multiclass" (one label per image, also with two classes) or "multilabel"
    patients: tuple[str, ...] | None = None  # id of each image, as it is written; None where the source has none
    patients_from: str = "the data set"  # where these stand, for messages: "column 'pid'"
    exact_patient_ids: bool = False  # whether ids that differ in spelling only are different people
    splits: np.ndarray | None = None  # (folds, images) of "train", "val", "test" or "" (not used); None: to be drawn
    positive_from: int | None = None  # the lowest of the grades that counts as positive where the user names none
    notes: tuple[str, ...] = ()  # what was ignored, guessed or counted, one sentence each, shown to the user

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def groups(self) -> tuple[str, ...]:
        """What must not be split: the patient, or the image itself where patients are unknown."""
        return self.patients if self.patients is not None else self.paths

    @cached_property
    def patient_keys(self) -> tuple[str, ...] | None:
        """By which patients are compared: equal where they are one person, whatever the spelling."""
        if self.patients is None or self.exact_patient_ids:
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


NO_PATIENTS = (
    "no patient column; images of one patient may fall in both train and test. "
    r"Give --patient-column or --patient-regex '^(\d+)_'."
)

_SHOWN = 3  # patients named in one message


class PatientIdsError(DataError):
    """Patient ids by which people would be taken for others: "patients_alike" or "patients_rounded", and the images."""

    def __init__(self, message: str, kind: str, paths: Sequence[str]):
        self.kind, self.paths = kind, tuple(paths)
        super().__init__(message)


def patient_id_errors(table: ImageTable) -> Iterator[PatientIdsError]:
    """Errors if a spreadsheet has cut digits off the patient ids, or a patient has several spellings."""
    if table.patients is None:
        return
    first = dict(zip(reversed(table.patients), reversed(table.paths), strict=True))
    lost = {patient for patient in first if _ROUNDED.fullmatch(_cleaned(patient))}
    advice = "Export the ids again as text, from where they are whole."
    if not lost and not table.exact_patient_ids:
        long = {patient for patient in first if patient.isdecimal() and len(patient.lstrip("0")) > _DIGITS}
        rest = "".join(patient.lstrip("0")[_DIGITS:] for patient in long)
        lost = long if len(rest) >= _CERTAIN and not rest.strip("0") else set()
        advice += " If these ids do end in zeros, pass --allow-alike-patients."
    if lost:
        message = (
            f"Patient ids in {table.patients_from} were rounded by a spreadsheet, such as "
            f"{_with_images([sorted(lost)], first)}: their last digits are lost, so that several people have one id. "
        )
        paths = [path for path, patient in zip(table.paths, table.patients, strict=True) if patient in lost]
        yield PatientIdsError(message + advice, "patients_rounded", paths)
    spellings: dict[str, list[str]] = {}
    for patient, key in sorted(set(zip(table.patients, table.patient_keys, strict=True))):
        spellings.setdefault(key, []).append(patient)
    if several := [names for names in spellings.values() if len(names) > 1]:
        alike = {name for names in several for name in names}
        paths = [path for path, patient in zip(table.paths, table.patients, strict=True) if patient in alike]
        count = "1 patient has" if len(several) == 1 else f"{len(several)} patients have"
        message = f"{count} several spellings in {table.patients_from}, such as {_with_images(several, first)}."
        yield PatientIdsError(f"{message} {ALIKE_ADVICE}", "patients_alike", paths)


ALIKE_ADVICE = (
    "Write each patient in one way, or pass --allow-alike-patients if these are different people, who are then kept "
    "apart as they are written."
)


def _with_images(groups: Sequence[Sequence[str]], first: Mapping[str, str]) -> str:
    """Ids with an image of each, for a message."""
    told = (" and ".join(f"{name!r} ({first[name]})" for name in names[:_SHOWN]) for names in groups[:_SHOWN])
    return "; ".join(told)


_OWN = re.compile(r"own-[0-9a-f]{16}")  # a name that no patient has, the same whenever the image is read


def with_patients(table: ImageTable, settings: DataSettings) -> ImageTable:
    """`table` with patients from `--patient-regex` where it has none, or with a note that it has none.

    An image whose patient is missing is its own patient.
    """
    if table.patients is None and settings.patient_regex is None:
        return replace(table, notes=(*table.notes, NO_PATIENTS))
    if table.patients is None:
        patients, what = patients_by_regex(table.paths, settings.patient_regex)
        note = f"{len(set(patients))} patients by --patient-regex {settings.patient_regex!r} in the {what}"
        origin = f"the {what} by --patient-regex {settings.patient_regex!r}"
        table = replace(table, patients=patients, patients_from=origin, notes=(*table.notes, note))
    refused = settings.missing_patients == "error"
    missing = {
        row: patient
        for row, patient in enumerate(table.patients)
        if is_missing(patient) or (refused and is_own_patient(patient))
    }
    if not missing:
        return table
    found = f"{len(missing)} of {len(table)} images have none ({missing_words(missing.values())})"
    if refused:
        raise DataError(
            f"Expected a patient for every image; {found}, such as {table.paths[next(iter(missing))]!r}. Fill them in, "
            "or let each of these images be its own patient with --missing-patients own."
        )
    if len(missing) == len(table):
        return replace(table, patients=None, notes=(*table.notes, f"missing patients: {found}", NO_PATIENTS))
    # A file has one patient: of the row that knows it, else its own, also where it has two names or several frames.
    identities = [image_identity(path, place) for path, place in zip(table.paths, table.files, strict=True)]
    known, first = {}, {}
    for row, (identity, path) in enumerate(zip(identities, table.paths, strict=True)):
        if row not in missing:
            known.setdefault(identity, table.patients[row])
        first[identity] = min(path, first.get(identity, path))
    own = {
        identity: hashlib.sha256(path.encode(errors="surrogatepass")).hexdigest() for identity, path in first.items()
    }
    whose = [
        table.patients[row] if row not in missing else known.get(identity) or f"own-{own[identity][:16]}"
        for row, identity in enumerate(identities)
    ]
    note = f"missing patients: {found}, and each of these counts as its own patient (--missing-patients own)"
    return replace(table, patients=tuple(whose), notes=(*table.notes, note))


def is_own_patient(patient: str) -> bool:
    """Whether this is the name of an image whose patient is missing, and no person's."""
    return _OWN.fullmatch(patient) is not None


def patients_by_regex(paths: Sequence[str], regex: str) -> tuple[tuple[str, ...], str]:
    """The first group of `regex` in each "path", or in each "file name" if it does not match every path; and which."""
    try:
        pattern = re.compile(regex)
    except re.error as error:
        raise ConfigError(f"--patient-regex {regex!r} is not a regular expression: {error}.") from None
    if not pattern.groups:
        raise ConfigError(f"--patient-regex {regex!r} has no group: put the patient id in parentheses.")
    names = [PurePosixPath(path.replace("\\", "/")).name for path in paths]
    fits_some = False
    for texts, what in ((paths, "path"), (names, "file name")):
        matches = [pattern.search(text) for text in texts]
        fits_some |= any(matches)
        if all(match and match[1] for match in matches):
            return tuple(match[1] for match in matches), what
    unmatched = [path for path, match in zip(paths, matches, strict=True) if not (match and match[1])]
    raise DataError(
        f"--patient-regex {regex!r} gives no patient for {len(unmatched)} of {len(paths)} images, such as "
        f"{unmatched[0]!r}. Change it so that its first group matches in every path or in every file name.",
        settings=() if fits_some else ("patient_regex",),
    )


_READERS = 4  # headers read at the same time: most of the wait is for the disk or the network


def with_header_patients(table: ImageTable, settings: DataSettings) -> ImageTable:
    """`table` with the patients that the headers of its DICOM files name, where it and the settings name none.

    They are used if every image has one: to guess the others would part images of one patient. Files that cannot be
    read are reported when the images are checked.
    """
    if table.patients is not None or settings.patient_regex is not None:
        return table
    there = [place for place in table.files if place is not None and not is_dangling(file_of(place))]
    found = sum(as_part(place).length is None and is_dicom_file(file_of(place)) for place in there)
    if not found:
        return table
    if others := len(there) - found:
        are, files = ("image is", "images are")[others > 1], ("file", "files")[found > 1]
        note = f"patient ids of {found} DICOM {files} not used: {others} {are} of other formats and have none"
        return replace(table, notes=(*table.notes, note))

    def header_of(place: ImageRef | None) -> DicomHeader | None:
        with contextlib.suppress(BadImageError):
            return None if place is None else read_header(file_of(place))

    headers = all_in_parallel(header_of, table.files, workers=_READERS)
    ids = ["" if is_missing(header.patient_id or "") else header.patient_id for header in headers if header is not None]
    named = set(ids) - {""}
    if not named:
        return table
    unused = "patient ids in DICOM headers not used:"
    if "" in ids:
        return replace(table, notes=(*table.notes, f"{unused} {ids.count('')} of {len(ids)} headers have none"))
    if len(named) == 1 and len(ids) > 1:
        return replace(table, notes=(*table.notes, f"{unused} all {len(ids)} headers have the same, {ids[0]!r}"))
    # A file that cannot be read is its own patient.
    found = zip(table.paths, headers, strict=True)
    return replace(
        table,
        patients=tuple(path if header is None else header.patient_id for path, header in found),
        patients_from="the DICOM headers",
        notes=(*table.notes, f"{len(named)} patients by the headers of {len(ids)} DICOM files"),
    )


_SEVERAL = frozenset([".tif", ".tiff", ".gif"])  # names of files that hold several images at times, DICOM apart


def with_frames(table: ImageTable, settings: DataSettings) -> ImageTable:
    """`table` with a row per frame, if the settings ask for it: frame 3 of `x.dcm` is called `x.dcm#3`, from 1.

    It has the label, the splits and the patient of its file; where there are no patients, the file is the patient.
    """
    if settings.frames == "first":
        return table
    counts = np.array(all_in_parallel(_count_frames, table.files, workers=_READERS), int)
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


def _count_frames(file: ImageRef | None) -> int:
    """Frames of a file; 1 for one that is not there, which is found later, and 0 for one that is damaged."""
    if not isinstance(file, Path) or not (file.suffix.lower() in _SEVERAL or is_dicom_file(file)):
        return 1
    try:
        return count_frames(file)
    except BadImageError:
        return 0
