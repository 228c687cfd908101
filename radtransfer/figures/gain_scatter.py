"""Similarity against gain: a panel per source and layer, a point per target and fold, and the least-squares line."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from radtransfer.figures.style import COLUMN, MARKERS, in_paper_style, line_style, name_above, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Scatter = Sequence[tuple[str, float, float]]
"""Target, similarity and gain of each point."""


@in_paper_style
def draw_gain(
    sources: Sequence[str],
    layers: Sequence[str],
    points: Mapping[tuple[str, str], Scatter],
    lines: Mapping[tuple[str, str], tuple[float, float] | None],
) -> "Figure":
    """A row of panels per source, a column per layer.

    Args:
        sources: Titles of the rows.
        layers: Titles of the columns.
        points: Of a source and layer.
        lines: Slope and intercept of a source and layer; None where there is none.

    References:
        Juodelyte et al. 2023 (arXiv 2302.08272), similarity against performance gain.
    """
    rows, across = len(sources), len(layers)
    targets = list(dict.fromkeys(target for members in points.values() for target, _, _ in members))
    width = max(2 * COLUMN, 1.4 * across)
    figure, axes = new_figure(rows, across, width=width, height=0.7 + 1.6 * rows)
    gains = [gain for members in points.values() for _, _, gain in members]
    room = 0.06 * (max(gains) - min(gains)) or 0.1
    for place, panel in enumerate(axes):
        source, layer = sources[place // across], layers[place % across]
        _draw(panel, points.get((source, layer), ()), lines.get((source, layer)), targets)
        panel.set_ylim(min(gains) - room, max(gains) + room)
        if place < across:
            panel.set_title(plain(layer))
        if place % across == 0:
            panel.set_ylabel(f"{plain(source)}\nrelative AUC gain")
        else:
            panel.tick_params(labelleft=False)
        if place >= across * (rows - 1):
            panel.set_xlabel("CCA to own start")
    handles = [
        axes[0].plot([], [], linestyle="", **_mark(number, 4.5), label=plain(target))[0]
        for number, target in enumerate(targets)
    ]
    name_above(figure, targets, handles)
    return figure


def _draw(axes: "Axes", members: Scatter, line: tuple[float, float] | None, targets: Sequence[str]) -> None:
    for number, target in enumerate(targets):
        mine = np.array([(x, y) for name, x, y in members if name == target]).reshape(-1, 2)
        axes.plot(mine[:, 0], mine[:, 1], linestyle="", **_mark(number, 3.5))
    axes.axhline(0, color="0.8", linewidth=0.6, zorder=0)
    if line is not None:
        ends = np.array([min(x for _, x, _ in members), max(x for _, x, _ in members)])
        axes.plot(ends, line[0] * ends + line[1], color="black", linewidth=1)


def _mark(number: int, size: float) -> dict:
    style = line_style(number)
    # Every other mark is hollow, so that they can be told apart in grey.
    face = "white" if (number + number // len(MARKERS)) % 2 else style["color"]
    return {"marker": style["marker"], "color": style["color"], "markerfacecolor": face, "markersize": size}
