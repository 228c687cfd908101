"""A sheet of pictures: a row per image, as it is and in random variations."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from radtransfer.figures.style import COLORS, in_paper_style
from radtransfer.safe_text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CELL, GAP, CAPTION, HEAD = 1.2, 0.06, 1.35, 0.5
"""Side of a picture, space between two, width of the captions and height above everything, inches."""

LETTERS = 24
"""Of a line of a caption."""


@dataclass(frozen=True, eq=False)
class SheetRow:
    """One image of the sheet.

    Attributes:
        name: File name; shortened in its middle to three lines.
        label: Its class.
        pictures: The image as it is, then its variations, each uint8 (height, width, 3), RGB.
    """

    name: str
    label: str
    pictures: tuple[np.ndarray, ...]


@in_paper_style
def draw_contact_sheet(
    rows: Sequence[SheetRow], *, heads: Sequence[str], classes: Sequence[str], title: str
) -> "Figure":
    """A figure of all rows.

    Args:
        rows: One or more, with as many pictures each as there are heads.
        heads: Above the columns.
        classes: In the order of their colours.
        title: Above everything.
    """
    from matplotlib.figure import Figure

    step = CELL + GAP
    width, height = CAPTION + step * len(heads) + GAP, HEAD + step * len(rows) + GAP
    figure = Figure(figsize=(width, height), facecolor="white")
    figure.text(GAP / width, 1 - 0.08 / height, title, va="top", ha="left", fontsize=9, parse_math=False)
    for j, head in enumerate(heads):
        x = (CAPTION + step * j + CELL / 2) / width
        figure.text(x, 1 - (HEAD - 0.05) / height, head, va="bottom", ha="center", color="0.35")
    for i, row in enumerate(rows):
        bottom = height - HEAD - step * i - CELL
        color = COLORS[classes.index(row.label) % len(COLORS)] if row.label in classes else "black"
        _caption(figure, row, color=color, x=(CAPTION - 0.1) / width, y=(bottom + CELL / 2) / height)
        for j, picture in enumerate(row.pictures):
            box = ((CAPTION + step * j) / width, bottom / height, CELL / width, CELL / height)
            _show(figure.add_axes(box), picture)
    return figure


def _caption(figure: "Figure", row: SheetRow, *, color: str, x: float, y: float) -> None:
    """The class above the middle of the row, the name below it, both ending at `x`."""
    label = shortened(printable(row.label or "no label"), LETTERS)
    figure.text(x, y, label, ha="right", va="bottom", color=color, fontweight="bold", parse_math=False)
    name = shortened(printable(row.name), 3 * LETTERS)
    lines = "\n".join(name[start : start + LETTERS] for start in range(0, len(name), LETTERS))
    figure.text(x, y - 0.004, lines, ha="right", va="top", fontsize=6, color="0.35", parse_math=False)


def _show(axes: "Axes", picture: np.ndarray) -> None:
    axes.imshow(picture, interpolation="antialiased")
    axes.set_axis_off()


def shortened(text: str, letters: int) -> str:
    """`text` with its middle replaced by "…" if it is longer than that."""
    if len(text) <= letters:
        return text
    end = (letters - 1) // 2
    return f"{text[: letters - 1 - end]}…{text[-end:]}"
