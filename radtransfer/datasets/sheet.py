"""Read delimited text as users have it: comma, semicolon, tab or bar; with or without a byte-order mark."""

import csv
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from radtransfer.errors import DataError

DELIMITERS = ",;\t|"


@dataclass(frozen=True)
class Sheet:
    """A table of text.

    Attributes:
        name: File name, for messages.
        columns: The header; may hold empty and repeated names.
        rows: Cells, as many as there are columns.
        places: File name and line of each row.
    """

    name: str
    columns: tuple[str, ...]
    rows: list[list[str]]
    places: list[tuple[str, int]]

    def place(self, row: int) -> str:
        """Where a row stands, as messages call it: "train.csv line 3"."""
        return "{} line {}".format(*self.places[row])

    def without(self, rows: Collection[int]) -> "Sheet":
        """The table less some of its rows."""
        kept = [row for row in range(len(self.rows)) if row not in rows]
        return Sheet(self.name, self.columns, [self.rows[row] for row in kept], [self.places[row] for row in kept])


class RowsError(DataError):
    """Rows of a table that are mistaken; without them the others may be right.

    Args:
        message: What is wrong.
        rows: Numbers of the rows, from 0; none where the table as a whole is mistaken.
        kind: What it is called in a report.
    """

    def __init__(self, message: str, rows: Sequence[int], *, kind: str = "table"):
        self.rows, self.kind = tuple(rows), kind
        super().__init__(message)


def read_sheet(file: Path) -> Sheet:
    """The rows of a delimited text file with a header; blank lines are skipped.

    Raises:
        DataError: Not readable, not UTF-8, no rows, or a row whose cells do not match the header.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.reader(handle, delimiter=_delimiter(file), strict=True)
            lines = [(row, reader.line_num) for row in reader if any(cell.strip() for cell in row)]
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 text ({error.reason}). Save it as 'CSV UTF-8'.") from None
    except csv.Error as error:
        raise DataError(f"{file} line {reader.line_num} is not valid CSV: {error}.") from None
    except OSError as error:
        raise DataError(f"Cannot read {file}: {error.strerror}.") from None
    if len(lines) < 2:
        found = f"only the header {', '.join(lines[0][0])}" if lines else "nothing"
        raise DataError(f"{file} holds no images: expected a header and a row per image, found {found}.")
    _check_widths(file, lines)
    columns = tuple(cell.strip() for cell in lines[0][0])
    rows, numbers = zip(*lines[1:], strict=True)
    return Sheet(file.name, columns, list(rows), [(file.name, number) for number in numbers])


def _delimiter(file: Path) -> str:
    """The delimiter that cuts header and first row into equally many cells, and into most."""
    with file.open(encoding="utf-8-sig", newline="") as handle:
        lines = [line for line in (handle.readline(), handle.readline()) if line.strip()]

    def score(delimiter: str) -> tuple[bool, int]:
        widths = [len(next(csv.reader([line], delimiter=delimiter))) for line in lines]
        return len(set(widths)) == 1 and widths[0] > 1, widths[0] if widths else 0

    return max(DELIMITERS, key=score)


def _check_widths(file: Path, lines: list[tuple[list[str], int]]) -> None:
    width = len(lines[0][0])
    for row, line in lines[1:]:
        if len(row) != width:
            raise DataError(
                f"{file} line {line} has {len(row)} cells, the header has {width}. "
                "Put names that hold the delimiter in double quotes."
            )
