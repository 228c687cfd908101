"""The filters of a first convolution before and after, as images, and their weights' histograms."""

from typing import TYPE_CHECKING

import numpy as np

from radtransfer.figures.style import COLUMN, in_paper_style, line_style, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_FILTERS = 64
_BINS = 60


@in_paper_style
def filter_change(a: np.ndarray, b: np.ndarray, *, title_a: str, title_b: str) -> "Figure":
    """Two grids of filters in the same order and a histogram of all weights of both.

    Each filter and its counterpart share one scale, so that one that has faded is seen to have. Grey is 0.

    Args:
        a: Kernels, float (height, width, channels, filters); three channels are red, green and blue.
        b: The same of the other network.
        title_a: What the first is called.
        title_b: What the second is called.

    References:
        Raghu, Zhang, Kleinberg and Bengio 2019, Transfusion, Fig. 5 and 14.
    """
    figure, axes = new_figure(1, 3, width=2.2 * COLUMN, height=2.6)
    largest = np.maximum(np.abs(a), np.abs(b)).max(axis=(0, 1, 2))
    for place, kernels, title in ((axes[0], a, title_a), (axes[1], b, title_b)):
        place.imshow(_grid(kernels[..., :_MOST_FILTERS], largest[:_MOST_FILTERS]), interpolation="nearest")
        place.set_axis_off()
        place.set_title(title, fontsize=8)
    edges = np.linspace(min(a.min(), b.min()), max(a.max(), b.max()) + 1e-12, _BINS + 1)
    for number, (kernels, title) in enumerate(((a, title_a), (b, title_b))):
        style = line_style(number)
        axes[2].stairs(np.histogram(kernels, edges)[0], edges, color=style["color"], ls=style["linestyle"], label=title)
    axes[2].set_xlabel("weight")
    axes[2].set_ylabel("count")
    axes[2].legend(fontsize=6, frameon=False)
    return figure


def _grid(kernels: np.ndarray, largest: np.ndarray) -> np.ndarray:
    """A square of filters as one RGB image, 0–1, with a white line between them."""
    height, width, channels, count = kernels.shape
    images = 0.5 + kernels / (2 * np.where(largest > 0, largest, 1))
    if channels != 3:
        images = np.repeat(images.mean(axis=2, keepdims=True), 3, axis=2)
    side = int(np.ceil(np.sqrt(count)))
    grid = np.ones((side * (height + 1) - 1, side * (width + 1) - 1, 3))
    for index in range(count):
        y, x = np.multiply(divmod(index, side), (height + 1, width + 1))
        grid[y : y + height, x : x + width] = images[..., index]
    return grid
