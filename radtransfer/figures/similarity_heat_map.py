"""Every layer of one network against every layer of another, as a heat-map."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from radtransfer.figures.style import COLUMN, in_paper_style, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_NUMBERS = 8
_MOST_LABELS = 40


@in_paper_style
def similarity_heat_map(
    matrix: np.ndarray, *, rows: Sequence[str], columns: Sequence[str], row_title: str, column_title: str, title: str
) -> "Figure":
    """A square per pair, with its value in it where there is room; colours run from 0 to 1.

    Args:
        matrix: float (rows, columns).
        rows: Layers of the first network, the lowest first; it is drawn at the bottom.
        columns: Layers of the second.
        row_title: What the first network is called.
        column_title: What the second is called.
        title: Of the colour scale.
    """
    figure, (axes,) = new_figure(width=COLUMN + 0.5, height=COLUMN)
    image = axes.imshow(matrix, origin="lower", vmin=0, vmax=1, cmap="viridis", aspect="auto")
    for axis, names in ((axes.xaxis, columns), (axes.yaxis, rows)):
        step = -(-len(names) // _MOST_LABELS)
        axis.set_ticks(range(0, len(names), step), names[::step], fontsize=8 if len(names) <= _MOST_NUMBERS else 4)
    axes.tick_params(axis="x", rotation=90 if max(map(len, columns)) > 6 else 0)
    axes.set_xlabel(column_title)
    axes.set_ylabel(row_title)
    if max(matrix.shape) <= _MOST_NUMBERS:
        for (row, column), value in np.ndenumerate(matrix):
            color = "white" if value < 0.6 else "black"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=color, fontsize=7)
    bar = figure.colorbar(image)
    bar.set_label(title, fontsize=8)
    bar.ax.tick_params(labelsize=8)
    return figure
