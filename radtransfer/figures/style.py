"""What all figures share: colours that survive grey print and colour blindness, sizes, and saving whole files.

References:
    Okabe, Ito 2008, Color Universal Design (the eight colours).
"""

from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING

from radtransfer.errors import ConfigError
from radtransfer.runs import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
"""In order of use; lines take a marker and a dash of their own as well, so that colour is never needed."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", "--", "-.", ":", "-", "--", "-.", ":")

FORMATS = (".png", ".svg", ".pdf")
"""What a figure can be saved as."""

COLUMN = 3.5
"""Width of one column of a paper, inches."""

_STYLE = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "radtransfer",  # and the same figure is the same file
}


def new_figure(
    rows: int = 1, columns: int = 1, *, width: float = COLUMN, height: float = 2.5
) -> tuple["Figure", list["Axes"]]:
    """A figure of `width` × `height` inches and its axes, row by row.

    Nothing global is touched: no backend, no current figure, no `rcParams` of the caller.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False)
    return figure, list(axes.flat)


def in_paper_style(draw: Callable[..., "Figure"]) -> Callable[..., "Figure"]:
    """A function that draws a figure, drawing all of it in the house style."""

    @wraps(draw)
    def styled(*args, **keywords) -> "Figure":
        import matplotlib

        with matplotlib.rc_context(_STYLE):
            return draw(*args, **keywords)

    return styled


def line_style(number: int) -> dict[str, str]:
    """Colour, marker and dash of line `number` (from 0), as keywords of `Axes.plot`."""
    return {
        "color": COLORS[number % len(COLORS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": DASHES[number % len(DASHES)],
    }


def plain(text: str) -> str:
    """`text` as matplotlib draws it letter by letter: no formula at a dollar sign, no label hidden by an underscore."""
    shown = "".join(letter if letter.isprintable() else " " for letter in text).replace("$", "\\$")
    return f" {shown}" if shown.startswith("_") else shown


def shortened(name: str, letters: int) -> str:
    """`name` in at most so many letters."""
    return name if len(name) <= letters else f"{name[: letters - 1]}…"


def set_subject(axes: "Axes", subject: str) -> None:
    """Write above the axes what its figures are of, such as "positive class sick"; nothing for ""."""
    if subject:
        axes.set_title(plain(shortened(subject, 16 * int(axes.figure.get_size_inches()[0]))), fontsize=8)


def name_above(
    figure: "Figure", names: Sequence[str], handles: Sequence | None = None, values: Sequence[str] | None = None
) -> None:
    """A legend above the axes, in as many columns as names of that length leave room for.

    Args:
        figure: Whose legend it is.
        names: Cut where they are too long.
        handles: Of the lines; else those of the first axes that have a label.
        values: To stand behind the names, uncut.
    """
    room = 17 * figure.get_size_inches()[0]  # letters of 7 points
    tails = [""] * len(names) if values is None else [f", {value}" for value in values]
    shown = [shortened(name, int(room) - 12 - len(tail)) + tail for name, tail in zip(names, tails, strict=True)]
    columns = int(room // (max(map(len, shown), default=1) + 12))
    labels = list(map(plain, shown))
    if handles is None:
        handles = figure.axes[0].get_legend_handles_labels()[0]
    columns = min(max(columns, 1), 4, max(len(labels), 1))
    figure.legend(handles, labels, loc="outside upper center", ncols=columns, fontsize=7, frameon=False)


def save_figure(figure: "Figure", path: Path) -> None:
    """Write `figure` in the format of the suffix, whole or not at all; a PNG has 200 dots per inch.

    Raises:
        ConfigError: No format of a figure.
    """
    import matplotlib

    check_figure_path(path)
    # Without a date the same values give the same bytes.
    metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix.lower())
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(_STYLE), whole_file(path) as part:
        figure.savefig(part, format=path.suffix.lower()[1:], dpi=200, metadata=metadata)


def check_figure_path(path: Path) -> None:
    """Raises ConfigError unless a figure can be saved as `path`."""
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(f"A figure is saved as {', '.join(FORMATS)}. Received: {path}.")
