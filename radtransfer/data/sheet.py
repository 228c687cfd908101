"""Delimited text as users have it (comma, semicolon, tab or bar), and which of its columns holds what.

A column is named by the user, or known by its usual names. Names are compared without case, spaces and punctuation
("Image Path" is `imagepath`). Where a table has several candidates, the one that stands first below is taken, and a
note says so.
"""

import codecs
import contextlib
import csv
import difflib
import io
import json
import re
import shlex
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from radtransfer.config.schema import DataSettings
from radtransfer.data.image_files import is_dangling, is_image_name
from radtransfer.data.labels import (
    BINARY,
    RowsError,
    binary_cell,
    cell_value,
    check_values,
    is_missing,
    listed,
    sorted_names,
)
from radtransfer.errors import DataError
from radtransfer.images.dicom import is_dicom
from radtransfer.images.files import PACKED, START, TABLES, advice, format_by_content
from radtransfer.images.formats import READERS, why_missing

DELIMITERS = ",;\t|"

MOST_COLUMNS = 10_000

# How a small file begins that stands for one which is not fetched.
_POINTERS = (b"version https://git-lfs", b"/annex/objects/", b".git/annex/objects/")


@dataclass(frozen=True)
class Sheet:
    """A table of text."""

    name: str
    columns: tuple[str, ...]  # the header; may hold empty and repeated names
    rows: list[list[str]]  # cells, as many as there are columns
    places: list[tuple[str, int]]  # file name and line of each row

    def place(self, row: int) -> str:
        """Where a row stands, as messages call it: "train.csv line 3"."""
        return "{} line {}".format(*self.places[row])

    def without(self, rows: Collection[int]) -> "Sheet":
        """The table less some of its rows."""
        kept = [row for row in range(len(self.rows)) if row not in rows]
        return Sheet(self.name, self.columns, [self.rows[row] for row in kept], [self.places[row] for row in kept])


def read_sheet(file: Path) -> Sheet:
    """The rows of a delimited text file with a header; blank lines and comments are skipped."""
    handle = io.StringIO(_text(file), newline="")
    skipped, delimiter = _to_header(handle)
    reader = csv.reader(handle, delimiter=delimiter, strict=True)
    try:
        lines = [(row, skipped + reader.line_num) for row in reader if not _is_note(row)]
    except csv.Error as error:
        found = f"is not valid CSV: {error}"
        if "field limit" in str(error):
            found = f"has a cell of more than {csv.field_size_limit():,} characters, as when a quote is never closed"
        raise DataError(f"{file} line {skipped + reader.line_num} {found}. Correct it.") from None
    if len(lines) < 2:
        found = f"only the header {', '.join(lines[0][0][:12])}" if lines else "nothing"
        raise DataError(f"{file} holds no images: expected a header and a row per image, found {found}.")
    header, width = lines[0][0], len(lines[0][0])
    if width > MOST_COLUMNS:
        raise DataError(
            f"{file} has {width:,} columns. Expected at most {MOST_COLUMNS:,}, and a row per image: a path, a label, a "
            "patient. Turn it if it has a column per image, or leave out the columns that describe no image."
        )
    for row, line in lines[1:]:
        if len(row) != width:
            title = f" If {header[0]!r} stands before the header, remove that line." if width == 1 else ""
            raise DataError(
                f"{file} line {line} has {len(row)} cells, the header has {width}. "
                f"Put names that hold the delimiter in double quotes.{title}"
            )
    rows, numbers = zip(*lines[1:], strict=True)
    columns = tuple(cell.strip() for cell in header)
    return Sheet(file.name, columns, list(rows), [(file.name, number) for number in numbers])


def _text(file: Path) -> str:
    """What the file holds: UTF-8, or UTF-16 with its mark, which Excel calls Unicode text."""
    try:
        with file.open("rb") as handle:
            start = handle.read(START)
            if other := _other_format(start):
                raise _no_table(file, *other)
            data = start + handle.read()
    except OSError as error:
        found = why_missing(file) if is_dangling(file) else error.strerror
        raise DataError(f"Cannot read {file}: {found}.") from None
    try:
        text = data.decode("utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 text ({error.reason}). Save it as 'CSV UTF-8'.") from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise DataError(
            f"{file} line {line} holds a NUL character, so it is damaged or not text. Save it as 'CSV UTF-8'."
        )
    if text.lstrip()[:1] in ("{", "["):  # JSON if all of it, or its first line, is
        for part in (text, text.lstrip().partition("\n")[0]):
            with contextlib.suppress(ValueError, RecursionError):
                json.loads(part)
                raise _no_table(file, "JSON", "save it as 'CSV UTF-8'")
    return text


def _other_format(start: bytes) -> tuple[str, str] | None:
    """What the first bytes are of, if not of text, and what to do about it."""
    if start.lstrip().startswith(b"<"):
        return "HTML or XML", "save it as 'CSV UTF-8', or download it again"
    if start.startswith(_POINTERS):
        return "a pointer of Git LFS or git-annex", "run `git lfs pull`, `datalad get` or `git annex get`"
    if start.isascii() and b"\0" not in start:
        return None
    if is_dicom(start) or any(map(start.startswith, READERS)):
        return "an image", "give a CSV that lists the images"
    if found := format_by_content(start):
        also = "" if found in TABLES | PACKED else ", and give a CSV that lists the images"
        return found, f"{advice(found)}{also}"
    return None


def _no_table(file: Path, found: str, to_do: str) -> DataError:
    to_do = f"{to_do[0].upper()}{to_do[1:]}"
    return DataError(f"{file} is not a table. Expected: text, as CSV in UTF-8. Received: {found}. {to_do}.")


def _to_header(handle: io.StringIO) -> tuple[int, str]:
    """Go to the header: the number of lines before it, and the delimiter, which Excel may name there (`sep=;`)."""
    skipped, named = 0, None
    while True:
        place, line = handle.tell(), handle.readline()
        following = handle.readline()
        handle.seek(place)
        if separator := re.fullmatch(r"\"?sep=(\t|[^\s\"])\"?[,;\t]*", line.rstrip("\r\n"), re.IGNORECASE):
            named = separator[1]
        elif not line or (line.strip() and not _is_comment(line, following)):
            lines = [line, following] if following.strip() else [line]
            return skipped, named or _delimiter(lines)
        handle.readline()
        skipped += 1


def _is_comment(line: str, following: str) -> bool:
    """Whether a line begins with # and is no row of names above a row that holds a number or the name of a file."""
    if not line.lstrip("\"' \t").startswith("#"):
        return False
    delimiter = _delimiter([line, following])
    names, cells = (_cells(text, delimiter) for text in (line, following))
    words = all(re.fullmatch(r"#?\s*[\w.-]+", name.strip()) for name in names)
    if not words or len(names) != len(cells):
        return True
    if len(names) == 1:
        return not is_image_name(cells[0].strip())
    return not any(re.search(r"[\d./\\]", cell) for cell in cells)


def _delimiter(lines: Sequence[str]) -> str:
    """The delimiter that cuts header and first row into equally many cells, and into most."""

    def score(delimiter: str) -> tuple[bool, int]:
        widths = [len(_cells(line, delimiter)) for line in lines]
        return len(set(widths)) == 1 and widths[0] > 1, widths[0]

    return max(DELIMITERS, key=score)


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter), [""])
    except csv.Error:  # too long for one cell
        return [line]


def _is_note(row: Sequence[str]) -> bool:
    """Whether a row is blank, or nothing but a comment: a text behind # and a space, and no other cell."""
    first, *others = [cell.strip() for cell in row] or [""]
    return not any(others) and (not first or re.match(r"#+\s", first) is not None)


SPLIT_WORDS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validate", "validation", "dev", "tune", "tuning"),
    "test": ("test", "testing"),
}
EVALUATION = ("eval", "evaluation")  # validation where there is a test set besides, else the test set


def split_names(texts: Iterable[str]) -> dict[str, str | None]:
    """The split, "train", "val" or "test", that each of the texts of one data set means; None if it means none.

    Case, punctuation and "set" at the end do not count: "Training set" is train.
    """
    words = {text: re.sub(r"[\W_]+", "", text.lower()) for text in texts}
    words = {text: word.removesuffix("set") for text, word in words.items()}
    found = {
        text: next((split for split in SPLIT_WORDS if word in SPLIT_WORDS[split]), None) for text, word in words.items()
    }
    evaluation = "val" if "test" in found.values() else "test"
    return {text: evaluation if words[text] in EVALUATION else split for text, split in found.items()}


def place_images(entries: Sequence[Sequence[tuple[str, str]]]) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Where each image stands in each fold, from the (fold, split) of its rows; none where it is not assigned to any.

    A split of "" means test in that fold and train in all others. An image that stands in two splits of one fold keeps
    a row for each, so that the leak check can see it.

    Returns:
        The image of each row, (rows,); the splits, (folds, rows) of "train", "val", "test" or ""; the sorted folds.
    """
    folds = sorted_names(fold for entry in entries for fold, _ in entry)
    number = {fold: index for index, fold in enumerate(folds)}
    images, columns = [], []
    for image, entry in enumerate(entries):
        placed = dict.fromkeys(entry)
        if not placed:
            found = [[""] * len(folds)]
        elif all(not split for _, split in placed):
            found = [["test" if other == fold else "train" for other in folds] for fold, _ in placed]
        else:
            found = []  # as few rows as hold every (fold, split)
            for fold, split in placed:
                row = next((row for row in found if not row[number[fold]]), None)
                if row is None:
                    found.append(row := [""] * len(folds))
                row[number[fold]] = split
        columns += found
        images += [image] * len(found)
    return np.array(images), np.array(columns, dtype="U5").T, folds


USUAL_NAMES = {
    "path": (
        *("path", "filepath", "imagepath", "imgpath", "filename", "imagefilename", "imgdir", "dir"),
        *("image", "img", "file", "imagefile", "imagename", "imageid", "imgid", "idcode", "imageindex"),
    ),
    "label": (
        *("class", "label", "*label", "target", "diagnosis", "grade", "level", "category", "dx"),
        *("labels", "*labels"),
    ),
    "patient": ("pid", "patient", "patientid", "subject", "subjectid", "group", "lesionid"),
    "fold": ("fold", "kfold", "folds", "foldid", "foldno", "foldnumber", "foldindex", "cvfold"),
    "split": ("split", "set", "subset", "partition", "phase", "*split"),
}
"""In the order in which they are preferred; `*label` is any longer name that ends so, such as `acl_label`.

A split may also stand in columns such as `is_test`, which say of each image whether it is in one.
"""

# How to name the column oneself.
OPTIONS = {role: f"--{role}-column " for role in ("path", "label", "patient", "fold", "split")}


class Columns(NamedTuple):
    """Positions of the columns in a sheet."""

    path: int
    labels: tuple[int, ...]  # column of the label, or one per class or label
    # the class; several columns of 0 and 1, of which exactly one is 1 if one_hot; or several labels in one cell
    form: Literal["class", "several", "one_hot", "separated"]
    patient: int | None
    fold: int | None
    splits: Mapping[str, int]  # under "" the column that names the split, under "test" one that says if it is test
    notes: tuple[str, ...]  # what was guessed and what is not used


def find_columns(sheet: Sheet, settings: DataSettings) -> Columns:
    """The columns of `sheet` that the settings name, and for the others those that have usual names."""
    finder = _ColumnFinder(sheet, settings)
    path = finder.named("path", settings.path_column or None)
    several = settings.label_column
    labels = [finder.named("label", name, several, guess=not i) for i, name in enumerate(several)]
    patient = finder.named("patient", settings.patient_column or None)
    fold = finder.named("fold", settings.fold_column or None)
    split = finder.named("split", settings.split_column or None)
    if path is None:
        path = finder.usual("path")
        if path is None:
            raise DataError(finder.none_for("path"))
    if patient is None and settings.patient_regex is None:
        patient = finder.usual("patient", lambda column: not finder.given_splits(column))
        if patient is not None:
            finder.notes.append(f"patients from column {sheet.columns[patient]!r}")
    fold, splits = finder.find_placement(fold, split)
    finder.taken |= {fold, *splits.values()}
    if splits and split is None:
        finder.notes.append(f"split from column {listed(repr(sheet.columns[i]) for i in splits.values())}")
    # Columns called `train` or `test` of 0 and 1: splits most likely, though a test may be one of a laboratory.
    bare = set(finder.flags(finder.free, "((?:train|test)(?:ing)?(?:set)?)").values())
    bare = bare if len(finder.free) > len(bare) else set()
    if labels:
        form = finder.form(several=len(labels) > 1)
    else:
        labels, form = finder.find_labels(bare)
    finder.taken |= set(labels)
    finder.note_ignored_splits(bare, fold, splits, named=split is not None)
    if unused := [finder.real[i] for i in finder.free]:
        finder.notes.append(f"columns not used: {listed(unused)}")
    return Columns(path, tuple(labels), form, patient, fold, splits, tuple(finder.notes))


def find_image_columns(sheet: Sheet, settings: DataSettings) -> tuple[int, int | None]:
    """The columns of image paths and of patients, if there are any, of a table that needs no labels."""
    finder = _ColumnFinder(sheet, settings)
    patient = finder.named("patient", settings.patient_column or None)
    path = finder.named("path", settings.path_column or None)
    if path is None:
        path = finder.usual("path")
    if path is None:
        raise DataError(finder.none_for("path"))
    if patient is None and settings.patient_regex is None:
        patient = finder.usual("patient")
    return path, patient


class _ColumnFinder:
    """A sheet, which of its columns are taken, and what is to be said of it."""

    def __init__(self, sheet: Sheet, settings: DataSettings):
        self.sheet, self.settings = sheet, settings
        self.taken: set[int | None] = set()
        self.notes: list[str] = []
        # Those that have a name; pandas writes its row numbers without one.
        unnamed = re.compile(r"(Unnamed: \d+(_level_\d+)?)?")
        self.real = {i: name for i, name in enumerate(sheet.columns) if not unnamed.fullmatch(name)}

    @property
    def free(self) -> list[int]:
        """The columns that have a name and are not taken."""
        return [i for i in self.real if i not in self.taken]

    def cells(self, column: int) -> Iterator[str]:
        return (row[column].strip() for row in self.sheet.rows)

    def find_placement(self, fold: int | None, split: int | None) -> tuple[int | None, dict[str, int]]:
        """The column of the fold, and those of the split."""
        if fold is None:
            fold = self.usual("fold", lambda column: not all(map(is_missing, self.cells(column))))
        elif self.given_splits(fold):
            name = self.sheet.columns[fold]
            raise DataError(
                f"Column {name!r} (--fold-column) holds splits. Use --split-column {shlex.quote(name)}.",
                settings=("fold_column",),
            )
        if split is not None:
            return fold, self.flags([split], "(?:is|in)?(.+)") or {"": split}
        if fold is not None and self.given_splits(fold):
            self.notes.append(f"column {self.sheet.columns[fold]!r} holds splits and is taken as split")
            return None, {"": fold}
        split = self.usual("split", self.is_split)
        return fold, {"": split} if split is not None else self.flags(self.free, "(?:is|in)(.+)")

    def flags(self, columns: Sequence[int], name: str) -> dict[str, int]:
        """Those of the columns that say, at least mostly, whether an image is in a split, by that split."""
        matches = {i: re.fullmatch(name, _squeezed(self.sheet.columns[i])) for i in columns}
        words = {i: match[1] for i, match in matches.items() if match}
        splits, found = split_names(words.values()), {}
        for i, word in words.items():
            if splits[word]:
                cells = Counter(map(binary_cell, self.cells(i)))
                if 0 < cells.total() - cells[""] <= 2 * (cells["0"] + cells["1"]):
                    found.setdefault(splits[word], i)
        return found

    def is_split(self, column: int) -> bool:
        """Whether most cells of a column with a usual name are splits; one called `split` holds nothing else."""
        name = self.sheet.columns[column]
        known = {cell: count for cell, count in Counter(self.cells(column)).items() if not is_missing(cell)}
        splits = split_names(known)
        mostly = 2 * sum(known[cell] for cell in known if splits[cell]) >= sum(known.values())
        if known and (_squeezed(name) == "split" or mostly):
            return True
        found = listed(map(repr, known), limit=3) or "nothing"
        self.notes.append(f"column {name!r} is not used as split: it holds {found}")
        return False

    def given_splits(self, column: int) -> dict[str, str]:
        """The split that each cell of a column means; none where the column holds anything else."""
        splits: dict[str, str | None] = {}
        for cell in self.cells(column):
            if cell not in splits and not is_missing(cell):
                splits |= split_names([cell])
                if splits[cell] is None:
                    return {}
        return split_names(splits)

    def note_ignored_splits(self, flags: set[int], fold: int | None, splits: Mapping[str, int], *, named: bool) -> None:
        """A warning for each column that is not used and says in which split images are."""
        used = [i for i in (splits.get(""), *splits.values(), fold) if i is not None]
        names = self.sheet.columns
        instead = f"column {names[used[0]]!r} is used" if used else "all images take part in drawn folds"
        said = list(map(self.given_splits(used[0]).get, self.cells(used[0]))) if used else None
        for column in self.free:
            given, take = self.given_splits(column), shlex.quote(names[column])
            found = list(map(given.get, self.cells(column)))
            if len(set(given.values())) > 1 and found != said:
                counts = Counter(found)
                found = ", ".join(f"{split} {counts[split]}" for split in ("train", "val", "test") if counts[split])
                self.notes.append(
                    f"split ignored: column {names[column]!r} holds only splits ({found}) and is not used: {instead}"
                    + ("" if named else f"; --split-column {take} takes it")
                )
        for column in sorted(flags - self.taken) if not named else ():
            take = f"--split-column {shlex.quote(names[column])} takes it if it says which images are in that split"
            found = f"column {names[column]!r} holds 0 and 1 and is not used"
            self.notes.append(f"split ignored: {found}: {instead}; {take}")

    def find_labels(self, flags: set[int]) -> tuple[list[int], str]:
        """The label column; without one, or for a multi-label task, all 0/1 columns; else the only one that is left."""
        task, separator = self.settings.task, self.settings.label_separator
        self.taken |= flags
        try:
            if task != "multilabel" or separator:
                label = self.usual("label", lambda column: not self.given_splits(column))
                if label is not None:
                    self.notes.append(f"labels from column {self.sheet.columns[label]!r}")
                    return [label], self.form()
            free = [i for i in self.free if not self.given_splits(i)]
        finally:
            self.taken -= flags
        binary = [] if separator else [i for i in free if self.is_binary(i)]
        if len(binary) >= (1 if task == "multilabel" else 2):
            by_name: dict[str, list[int]] = {}
            for i in binary:
                by_name.setdefault(_squeezed(self.sheet.columns[i]), []).append(i)
            for alike in by_name.values():
                self.check_alone(alike, "label")
            names = listed(self.sheet.columns[i] for i in binary)
            self.notes.append(f"{len(binary)} labels from the columns that hold only 0, 1, -1 or nothing: {names}")
            return binary, self.form(several=True)
        left = free if len(free) == 1 else [i for i in free if self.could_be_labels(i)]
        if len(left) != 1 or (task == "multilabel" and not separator):
            several = " Several labels in one cell need --label-separator." if task == "multilabel" else ""
            raise DataError(self.none_for("label", left) + several, settings=("task",))
        name = self.sheet.columns[left[0]]
        self.notes.append(
            f"labels from column {name!r}, the only one that can be the label; --label-column names another"
        )
        return left, self.form()

    def form(self, *, several: bool = False) -> str:
        if self.settings.label_separator:
            return "separated"
        if several and self.settings.task in ("binary", "multiclass"):
            return "one_hot"
        return "several" if several or self.settings.task == "multilabel" else "class"

    def could_be_labels(self, column: int) -> bool:
        """Whether a column holds two or more values, which may be classes."""
        values = list(filter(None, map(cell_value, self.cells(column))))
        try:
            return len(set(values)) > 1 and check_values(values, self.sheet.columns[column]) is not None
        except RowsError:
            return False

    def is_binary(self, column: int) -> bool:
        values = set()
        for cell in self.cells(column):
            values.add(binary_cell(cell))
            if not values <= BINARY:
                return False
        return bool(values & {"0", "1"})

    def usual(self, role: str, fits: Callable[[int], bool] = lambda column: True, *, guess: bool = False) -> int | None:
        """The free column with the most preferred of the usual names, of those that fit; a `guess` takes nothing."""
        names = {i: _squeezed(name) for i, name in self.real.items() if guess or i not in self.taken}
        candidates = [
            i
            for usual in USUAL_NAMES[role]
            for i, name in names.items()
            if name == usual or (usual.startswith("*") and name.endswith(usual[1:]) and name != usual[1:])
        ]
        candidates = [i for i in dict.fromkeys(candidates) if fits(i)]
        if not candidates:
            return None
        first, *others = candidates
        self.check_alone([i for i, name in names.items() if i in candidates and name == names[first]], role)
        if guess:
            return first
        if others:
            hint = f"; choose with {OPTIONS[role]}NAME" if role in OPTIONS else ""
            also = listed(repr(self.sheet.columns[i]) for i in others)
            name = self.sheet.columns[first]
            self.notes.append(f"column {name!r} taken as {role} (also possible: {also}{hint})")
        self.taken.add(first)
        return first

    def check_alone(self, columns: Sequence[int], role: str) -> None:
        """Raises DataError if several columns have one name, case and punctuation apart: any could be meant."""
        names = [self.sheet.columns[i] for i in columns]
        if len(names) > 1:
            exact = len(set(names)) == len(names)
            choose = f", or choose with {OPTIONS[role]}NAME" if role in OPTIONS and exact else ""
            raise DataError(
                f"{self.sheet.name} has {len(names)} columns of one name for the {role}: {listed(map(repr, names))}. "
                f"Rename or remove all but one{choose}."
            )

    def named(self, role: str, name: str | None, together: Sequence[str] = (), *, guess: bool = True) -> int | None:
        """The column the user named, perhaps `together` with others: exactly, or without regard to case."""
        if name is None:
            return None
        for fits in (lambda column: column == name, lambda column: column.lower() == name.lower()):
            found = [i for i, column in enumerate(self.sheet.columns) if fits(column)]
            if len(found) == 1:
                self.taken.add(found[0])
                return found[0]
            if found:
                raise DataError(f"{self.sheet.name} has {len(found)} columns called {name!r}. Rename all but one.")
        columns = list(self.real.values())
        usual = self.usual(role, guess=True) if guess else None
        near = difflib.get_close_matches(name, columns, n=1, cutoff=0.6)
        use = near[0] if near else "NAME, one of these" if usual is None else self.sheet.columns[usual]
        # With one of several there, the table is the one that was meant.
        meant = {other.lower() for other in together} & {column.lower() for column in columns}
        raise DataError(
            f"Column {name!r} ({OPTIONS[role].strip()}) is not in {self.sheet.name}. Columns: {listed(columns, 40)}. "
            f"Use {OPTIONS[role]}{use}.",
            settings=() if meant else (f"{role}_column",),
        )

    def none_for(self, role: str, left: Sequence[int] = ()) -> str:
        columns = list(self.real.values())
        image = next((column for column in columns if is_image_name(column)), None)
        if image is not None:
            return (
                f"{self.sheet.name} has no header: expected a first line of column names, such as path,label,patient. "
                f"Received: {image!r}, an image, in the first line. Add the line of names."
            )
        what = {"path": "the image path", "label": "the label (or 0/1 columns, one per label)"}[role]
        choice = f" These may be it: {listed(repr(self.sheet.columns[i]) for i in left)}." if len(left) > 1 else ""
        usual = ", ".join(USUAL_NAMES[role][:8])
        return (
            f"{self.sheet.name} has no column for {what}: expected one called {usual} or so. "
            f"Columns: {listed(columns, 40)}.{choice} Name it with {OPTIONS[role]}NAME."
        )


def _squeezed(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.lower())
