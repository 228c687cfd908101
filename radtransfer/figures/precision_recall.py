"""Precision-recall curves with their bands; dotted, the precision of guessing."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from radtransfer.figures.style import COLUMN, in_paper_style, line_style, name_above, new_figure, set_subject

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Line = tuple[Sequence[float], Sequence[float], Sequence[float], Sequence[float], float, float]
"""Recalls and precisions; low and high end of the band, which may be empty; average precision; prevalence."""


@in_paper_style
def draw_precision_recall(curves: Mapping[str, Line], grid: Sequence[float], *, subject: str = "") -> "Figure":
    """A line and a band for each curve.

    Args:
        curves: Name to curve.
        grid: Where the bands are known, recalls.
        subject: What the curves are of, such as "positive class sick"; stands above.
    """
    figure, (axes,) = new_figure(width=COLUMN, height=COLUMN + 0.12 * len(curves))
    set_subject(axes, subject)
    handles = []
    for number, (x, y, low, high, _, prevalence) in enumerate(curves.values()):
        style = line_style(number)
        handles += axes.step(x, y, where="pre", color=style["color"], linestyle=style["linestyle"])
        if len(low):
            axes.fill_between(grid, low, high, color=style["color"], alpha=0.15, linewidth=0)
        axes.axhline(prevalence, color=style["color"], linewidth=0.8, linestyle=":")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.set_xlabel("recall (sensitivity)")
    axes.set_ylabel("precision (band: 95 %)")
    name_above(figure, list(curves), handles, [f"AP {line[4]:.3f}" for line in curves.values()])
    return figure
