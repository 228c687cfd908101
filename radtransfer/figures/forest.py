"""A forest plot: a row per name, its value with an interval, and the single values behind it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from radtransfer.figures.style import COLORS, COLUMN, in_paper_style, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LONG = 46


@in_paper_style
def draw_forest(
    names: Sequence[str],
    rows: Sequence[tuple[float, float, float]],
    *,
    label: str,
    reference: float | None = None,
    points: Sequence[Sequence[float]] = (),
) -> "Figure":
    """A row per name, from the top.

    Args:
        names: Of the rows, each of one line or two.
        rows: Value, low and high end of each; NaN where there is none.
        label: Of the axis.
        reference: Drawn as a line, if given.
        points: Single values of each row, as small strokes.
    """
    row = 0.28 if not any("\n" in name for name in names) else 0.4
    figure, (axes,) = new_figure(width=2 * COLUMN, height=0.8 + row * len(names))
    for place, (value, low, high) in enumerate(rows):
        # Filled where the interval leaves out the reference, hollow where it does not.
        crosses = reference is not None and not (low > reference or high < reference)
        axes.plot([low, high], [place, place], color=COLORS[0], linewidth=1.2)
        face = "white" if crosses else COLORS[0]
        axes.plot(value, place, marker="o", markersize=5, color=COLORS[0], markerfacecolor=face)
    for place, values in enumerate(points):
        axes.plot(values, np.full(len(values), place + 0.27), linestyle="", marker="|", color="0.35", markersize=5)
    if reference is not None:
        axes.axvline(reference, color="0.4", linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(names)), [_label(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel(label)
    return figure


def _label(name: str) -> str:
    lines = name.split("\n")
    return "\n".join(plain(line if len(line) <= _LONG else f"{line[: _LONG - 1]}…") for line in lines)
