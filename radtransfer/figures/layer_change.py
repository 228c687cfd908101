"""How far the weights of each layer have moved, from the lowest layer to the highest."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from radtransfer.figures.style import COLUMN, in_paper_style, line_style, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_LABELS = 40


@in_paper_style
def layer_change(layers: Sequence[str], kinds: Sequence[str], changes: Sequence[float | None]) -> "Figure":
    """A point per layer, a line per kind of layer.

    Args:
        layers: Names, from the lowest.
        kinds: Of each layer; those of one kind can be compared with each other.
        changes: Length of the difference over the length before; None where not defined.
    """
    figure, (axes,) = new_figure(width=2 * COLUMN)
    for number, kind in enumerate(dict.fromkeys(kinds)):
        places = [i for i, change in enumerate(changes) if kinds[i] == kind and change is not None]
        axes.plot(places, [changes[i] for i in places], label=kind, **line_style(number))
    figure.legend(loc="outside upper center", ncols=4, fontsize=7, frameon=False)
    step = -(-len(layers) // _MOST_LABELS)
    axes.set_xticks(range(0, len(layers), step), layers[::step], rotation=90, fontsize=6)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("relative change of weights")
    return figure
