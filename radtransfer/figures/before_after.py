"""Similarity before training against similarity after it, a point per pair of networks and layer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from radtransfer.figures.style import COLORS, COLUMN, in_paper_style, line_style, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Points:
    """Points of one colour: similarities before and after training, and their squared correlation, if defined."""

    before: Sequence[float]
    after: Sequence[float]
    r_squared: float | None


@in_paper_style
def before_after(groups: Mapping[str, Points]) -> "Figure":
    """A scatter with a colour and a marker per name in `groups`.

    References:
        Raghu, Zhang, Kleinberg and Bengio 2019, Transfusion, Fig. 4.
    """
    figure, (axes,) = new_figure(width=COLUMN, height=COLUMN)
    axes.plot([0, 1], [0, 1], color=COLORS[-1], linewidth=0.8)
    for number, (name, points) in enumerate(groups.items()):
        style = line_style(number)
        label = name if points.r_squared is None else f"{name}, R² {points.r_squared:.2f}"
        axes.scatter(points.before, points.after, s=14, color=style["color"], marker=style["marker"], label=label)
    axes.set_xlabel("similarity before training")
    axes.set_ylabel("similarity after training")
    axes.set_aspect("equal")
    figure.legend(loc="outside upper center", ncols=1, fontsize=7, frameon=False)
    return figure
