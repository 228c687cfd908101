"""AUC against the size of the network: whether a small one is enough.

References:
    Raghu et al. 2019, Transfusion (arXiv 1902.07208), Table 1.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from radtransfer.figures.style import COLUMN, in_paper_style, line_style, name_above, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Sized = Sequence[tuple[str, int, float, float, float]]
"""Backbone, parameters, AUC, and low and high end of its interval (NaN where there is none), of each point."""


@in_paper_style
def draw_auc_by_size(arms: Mapping[str, Sized]) -> "Figure":
    """A mark per arm over its parameters, on a logarithmic axis; a colour and marker per start."""
    figure, (axes,) = new_figure(width=1.4 * COLUMN, height=2.8)
    for number, (name, points) in enumerate(arms.items()):
        style = line_style(number) | {"linestyle": "none"}
        values = [auc for *_, auc, _, _ in points]
        ends = [[max(auc - low, 0) for *_, auc, low, _ in points], [max(high - auc, 0) for *_, auc, _, high in points]]
        # So that marks of one size do not hide each other.
        places = [count * 1.04 ** (number - (len(arms) - 1) / 2) for _, count, *_ in points]
        axes.errorbar(places, values, yerr=ends, capsize=2, elinewidth=0.8, label=plain(name), **style)
    sizes = {backbone: count for points in arms.values() for backbone, count, *_ in points}
    axes.set_xscale("log")
    axes.set_xticks(list(sizes.values()), [f"{plain(name)}\n{count / 1e6:.1f} M" for name, count in sizes.items()])
    axes.minorticks_off()
    axes.margins(x=0.15)
    axes.set_ylabel("AUC (95 % interval)")
    name_above(figure, list(arms))
    return figure
