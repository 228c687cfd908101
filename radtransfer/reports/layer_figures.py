"""Figures of layers: similarity before and after training or between networks, changes of weights, and filters."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from radtransfer.reports.figures import (
    COLORS,
    COLUMN,
    in_paper_style,
    line_style,
    name_above,
    new_figure,
    plain,
    shortened,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Panel:
    """One kind of pair in one layer."""

    pairs: Sequence[Sequence[tuple[float, float]]]
    """Similarity before and after training in each draw, for each pair of networks."""
    r_squared: float | None  # squared correlation over all points; None if undefined
    ci95: tuple[float, float] | None


@in_paper_style
def before_after(panels: Mapping[tuple[str, str], Panel]) -> "Figure":
    """A row of panels per kind of pair, a column per layer (at most five), a marker per pair of networks.

    References:
        Raghu, Zhang, Kleinberg and Bengio 2019, Transfusion, Fig. 4.
    """
    starts, layers = (list(dict.fromkeys(names)) for names in zip(*panels, strict=True))
    across = min(5, len(layers))
    lines = [(start, layers[first : first + across]) for first in range(0, len(layers), across) for start in starts]
    figure, axes = new_figure(len(lines), across, width=max(COLUMN, 1.45 * across), height=0.3 + 1.65 * len(lines))
    for number, (start, names) in enumerate(lines):
        row = axes[number * across : (number + 1) * across]
        for place, panel_axes in enumerate(row):
            panel = panels.get((start, names[place])) if place < len(names) else None
            if panel is None:
                panel_axes.set_visible(False)
            else:
                _draw_before_after(panel_axes, names[place], panel)
        row[0].set_ylabel(f"{plain(shortened(start, 28))}\nafter training", fontsize=7)
    figure.supxlabel("similarity before training (line: unchanged)", fontsize=7)
    return figure


def _draw_before_after(axes: "Axes", layer: str, panel: Panel) -> None:
    for number, points in enumerate(panel.pairs):
        style = line_style(number)
        before, after = np.array(points).reshape(-1, 2).T
        axes.plot(before, after, style["marker"], color=style["color"], markersize=2.5)
    every = np.array([point for points in panel.pairs for point in points]).reshape(-1, 2)
    if len(every):
        middle = (every.min(axis=0) + every.max(axis=0)) / 2
        half = max(0.6 * np.ptp(every, axis=0).max(), 0.01)
        axes.set(xlim=(middle[0] - half, middle[0] + half), ylim=(middle[1] - half, middle[1] + half))
        axes.plot([-2, 2], [-2, 2], color="0.7", linewidth=0.6, zorder=0, scalex=False, scaley=False)
    value = "n/a" if panel.r_squared is None else f"{panel.r_squared:.2f} ({panel.ci95[0]:.2f} to {panel.ci95[1]:.2f})"
    axes.set_title(f"{plain(shortened(layer, 20))}\nR² {value}", fontsize=7)
    axes.tick_params(labelsize=6)
    axes.locator_params(axis="x", nbins=2)
    axes.locator_params(axis="y", nbins=3)


@dataclass(frozen=True)
class SimilarityCurve:
    """One line of the figure; every sequence has a value per layer, or NaN."""

    values: Sequence[float]
    low: Sequence[float]  # end of the 95 % interval, or another range
    high: Sequence[float]
    chance: Sequence[float]  # score of unrelated layers


@in_paper_style
def similarity_curve(
    layers: Sequence[str],
    curves: Mapping[str, SimilarityCurve],
    *,
    measure: str,
    chance: Sequence[float] | None = None,
) -> "Figure":
    """Similarity over layers, a line per curve, with a band up to the score of unrelated layers.

    `measure` is the axis label; `chance` is the score of unrelated layers for all curves, per layer, or NaN.

    References:
        Raghu, Zhang, Kleinberg and Bengio 2019, Transfusion, Fig. 3.
    """
    figure, (axes,) = new_figure(width=COLUMN if len(layers) <= 12 else 2 * COLUMN)
    values = np.array([[*curve.values, *curve.low, *curve.chance] for curve in curves.values()], float)
    bottom = min(0.0, np.nanmin(values))

    def draw_chance(chance: Sequence[float], color: str, label: str) -> None:
        if not np.isnan(np.array(chance, float)).all():
            axes.fill_between(range(len(chance)), bottom, chance, color=color, alpha=0.3, linewidth=0, label=label)

    if chance is not None:
        draw_chance(chance, COLORS[-1], "chance")
    single = len(curves) == 1
    for number, (name, curve) in enumerate(curves.items()):
        x, style = np.arange(len(curve.values)), line_style(number)
        draw_chance(curve.chance, COLORS[-1] if single else style["color"], "chance" if single else f"chance, {name}")
        axes.fill_between(x, curve.low, curve.high, color=style["color"], alpha=0.2, linewidth=0)
        errors = np.abs(np.array([curve.low, curve.high]) - np.array(curve.values))
        axes.errorbar(x, curve.values, yerr=np.nan_to_num(errors), capsize=2, elinewidth=0.8, label=name, **style)
    step = -(-len(layers) // 24)
    crowded = len(layers) > 6 or max(map(len, layers)) > 8
    axes.set_xticks(range(0, len(layers), step), layers[::step], rotation=90 if crowded else 0)
    axes.set_ylim(bottom, 1.02)
    axes.set_ylabel(measure)
    figure.legend(loc="outside upper center", ncols=2 if max(map(len, curves)) < 24 else 1, fontsize=7)
    return figure


@in_paper_style
def similarity_heat_map(
    matrix: np.ndarray, *, rows: Sequence[str], columns: Sequence[str], row_title: str, column_title: str, title: str
) -> "Figure":
    """Similarity of every layer of one network with every layer of another, float (rows, columns), colors 0 to 1.

    `rows` are layers of the first network, the lowest first, drawn at the bottom; `title` is of the color scale.
    """
    figure, (axes,) = new_figure(width=COLUMN + 0.5, height=COLUMN)
    image = axes.imshow(matrix, origin="lower", vmin=0, vmax=1, cmap="viridis", aspect="auto")
    for axis, names in ((axes.xaxis, columns), (axes.yaxis, rows)):
        step = -(-len(names) // 40)
        axis.set_ticks(range(0, len(names), step), names[::step], fontsize=8 if len(names) <= 8 else 4)
    axes.tick_params(axis="x", rotation=90 if max(map(len, columns)) > 6 else 0)
    axes.set_xlabel(column_title)
    axes.set_ylabel(row_title)
    if max(matrix.shape) <= 8:
        for (row, column), value in np.ndenumerate(matrix):
            color = "white" if value < 0.6 else "black"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=color, fontsize=7)
    bar = figure.colorbar(image)
    bar.set_label(title, fontsize=8)
    bar.ax.tick_params(labelsize=8)
    return figure


Band = Mapping[str, tuple[float, float | None]]
"""Layer to mean and standard deviation (None for a single value)."""


@in_paper_style
def draw_layer_panels(layers: Sequence[str], panels: Mapping[str, Mapping[str, Band]], *, label: str) -> "Figure":
    """A panel per data set, with a line per pair of networks and bars of one standard deviation.

    `panels` is title to name of the line to its values.

    References:
        Raghu et al. 2019, Transfusion (arXiv 1902.07208), Fig. 3; Juodelyte et al. 2023 (arXiv 2302.08272).
    """
    across = min(4, len(panels))
    rows = -(-len(panels) // across)
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    figure, axes = new_figure(rows, across, width=2 * COLUMN, height=0.5 + 0.13 * len(names) + 1.75 * rows)
    top = max((mean for lines in panels.values() for line in lines.values() for mean, _ in line.values()), default=1)
    handles = {}
    for panel, (title, lines) in zip(axes, panels.items(), strict=False):
        for name, line in lines.items():
            number = names.index(name)
            x = np.arange(len(layers)) + 0.05 * (number - (len(names) - 1) / 2)  # so that bars do not overlap
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


@in_paper_style
def layer_change(layers: Sequence[str], kinds: Sequence[str], changes: Sequence[float | None]) -> "Figure":
    """Relative change of the weights: a point per layer, a line per kind; changes are comparable within a kind."""
    figure, (axes,) = new_figure(width=2 * COLUMN)
    for number, kind in enumerate(dict.fromkeys(kinds)):
        places = [i for i, change in enumerate(changes) if kinds[i] == kind and change is not None]
        axes.plot(places, [changes[i] for i in places], label=kind, **line_style(number))
    figure.legend(loc="outside upper center", ncols=4, fontsize=7)
    step = -(-len(layers) // 40)
    axes.set_xticks(range(0, len(layers), step), layers[::step], rotation=90, fontsize=6)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("relative change of weights")
    return figure


GAP = 1  # pixels between two filters of a grid
WIDTH = 7.0  # width of the figure (two columns of a paper), inches


@in_paper_style
def draw_filters(
    kernel: np.ndarray,
    weights: Mapping[str, np.ndarray],
    *,
    pretrained: Mapping[str, np.ndarray] | None = None,
    title: str = "",
) -> "Figure":
    """The filters of the first convolution, (height, width, 1 or 3, filters), and a histogram of weights per stage.

    `weights` is stage to all values of its kernels; `pretrained`, the same of the pretrained network, is an outline.

    References:
        Raghu et al. 2019, Transfusion (arXiv 1902.07208), Figures 5, 9, 10 and 14.
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
    top.set_title(f"{title}: {kernel.shape[3]} filters of {size}, each with its own scale")
    for place, (stage, values) in enumerate(weights.items()):
        axes, before = figure.add_subplot(grid[1, place]), (pretrained or {}).get(stage)
        low, high = np.quantile(values if before is None else np.concatenate([values, before]), (0.001, 0.999))
        edges = np.linspace(low, high if high > low else low + 1, 80)
        axes.hist(values, edges, density=True, color=COLORS[5], label="this initialization")
        if before is not None:
            axes.hist(before, edges, density=True, histtype="step", color="black", linewidth=0.8, label="pretrained")
        axes.set_title(stage)
        axes.set_xlabel(f"weight, sd {values.std():.3g}")
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.tick_params(labelsize=6)
        if before is not None and stage == "stem":
            axes.legend(fontsize=6, loc="upper right")
    return figure


def filter_grid(kernel: np.ndarray, *, columns: int = 16) -> np.ndarray:
    """The filters of a convolution side by side, float (rows, columns, 3), 0–1, each scaled to its own range."""
    kernel = _in_rgb(kernel)
    low, high = kernel.min(axis=(0, 1, 2)), kernel.max(axis=(0, 1, 2))
    pictures = (kernel - low) / np.maximum(high - low, np.finfo(np.float32).tiny)
    return _tiles(pictures, min(columns, kernel.shape[3]), -(-kernel.shape[3] // columns))


@in_paper_style
def filter_change(a: np.ndarray, b: np.ndarray, *, title_a: str, title_b: str) -> "Figure":
    """Two grids of filters in the same order, and a histogram of all weights of both.

    Kernels are float (height, width, channels, filters). A filter has the same scale in both grids; gray is 0.

    References:
        Raghu, Zhang, Kleinberg and Bengio 2019, Transfusion, Fig. 5 and 14.
    """
    figure, axes = new_figure(1, 3, width=2.2 * COLUMN, height=2.6)
    largest = np.maximum(np.abs(a), np.abs(b)).max(axis=(0, 1, 2))[:64]
    edges = np.linspace(min(a.min(), b.min()), max(a.max(), b.max()) + 1e-12, 60 + 1)
    for number, (kernels, title) in enumerate(((a, title_a), (b, title_b))):
        images = _in_rgb(0.5 + kernels[..., :64] / (2 * np.where(largest > 0, largest, 1)))
        side = math.ceil(math.sqrt(images.shape[3]))
        axes[number].imshow(_tiles(images, side, side), interpolation="nearest")
        axes[number].set_axis_off()
        axes[number].set_title(title, fontsize=8)
        style = line_style(number)
        axes[2].stairs(np.histogram(kernels, edges)[0], edges, color=style["color"], ls=style["linestyle"], label=title)
    axes[2].set_xlabel("weight")
    axes[2].set_ylabel("count")
    axes[2].legend(fontsize=6)
    return figure


def _in_rgb(kernel: np.ndarray) -> np.ndarray:
    """Three channels; the mean of any other number of channels is repeated."""
    return kernel if kernel.shape[2] == 3 else np.repeat(kernel.mean(axis=2, keepdims=True), 3, axis=2)


def _tiles(pictures: np.ndarray, columns: int, rows: int) -> np.ndarray:
    """Pictures (height, width, 3, count) side by side, with a white line between them."""
    height, width, _, number = pictures.shape
    grid = np.ones((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3))
    for i in range(number):
        y, x = i // columns * (height + GAP), i % columns * (width + GAP)
        grid[y : y + height, x : x + width] = pictures[..., i]
    return grid
