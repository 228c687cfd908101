"""`ImageTable`: one row per image with labels, patient and given splits; patients and frames from files."""

import contextlib
import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
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
"""A long number as spreadsheets show it: 1.23457E+11. Ids such as 12E5 do not match."""

_DIGITS = 15  # spreadsheets keep this many digits of a longer number and replace the others by zeros
_CERTAIN = 6  # this many such zeros in one column are not chance: one in a million


def patient_key(patient: str) -> str:
    """A key that is equal for all spellings of a patient id.

    It ignores case, Unicode forms (NFKC), invisible characters, kinds of dashes, surrounding quotes and spaces,
    repeated spaces, leading zeros of numbers, and ".0" after a number. Outputs keep the original id.
    """
    text = _normalized(patient)
    whole = _WHOLE_FLOAT.fullmatch(text)
    return _LEADING_ZEROS.sub("", whole[1] if whole else text)


def patient_keys(patients: Sequence[str], paths: Sequence[str]) -> tuple[str, ...]:
    """The key of each patient; an image or file that is its own patient keeps its path."""
    own = {*paths, *(path.rpartition("#")[0] for path in paths)}
    keys = {patient: patient if patient in own else patient_key(patient) for patient in set(patients)}
    return tuple(keys[patient] for patient in patients)


def _normalized(patient: str) -> str:
    """The id in NFKC and lower case, without invisible characters and surrounding quotes and spaces."""
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
"""Kind and severity of a note by its words before the colon."""


def note_kind(note: str) -> tuple[str, str]:
    """Kind and severity ("warning" or "note") of a note on a table."""
    return NOTE_KINDS.get(note.partition(":")[0], ("table", "note"))


def show_notes(notes: Iterable[str], progress: Progress) -> None:
    """Pass the notes on a table to `progress`, as warnings or notes."""
    for note in notes:
        (progress.warning if note_kind(note)[1] == "warning" else progress.note)(note)


@dataclass(frozen=True)
class ImageTable:
    """Every image of a data set."""

    paths: tuple[str, ...]  # as in the source; they identify the images in every output
    files: tuple[ImageRef | None, ...]  # file or part of a file; None: not found
    targets: np.ndarray  # float32 (images, classes), 0 or 1, NaN: unknown (multi-label only)
    classes: tuple[str, ...]  # class or label names, sorted (integers by value)
    task: str  # "multiclass" (one label per image, also with two classes) or "multilabel"
    patients: tuple[str, ...] | None = None  # id of each image; None: unknown
    patients_from: str = "the data set"  # source of the ids, for messages: "column 'pid'"
    exact_patient_ids: bool = False  # whether ids that differ in spelling only are different people
    splits: np.ndarray | None = None  # (folds, images) of "train", "val", "test" or "" (not used); None: draw them
    positive_from: int | None = None  # default for `--positive-from`
    notes: tuple[str, ...] = ()  # sentences for the user on what was ignored, guessed or counted

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def groups(self) -> tuple[str, ...]:
        """The patient of each image, or the image itself if patients are unknown."""
        return self.patients if self.patients is not None else self.paths

    @cached_property
    def patient_keys(self) -> tuple[str, ...] | None:
        """Keys of the patients: equal for one person, whatever the spelling."""
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
        """The rows in `keep`, a boolean array or indices."""
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
    "no patient column; images of one patient may be in both train and test. "
    r"Give --patient-column or --patient-regex '^(\d+)_'."
)


class PatientIdsError(DataError):
    """Ambiguous patient ids; `kind` is "patients_alike" or "patients_rounded", `paths` are the images."""

    def __init__(self, message: str, kind: str, paths: Sequence[str]):
        self.kind, self.paths = kind, tuple(paths)
        super().__init__(message)


def patient_id_errors(table: ImageTable) -> Iterator[PatientIdsError]:
    """Errors if a spreadsheet has rounded patient ids, or a patient has several spellings."""
    if table.patients is None:
        return

    def examples(groups: Sequence[Sequence[str]]) -> str:
        return "; ".join(" and ".join(f"{name!r} ({first[name]})" for name in names[:3]) for names in groups[:3])

    first = dict(zip(reversed(table.patients), reversed(table.paths), strict=True))
    lost = {patient for patient in first if _ROUNDED.fullmatch(_normalized(patient))}
    advice = "Export the ids again as text from the original source."
    if not lost and not table.exact_patient_ids:
        long = {patient for patient in first if patient.isdecimal() and len(patient.lstrip("0")) > _DIGITS}
        rest = "".join(patient.lstrip("0")[_DIGITS:] for patient in long)
        lost = long if len(rest) >= _CERTAIN and not rest.strip("0") else set()
        advice += " If these ids really end in zeros, pass --allow-alike-patients."
    if lost:
        message = (
            f"Patient ids in {table.patients_from} were rounded by a spreadsheet, such as "
            f"{examples([sorted(lost)])}: their last digits are lost, so several people may share one id. "
        )
        paths = [path for path, patient in zip(table.paths, table.patients, strict=True) if patient in lost]
        yield PatientIdsError(message + advice, "patients_rounded", paths)
    spellings: dict[str, list[str]] = {}
    for patient, key in sorted(set(zip(table.patients, table.patient_keys, strict=True))):
        spellings.setdefault(key, []).append(patient)
    if several := [names for names in spellings.values() if len(names) > 1]:
        unclear = {name for names in several for name in names}
        paths = [path for path, patient in zip(table.paths, table.patients, strict=True) if patient in unclear]
        count = "1 patient has" if len(several) == 1 else f"{len(several)} patients have"
        message = f"{count} several spellings in {table.patients_from}, such as {examples(several)}."
        yield PatientIdsError(f"{message} {SPELLING_ADVICE}", "patients_alike", paths)


SPELLING_ADVICE = "Use one spelling per patient, or pass --allow-alike-patients if these are different people."

_OWN = re.compile(r"own-[0-9a-f]{16}")  # id of an image without patient; derived from its path


def with_patients(table: ImageTable, settings: DataSettings) -> ImageTable:
    """`table` with patients from `--patient-regex` if it has none; an image without patient is its own patient."""
    if table.patients is None and settings.patient_regex is None:
        return replace(table, notes=(*table.notes, NO_PATIENTS))
    if table.patients is None:
        patients, what = patients_by_regex(table.paths, settings.patient_regex)
        origin = f"the {what} by --patient-regex {settings.patient_regex!r}"
        note = f"{len(set(patients))} patients from {origin}"
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
    # All rows of one file (frames, links) get the patient of the row that has one, else the same own id.
    identities = [image_identity(path, ref) for path, ref in zip(table.paths, table.files, strict=True)]
    known, first = {}, {}
    for row, (identity, path) in enumerate(zip(identities, table.paths, strict=True)):
        if row not in missing:
            known.setdefault(identity, table.patients[row])
        first[identity] = min(path, first.get(identity, path))
    own = {
        identity: hashlib.sha256(path.encode(errors="surrogatepass")).hexdigest() for identity, path in first.items()
    }
    patients = [
        table.patients[row] if row not in missing else known.get(identity) or f"own-{own[identity][:16]}"
        for row, identity in enumerate(identities)
    ]
    note = f"missing patients: {found}, each counts as its own patient (--missing-patients own)"
    return replace(table, patients=tuple(patients), notes=(*table.notes, note))


def is_own_patient(patient: str) -> bool:
    """Whether this is the id of an image without patient."""
    return _OWN.fullmatch(patient) is not None


def patients_by_regex(paths: Sequence[str], regex: str) -> tuple[tuple[str, ...], str]:
    """The first group of `regex` in each path, else in each file name; and "path" or "file name"."""
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
        f"{unmatched[0]!r}. Its first group must match in every path or in every file name.",
        settings=() if fits_some else ("patient_regex",),
    )


_READERS = 4  # headers read in parallel


def with_header_patients(table: ImageTable, settings: DataSettings) -> ImageTable:
    """`table` with patients from DICOM headers if it and the settings have none and every readable header has one.

    Unreadable files are reported by the image check.
    """
    if table.patients is not None or settings.patient_regex is not None:
        return table
    existing = [ref for ref in table.files if ref is not None and not is_dangling(file_of(ref))]
    found = sum(as_part(ref).length is None and is_dicom_file(file_of(ref)) for ref in existing)
    if not found:
        return table
    if others := len(existing) - found:
        are, files = ("image is", "images are")[others > 1], ("file", "files")[found > 1]
        note = f"patient ids of {found} DICOM {files} not used: {others} {are} of other formats and have none"
        return replace(table, notes=(*table.notes, note))

    def header_of(ref: ImageRef | None) -> DicomHeader | None:
        with contextlib.suppress(BadImageError):
            return None if ref is None else read_header(file_of(ref))

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
    found = zip(table.paths, headers, strict=True)
    return replace(
        table,
        patients=tuple(path if header is None else header.patient_id for path, header in found),  # unreadable: own
        patients_from="the DICOM headers",
        notes=(*table.notes, f"{len(named)} patients from the headers of {len(ids)} DICOM files"),
    )


def with_frames(table: ImageTable, settings: DataSettings) -> ImageTable:
    """`table` with a row per frame if `settings.frames` is "all": frame 3 of `x.dcm` is `x.dcm#3`, from 1.

    A frame has label, splits and patient of its file; without patients, the file is the patient.
    """
    if settings.frames == "first":
        return table
    counts = np.array(all_in_parallel(_count_frames, table.files, workers=_READERS), int)
    if (counts > MOST_FRAMES).any():
        file = table.files[int(np.argmax(counts > MOST_FRAMES))]
        raise DataError(
            f"--frames all: {file} has more than {MOST_FRAMES:,} frames. Store it in several files, or use "
            "--frames first."
        )
    several, damaged = counts > 1, np.flatnonzero(counts == 0)
    notes = table.notes
    if len(damaged):
        what = f"{len(damaged)} damaged files, such as {table.paths[damaged[0]]}"
        notes += (f"--frames all: cannot count the frames of {what}; only the first of each is used",)
    if not several.any():
        return replace(table, notes=(*notes, "--frames all: no file has several frames"))
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
    """Frames of a file; 1 for a missing file, 0 for a damaged one."""
    if not isinstance(file, Path) or not (file.suffix.lower() in (".tif", ".tiff", ".gif") or is_dicom_file(file)):
        return 1
    try:
        return count_frames(file)
    except BadImageError:
        return 0
