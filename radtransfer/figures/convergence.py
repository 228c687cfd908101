"""AUC against training steps: the mean over folds and seeds, with a band, or with bars where there are many arms.

References:
    Raghu et al. 2019, Transfusion (arXiv 1902.07208), Figures 6 to 8 and 15 to 20.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from radtransfer.figures.style import COLUMN, in_paper_style, line_style, name_above, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_BANDS = 3

Curve = Sequence[tuple[int, float]]
"""Step and AUC, in order of steps."""


@in_paper_style
def draw_convergence(curves: Mapping[str, Sequence[Curve]], *, threshold: float | None = None) -> "Figure":
    """A line for each arm.

    Args:
        curves: Name of the arm to the curve of each of its folds.
        threshold: Drawn across, if given.
    """
    figure, (axes,) = new_figure(width=1.4 * COLUMN, height=2.6 + 0.09 * len(curves))
    for number, (name, folds) in enumerate(curves.items()):
        steps, mean, sd = mean_curve(folds)
        style = line_style(number)
        every = max(len(steps) // 8, 1)
        if len(curves) <= _MOST_BANDS:
            axes.plot(steps, mean, label=plain(name), markevery=every, **style)
            axes.fill_between(steps, mean - sd, mean + sd, color=style["color"], alpha=0.15, linewidth=0)
        else:
            # Bands on top of each other cannot be told apart; bars stand side by side.
            shift = (number - (len(curves) - 1) / 2) * 0.1 * (steps[every] - steps[0] if len(steps) > every else 0)
            bars = {"yerr": sd, "errorevery": every, "markevery": every, "elinewidth": 0.6, "capsize": 1.5}
            axes.errorbar(steps + shift, mean, label=plain(name), **bars, **style)
    if threshold is not None:
        axes.axhline(threshold, color="0.5", linewidth=0.8, linestyle=":")
    axes.set_xlabel("training steps")
    axes.set_ylabel("test AUC (mean ± sd)")
    if curves:
        name_above(figure, list(curves))
    return figure


def mean_curve(folds: Sequence[Curve]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps that every fold has reached, and mean and standard deviation (ddof 1; 0 for one fold) of the AUC there."""
    values = [dict(fold) for fold in folds]
    steps = sorted(set.intersection(*(set(fold) for fold in values))) if values else []
    table = np.array([[fold[step] for step in steps] for fold in values], dtype=np.float64).reshape(len(values), -1)
    sd = table.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(len(steps))
    return np.array(steps), table.mean(axis=0), sd
