"""One figure of merit over groups of data, a mark per arm: means with their spread, and the single values."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from radtransfer.figures.style import COLORS, COLUMN, in_paper_style, line_style, name_above, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@in_paper_style
def draw_by_group(
    groups: Sequence[str], arms: Mapping[str, Sequence[Sequence[float]]], *, label: str, reference: float | None = None
) -> "Figure":
    """A row per group; in it a large mark with a bar per arm, mean ± sd (ddof 1), and its values as small marks.

    Args:
        groups: Down the axis.
        arms: Name to the values in each group, which may be none.
        label: Of the axis.
        reference: Drawn as a line, if given.
    """
    height = 0.9 + len(groups) * (0.13 * len(arms) + 0.12)
    figure, (axes,) = new_figure(width=2 * COLUMN, height=max(height, 1.8))
    for number, (name, values) in enumerate(arms.items()):
        style = line_style(number)
        shift = 0.8 * ((number + 0.5) / len(arms) - 0.5)
        known = [(place + shift, np.asarray(v, float)) for place, v in enumerate(values) if len(v)]
        for y, array in known:
            axes.plot(array, np.full(array.size, y), linestyle="", marker="|", color=style["color"], alpha=0.7)
        axes.errorbar(
            [array.mean() for _, array in known],
            [y for y, _ in known],
            xerr=[array.std(ddof=1) if array.size > 1 else 0.0 for _, array in known],
            linestyle="",
            marker=style["marker"],
            color=style["color"],
            markerfacecolor="white" if number % 2 else style["color"],
            capsize=2,
            elinewidth=0.8,
            label=plain(name),
        )
    for place in range(1, len(groups)):
        axes.axhline(place - 0.5, color="0.88", linewidth=0.6)
    if reference is not None:
        axes.axvline(reference, color=COLORS[-1], linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(groups)), [plain(name) for name in groups])
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.set_xlabel(label)
    name_above(figure, list(arms))
    return figure
