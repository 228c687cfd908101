"""Whether two patient ids are one person's, whatever their spelling, and whether a spreadsheet has spoilt them."""

import re
import unicodedata
from collections.abc import Collection, Sequence

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
