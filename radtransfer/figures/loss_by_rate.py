"""The training loss against a rising learning rate."""

from typing import TYPE_CHECKING

import numpy as np

from radtransfer.figures.style import COLORS, COLUMN, in_paper_style, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@in_paper_style
def draw_loss_by_rate(rates: np.ndarray, losses: np.ndarray, *, steepest: float | None, upper: float) -> "Figure":
    """A point for each step, their running mean, and lines at two rates, all named above the axes.

    Args:
        rates: Of each step, rising.
        losses: Of each step.
        steepest: The rate at which the loss falls most steeply, if there is one.
        upper: Marked as well: a tenth of the rate with the lowest loss.
    """
    figure, (axes,) = new_figure(width=1.4 * COLUMN, height=2.8)
    axes.plot(rates, losses, ".", color="0.6", markersize=2.5, label="each step")
    few = max(len(losses) // 20, 3)
    means = np.convolve(losses, np.full(few, 1 / few), "valid")
    axes.plot(rates[few // 2 : few // 2 + len(means)], means, color=COLORS[0], label=f"mean of {few} steps")
    if steepest is not None:
        axes.axvline(steepest, color=COLORS[1], linestyle="--", label=f"steepest fall of the loss: {steepest:.2g}")
    label = f"a tenth of the rate of the lowest loss: {upper:.2g}"
    axes.axvline(upper, color=COLORS[2], linestyle=":", label=label)
    # The last steps may lie far above all others.
    axes.set_ylim(losses.min() * 0.95, max(np.quantile(losses, 0.9) * 1.2, means[0] * 1.3))
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss")
    # No line runs above the axes.
    figure.legend(loc="outside upper center", ncols=2, fontsize=7)
    return figure
