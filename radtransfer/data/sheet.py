"""Delimited text (comma, semicolon, tab or bar), and the roles of its columns.

A column is named by the user or found by its usual names, compared without case, spaces and punctuation ("Image Path"
is `imagepath`). Of several candidates the first in `USUAL_NAMES` is used, with a note.
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
from radtransfer.images.files import PACKED, START, TABLES, advice, format_by_content, is_dicom
from radtransfer.images.formats import READERS, why_missing

DELIMITERS = ",;\t|"

MOST_COLUMNS = 10_000

# First bytes of Git LFS and git-annex pointers.
_POINTERS = (b"version https://git-lfs", b"/annex/objects/", b".git/annex/objects/")


@dataclass(frozen=True)
class Sheet:
    """A table of text."""

    name: str
    columns: tuple[str, ...]  # the header; names may be empty or repeated
    rows: list[list[str]]  # one cell per column
    locations: list[tuple[str, int]]  # file name and line of each row

    def location(self, row: int) -> str:
        """Where a row is, for messages: "train.csv line 3"."""
        return "{} line {}".format(*self.locations[row])

    def without(self, rows: Collection[int]) -> "Sheet":
        """The table without some of its rows."""
        kept = [row for row in range(len(self.rows)) if row not in rows]
        return Sheet(self.name, self.columns, [self.rows[row] for row in kept], [self.locations[row] for row in kept])


def read_sheet(file: Path) -> Sheet:
    """The rows of a delimited text file with a header, without blank lines and comments."""
    handle = io.StringIO(_text(file), newline="")
    skipped, delimiter = _to_header(handle)
    reader = csv.reader(handle, delimiter=delimiter, strict=True)
    try:
        lines = [(row, skipped + reader.line_num) for row in reader if not _is_note(row)]
    except csv.Error as error:
        found = f"is not valid CSV: {error}"
        if "field limit" in str(error):
            found = f"has a cell of more than {csv.field_size_limit():,} characters; perhaps a quote is not closed"
        raise DataError(f"{file} line {skipped + reader.line_num} {found}. Correct it.") from None
    if len(lines) < 2:
        found = f"only the header {', '.join(lines[0][0][:12])}" if lines else "nothing"
        raise DataError(f"{file} lists no images: expected a header and a row per image, found {found}.")
    header, width = lines[0][0], len(lines[0][0])
    if width > MOST_COLUMNS:
        raise DataError(
            f"{file} has {width:,} columns. Expected at most {MOST_COLUMNS:,} and a row per image. Transpose the "
            "table if it has a column per image, or remove columns that do not describe images."
        )
    for row, line in lines[1:]:
        if len(row) != width:
            title = f" If {header[0]!r} is a title above the header, remove it." if width == 1 else ""
            raise DataError(
                f"{file} line {line} has {len(row)} cells, the header has {width}. "
                f"Put cells that contain the delimiter in double quotes.{title}"
            )
    rows, numbers = zip(*lines[1:], strict=True)
    columns = tuple(cell.strip() for cell in header)
    return Sheet(file.name, columns, list(rows), [(file.name, number) for number in numbers])


def _text(file: Path) -> str:
    """The text of the file: UTF-8, or UTF-16 with a byte order mark (Excel's "Unicode text")."""
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
            f"{file} line {line} contains a NUL character: the file is damaged or not text. Save it as 'CSV UTF-8'."
        )
    if text.lstrip()[:1] in ("{", "["):  # JSON, or JSON lines
        for part in (text, text.lstrip().partition("\n")[0]):
            with contextlib.suppress(ValueError, RecursionError):
                json.loads(part)
                raise _no_table(file, "JSON", "save it as 'CSV UTF-8'")
    return text


def _other_format(start: bytes) -> tuple[str, str] | None:
    """The format that the first bytes belong to, if not text, and what to do."""
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
    """Move to the header; returns the number of lines before it and the delimiter, perhaps from Excel's `sep=;`."""
    skipped, named = 0, None
    while True:
        start, line = handle.tell(), handle.readline()
        following = handle.readline()
        handle.seek(start)
        if separator := re.fullmatch(r"\"?sep=(\t|[^\s\"])\"?[,;\t]*", line.rstrip("\r\n"), re.IGNORECASE):
            named = separator[1]
        elif not line or (line.strip() and not _is_comment(line, following)):
            lines = [line, following] if following.strip() else [line]
            return skipped, named or _delimiter(lines)
        handle.readline()
        skipped += 1


def _is_comment(line: str, following: str) -> bool:
    """Whether a line starts with # and is not a header, with names above a row that has a number or file name."""
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
    """The delimiter that gives header and first row the same number of cells, and most cells."""

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
    """Whether a row is blank or a comment: one cell that starts with # and a space."""
    first, *others = [cell.strip() for cell in row] or [""]
    return not any(others) and (not first or re.match(r"#+\s", first) is not None)


SPLIT_WORDS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validate", "validation", "dev", "tune", "tuning"),
    "test": ("test", "testing"),
}
EVALUATION = ("eval", "evaluation")  # validation if there is also a test set, else the test set


def split_names(texts: Iterable[str]) -> dict[str, str | None]:
    """The split that each text of one data set names: "train", "val", "test" or None.

    Case, punctuation and a final "set" are ignored: "Training set" is train.
    """
    words = {text: re.sub(r"[\W_]+", "", text.lower()) for text in texts}
    words = {text: word.removesuffix("set") for text, word in words.items()}
    found = {
        text: next((split for split in SPLIT_WORDS if word in SPLIT_WORDS[split]), None) for text, word in words.items()
    }
    evaluation = "val" if "test" in found.values() else "test"
    return {text: evaluation if words[text] in EVALUATION else split for text, split in found.items()}


def fold_splits(entries: Sequence[Sequence[tuple[str, str]]]) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """The split of each image in each fold, from the (fold, split) pairs of its rows (none: unassigned).

    A split of "" means test in that fold and train in all others. An image in two splits of one fold gets a row for
    each, so that the leak check finds it.

    Returns:
        The image of each row, (rows,); the splits, (folds, rows) of "train", "val", "test" or ""; the sorted folds.
    """
    folds = sorted_names(fold for entry in entries for fold, _ in entry)
    number = {fold: index for index, fold in enumerate(folds)}
    images, columns = [], []
    for image, entry in enumerate(entries):
        pairs = dict.fromkeys(entry)
        if not pairs:
            found = [[""] * len(folds)]
        elif all(not split for _, split in pairs):
            found = [["test" if other == fold else "train" for other in folds] for fold, _ in pairs]
        else:
            found = []  # the fewest rows that hold all pairs
            for fold, split in pairs:
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
"""Preferred names first; `*label` is any longer name with that ending, such as `acl_label`."""

OPTIONS = {role: f"--{role}-column " for role in ("path", "label", "patient", "fold", "split")}


class Columns(NamedTuple):
    """Positions of the columns in a sheet."""

    path: int
    labels: tuple[int, ...]
    # One class per cell; 0/1 columns; 0/1 columns with exactly one 1; or several labels in one cell
    form: Literal["class", "several", "one_hot", "separated"]
    patient: int | None
    fold: int | None
    splits: Mapping[str, int]  # "": column with the name of the split; "test": column such as `is_test`
    notes: tuple[str, ...]  # what was guessed and what is not used


def find_columns(sheet: Sheet, settings: DataSettings) -> Columns:
    """The columns of `sheet` that the settings name, the others by their usual names."""
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
    # 0/1 columns called `train` or `test` are probably splits, but `test` may be a laboratory test.
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
    """The columns of image path and patient (if any) of a table without labels."""
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
    """Assigns roles to the columns of a sheet and collects notes."""

    def __init__(self, sheet: Sheet, settings: DataSettings):
        self.sheet, self.settings = sheet, settings
        self.taken: set[int | None] = set()
        self.notes: list[str] = []
        unnamed = re.compile(r"(Unnamed: \d+(_level_\d+)?)?")  # such as the row numbers of pandas
        self.real = {i: name for i, name in enumerate(sheet.columns) if not unnamed.fullmatch(name)}

    @property
    def free(self) -> list[int]:
        """Named columns without a role."""
        return [i for i in self.real if i not in self.taken]

    def cells(self, column: int) -> Iterator[str]:
        return (row[column].strip() for row in self.sheet.rows)

    def find_placement(self, fold: int | None, split: int | None) -> tuple[int | None, dict[str, int]]:
        """The column of the fold, and the columns of the split."""
        if fold is None:
            fold = self.usual("fold", lambda column: not all(map(is_missing, self.cells(column))))
        elif self.given_splits(fold):
            name = self.sheet.columns[fold]
            raise DataError(
                f"Column {name!r} (--fold-column) contains splits. Use --split-column {shlex.quote(name)}.",
                settings=("fold_column",),
            )
        if split is not None:
            return fold, self.flags([split], "(?:is|in)?(.+)") or {"": split}
        if fold is not None and self.given_splits(fold):
            self.notes.append(f"column {self.sheet.columns[fold]!r} contains splits and is used as split")
            return None, {"": fold}
        split = self.usual("split", self.is_split)
        return fold, {"": split} if split is not None else self.flags(self.free, "(?:is|in)(.+)")

    def flags(self, columns: Sequence[int], name: str) -> dict[str, int]:
        """The columns whose cells are mostly 0 or 1 and whose `name` pattern contains a split, by split."""
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
        """Whether most cells of a column with a usual name are splits; for `split` that is assumed."""
        name = self.sheet.columns[column]
        known = {cell: count for cell, count in Counter(self.cells(column)).items() if not is_missing(cell)}
        splits = split_names(known)
        mostly = 2 * sum(known[cell] for cell in known if splits[cell]) >= sum(known.values())
        if known and (_squeezed(name) == "split" or mostly):
            return True
        found = listed(map(repr, known), limit=3) or "nothing"
        self.notes.append(f"column {name!r} is not used as split: it contains {found}")
        return False

    def given_splits(self, column: int) -> dict[str, str]:
        """The split of each cell value; empty if some value is not a split."""
        splits: dict[str, str | None] = {}
        for cell in self.cells(column):
            if cell not in splits and not is_missing(cell):
                splits |= split_names([cell])
                if splits[cell] is None:
                    return {}
        return split_names(splits)

    def note_ignored_splits(self, flags: set[int], fold: int | None, splits: Mapping[str, int], *, named: bool) -> None:
        """A warning for each unused column with splits."""
        used = [i for i in (splits.get(""), *splits.values(), fold) if i is not None]
        names = self.sheet.columns
        instead = f"column {names[used[0]]!r} is used" if used else "folds are drawn from all images"
        used_splits = list(map(self.given_splits(used[0]).get, self.cells(used[0]))) if used else None
        for column in self.free:
            given, quoted = self.given_splits(column), shlex.quote(names[column])
            found = list(map(given.get, self.cells(column)))
            if len(set(given.values())) > 1 and found != used_splits:
                counts = Counter(found)
                found = ", ".join(f"{split} {counts[split]}" for split in ("train", "val", "test") if counts[split])
                self.notes.append(
                    f"split ignored: column {names[column]!r} contains splits ({found}) and is not used: {instead}"
                    + ("" if named else f"; use it with --split-column {quoted}")
                )
        for column in sorted(flags - self.taken) if not named else ():
            option = f"if it marks the images of a split, use --split-column {shlex.quote(names[column])}"
            found = f"column {names[column]!r} contains 0 and 1 and is not used"
            self.notes.append(f"split ignored: {found}: {instead}; {option}")

    def find_labels(self, flags: set[int]) -> tuple[list[int], str]:
        """The label column; for a multi-label task or without one all 0/1 columns; else the only remaining column."""
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
            for same in by_name.values():
                self.check_unique(same, "label")
            names = listed(self.sheet.columns[i] for i in binary)
            self.notes.append(f"{len(binary)} labels from the columns with 0, 1, -1 or nothing: {names}")
            return binary, self.form(several=True)
        left = free if len(free) == 1 else [i for i in free if self.could_be_labels(i)]
        if len(left) != 1 or (task == "multilabel" and not separator):
            several = " Several labels in one cell need --label-separator." if task == "multilabel" else ""
            raise DataError(self.none_for("label", left) + several, settings=("task",))
        name = self.sheet.columns[left[0]]
        self.notes.append(f"labels from column {name!r}, the only candidate; choose another with --label-column")
        return left, self.form()

    def form(self, *, several: bool = False) -> str:
        if self.settings.label_separator:
            return "separated"
        if several and self.settings.task in ("binary", "multiclass"):
            return "one_hot"
        return "several" if several or self.settings.task == "multilabel" else "class"

    def could_be_labels(self, column: int) -> bool:
        """Whether a column has two or more values that may be classes."""
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
        """The free column with the most preferred usual name among those that fit; a `guess` assigns no role."""
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
        self.check_unique([i for i, name in names.items() if i in candidates and name == names[first]], role)
        if guess:
            return first
        if others:
            hint = f"; choose with {OPTIONS[role]}NAME" if role in OPTIONS else ""
            also = listed(repr(self.sheet.columns[i]) for i in others)
            name = self.sheet.columns[first]
            self.notes.append(f"column {name!r} used as {role} (also possible: {also}{hint})")
        self.taken.add(first)
        return first

    def check_unique(self, columns: Sequence[int], role: str) -> None:
        """Raises DataError if several columns have the same name, ignoring case and punctuation."""
        names = [self.sheet.columns[i] for i in columns]
        if len(names) > 1:
            exact = len(set(names)) == len(names)
            choose = f", or choose with {OPTIONS[role]}NAME" if role in OPTIONS and exact else ""
            raise DataError(
                f"{self.sheet.name} has {len(names)} columns with the same name for the {role}: "
                f"{listed(map(repr, names))}. "
                f"Rename or remove all but one{choose}."
            )

    def named(self, role: str, name: str | None, together: Sequence[str] = (), *, guess: bool = True) -> int | None:
        """The column called `name`, else the one that differs in case; `together` are all label columns."""
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
        # If another of the columns exists, this is the right table with a mistyped name.
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
        choice = f" Candidates: {listed(repr(self.sheet.columns[i]) for i in left)}." if len(left) > 1 else ""
        usual = ", ".join(USUAL_NAMES[role][:8])
        return (
            f"{self.sheet.name} has no column for {what}: expected a name such as {usual}. "
            f"Columns: {listed(columns, 40)}.{choice} Name it with {OPTIONS[role]}NAME."
        )


def _squeezed(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.lower())
