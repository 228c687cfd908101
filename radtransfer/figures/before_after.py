"""Similarity before training against similarity after it, a point per pair of networks and draw."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from radtransfer.figures.style import COLUMN, in_paper_style, line_style, new_figure, plain, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ACROSS = 5
_LEAST_HALF = 0.01


@dataclass(frozen=True)
class Panel:
    """One kind of pair in one layer.

    Attributes:
        pairs: Similarity before and after training in each draw, for each pair of networks.
        r_squared: Squared correlation over all points; None where it is not defined.
        ci95: Its 95 % interval.
    """

    pairs: Sequence[Sequence[tuple[float, float]]]
    r_squared: float | None
    ci95: tuple[float, float] | None


@in_paper_style
def before_after(panels: Mapping[tuple[str, str], Panel]) -> "Figure":
    """A row of panels per kind of pair, a column per layer, each with its own scales; a mark per pair of networks.

    Args:
        panels: Kind of pair and layer to its points. More layers than five go on in further rows.

    References:
        Raghu, Zhang, Kleinberg and Bengio 2019, Transfusion, Fig. 4: the lowest layer, and higher ones beside it.
    """
    starts, layers = (list(dict.fromkeys(names)) for names in zip(*panels, strict=True))
    across = min(_ACROSS, len(layers))
    lines = [(start, layers[first : first + across]) for first in range(0, len(layers), across) for start in starts]
    figure, axes = new_figure(len(lines), across, width=max(COLUMN, 1.45 * across), height=0.3 + 1.65 * len(lines))
    for number, (start, names) in enumerate(lines):
        row = axes[number * across : (number + 1) * across]
        for place, panel_axes in zip(range(across), row, strict=True):
            panel = panels.get((start, names[place])) if place < len(names) else None
            if panel is None:
                panel_axes.set_visible(False)
            else:
                _draw(panel_axes, names[place], panel)
        row[0].set_ylabel(f"{plain(shortened(start, 28))}\nafter training", fontsize=7)
    figure.supxlabel("similarity before training; the line: unchanged", fontsize=7)
    return figure


def _draw(axes: "Axes", layer: str, panel: Panel) -> None:
    for number, points in enumerate(panel.pairs):
        style = line_style(number)
        before, after = np.array(points).reshape(-1, 2).T
        axes.plot(before, after, style["marker"], color=style["color"], markersize=2.5)
    every = np.array([point for points in panel.pairs for point in points]).reshape(-1, 2)
    if len(every):
        middle = (every.min(axis=0) + every.max(axis=0)) / 2
        half = max(0.6 * np.ptp(every, axis=0).max(), _LEAST_HALF)
        axes.set(xlim=(middle[0] - half, middle[0] + half), ylim=(middle[1] - half, middle[1] + half))
        axes.plot([-2, 2], [-2, 2], color="0.7", linewidth=0.6, zorder=0, scalex=False, scaley=False)
    told = "n/a" if panel.r_squared is None else f"{panel.r_squared:.2f} ({panel.ci95[0]:.2f} to {panel.ci95[1]:.2f})"
    axes.set_title(f"{plain(shortened(layer, 20))}\nR² {told}", fontsize=7)
    axes.tick_params(labelsize=6)
    axes.locator_params(axis="x", nbins=2)
    axes.locator_params(axis="y", nbins=3)
