"""Which column of a table holds what: named by the user, or known by its usual names.

Names are compared without case, spaces and punctuation ("Image Path" is `imagepath`). Where a table has
several candidates, the one that stands first below is taken, and a note says so.
"""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from radtransfer.datasets.image_files import is_image_name
from radtransfer.datasets.labels import BINARY, listed, plain
from radtransfer.datasets.sheet import Sheet
from radtransfer.errors import DataError
from radtransfer.settings import DataSettings

USUAL_NAMES = {
    "path": (
        *("path", "filepath", "imagepath", "imgpath", "filename", "imagefilename", "imgdir", "dir"),
        *("image", "img", "file", "imagefile", "imagename", "imageid", "imgid", "idcode", "imageindex"),
    ),
    "label": ("class", "label", "*label", "target", "diagnosis", "grade", "level", "category", "dx"),
    "patient": ("pid", "patient", "patientid", "subject", "subjectid", "group", "lesionid"),
    "fold": ("fold",),
    "split": ("split",),
}
"""In the order in which they are preferred; `*label` is any longer name that ends so, such as `acl_label`."""

OPTIONS = {
    "path": "--path-column ",
    "label": "--label-column ",
    "patient": "--patient-column ",
}
"""How to name the column oneself."""


@dataclass(frozen=True)
class Columns:
    """Positions of the columns in a sheet.

    Attributes:
        path: Column of the image path.
        labels: Column of the class, or the 0/1 columns of a multi-label table.
        multilabel: Whether `labels` are 0/1 columns.
        patient: Column of the patient id, or None.
        fold: Column of the fold, or None.
        split: Column of the split, or None.
        notes: What was guessed and what is not used.
    """

    path: int
    labels: tuple[int, ...]
    multilabel: bool
    patient: int | None
    fold: int | None
    split: int | None
    notes: tuple[str, ...]


def find_columns(sheet: Sheet, settings: DataSettings) -> Columns:
    """The columns of `sheet` that the settings name, and for the others those that have usual names.

    Raises:
        DataError: A named column is not there, or there is none for path or label.
    """
    notes: list[str] = []
    path = _named(sheet, "path", settings.path_column, 0) if settings.path_column else None
    labels = [_named(sheet, "label", name, i) for i, name in enumerate(settings.label_column)]
    patient = _named(sheet, "patient", settings.patient_column, 0) if settings.patient_column else None
    taken = {path, patient, *labels}
    if path is None:
        path = _usual(sheet, "path", taken, notes)
        if path is None:
            raise DataError(_no_column(sheet, "path"))
        taken.add(path)
    if patient is None and settings.patient_regex is None:
        patient = _usual(sheet, "patient", taken, notes)
        if patient is not None:
            notes.append(f"patients from column {sheet.columns[patient]!r}")
    fold, split = _usual(sheet, "fold", taken, notes), _usual(sheet, "split", taken, notes)
    taken |= {patient, fold, split}
    multilabel = len(labels) > 1 or settings.task == "multilabel"
    if not labels:
        labels, multilabel = _find_labels(sheet, settings.task, taken, notes)
    taken |= set(labels)
    unused = [name for i, name in _real_columns(sheet) if i not in taken]
    if unused:
        notes.append(f"columns not used: {listed(unused)}")
    return Columns(path, tuple(labels), multilabel, patient, fold, split, tuple(notes))


def find_image_columns(sheet: Sheet, settings: DataSettings) -> tuple[int, int | None]:
    """The columns of image paths and of patients, if there are any, of a table that needs no labels.

    Raises:
        DataError: There is none for the path, or one that is named is not there.
    """
    patient = _named(sheet, "patient", settings.patient_column, 0) if settings.patient_column else None
    path = _named(sheet, "path", settings.path_column, 0) if settings.path_column else None
    if path is None:
        path = _usual(sheet, "path", {patient}, [])
    if path is None:
        raise DataError(_no_column(sheet, "path"))
    if patient is None and settings.patient_regex is None:
        patient = _usual(sheet, "patient", {path}, [])
    return path, patient


def _find_labels(sheet: Sheet, task: str, taken: set, notes: list[str]) -> tuple[list[int], bool]:
    """The label column; without one, or for a multi-label task, every column of 0, 1, -1 and empty cells."""
    if task != "multilabel":
        label = _usual(sheet, "label", taken, notes)
        if label is not None:
            notes.append(f"labels from column {sheet.columns[label]!r}")
            return [label], False
    binary = [i for i, _ in _real_columns(sheet) if i not in taken and _is_binary(sheet, i)]
    if not binary or (task != "multilabel" and len(binary) < 2):
        raise DataError(_no_column(sheet, "label"))
    by_name: dict[str, list[int]] = {}
    for i in binary:
        by_name.setdefault(_squeezed(sheet.columns[i]), []).append(i)
    for alike in by_name.values():
        _check_alone(sheet, alike, "label")
    names = listed(sheet.columns[i] for i in binary)
    notes.append(f"{len(binary)} labels from the columns that hold only 0, 1, -1 or nothing: {names}")
    return binary, True


def _is_binary(sheet: Sheet, column: int) -> bool:
    values = set()
    for row in sheet.rows:
        values.add(plain(row[column]))
        if not values <= BINARY:
            return False
    return bool(values & {"0", "1"})


def _real_columns(sheet: Sheet) -> list[tuple[int, str]]:
    """Columns that have a name; pandas writes its row numbers without one."""
    named = [(i, name) for i, name in enumerate(sheet.columns) if name]
    return [(i, name) for i, name in named if not re.fullmatch(r"Unnamed: \d+(_level_\d+)?", name)]


def _squeezed(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.lower())


def _usual(sheet: Sheet, role: str, taken: set, notes: list[str]) -> int | None:
    """The column with the most preferred of the usual names."""
    free = [(i, _squeezed(name)) for i, name in _real_columns(sheet) if i not in taken]
    candidates = [i for usual in USUAL_NAMES[role] for i, name in free if name == usual or _ends_with(name, usual)]
    if not candidates:
        return None
    first, *others = dict.fromkeys(candidates)
    _check_alone(sheet, [i for i, name in free if name == _squeezed(sheet.columns[first])], role)
    if others:
        hint = f"; choose with {OPTIONS[role]}NAME" if role in OPTIONS else ""
        also = listed(repr(sheet.columns[i]) for i in others)
        notes.append(f"column {sheet.columns[first]!r} taken as {role} (also possible: {also}{hint})")
    return first


def _check_alone(sheet: Sheet, columns: Sequence[int], role: str) -> None:
    """Raises DataError if several columns have one name, case and punctuation apart: any could be meant."""
    names = [sheet.columns[i] for i in columns]
    if len(names) > 1:
        choose = f", or choose with {OPTIONS[role]}NAME" if role in OPTIONS and len(set(names)) == len(names) else ""
        raise DataError(
            f"{sheet.name} has {len(names)} columns of one name for the {role}: {listed(map(repr, names))}. "
            f"Rename or remove all but one{choose}."
        )


def _ends_with(name: str, usual: str) -> bool:
    return usual.startswith("*") and name.endswith(usual[1:]) and name != usual[1:]


def _named(sheet: Sheet, role: str, name: str, position: int) -> int:
    """The column the user named: exactly, or without regard to case."""
    for fits in (lambda column: column == name, lambda column: column.lower() == name.lower()):
        found = [i for i, column in enumerate(sheet.columns) if fits(column)]
        if len(found) == 1:
            return found[0]
        if found:
            raise DataError(f"{sheet.name} has {len(found)} columns called {name!r}. Rename all but one.")
    columns = [column for _, column in _real_columns(sheet)]
    guess = _usual(sheet, role, set(), []) if position == 0 else None
    near = difflib.get_close_matches(name, columns, n=1, cutoff=0.6)
    use = near[0] if near else "NAME, one of these" if guess is None else sheet.columns[guess]
    advice = f"Use {OPTIONS[role]}{use}."
    option = OPTIONS[role].strip()
    raise DataError(f"Column {name!r} ({option}) is not in {sheet.name}. Columns: {listed(columns, 40)}. {advice}")


def _no_column(sheet: Sheet, role: str) -> str:
    columns: Sequence[str] = [column for _, column in _real_columns(sheet)]
    what = {"path": "the image path", "label": "the label (or 0/1 columns, one per label)"}[role]
    usual = ", ".join(USUAL_NAMES[role][:8])
    image = next((column for column in columns if is_image_name(column)), None)
    if image is not None:
        return (
            f"{sheet.name} has no header: expected a first line of column names, such as path,label,patient. "
            f"Received: {image!r}, an image, in the first line. Add the line of names."
        )
    return (
        f"{sheet.name} has no column for {what}: expected one called {usual} or so. "
        f"Columns: {listed(columns, 40)}. Name it with {OPTIONS[role]}NAME."
    )
