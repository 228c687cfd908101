"""A confusion matrix: a row per true class, numbers of images, and their share of the row in percent and as shade."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from radtransfer.figures.style import COLUMN, in_paper_style, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST = 25
"""Classes up to which counts and shares are written out."""

_DARK = 0.7
"""Share from which white letters stand out more than black ones."""


@in_paper_style
def draw_confusion(
    tables: Mapping[str, Sequence[Sequence[int]]], names: Mapping[str, Sequence[str]], decided: str = ""
) -> "Figure":
    """A matrix per table, and one colour bar that says what the shade is.

    Args:
        tables: Title ("" for none) to counts, a row per true class.
        names: Title to the names of its classes.
        decided: How the classes were decided, to stand above behind "predicted".
    """
    from matplotlib.ticker import PercentFormatter

    columns = min(len(tables), 4)
    rows = -(-len(tables) // columns)
    widest = max(len(item) for item in names.values())
    side = COLUMN * max(1.0, widest / 8) if len(tables) == 1 else 1.9
    figure, axes = new_figure(rows, columns, width=side * columns + 0.7, height=side * rows)
    figure.set_layout_engine("compressed")  # made for squares: nothing is cut off beside them
    for place in axes[len(tables) :]:
        place.set_axis_off()
    for place, (title, counts) in zip(axes, tables.items(), strict=False):
        table = np.asarray(counts, float)
        shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
        shades = place.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        labels = [plain(name) for name in names[title]]
        place.set_xticks(range(len(labels)), labels, rotation=90 if max(map(len, labels)) > 6 else 0)
        place.set_yticks(range(len(labels)), labels)
        place.set(xlabel="predicted", ylabel="true", title=plain(title) if title else None)
        if len(labels) <= _MOST:
            for (row, column), share in np.ndenumerate(shares):
                text = f"{table[row, column]:.0f}\n{100 * share:.0f} %" if table[row].any() else "0"
                color = "white" if share > _DARK else "black"
                place.text(column, row, text, ha="center", va="center", fontsize=7, color=color)
    if decided:
        figure.suptitle(f"predicted {decided}", fontsize=8)
    bar = figure.colorbar(shades, ax=axes, aspect=25, format=PercentFormatter(1, symbol=" %"))
    bar.set_label("colour and percent:\nshare of the true class")
    bar.outline.set_visible(False)
    return figure
