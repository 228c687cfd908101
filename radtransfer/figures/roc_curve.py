"""ROC curves with their bands, and where an operating point lies on them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from radtransfer.figures.style import COLORS, COLUMN, in_paper_style, line_style, name_above, new_figure, set_subject

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Line = tuple[Sequence[float], Sequence[float], Sequence[float], Sequence[float], float, Sequence[float] | None]
"""False-positive rates and sensitivities; low and high end of the band, which may be empty; the area, its interval."""


@in_paper_style
def draw_roc(
    curves: Mapping[str, Line],
    grid: Sequence[float],
    *,
    points: Mapping[str, tuple[float, float]] | None = None,
    subject: str = "",
) -> "Figure":
    """A line and a band for each curve.

    Args:
        curves: Name to curve.
        grid: Where the bands are known, false-positive rates.
        points: Name to the false-positive rate and sensitivity of its operating point.
        subject: What the curves are of, such as "positive class sick"; stands above.
    """
    figure, (axes,) = new_figure(width=COLUMN, height=COLUMN + 0.12 * len(curves))
    set_subject(axes, subject)
    handles = []
    for number, (name, (x, y, low, high, *_)) in enumerate(curves.items()):
        style = line_style(number)
        handles += axes.plot(x, y, color=style["color"], linestyle=style["linestyle"])
        if len(low):
            axes.fill_between(grid, low, high, color=style["color"], alpha=0.15, linewidth=0)
        if points and name in points:
            axes.plot(*points[name], marker="o", markersize=6, color=style["color"], markeredgecolor=COLORS[6])
    axes.plot([0, 1], [0, 1], color="0.5", linewidth=0.8, linestyle=":")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.set_xlabel("1 - specificity")
    axes.set_ylabel("sensitivity (band: 95 %)")
    name_above(figure, list(curves), handles, [_area_text(area, ends) for *_, area, ends in curves.values()])
    return figure


def _area_text(area: float, ends: Sequence[float] | None) -> str:
    return f"AUC {area:.3f}" + (f" ({ends[0]:.3f} to {ends[1]:.3f})" if ends else "")
