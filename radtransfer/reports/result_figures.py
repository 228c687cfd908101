"""Figures of test results: ROC and precision-recall curves, reliability, confusion, and agreement of two networks."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from radtransfer.reports.figures import (
    COLORS,
    COLUMN,
    MARKERS,
    in_paper_style,
    line_style,
    name_above,
    new_figure,
    plain,
    set_subject,
)
from radtransfer.reports.statistics import plain_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Line = tuple[Sequence[float], Sequence[float], Sequence[float], Sequence[float], float, float]
"""Recalls, precisions, low and high end of the band (may be empty), average precision, prevalence."""


@in_paper_style
def draw_precision_recall(curves: Mapping[str, Line], grid: Sequence[float], *, subject: str = "") -> "Figure":
    """Precision-recall curves with bands at the recalls of `grid`; `subject`, such as "positive class sick", on top."""
    figure, axes = _square(len(curves), subject, "recall (sensitivity)", "precision (band: 95 %)")
    handles = []
    for number, (x, y, low, high, _, prevalence) in enumerate(curves.values()):
        style = line_style(number)
        handles += axes.step(x, y, where="pre", color=style["color"], linestyle=style["linestyle"])
        if len(low):
            axes.fill_between(grid, low, high, color=style["color"], alpha=0.15, linewidth=0)
        axes.axhline(prevalence, color=style["color"], linewidth=0.8, linestyle=":")
    name_above(figure, list(curves), handles, [f"AP {line[4]:.3f}" for line in curves.values()])
    return figure


RocLine = tuple[Sequence[float], Sequence[float], Sequence[float], Sequence[float], float, Sequence[float] | None]
"""False-positive rates, sensitivities, low and high end of the band (may be empty), AUC and its interval."""


@in_paper_style
def draw_roc(
    curves: Mapping[str, RocLine],
    grid: Sequence[float],
    *,
    points: Mapping[str, tuple[float, float]] | None = None,
    subject: str = "",
) -> "Figure":
    """ROC curves with bands at the false-positive rates of `grid`, and operating points.

    `points` is name to the false-positive rate and sensitivity of its operating point.
    """
    figure, axes = _square(len(curves), subject, "1 - specificity", "sensitivity (band: 95 %)")
    handles = []
    for number, (name, (x, y, low, high, *_)) in enumerate(curves.items()):
        style = line_style(number)
        handles += axes.plot(x, y, color=style["color"], linestyle=style["linestyle"])
        if len(low):
            axes.fill_between(grid, low, high, color=style["color"], alpha=0.15, linewidth=0)
        if points and name in points:
            axes.plot(*points[name], marker="o", markersize=6, color=style["color"], markeredgecolor=COLORS[6])
    axes.plot([0, 1], [0, 1], color="0.5", linewidth=0.8, linestyle=":")
    areas = [f"AUC {area:.3f}" + (f" ({plain_interval(ends)})" if ends else "") for *_, area, ends in curves.values()]
    name_above(figure, list(curves), handles, areas)
    return figure


def _square(curves: int, subject: str, xlabel: str, ylabel: str) -> tuple["Figure", "Axes"]:
    """A figure of the unit square with room for the names of the curves."""
    figure, (axes,) = new_figure(width=COLUMN, height=COLUMN + 0.12 * curves)
    set_subject(axes, subject)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal", xlabel=xlabel, ylabel=ylabel)
    return figure, axes


class Bins(NamedTuple):
    """Mean confidence, frequency with its interval, count and start of each non-empty bin; calibration error."""

    confidence: Sequence[float]
    frequency: Sequence[float]
    ci95: Sequence[Sequence[float]]
    count: Sequence[int]
    start: Sequence[float]
    width: float
    error: float


@in_paper_style
def draw_reliability(
    diagrams: Mapping[str, Bins],
    *,
    confidence: str = "confidence",
    frequency: str = "frequency",
    unit: str = "images",
    subject: str = "",
) -> "Figure":
    """Reliability diagrams (frequency against confidence, with intervals) and histograms of the confidence.

    `confidence`, `frequency` and `unit` are axis labels.
    """
    figure, (above, below) = new_figure(2, 1, width=COLUMN, height=1.4 * COLUMN + 0.12 * len(diagrams))
    set_subject(above, subject)
    grid = above.get_gridspec()
    grid.set_height_ratios([3, 1])
    handles = []
    for number, bins in enumerate(diagrams.values()):
        style = line_style(number)
        handles += above.plot(bins.confidence, bins.frequency, **style)
        low, high = zip(*bins.ci95, strict=True)
        above.vlines(bins.confidence, low, high, color=style["color"], linewidth=0.8, alpha=0.6)
        width = 0.9 * bins.width / len(diagrams)
        places = [start + 0.05 * bins.width + number * width for start in bins.start]
        fill = {"color": style["color"], "edgecolor": "white", "linewidth": 0, "hatch": "////" * (number % 2)}
        below.bar(places, bins.count, width, align="edge", **fill)
    above.plot([0, 1], [0, 1], color="0.5", linewidth=0.8, linestyle=":")
    above.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    above.set_ylabel(f"{plain(frequency)} (95 % interval)")
    below.set(xlim=(-0.01, 1.01), ylim=(0, None))
    below.set_xlabel(plain(confidence))
    below.set_ylabel(unit)
    name_above(figure, list(diagrams), handles, [f"ECE {bins.error:.3f}" for bins in diagrams.values()])
    return figure


@in_paper_style
def draw_confusion(
    tables: Mapping[str, Sequence[Sequence[int]]], names: Mapping[str, Sequence[str]], decided: str = ""
) -> "Figure":
    """Confusion matrices: a row per true class, with numbers of images and percent of the row.

    `tables` and `names` are title ("" for none) to counts and class names; `decided` says how classes were predicted.
    """
    from matplotlib.ticker import PercentFormatter

    columns = min(len(tables), 4)
    rows = -(-len(tables) // columns)
    widest = max(len(item) for item in names.values())
    side = COLUMN * max(1.0, widest / 8) if len(tables) == 1 else 1.9
    figure, axes = new_figure(rows, columns, width=side * columns + 0.7, height=side * rows)
    figure.set_layout_engine("compressed")  # for axes of fixed aspect ratio
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
        if len(labels) <= 25:
            for (row, column), share in np.ndenumerate(shares):
                text = f"{table[row, column]:.0f}\n{100 * share:.0f} %" if table[row].any() else "0"
                color = "white" if share > 0.7 else "black"
                place.text(column, row, text, ha="center", va="center", fontsize=7, color=color)
    if decided:
        figure.suptitle(f"predicted {decided}", fontsize=8)
    bar = figure.colorbar(shades, ax=axes, aspect=25, format=PercentFormatter(1, symbol=" %"))
    bar.set_label("percent of the true class")
    bar.outline.set_visible(False)
    return figure


_GROUPS = ("both correct", "only A", "only B", "both wrong")
_COLORS = (COLORS[2], COLORS[0], COLORS[4], COLORS[1])


@in_paper_style
def prediction_agreement(
    truth_a: Sequence[float],
    truth_b: Sequence[float],
    *,
    right_a: Sequence[float],
    right_b: Sequence[float],
    independent: Sequence[float],
    title_a: str,
    title_b: str,
) -> "Figure":
    """Left, a point per image; right, the share of images in each group and that of independent networks.

    `truth_a`: predicted probability of the truth by A, 0–1 (images,); `right_a`: 1 if A is correct, 0 if wrong, between
    for several labels; `independent`: expected shares of both correct, only A, only B and both wrong.
    """
    figure, (points, bars) = new_figure(1, 2, width=2 * COLUMN, height=3)
    truth_a, truth_b = np.asarray(truth_a), np.asarray(truth_b)
    a, b = np.asarray(right_a) > 0.5, np.asarray(right_b) > 0.5
    members = (a & b, a & ~b, ~a & b, ~a & ~b)
    for name, color, marker, member in zip(_GROUPS, _COLORS, MARKERS, members, strict=False):
        points.scatter(truth_a[member], truth_b[member], s=10, color=color, marker=marker, alpha=0.7, label=name)
    points.plot([0, 1], [0, 1], color=COLORS[-1], linewidth=0.8)
    points.set_xlabel(f"probability of the truth, A: {title_a}")
    points.set_ylabel(f"probability of the truth, B: {title_b}")
    points.set_aspect("equal")
    places = np.arange(4)
    bars.bar(places - 0.2, [member.mean() for member in members], width=0.4, color=_COLORS)
    bars.bar(places + 0.2, independent, width=0.4, color=COLORS[-1], label="independent errors")
    bars.set_xticks(places, _GROUPS)
    bars.set_ylabel("share of images")
    figure.legend(loc="outside upper center", ncols=5, fontsize=7, frameon=False)
    return figure
