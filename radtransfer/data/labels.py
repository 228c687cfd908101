"""From cells of text to classes and targets."""

import contextlib
import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from radtransfer.config.schema import DataSettings
from radtransfer.errors import ConfigError, DataError, close_matches

if TYPE_CHECKING:
    from radtransfer.data.table import ImageTable

_MISSING = re.compile(
    r"[<(\[]?(?:#?n[./]?a\.?|-?nan|nat|none|null|nil|unk|unknown|missing|blank|undefined|anonym(?:ous|i[sz]ed)"
    r"|not[ _](?:available|applicable|known|reported|specified)|no[ _]?data)[>)\]]?"
    r"|#(?:null!|value!|ref!|div/0!|name\?|num!)|\\n|[-–—―−?.]*",
    re.IGNORECASE,
)
"""Spellings of a missing value by people, pandas, SQL and spreadsheets."""

_YES_NO = {"true": "1", "yes": "1", "t": "1", "y": "1", "false": "0", "no": "0", "f": "0", "n": "0"}
_YES_NO |= {f"{number},{zeros}": number for number in ("1", "0", "-1") for zeros in ("0", "00")}

BINARY = frozenset({"0", "1", "-1", ""})  # values of a multi-label column, after `binary_cell`

NO_FINDING = frozenset({"no finding", "no findings", "no abnormality", "no abnormalities"})
"""Words for "none of the labels" (compared without case)."""

SEPARATORS = "|;,/+&"  # usual separators of several labels in one cell

_QUOTED = re.compile(r"""'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)\"""")
_WHOLE_FLOAT = re.compile(r"([+-]?\d+)\.0*")
_INTEGER = re.compile(r"[+-]?\d+")


class RowsError(DataError):
    """Invalid rows of a table (none listed: the table as a whole); `kind` is the kind of finding in a report."""

    def __init__(self, message: str, rows: Sequence[int], *, kind: str = "table"):
        self.rows, self.kind = tuple(rows), kind
        super().__init__(message)


def is_missing(cell: str) -> bool:
    """Whether a cell is empty or a word for a missing value: NA, nan, None, null, unknown, "-" …."""
    return _MISSING.fullmatch(cell.strip()) is not None


def clean_cell(cell: str) -> str:
    """A cell without surrounding spaces; "1.0" as "1", as pandas writes integers of a column with empty cells."""
    text = cell.strip()
    whole = _WHOLE_FLOAT.fullmatch(text)
    return whole[1] if whole else text


def cell_value(cell: str) -> str:
    """`clean_cell`, "" if the value is missing."""
    return "" if is_missing(cell) else clean_cell(cell)


@functools.lru_cache(maxsize=1000)
def binary_cell(cell: str) -> str:
    """A cell of a 0/1 column as "0", "1", "-1" (uncertain) or "" (missing); yes and 1,0 are "1"; others unchanged."""
    text = cell_value(cell)
    return _YES_NO.get(text.lower(), text)


def missing_words(cells: Iterable[str]) -> str:
    """How often each word for a missing value occurs, for messages: 'NA' 7, empty 3."""
    counts = Counter(cell.strip() for cell in cells)
    return listed((f"{word!r} {count}" if word else f"empty {count}" for word, count in counts.most_common()), limit=8)


def split_labels(cell: str, separator: str) -> list[str]:
    """The labels in one cell; a Python list such as `['a', 'b']` is read with any separator, `[]` is "no finding"."""
    text = cell.strip()
    parts = text.split(separator)
    if text[:1] + text[-1:] in ("[]", "()", "{}"):
        text = text[1:-1].strip()
        quoted = [single or double for single, double in _QUOTED.findall(text)]
        if not text:
            parts = ["no finding"]
        elif not re.sub(r"[\s,]", "", _QUOTED.sub("", text)):
            parts = quoted
        else:
            parts = text.split(separator if separator in text else ",")
    parts = [part.strip().strip("\"'").strip() for part in parts]
    return [clean_cell(part) for part in dict.fromkeys(parts) if part]


def joined_labels(classes: Iterable[str]) -> str | None:
    """A note if classes look like several labels in one cell: lists, or parts that occur in other classes too."""
    classes = sorted(classes)
    for separator in SEPARATORS:
        parts = {name: [part.strip() for part in name.split(separator)] for name in classes}
        known = Counter(part for found in parts.values() for part in set(found))
        enough = any if separator in "|;" else all
        joined = [name for name in classes if len(parts[name]) > 1 and enough(known[part] > 1 for part in parts[name])]
        lists = [name for name in classes if separator == "," and name[:1] + name[-1:] == "[]"]
        if found := joined or lists:
            return (
                f"joined labels: classes such as {found[0]!r} look like several labels in one cell, and each "
                f"combination counts as a class; --label-separator '{separator}' makes a label of each part"
            )
    return None


def check_values(labels: Sequence[str], column: str) -> tuple[str, ...]:
    """Check that the values of a label column are classes, not names or measurements; returns notes.

    Raises RowsError for more than ten different fractions (four if most are unique), more than twenty integers with
    fewer than five images each, and more than ten values with fewer than two images each or 1,000 with fewer than ten.
    """
    values = list(dict.fromkeys(labels))
    share = len(values) / len(labels)
    numbers = None
    with contextlib.suppress(ValueError):
        numbers = [float(value) for value in values]
    few = ", ".join(map(repr, values[:3]))
    found = f"Column {column!r} has {len(values)} different values in {len(labels)} images, such as {few}"
    crowded = (len(values) > 10 and share > 0.5) or (len(values) > 1000 and share > 0.1)
    whole = numbers is not None and all(number.is_integer() for number in numbers)
    fractions = numbers is not None and not whole and len(values) > (4 if share > 0.5 else 10)
    if fractions or (whole and (crowded or (len(values) > 20 and share > 0.2))):
        raise RowsError(
            f"{found}: these look like measurements, not classes. radtransfer classifies and does no regression. "
            "Group the values into classes, or name another column with --label-column.",
            (),
            kind="label_column",
        )
    if crowded:
        joined = joined_labels(values)
        many = "nearly as many as images" if share > 0.5 else "too many"
        raise RowsError(
            f"{found}: {many} to be classes. Name the class column with --label-column."
            + (f" Or: {joined.partition(': ')[2]}." if joined else ""),
            (),
            kind="label_column",
        )
    if whole and len(values) > 20:
        return (
            f"label column: {column!r} has {len(values)} whole numbers, from {min(numbers):g} to {max(numbers):g}, "
            "each of which is a class; if they are measurements, group them into classes",
        )
    return ()


def sorted_names(names: Iterable[str]) -> tuple[str, ...]:
    """Unique names, sorted by value if all are integers, else as text."""
    unique = set(names)
    if all(_INTEGER.fullmatch(name) for name in unique):
        return tuple(sorted(unique, key=lambda name: (int(name), name)))
    return tuple(sorted(unique))


def one_hot(labels: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Targets, float32 (images, classes), and the sorted classes of one label per image."""
    classes = sorted_names(labels)
    column = {name: index for index, name in enumerate(classes)}
    return np.eye(len(classes), dtype="float32")[[column[label] for label in labels]], classes


def multilabel_targets(
    names: Sequence[str],
    rows: Sequence[Sequence[str]],
    settings: DataSettings,
    *,
    error: Callable[[int, str], DataError],
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Targets of several labels, float32 (images, labels), NaN: unknown; and the sorted labels.

    `rows` has the cells of each image in the order of `names`; `error` makes the error from row number and problem.
    """
    uncertain = {"zeros": 0.0, "ones": 1.0, "ignore": np.nan}[settings.uncertain]
    unmentioned = {"zeros": 0.0, "ignore": np.nan}[settings.unmentioned]
    values = {"0": 0.0, "1": 1.0, "-1": uncertain, "": unmentioned}
    order = sorted(range(len(names)), key=lambda i: names[i])
    targets = np.empty((len(rows), len(order)), dtype="float32")
    for j, column in enumerate(order):
        for i, row in enumerate(rows):
            value = values.get(binary_cell(row[column]))
            if value is None:
                raise error(
                    i, f"column {names[column]!r}: expected 1, 0, -1 (uncertain) or nothing, received {row[column]!r}."
                )
            targets[i, j] = value
    return targets, tuple(names[column] for column in order)


def check_labels(table: "ImageTable", settings: DataSettings) -> tuple[str, ...]:
    """Check the labels against `--task`, `--positive-from` and `--positive-class`; returns notes on odd labels."""
    if settings.task == "multilabel" and table.task != "multilabel":
        raise DataError(
            "Task multilabel needs a 0/1 column for each label (--label-column A,B,…); this data has one "
            "label per image.",
            settings=("task",),
        )
    if settings.task in ("binary", "multiclass") and table.task == "multilabel":
        raise DataError(
            f"Task {settings.task} needs one label per image; this data has {listed(table.classes)}. "
            "Name one column with --label-column, or use --task multilabel.",
            settings=("task",),
        )
    if settings.task == "binary" and len(table.classes) != 2:
        found = f"{len(table.classes)}: {listed(table.classes)}"
        raise DataError(f"Task binary needs two classes; found {found}.", settings=("task",))
    if (limit := settings.positive_from) is not None:
        if table.task == "multilabel" or not all(_INTEGER.fullmatch(name) for name in table.classes):
            raise DataError(
                f"--positive-from {limit} needs one integer grade per image; the labels are {listed(table.classes)}.",
                settings=("positive_from",),
            )
        reached = {int(name) >= limit for name in table.classes}
        if len(reached) < 2:
            side = "below it" if reached == {True} else "at or above it"
            raise DataError(
                f"--positive-from {limit}: the grades are {listed(table.classes)}, none is {side}. "
                f"Choose one above {table.classes[0]} and up to {table.classes[-1]}.",
                settings=("positive_from",),
            )
    positive_class(table, settings)
    if table.task != "multilabel" and len(table.classes) < 2:
        raise DataError(f"Expected two or more classes, found one: {listed(table.classes)} ({len(table)} images).")
    spellings: dict[str, list[str]] = {}
    counts = dict(zip(table.classes, (table.targets == 1).sum(axis=0).tolist(), strict=True))
    for name in table.classes:
        spellings.setdefault(re.sub(r"[\s_-]+", " ", name).casefold(), []).append(name)
    notes = [
        f"{' and '.join(f'{name!r} ({counts[name]})' for name in names)} differ in spelling only and count as "
        f"{len(names)} classes; use one spelling if they are the same"
        for names in spellings.values()
        if len(names) > 1
    ]
    for name, values in zip(table.classes, table.targets.T, strict=True) if table.task == "multilabel" else ():
        known = values[~np.isnan(values)]
        if not known.size or known.min() == known.max():
            found = f"only {known[0]:g}" if known.size else "no known value"
            notes.append(f"label {name!r} has {found}: its AUC will be undefined")
    return tuple(notes)


def listed(names: Iterable[str], limit: int = 12) -> str:
    """Up to `limit` names for a message."""
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def positive_class(table: "ImageTable", settings: DataSettings) -> str | None:
    """The positive one of two classes: `data.positive_class`, or the last; None unless there are two."""
    grade = table.positive_from if settings.positive_from is None else settings.positive_from
    if settings.positive_class is None:
        two = table.task == "multiclass" and len(table.classes) == 2 and grade is None
        return table.classes[-1] if two else None
    return find_positive_class(settings.positive_class, table.classes, task=table.task, positive_from=grade)


def find_positive_class(name: str, classes: Sequence[str], *, task: str, positive_from: int | None) -> str:
    """The one of two classes called `name`; surrounding spaces and "1.0" for "1" do not matter.

    Raises ConfigError if there are not two classes of one label per image, or none has this name.
    """
    why = None
    if task == "multilabel":
        why = f"this data has 0/1 labels ({listed(classes)}), each positive at 1"
    elif positive_from is not None:
        why = f"this data has grades, positive from {positive_from} (--positive-from)"
    elif len(classes) != 2:
        why = f"found {len(classes)}: {listed(classes)}"
    if why:
        raise ConfigError(
            f"--positive-class {name} needs two classes and one label per image; {why}. Leave --positive-class out.",
            settings=("positive_class",),
        )
    if name in classes:
        return name
    same = [item for item in classes if _same_text(item) == _same_text(name)]
    if len(same) == 1:
        return same[0]
    folded = [item for item in classes if _same_text(item).casefold() == _same_text(name).casefold()]
    near = folded or close_matches(name, classes)
    meant = f"Did you mean {' or '.join(map(repr, near))}?" if near else "Give one of them."
    raise ConfigError(
        f"--positive-class {name!r}: the classes are {' and '.join(map(repr, classes))}. {meant}",
        settings=("positive_class",),
    )


def _same_text(name: str) -> str:
    return unicodedata.normalize("NFC", clean_cell(name))
