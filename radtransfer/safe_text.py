"""Text that may come from anyone, made safe for where it is shown: a terminal, JSON, a page, Markdown, a spreadsheet.

Names of files, classes, columns and runs may hold anything. Whatever shows them passes them through one of these.
"""

import html
import json
import re
from typing import Any

_BLANK = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"  # noqa: RUF001
)
"""Characters that Python calls printable and that show nothing."""

_MARKDOWN = re.compile(r"[\\`*\[\]|#~]|(?<![^\W_])_|_(?![^\W_])|^[-+=](?=[-+=\s]|$)")
_FORMULA = re.compile(r"[=+\-@\t\r\n＝＋－＠]")  # noqa: RUF001


def printable(text: Any) -> str:
    r"""`text` on one line, with an escape such as \x1b for every character that steers a terminal or shows nothing."""
    text = str(text)
    if text.isprintable() and not _BLANK.search(text):
        return text
    return "".join(letter if _shows(letter) or letter == "\t" else ascii(letter)[1:-1] for letter in text)


def printable_lines(text: Any) -> str:
    """The same of a text of several lines; those after the first are indented: none can pass for one of ours."""
    first, *more = map(printable, str(text).split("\n"))
    return "\n".join([first, *(line if line[:1] in ("", " ", "\t") else f"  {line}" for line in more)])


def json_text(value: Any, **options: Any) -> str:
    """`value` as JSON in which no character steers a terminal; it reads back equal."""
    text = json.dumps(value, **options)
    if text.isascii():
        return text.replace("\x7f", r"\u007f")
    return "".join(letter if letter == "\n" or _shows(letter) else _json_escape(letter) for letter in text)


def html_text(text: Any) -> str:
    """`text` as a page shows it letter by letter, also between the quotes of an attribute."""
    return html.escape("\n".join(map(printable, str(text).split("\n"))))


def markdown_text(text: Any) -> str:
    """`text` as Markdown shows it letter by letter, on one line, also in a cell of a table."""
    line = _MARKDOWN.sub(r"\\\g<0>", html.escape(printable(" ".join(str(text).split())), quote=False))
    return re.sub(r"^(\d+)([.)])(?=\s|$)", r"\1\\\2", line)  # a number of a list


def markdown_code(text: Any) -> str:
    """`text` as Markdown shows code within a line."""
    line = printable(" ".join(str(text).split()))
    fence = "`" * (max(map(len, re.findall("`+", line)), default=0) + 1)
    return f"{fence}{line}{fence}" if fence == "`" else f"{fence} {line} {fence}"


def spreadsheet_cell(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula: a text that begins like one gets an apostrophe before it.

    Numbers stay as they are, also those that are written as text.
    """
    if not isinstance(value, str) or not _FORMULA.match(value) or _is_number(value):
        return value
    return f"'{value}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


def _shows(letter: str) -> bool:
    return letter.isprintable() and not _BLANK.match(letter)


def _json_escape(letter: str) -> str:
    return json.dumps(letter)[1:-1] if ord(letter) > 0x7F else f"\\u{ord(letter):04x}"
