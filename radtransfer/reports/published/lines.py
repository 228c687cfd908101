"""The lines of a published CSV file: each knows its number, and what is wrong with it is said with it."""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from radtransfer.errors import DataError

LAYER = re.compile(r"(conv|block|stem|stage|layer|mixed)[_-]?\d*|conv\d_\w+")
"""Names of columns that are layers."""

_MISSING = {"", "nan", "na", "n/a", "null", "none", "-"}


@dataclass(frozen=True)
class Line:
    """A line of a file: its number, counted from 1 with the header, and its fields by column, without blanks."""

    path: Path
    number: int
    fields: dict[str, str]

    def text(self, column: str) -> str:
        """A name; raises DataError where there is none."""
        if not self.fields[column]:
            raise self.error(f"column {column!r} is empty")
        return self.fields[column]

    def share(self, column: str) -> float | None:
        """A number from 0 to 1; None where it is missing."""
        text = self.fields[column]
        if text.lower() in _MISSING:
            return None
        try:
            value = float(text)
        except ValueError:
            value = float("inf")
        if not -1e-6 <= value <= 1 + 1e-6:
            raise self.error(f"expected a number from 0 to 1 in column {column!r}, received {text!r}")
        return min(max(value, 0.0), 1.0)

    def error(self, what: str) -> DataError:
        """What to raise: `what` is wrong with the line."""
        return DataError(f"{self.path}, line {self.number}: {what}. Correct the line.")


class Once:
    """Sees to it that each line counts once."""

    def __init__(self, path: Path, notes: list[str]):
        self.path, self.notes, self.seen = path, notes, {}

    def new(self, line: Line, key: tuple, value: object) -> bool:
        """Whether the line has a value and its key is met for the first time.

        Raises:
            DataError: The key was met with another value.
        """
        where = f"{self.path.name}, line {line.number} ({', '.join(filter(None, key))})"
        if value is None:
            self.notes.append(f"{where}: no value; left out")
            return False
        if key not in self.seen:
            self.seen[key] = (line.number, value)
            return True
        first, before = self.seen[key]
        if before != value:
            raise line.error(f"{', '.join(filter(None, key))} stands in line {first} already, with another value")
        self.notes.append(f"{where}: repeats line {first}; counted once")
        return False


def read_lines(
    path: Path, columns: Sequence[str], notes: list[str], *, also: Sequence[str] = ()
) -> tuple[Iterator[Line], list[str]]:
    """The lines of a CSV file that are not blank, and its header; notes the columns that say nothing to us."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.reader(handle)
            header = [name.strip() for name in next(reader, [])]
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: expected a CSV file in UTF-8; it cannot be read ({error}).") from None
    missing = [name for name in columns if name not in header]
    if missing:
        has = ", ".join(filter(None, header)) or "nothing"
        raise DataError(
            f"{path}: expected the columns {', '.join(columns)}; {', '.join(missing)} missing. It has {has}."
        )
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise DataError(f"{path}: the column {', '.join(twice)} stands there twice. Name each column once.")
    unknown = [name for name in header if name not in (*columns, *also) and not (also and LAYER.fullmatch(name))]
    if any(unknown):
        notes.append(f"{path.name}: columns not used: {', '.join(filter(None, unknown))}")
    if not any(text.strip() for _, row in rows for text in row):
        notes.append(f"{path.name}: no line below the header")
    return _checked(path, header, rows), header


def _checked(path: Path, header: Sequence[str], rows: Sequence[tuple[int, list[str]]]) -> Iterator[Line]:
    for number, row in rows:
        if not any(text.strip() for text in row):
            continue
        if len(row) != len(header):
            raise DataError(
                f"{path}, line {number}: expected {len(header)} fields, as the header has, received {len(row)}. "
                "Correct the line."
            )
        yield Line(path, number, dict(zip(header, (text.strip() for text in row), strict=True)))
