"""A confusion matrix: a row per true class, its share of each prediction as shade, the counts as numbers."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from radtransfer.figures.style import COLUMN, in_paper_style, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST = 25
"""Classes up to which the counts are written out."""


@in_paper_style
def draw_confusion(tables: Mapping[str, Sequence[Sequence[int]]], names: Mapping[str, Sequence[str]]) -> "Figure":
    """A matrix per table.

    Args:
        tables: Title ("" for none) to counts, a row per true class.
        names: Title to the names of its classes.
    """
    columns = min(len(tables), 4)
    rows = -(-len(tables) // columns)
    widest = max(len(item) for item in names.values())
    side = COLUMN * max(1.0, widest / 8) if len(tables) == 1 else 1.9
    figure, axes = new_figure(rows, columns, width=side * columns, height=side * rows)
    for place in axes[len(tables) :]:
        place.set_axis_off()
    for place, (title, counts) in zip(axes, tables.items(), strict=False):
        table = np.asarray(counts, float)
        shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
        place.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        labels = [plain(name) for name in names[title]]
        place.set_xticks(range(len(labels)), labels, rotation=90 if max(map(len, labels)) > 6 else 0)
        place.set_yticks(range(len(labels)), labels)
        place.set(xlabel="predicted", ylabel="true", title=plain(title) if title else None)
        if len(labels) <= _MOST:
            for (row, column), count in np.ndenumerate(table):
                color = "white" if shares[row, column] > 0.5 else "black"
                place.text(column, row, f"{count:.0f}", ha="center", va="center", fontsize=7, color=color)
    return figure
