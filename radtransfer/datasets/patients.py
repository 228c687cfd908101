"""Which patient an image belongs to, where the table does not say, or does not know."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from radtransfer.datasets.image_files import image_identity
from radtransfer.datasets.image_table import ImageTable
from radtransfer.datasets.labels import is_missing, missing_words
from radtransfer.errors import ConfigError, DataError
from radtransfer.settings import DataSettings

NO_PATIENTS = (
    "no patient column; images of one patient may fall in both train and test. "
    r"Give --patient-column or --patient-regex '^(\d+)_'."
)


_OWN = re.compile(r"own-[0-9a-f]{16}")


def with_patients(table: ImageTable, settings: DataSettings) -> ImageTable:
    """`table` with patients from `--patient-regex` where it has none, or with a note that it has none.

    An image whose patient is missing is its own patient.

    Raises:
        ConfigError: The expression is not valid or has no group.
        DataError: It does not match an image, or a patient is missing and `--missing-patients` is error.
    """
    if table.patients is not None:
        return _with_own(table, settings)
    if settings.patient_regex is None:
        return replace(table, notes=(*table.notes, NO_PATIENTS))
    patients, what = patients_by_regex(table.paths, settings.patient_regex)
    note = f"{len(set(patients))} patients by --patient-regex {settings.patient_regex!r} in the {what}"
    return _with_own(replace(table, patients=patients, notes=(*table.notes, note)), settings)


def is_own_patient(patient: str) -> bool:
    """Whether this is the name of an image whose patient is missing, and no person's."""
    return _OWN.fullmatch(patient) is not None


def _with_own(table: ImageTable, settings: DataSettings) -> ImageTable:
    missing = {row: patient for row, patient in enumerate(table.patients) if is_missing(patient)}
    if not missing:
        return table
    found = f"{len(missing)} of {len(table)} images have none ({missing_words(missing.values())})"
    if settings.missing_patients == "error":
        raise DataError(
            f"Expected a patient for every image; {found}, such as {table.paths[next(iter(missing))]!r}. Fill them in, "
            "or let each of these images be its own patient with --missing-patients own."
        )
    if len(missing) == len(table):
        return replace(table, patients=None, notes=(*table.notes, f"missing patients: {found}", NO_PATIENTS))
    # A file has one patient: of the row that knows it, else its own, also where it has two names or several frames.
    identities = [image_identity(path, place) for path, place in zip(table.paths, table.files, strict=True)]
    patients, first = {}, {}
    for row, (identity, path) in enumerate(zip(identities, table.paths, strict=True)):
        if row not in missing:
            patients.setdefault(identity, table.patients[row])
        first[identity] = min(path, first.get(identity, path))
    whose = [
        table.patients[row] if row not in missing else patients.get(identity) or _own(first[identity])
        for row, identity in enumerate(identities)
    ]
    note = f"missing patients: {found}, and each of these counts as its own patient (--missing-patients own)"
    return replace(table, patients=tuple(whose), notes=(*table.notes, note))


def _own(path: str) -> str:
    """A name that no patient has, the same whenever the image is read."""
    return f"own-{hashlib.sha256(path.encode(errors='surrogatepass')).hexdigest()[:16]}"


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
