"""Patient ids: found where the table has none, compared whatever their spelling, and refused where they mislead."""

import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from radtransfer.errors import ConfigError, DataError
from radtransfer.settings import DataSettings

if TYPE_CHECKING:
    from radtransfer.datasets.image_table import ImageTable

NO_PATIENTS = (
    "no patient column; images of one patient may fall in both train and test. "
    r"Give --patient-column or --patient-regex '^(\d+)_'."
)

_DASHES = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"), "-")
_WHOLE_FLOAT = re.compile(r"([^.,]*\d)(?:\.0*|,0{1,2})")
_LEADING_ZEROS = re.compile(r"(?<!\d)0+(?=\d)")

_ROUNDED = re.compile(r"[+-]?[1-9](?:[.,]\d+e\+?|e\+)\d{2,3}")
"""How a spreadsheet writes a number that is too long for its cell: 1.23457E+11. Ids such as 12E5 are none."""

_DIGITS = 15
"""Of a longer number a spreadsheet keeps so many digits and writes zeros for the others."""

_CERTAIN = 6
"""Such zeros in one column from which on they are no chance: one in a million."""

_SHOWN = 3
"""Patients named in one message."""


class PatientIdsError(DataError):
    """Patient ids by which people would be taken for others.

    Args:
        message: What is wrong.
        kind: What it is called in a report: "patients_alike" or "patients_rounded".
        paths: The images that have these ids.
    """

    def __init__(self, message: str, kind: str, paths: Sequence[str]):
        self.kind, self.paths = kind, tuple(paths)
        super().__init__(message)


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


def patient_id_errors(table: "ImageTable") -> Iterator[PatientIdsError]:
    """Errors if a patient has several spellings, or if a spreadsheet has cut digits off the ids; none if all is well.

    Each says where the ids come from, and examples.
    """
    if table.patients is None:
        return
    first = dict(zip(reversed(table.patients), reversed(table.paths), strict=True))
    lost = {patient for patient in first if _ROUNDED.fullmatch(_cleaned(patient))}
    advice = "Export the ids again as text, from where they are whole."
    if not lost and not table.alike_patients:
        lost = _ending_in_zeros(first)
        advice += " If these ids do end in zeros, pass --allow-alike-patients."
    if lost:
        message = (
            f"Patient ids in {table.patients_from} were rounded by a spreadsheet, such as "
            f"{_with_images([sorted(lost)], first)}: their last digits are lost, so that several people have one id. "
        )
        paths = [path for path, patient in zip(table.paths, table.patients, strict=True) if patient in lost]
        yield PatientIdsError(message + advice, "patients_rounded", paths)
    keys = dict(zip(table.patients, table.patient_keys, strict=True))
    if len(set(keys.values())) < len(keys):
        spellings: dict[str, list[str]] = {}
        for patient in sorted(keys):
            spellings.setdefault(keys[patient], []).append(patient)
        several = [names for names in spellings.values() if len(names) > 1]
        alike = {name for names in several for name in names}
        paths = [path for path, patient in zip(table.paths, table.patients, strict=True) if patient in alike]
        count = "1 patient has" if len(several) == 1 else f"{len(several)} patients have"
        message = f"{count} several spellings in {table.patients_from}, such as {_with_images(several, first)}."
        yield PatientIdsError(f"{message} {ALIKE_ADVICE}", "patients_alike", paths)


ALIKE_ADVICE = (
    "Write each patient in one way, or pass --allow-alike-patients if these are different people, who are then kept "
    "apart as they are written."
)


def _cleaned(patient: str) -> str:
    """The id in one form of Unicode and case, without what is invisible or stands around it."""
    text = patient
    if not text.isascii():
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).translate(_DASHES)
        seen = (character for character in text if unicodedata.category(character) != "Cf")
        text = "".join(str(unicodedata.decimal(character, character)) for character in seen)
    text = " ".join(text.casefold().split())
    return text.strip("'\"= ") or text


def _ending_in_zeros(patients: Collection[str]) -> set[str]:
    """The numbers of more digits than a spreadsheet keeps, if what it does not keep is zeros in all of them."""
    long = {patient for patient in patients if patient.isdecimal() and len(patient.lstrip("0")) > _DIGITS}
    rest = "".join(patient.lstrip("0")[_DIGITS:] for patient in long)
    return long if len(rest) >= _CERTAIN and not rest.strip("0") else set()


def _with_images(groups: Sequence[Sequence[str]], first: Mapping[str, str]) -> str:
    """Ids with an image of each, for a message."""
    told = (" and ".join(f"{name!r} ({first[name]})" for name in names[:_SHOWN]) for names in groups[:_SHOWN])
    return "; ".join(told)


def with_patients(table: "ImageTable", settings: DataSettings) -> "ImageTable":
    """`table` with patients from `--patient-regex` where it has none, or with a note that it has none.

    Raises:
        ConfigError: The expression is not valid or has no group.
        DataError: It does not match an image.
    """
    if table.patients is not None:
        return table
    if settings.patient_regex is None:
        return replace(table, notes=(*table.notes, NO_PATIENTS))
    patients, what = patients_by_regex(table.paths, settings.patient_regex)
    note = f"{len(set(patients))} patients by --patient-regex {settings.patient_regex!r} in the {what}"
    origin = f"the {what} by --patient-regex {settings.patient_regex!r}"
    return replace(table, patients=patients, patients_from=origin, notes=(*table.notes, note))


def patients_by_regex(paths: Sequence[str], regex: str) -> tuple[tuple[str, ...], str]:
    """The first group of `regex` in each path, or in each file name if it does not match every path.

    Returns:
        The patients, and whether they were found in the "path" or the "file name".

    Raises:
        ConfigError: The expression is not valid or has no group.
        DataError: It does not match an image.
    """
    try:
        pattern = re.compile(regex)
    except re.error as error:
        raise ConfigError(f"--patient-regex {regex!r} is not a regular expression: {error}.") from None
    if not pattern.groups:
        raise ConfigError(f"--patient-regex {regex!r} has no group: put the patient id in parentheses.")
    names = [PurePosixPath(path.replace("\\", "/")).name for path in paths]
    for texts, what in ((paths, "path"), (names, "file name")):
        matches = [pattern.search(text) for text in texts]
        if all(match and match[1] for match in matches):
            return tuple(match[1] for match in matches), what
    unmatched = [path for path, match in zip(paths, matches, strict=True) if not (match and match[1])]
    raise DataError(
        f"--patient-regex {regex!r} gives no patient for {len(unmatched)} of {len(paths)} images, such as "
        f"{unmatched[0]!r}. Change it so that its first group matches in every path or in every file name."
    )
