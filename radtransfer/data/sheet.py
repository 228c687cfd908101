"""Read delimited text as users have it: comma, semicolon, tab or bar; with or without a byte-order mark."""

import codecs
import csv
import io
import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from radtransfer.data.image_files import is_dangling, is_image_name
from radtransfer.errors import DataError
from radtransfer.images.dicom import is_dicom
from radtransfer.images.files import PACKED, START, TABLES, advice, format_by_content
from radtransfer.images.pillow import READERS, why_missing

DELIMITERS = ",;\t|"

MOST_COLUMNS = 10_000

_POINTERS = (b"version https://git-lfs", b"/annex/objects/", b".git/annex/objects/")
"""How a small file begins that stands for one which is not fetched."""


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
    """The rows of a delimited text file with a header; blank lines and comments are skipped.

    Raises:
        DataError: Not readable, not text, no rows, too large a cell or header, or a row whose cells do not match the
            header.
    """
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
    _check_widths(file, lines)
    columns = tuple(cell.strip() for cell in lines[0][0])
    rows, numbers = zip(*lines[1:], strict=True)
    return Sheet(file.name, columns, list(rows), [(file.name, number) for number in numbers])


def _text(file: Path) -> str:
    """What the file holds: UTF-8, or UTF-16 with its mark, which Excel calls Unicode text."""
    try:
        with file.open("rb") as handle:
            start = handle.read(START)
            _check_format(file, start)
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
    if text.lstrip()[:1] in ("{", "[") and _is_json(text):
        raise _no_table(file, "JSON", "save it as 'CSV UTF-8'")
    return text


def _check_format(file: Path, start: bytes) -> None:
    """Raises DataError if the first bytes are those of something else than text."""
    if start.lstrip().startswith(b"<"):
        raise _no_table(file, "HTML or XML", "save it as 'CSV UTF-8', or download it again")
    if start.startswith(_POINTERS):
        raise _no_table(
            file, "a pointer of Git LFS or git-annex", "run `git lfs pull`, `datalad get` or `git annex get`"
        )
    if start.isascii() and b"\0" not in start:
        return
    if is_dicom(start) or any(map(start.startswith, READERS)):
        raise _no_table(file, "an image", "give a CSV that lists the images")
    if found := format_by_content(start):
        also = "" if found in TABLES | PACKED else ", and give a CSV that lists the images"
        raise _no_table(file, found, f"{advice(found)}{also}")


def _no_table(file: Path, found: str, to_do: str) -> DataError:
    to_do = f"{to_do[0].upper()}{to_do[1:]}"
    return DataError(f"{file} is not a table. Expected: text, as CSV in UTF-8. Received: {found}. {to_do}.")


def _is_json(text: str) -> bool:
    """Whether all of the text, or its first line, is JSON."""
    for part in (text, text.lstrip().partition("\n")[0]):
        try:
            json.loads(part)
        except (ValueError, RecursionError):
            continue
        return True
    return False


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
    """Whether a line is one for people: it begins with # and is no row of names above a row of an image.

    Names have as many cells as the row, which holds a number or the name of a file.
    """
    if not line.lstrip("\"' \t").startswith("#"):
        return False
    delimiter = _delimiter([line, following])
    names, cells = (_cells(text, delimiter) for text in (line, following))
    words = all(re.fullmatch(r"#?\s*[\w.-]+", name.strip()) for name in names)
    if not words or len(names) != len(cells):
        return True
    return not (
        any(re.search(r"[\d./\\]", cell) for cell in cells) if len(names) > 1 else is_image_name(cells[0].strip())
    )


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


def _check_widths(file: Path, lines: list[tuple[list[str], int]]) -> None:
    width = len(lines[0][0])
    if width > MOST_COLUMNS:
        raise DataError(
            f"{file} has {width:,} columns. Expected at most {MOST_COLUMNS:,}, and a row per image: a path, a label, a "
            "patient. Turn it if it has a column per image, or leave out the columns that describe no image."
        )
    for row, line in lines[1:]:
        if len(row) != width:
            title = f" If {lines[0][0][0]!r} stands before the header, remove that line." if width == 1 else ""
            raise DataError(
                f"{file} line {line} has {len(row)} cells, the header has {width}. "
                f"Put names that hold the delimiter in double quotes.{title}"
            )
