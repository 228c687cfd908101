"""Similarity over the layers, a panel for each set of data: mean over folds with its spread."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from radtransfer.figures.style import COLUMN, in_paper_style, line_style, name_above, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Band = Mapping[str, tuple[float, float | None]]
"""Layer to mean and standard deviation (None for a single value)."""

_ACROSS = 4


@in_paper_style
def draw_layer_panels(layers: Sequence[str], panels: Mapping[str, Mapping[str, Band]], *, label: str) -> "Figure":
    """A panel per set of data, in it a line per pair of networks with bars of one standard deviation.

    Args:
        layers: Along the axis, lowest first.
        panels: Title of the panel to name of the line to its values; a layer without a value is left open.
        label: Of the other axis, shared by all panels.

    References:
        Raghu et al. 2019, Transfusion (arXiv 1902.07208), Fig. 3; Juodelyte et al. 2023 (arXiv 2302.08272).
    """
    across = min(_ACROSS, len(panels))
    rows = -(-len(panels) // across)
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    figure, axes = new_figure(rows, across, width=2 * COLUMN, height=0.5 + 0.13 * len(names) + 1.75 * rows)
    top = max((mean for lines in panels.values() for line in lines.values() for mean, _ in line.values()), default=1)
    handles = {}
    for panel, (title, lines) in zip(axes, panels.items(), strict=False):
        for name, line in lines.items():
            number = names.index(name)
            x = np.arange(len(layers)) + 0.05 * (number - (len(names) - 1) / 2)  # so that bars do not hide each other
            mean = [line[layer][0] if layer in line else np.nan for layer in layers]
            sd = [(line[layer][1] or 0.0) if layer in line else 0.0 for layer in layers]
            handles[name] = panel.errorbar(x, mean, yerr=sd, capsize=1.5, elinewidth=0.7, **line_style(number))
        panel.set_title(plain(title))
        panel.set_xticks(
            range(len(layers)), [plain(layer) for layer in layers], rotation=45, ha="right", rotation_mode="anchor"
        )
        panel.set_ylim(0, min(max(1.1 * top, 0.1), 1.05))
    for panel in axes[len(panels) :]:
        panel.set_visible(False)
    for panel in axes[::across]:
        panel.set_ylabel(label)
    ordered = [name for name in names if name in handles]
    name_above(figure, ordered, [handles[name] for name in ordered])
    return figure
