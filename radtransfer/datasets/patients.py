"""Which patient an image belongs to, where the table does not say."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from radtransfer.datasets.image_table import ImageTable
from radtransfer.errors import ConfigError, DataError
from radtransfer.settings import DataSettings

NO_PATIENTS = (
    "no patient column; images of one patient may fall in both train and test. "
    r"Give --patient-column or --patient-regex '^(\d+)_'."
)


def with_patients(table: ImageTable, settings: DataSettings) -> ImageTable:
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
    return replace(table, patients=patients, notes=(*table.notes, note))


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
