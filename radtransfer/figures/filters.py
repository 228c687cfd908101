"""The first convolution as a grid of pictures, and the histograms of the weights by stage.

References:
    Raghu et al. 2019, Transfusion (arXiv 1902.07208), Figures 5, 9, 10 and 14.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from radtransfer.figures.style import COLORS, in_paper_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GAP = 1
"""Pixels between two filters of the grid."""

BINS = 80

WIDTH = 7.0
"""Of the figure: two columns of a paper, inches."""


@in_paper_style
def draw_filters(
    kernel: np.ndarray,
    weights: Mapping[str, np.ndarray],
    *,
    pretrained: Mapping[str, np.ndarray] | None = None,
    title: str = "",
) -> "Figure":
    """A figure with the filters above and a histogram for each stage below.

    Args:
        kernel: Of the first convolution, (height, width, 1 or 3, filters).
        weights: Stage to all values of its kernels.
        pretrained: The same of the pretrained network, drawn as an outline for comparison.
        title: Above everything.
    """
    from matplotlib.figure import Figure

    pictures = filter_grid(kernel)
    heights = WIDTH * pictures.shape[0] / pictures.shape[1] + 0.3, 1.4
    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    grid = figure.add_gridspec(2, len(weights), height_ratios=heights)
    top = figure.add_subplot(grid[0, :])
    top.imshow(pictures, interpolation="nearest")
    top.set_axis_off()
    size = f"{kernel.shape[0]}×{kernel.shape[1]}"
    top.set_title(f"{title}: {kernel.shape[3]} filters of {size}, each to its own range")
    for place, (stage, values) in enumerate(weights.items()):
        _histogram(figure.add_subplot(grid[1, place]), stage, values, (pretrained or {}).get(stage))
    return figure


def filter_grid(kernel: np.ndarray, *, columns: int = 16) -> np.ndarray:
    """The filters of a convolution side by side: float (rows, columns, 3), 0–1, white between.

    Each filter is scaled to its own range, over all its channels; a single channel is shown as grey, and of more than
    three the mean.
    """
    height, width, channels, filters = kernel.shape
    if channels != 3:
        kernel = np.repeat(kernel.mean(axis=2, keepdims=True), 3, axis=2)
    low, high = kernel.min(axis=(0, 1, 2)), kernel.max(axis=(0, 1, 2))
    pictures = (kernel - low) / np.maximum(high - low, np.finfo(np.float32).tiny)
    columns = min(columns, filters)
    rows = math.ceil(filters / columns)
    grid = np.ones((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3))
    for i in range(filters):
        y, x = i // columns * (height + GAP), i % columns * (width + GAP)
        grid[y : y + height, x : x + width] = pictures[..., i]
    return grid


def _histogram(axes: "Axes", stage: str, values: np.ndarray, pretrained: np.ndarray | None) -> None:
    both = values if pretrained is None else np.concatenate([values, pretrained])
    low, high = np.quantile(both, (0.001, 0.999))
    edges = np.linspace(low, high if high > low else low + 1, BINS)
    axes.hist(values, edges, density=True, color=COLORS[5], label="this start")
    if pretrained is not None:
        axes.hist(pretrained, edges, density=True, histtype="step", color="black", linewidth=0.8, label="pretrained")
    axes.set_title(stage)
    axes.set_xlabel(f"weight, sd {values.std():.3g}")
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.tick_params(labelsize=6)
    if pretrained is not None and stage == "stem":
        axes.legend(fontsize=6, loc="upper right")
