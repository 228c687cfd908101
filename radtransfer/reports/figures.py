"""Figures, one kind a file: each draws plain values and gives a matplotlib `Figure` that could go into a paper.

No figure reads a run or computes a result. `style.py` holds what they share: colours, sizes and saving.

What all figures share: colours that survive grey print and colour blindness, sizes, and saving whole files.

References:
    Okabe, Ito 2008, Color Universal Design (the eight colours).

AUC against the size of the network: whether a small one is enough.

References:
    Raghu et al. 2019, Transfusion (arXiv 1902.07208), Table 1.

Similarity before training against similarity after it, a point per pair of networks and draw.

One figure of merit over groups of data, a mark per arm: means with their spread, and the single values.

A figure of merit against the stage that weights are reused through.

References:
    Raghu et al. 2019, Transfusion (arXiv 1902.07208), Figures 7, 12 and 13.

A confusion matrix: a row per true class, numbers of images, and their share of the row in percent and as shade.

A sheet of pictures: a row per image, as it is and in random variations.

AUC against training steps: the mean over folds and seeds, with a band, or with bars where there are many arms.

References:
    Raghu et al. 2019, Transfusion (arXiv 1902.07208), Figures 6 to 8 and 15 to 20.

The filters of a first convolution before and after, as images, and their weights' histograms.

The first convolution as a grid of pictures, and the histograms of the weights by stage.

References:
    Raghu et al. 2019, Transfusion (arXiv 1902.07208), Figures 5, 9, 10 and 14.

A forest plot: a row per name, its value with an interval, and the single values behind it.

Similarity against gain: a panel per source and layer, a point per target and fold, and the least-squares line.

How far the weights of each layer have moved, from the lowest layer to the highest.

Similarity over the layers, a panel for each set of data: mean over folds with its spread.

The training loss against a rising learning rate.

Precision-recall curves with their bands; dotted, the precision of guessing.

What two networks think of the truth, image by image, and how often they err together.

A reliability diagram: how often what was said with some confidence was so, and how often such confidence was.

ROC curves with their bands, and where an operating point lies on them.

Similarity from the lowest layer to the highest, with its interval and what chance gives.

Every layer of one network against every layer of another, as a heat-map.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from radtransfer.errors import ConfigError
from radtransfer.files import printable
from radtransfer.runs.folder import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
"""In order of use; lines take a marker and a dash of their own as well, so that colour is never needed."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", "--", "-.", ":", "-", "--", "-.", ":")

FORMATS = (".png", ".svg", ".pdf")
"""What a figure can be saved as."""

COLUMN = 3.5
"""Width of one column of a paper, inches."""

_STYLE = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "radtransfer",  # and the same figure is the same file
}


def new_figure(
    rows: int = 1, columns: int = 1, *, width: float = COLUMN, height: float = 2.5
) -> tuple["Figure", list["Axes"]]:
    """A figure of `width` × `height` inches and its axes, row by row.

    Nothing global is touched: no backend, no current figure, no `rcParams` of the caller.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False)
    return figure, list(axes.flat)


def in_paper_style(draw: Callable[..., "Figure"]) -> Callable[..., "Figure"]:
    """A function that draws a figure, drawing all of it in the house style."""

    @wraps(draw)
    def styled(*args, **keywords) -> "Figure":
        import matplotlib

        with matplotlib.rc_context(_STYLE):
            return draw(*args, **keywords)

    return styled


def line_style(number: int) -> dict[str, str]:
    """Colour, marker and dash of line `number` (from 0), as keywords of `Axes.plot`."""
    return {
        "color": COLORS[number % len(COLORS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": DASHES[number % len(DASHES)],
    }


def plain(text: str) -> str:
    """`text` as matplotlib draws it letter by letter: no formula at a dollar sign, no label hidden by an underscore."""
    shown = "".join(letter if letter.isprintable() else " " for letter in text).replace("$", "\\$")
    return f" {shown}" if shown.startswith("_") else shown


def shortened(name: str, letters: int) -> str:
    """`name` in at most so many letters."""
    return name if len(name) <= letters else f"{name[: letters - 1]}…"


def set_subject(axes: "Axes", subject: str) -> None:
    """Write above the axes what its figures are of, such as "positive class sick"; nothing for ""."""
    if subject:
        axes.set_title(plain(shortened(subject, 16 * int(axes.figure.get_size_inches()[0]))), fontsize=8)


def name_above(
    figure: "Figure", names: Sequence[str], handles: Sequence | None = None, values: Sequence[str] | None = None
) -> None:
    """A legend above the axes, in as many columns as names of that length leave room for.

    Args:
        figure: Whose legend it is.
        names: Cut where they are too long.
        handles: Of the lines; else those of the first axes that have a label.
        values: To stand behind the names, uncut.
    """
    room = 17 * figure.get_size_inches()[0]  # letters of 7 points
    tails = [""] * len(names) if values is None else [f", {value}" for value in values]
    shown = [shortened(name, int(room) - 12 - len(tail)) + tail for name, tail in zip(names, tails, strict=True)]
    columns = int(room // (max(map(len, shown), default=1) + 12))
    labels = list(map(plain, shown))
    if handles is None:
        handles = figure.axes[0].get_legend_handles_labels()[0]
    columns = min(max(columns, 1), 4, max(len(labels), 1))
    figure.legend(handles, labels, loc="outside upper center", ncols=columns, fontsize=7, frameon=False)


def save_figure(figure: "Figure", path: Path) -> None:
    """Write `figure` in the format of the suffix, whole or not at all; a PNG has 200 dots per inch.

    Raises:
        ConfigError: No format of a figure.
    """
    import matplotlib

    check_figure_path(path)
    # Without a date the same values give the same bytes.
    metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix.lower())
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(_STYLE), whole_file(path) as part:
        figure.savefig(part, format=path.suffix.lower()[1:], dpi=200, metadata=metadata)


def check_figure_path(path: Path) -> None:
    """Raises ConfigError unless a figure can be saved as `path`."""
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(f"A figure is saved as {', '.join(FORMATS)}. Received: {path}.")


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


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ACROSS = 5
_LEAST_HALF = 0.01


@dataclass(frozen=True)
class Panel:
    """One kind of pair in one layer.

    Attributes:
        pairs: Similarity before and after training in each draw, for each pair of networks.
        r_squared: Squared correlation over all points; None where it is not defined.
        ci95: Its 95 % interval.
    """

    pairs: Sequence[Sequence[tuple[float, float]]]
    r_squared: float | None
    ci95: tuple[float, float] | None


@in_paper_style
def before_after(panels: Mapping[tuple[str, str], Panel]) -> "Figure":
    """A row of panels per kind of pair, a column per layer, each with its own scales; a mark per pair of networks.

    Args:
        panels: Kind of pair and layer to its points. More layers than five go on in further rows.

    References:
        Raghu, Zhang, Kleinberg and Bengio 2019, Transfusion, Fig. 4: the lowest layer, and higher ones beside it.
    """
    starts, layers = (list(dict.fromkeys(names)) for names in zip(*panels, strict=True))
    across = min(_ACROSS, len(layers))
    lines = [(start, layers[first : first + across]) for first in range(0, len(layers), across) for start in starts]
    figure, axes = new_figure(len(lines), across, width=max(COLUMN, 1.45 * across), height=0.3 + 1.65 * len(lines))
    for number, (start, names) in enumerate(lines):
        row = axes[number * across : (number + 1) * across]
        for place, panel_axes in zip(range(across), row, strict=True):
            panel = panels.get((start, names[place])) if place < len(names) else None
            if panel is None:
                panel_axes.set_visible(False)
            else:
                _draw(panel_axes, names[place], panel)
        row[0].set_ylabel(f"{plain(shortened(start, 28))}\nafter training", fontsize=7)
    figure.supxlabel("similarity before training; the line: unchanged", fontsize=7)
    return figure


def _draw(axes: "Axes", layer: str, panel: Panel) -> None:
    for number, points in enumerate(panel.pairs):
        style = line_style(number)
        before, after = np.array(points).reshape(-1, 2).T
        axes.plot(before, after, style["marker"], color=style["color"], markersize=2.5)
    every = np.array([point for points in panel.pairs for point in points]).reshape(-1, 2)
    if len(every):
        middle = (every.min(axis=0) + every.max(axis=0)) / 2
        half = max(0.6 * np.ptp(every, axis=0).max(), _LEAST_HALF)
        axes.set(xlim=(middle[0] - half, middle[0] + half), ylim=(middle[1] - half, middle[1] + half))
        axes.plot([-2, 2], [-2, 2], color="0.7", linewidth=0.6, zorder=0, scalex=False, scaley=False)
    told = "n/a" if panel.r_squared is None else f"{panel.r_squared:.2f} ({panel.ci95[0]:.2f} to {panel.ci95[1]:.2f})"
    axes.set_title(f"{plain(shortened(layer, 20))}\nR² {told}", fontsize=7)
    axes.tick_params(labelsize=6)
    axes.locator_params(axis="x", nbins=2)
    axes.locator_params(axis="y", nbins=3)


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


if TYPE_CHECKING:
    from matplotlib.figure import Figure


@in_paper_style
def draw_by_stage(
    stages: Sequence[str], series: Mapping[str, Sequence[tuple[float, float] | None]], *, x: str, y: str
) -> "Figure":
    """A line with error bars for each of `series`.

    Args:
        stages: Along the axis, in order.
        series: Name to a mean and a standard deviation for each stage; None where there is no result.
        x: Label of the axis.
        y: Label of the other one.
    """
    figure, (axes,) = new_figure()
    for number, (name, points) in enumerate(series.items()):
        known = [(place, point) for place, point in enumerate(points) if point is not None]
        shift = 0.06 * (number - (len(series) - 1) / 2)  # so that bars do not hide each other
        axes.errorbar(
            [place + shift for place, _ in known],
            [mean for _, (mean, _) in known],
            yerr=[sd for _, (_, sd) in known],
            label=name,
            capsize=2,
            elinewidth=0.8,
            **line_style(number),
        )
    axes.set_xticks(range(len(stages)), stages)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if len(series) > 1:
        axes.legend()
    return figure


if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST = 25
"""Classes up to which counts and shares are written out."""

_DARK = 0.7
"""Share from which white letters stand out more than black ones."""


@in_paper_style
def draw_confusion(
    tables: Mapping[str, Sequence[Sequence[int]]], names: Mapping[str, Sequence[str]], decided: str = ""
) -> "Figure":
    """A matrix per table, and one colour bar that says what the shade is.

    Args:
        tables: Title ("" for none) to counts, a row per true class.
        names: Title to the names of its classes.
        decided: How the classes were decided, to stand above behind "predicted".
    """
    from matplotlib.ticker import PercentFormatter

    columns = min(len(tables), 4)
    rows = -(-len(tables) // columns)
    widest = max(len(item) for item in names.values())
    side = COLUMN * max(1.0, widest / 8) if len(tables) == 1 else 1.9
    figure, axes = new_figure(rows, columns, width=side * columns + 0.7, height=side * rows)
    figure.set_layout_engine("compressed")  # made for squares: nothing is cut off beside them
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
        if len(labels) <= _MOST:
            for (row, column), share in np.ndenumerate(shares):
                text = f"{table[row, column]:.0f}\n{100 * share:.0f} %" if table[row].any() else "0"
                color = "white" if share > _DARK else "black"
                place.text(column, row, text, ha="center", va="center", fontsize=7, color=color)
    if decided:
        figure.suptitle(f"predicted {decided}", fontsize=8)
    bar = figure.colorbar(shades, ax=axes, aspect=25, format=PercentFormatter(1, symbol=" %"))
    bar.set_label("colour and percent:\nshare of the true class")
    bar.outline.set_visible(False)
    return figure


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CELL, GAP, CAPTION, HEAD = 1.2, 0.06, 1.35, 0.5
"""Side of a picture, space between two, width of the captions and height above everything, inches."""

LETTERS = 24
"""Of a line of a caption."""


@dataclass(frozen=True, eq=False)
class SheetRow:
    """One image of the sheet.

    Attributes:
        name: File name; shortened in its middle to three lines.
        label: Its class.
        pictures: The image as it is, then its variations, each uint8 (height, width, 3), RGB.
    """

    name: str
    label: str
    pictures: tuple[np.ndarray, ...]


@in_paper_style
def draw_contact_sheet(
    rows: Sequence[SheetRow], *, heads: Sequence[str], classes: Sequence[str], title: str
) -> "Figure":
    """A figure of all rows.

    Args:
        rows: One or more, with as many pictures each as there are heads.
        heads: Above the columns.
        classes: In the order of their colours.
        title: Above everything.
    """
    from matplotlib.figure import Figure

    step = CELL + GAP
    width, height = CAPTION + step * len(heads) + GAP, HEAD + step * len(rows) + GAP
    figure = Figure(figsize=(width, height), facecolor="white")
    figure.text(GAP / width, 1 - 0.08 / height, title, va="top", ha="left", fontsize=9, parse_math=False)
    for j, head in enumerate(heads):
        x = (CAPTION + step * j + CELL / 2) / width
        figure.text(x, 1 - (HEAD - 0.05) / height, head, va="bottom", ha="center", color="0.35")
    for i, row in enumerate(rows):
        bottom = height - HEAD - step * i - CELL
        color = COLORS[classes.index(row.label) % len(COLORS)] if row.label in classes else "black"
        _caption(figure, row, color=color, x=(CAPTION - 0.1) / width, y=(bottom + CELL / 2) / height)
        for j, picture in enumerate(row.pictures):
            box = ((CAPTION + step * j) / width, bottom / height, CELL / width, CELL / height)
            _show(figure.add_axes(box), picture)
    return figure


def _caption(figure: "Figure", row: SheetRow, *, color: str, x: float, y: float) -> None:
    """The class above the middle of the row, the name below it, both ending at `x`."""
    label = shortened_contact_sheet(printable(row.label or "no label"), LETTERS)
    figure.text(x, y, label, ha="right", va="bottom", color=color, fontweight="bold", parse_math=False)
    name = shortened_contact_sheet(printable(row.name), 3 * LETTERS)
    lines = "\n".join(name[start : start + LETTERS] for start in range(0, len(name), LETTERS))
    figure.text(x, y - 0.004, lines, ha="right", va="top", fontsize=6, color="0.35", parse_math=False)


def _show(axes: "Axes", picture: np.ndarray) -> None:
    axes.imshow(picture, interpolation="antialiased")
    axes.set_axis_off()


def shortened_contact_sheet(text: str, letters: int) -> str:
    """`text` with its middle replaced by "…" if it is longer than that."""
    if len(text) <= letters:
        return text
    end = (letters - 1) // 2
    return f"{text[: letters - 1 - end]}…{text[-end:]}"


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


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GAP_FILTERS = 1
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
    grid = np.ones((rows * (height + GAP_FILTERS) - GAP_FILTERS, columns * (width + GAP_FILTERS) - GAP_FILTERS, 3))
    for i in range(filters):
        y, x = i // columns * (height + GAP_FILTERS), i % columns * (width + GAP_FILTERS)
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


if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LONG = 46


@in_paper_style
def draw_forest(
    names: Sequence[str],
    rows: Sequence[tuple[float, float, float]],
    *,
    label: str,
    reference: float | None = None,
    points: Sequence[Sequence[float]] = (),
) -> "Figure":
    """A row per name, from the top.

    Args:
        names: Of the rows, each of one line or two.
        rows: Value, low and high end of each; NaN where there is none.
        label: Of the axis.
        reference: Drawn as a line, if given.
        points: Single values of each row, as small strokes.
    """
    row = 0.28 if not any("\n" in name for name in names) else 0.4
    figure, (axes,) = new_figure(width=2 * COLUMN, height=0.8 + row * len(names))
    for place, (value, low, high) in enumerate(rows):
        # Filled where the interval leaves out the reference, hollow where it does not.
        crosses = reference is not None and not (low > reference or high < reference)
        axes.plot([low, high], [place, place], color=COLORS[0], linewidth=1.2)
        face = "white" if crosses else COLORS[0]
        axes.plot(value, place, marker="o", markersize=5, color=COLORS[0], markerfacecolor=face)
    for place, values in enumerate(points):
        axes.plot(values, np.full(len(values), place + 0.27), linestyle="", marker="|", color="0.35", markersize=5)
    if reference is not None:
        axes.axvline(reference, color="0.4", linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(names)), [_label(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel(label)
    return figure


def _label(name: str) -> str:
    lines = name.split("\n")
    return "\n".join(plain(line if len(line) <= _LONG else f"{line[: _LONG - 1]}…") for line in lines)


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Scatter = Sequence[tuple[str, float, float]]
"""Target, similarity and gain of each point."""


@in_paper_style
def draw_gain(
    sources: Sequence[str],
    layers: Sequence[str],
    points: Mapping[tuple[str, str], Scatter],
    lines: Mapping[tuple[str, str], tuple[float, float] | None],
) -> "Figure":
    """A row of panels per source, a column per layer.

    Args:
        sources: Titles of the rows.
        layers: Titles of the columns.
        points: Of a source and layer.
        lines: Slope and intercept of a source and layer; None where there is none.

    References:
        Juodelyte et al. 2023 (arXiv 2302.08272), similarity against performance gain.
    """
    rows, across = len(sources), len(layers)
    targets = list(dict.fromkeys(target for members in points.values() for target, _, _ in members))
    width = max(2 * COLUMN, 1.4 * across)
    figure, axes = new_figure(rows, across, width=width, height=0.7 + 1.6 * rows)
    gains = [gain for members in points.values() for _, _, gain in members]
    room = 0.06 * (max(gains) - min(gains)) or 0.1
    for place, panel in enumerate(axes):
        source, layer = sources[place // across], layers[place % across]
        _draw_gain_scatter(panel, points.get((source, layer), ()), lines.get((source, layer)), targets)
        panel.set_ylim(min(gains) - room, max(gains) + room)
        if place < across:
            panel.set_title(plain(layer))
        if place % across == 0:
            panel.set_ylabel(f"{plain(source)}\nrelative AUC gain")
        else:
            panel.tick_params(labelleft=False)
        if place >= across * (rows - 1):
            panel.set_xlabel("CCA to own start")
    handles = [
        axes[0].plot([], [], linestyle="", **_mark(number, 4.5), label=plain(target))[0]
        for number, target in enumerate(targets)
    ]
    name_above(figure, targets, handles)
    return figure


def _draw_gain_scatter(
    axes: "Axes", members: Scatter, line: tuple[float, float] | None, targets: Sequence[str]
) -> None:
    for number, target in enumerate(targets):
        mine = np.array([(x, y) for name, x, y in members if name == target]).reshape(-1, 2)
        axes.plot(mine[:, 0], mine[:, 1], linestyle="", **_mark(number, 3.5))
    axes.axhline(0, color="0.8", linewidth=0.6, zorder=0)
    if line is not None:
        ends = np.array([min(x for _, x, _ in members), max(x for _, x, _ in members)])
        axes.plot(ends, line[0] * ends + line[1], color="black", linewidth=1)


def _mark(number: int, size: float) -> dict:
    style = line_style(number)
    # Every other mark is hollow, so that they can be told apart in grey.
    face = "white" if (number + number // len(MARKERS)) % 2 else style["color"]
    return {"marker": style["marker"], "color": style["color"], "markerfacecolor": face, "markersize": size}


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


if TYPE_CHECKING:
    from matplotlib.figure import Figure

Band = Mapping[str, tuple[float, float | None]]
"""Layer to mean and standard deviation (None for a single value)."""

_ACROSS_LAYER_PANELS = 4


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
    across = min(_ACROSS_LAYER_PANELS, len(panels))
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


if TYPE_CHECKING:
    from matplotlib.figure import Figure

Line = tuple[Sequence[float], Sequence[float], Sequence[float], Sequence[float], float, float]
"""Recalls and precisions; low and high end of the band, which may be empty; average precision; prevalence."""


@in_paper_style
def draw_precision_recall(curves: Mapping[str, Line], grid: Sequence[float], *, subject: str = "") -> "Figure":
    """A line and a band for each curve.

    Args:
        curves: Name to curve.
        grid: Where the bands are known, recalls.
        subject: What the curves are of, such as "positive class sick"; stands above.
    """
    figure, (axes,) = new_figure(width=COLUMN, height=COLUMN + 0.12 * len(curves))
    set_subject(axes, subject)
    handles = []
    for number, (x, y, low, high, _, prevalence) in enumerate(curves.values()):
        style = line_style(number)
        handles += axes.step(x, y, where="pre", color=style["color"], linestyle=style["linestyle"])
        if len(low):
            axes.fill_between(grid, low, high, color=style["color"], alpha=0.15, linewidth=0)
        axes.axhline(prevalence, color=style["color"], linewidth=0.8, linestyle=":")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.set_xlabel("recall (sensitivity)")
    axes.set_ylabel("precision (band: 95 %)")
    name_above(figure, list(curves), handles, [f"AP {line[4]:.3f}" for line in curves.values()])
    return figure


if TYPE_CHECKING:
    from matplotlib.figure import Figure

_GROUPS = ("both right", "A only", "B only", "both wrong")
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
    """Left, a point per image; right, the shares of images in each group against those of independent networks.

    Args:
        truth_a: Probability that A gave to the truth, 0–1 (images,).
        truth_b: The same of B.
        right_a: 1 where A was right, 0 where wrong; between for several labels.
        right_b: The same of B.
        independent: Shares to expect of both right, A only, B only and both wrong.
        title_a: What A is called.
        title_b: What B is called.
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


if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Bins(NamedTuple):
    """Of each bin that holds any: mean confidence, frequency and its interval, count, and where the bin starts.

    `width` is that of every bin, `error` the calibration error.
    """

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
    """Frequencies with their intervals against confidences above, counts as bars below; each diagram in a colour.

    Args:
        diagrams: Name to bins.
        confidence: What the confidences are.
        frequency: What is frequent.
        unit: What is counted.
        subject: What they are of, such as "positive class sick"; stands above.
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


if TYPE_CHECKING:
    from matplotlib.figure import Figure

RocLine = tuple[Sequence[float], Sequence[float], Sequence[float], Sequence[float], float, Sequence[float] | None]
"""False-positive rates and sensitivities; low and high end of the band, which may be empty; the area, its interval."""


@in_paper_style
def draw_roc(
    curves: Mapping[str, RocLine],
    grid: Sequence[float],
    *,
    points: Mapping[str, tuple[float, float]] | None = None,
    subject: str = "",
) -> "Figure":
    """A line and a band for each curve.

    Args:
        curves: Name to curve.
        grid: Where the bands are known, false-positive rates.
        points: Name to the false-positive rate and sensitivity of its operating point.
        subject: What the curves are of, such as "positive class sick"; stands above.
    """
    figure, (axes,) = new_figure(width=COLUMN, height=COLUMN + 0.12 * len(curves))
    set_subject(axes, subject)
    handles = []
    for number, (name, (x, y, low, high, *_)) in enumerate(curves.items()):
        style = line_style(number)
        handles += axes.plot(x, y, color=style["color"], linestyle=style["linestyle"])
        if len(low):
            axes.fill_between(grid, low, high, color=style["color"], alpha=0.15, linewidth=0)
        if points and name in points:
            axes.plot(*points[name], marker="o", markersize=6, color=style["color"], markeredgecolor=COLORS[6])
    axes.plot([0, 1], [0, 1], color="0.5", linewidth=0.8, linestyle=":")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.set_xlabel("1 - specificity")
    axes.set_ylabel("sensitivity (band: 95 %)")
    name_above(figure, list(curves), handles, [_area_text(area, ends) for *_, area, ends in curves.values()])
    return figure


def _area_text(area: float, ends: Sequence[float] | None) -> str:
    return f"AUC {area:.3f}" + (f" ({ends[0]:.3f} to {ends[1]:.3f})" if ends else "")


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDE = 12
_MOST_LABELS_SIMILARITY_CURVE = 24
_LONG_SIMILARITY_CURVE = 24


@dataclass(frozen=True)
class SimilarityCurve:
    """One line of the figure; every sequence has a value per layer, NaN where there is none.

    Attributes:
        values: The similarity.
        low, high: Ends of its 95 % interval, or of another range that is said elsewhere.
        chance: The most that unrelated layers score.
    """

    values: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    chance: Sequence[float]


@in_paper_style
def similarity_curve(
    layers: Sequence[str],
    curves: Mapping[str, SimilarityCurve],
    *,
    measure: str,
    chance: Sequence[float] | None = None,
) -> "Figure":
    """A line per name in `curves` over the layers, above a band from the bottom up to what unrelated layers score.

    Args:
        layers: Along the axis.
        curves: Of each name.
        measure: What the values are, along the other axis.
        chance: The most that unrelated layers score, of all curves together: a value per layer, NaN where unknown.

    References:
        Raghu, Zhang, Kleinberg and Bengio 2019, Transfusion, Fig. 3.
    """
    figure, (axes,) = new_figure(width=COLUMN if len(layers) <= _WIDE else 2 * COLUMN)
    values = np.array([[*curve.values, *curve.low, *curve.chance] for curve in curves.values()], float)
    bottom = min(0.0, np.nanmin(values))
    if chance is not None:
        _draw_chance(axes, bottom, chance, COLORS[-1], "chance")
    single = len(curves) == 1
    for number, (name, curve) in enumerate(curves.items()):
        color = COLORS[-1] if single else line_style(number)["color"]
        _draw_chance(axes, bottom, curve.chance, color, "chance" if single else f"chance, {name}")
        _draw_similarity_curve(axes, number, name, curve)
    _name_layers(axes, layers)
    axes.set_ylim(bottom, 1.02)
    axes.set_ylabel(measure)
    figure.legend(
        loc="outside upper center",
        ncols=2 if max(map(len, curves)) < _LONG_SIMILARITY_CURVE else 1,
        fontsize=7,
        frameon=False,
    )
    return figure


def _draw_chance(axes: "Axes", bottom: float, chance: Sequence[float], color: str, label: str) -> None:
    if not np.isnan(np.array(chance, float)).all():
        axes.fill_between(range(len(chance)), bottom, chance, color=color, alpha=0.3, linewidth=0, label=label)


def _draw_similarity_curve(axes: "Axes", number: int, name: str, curve: SimilarityCurve) -> None:
    x, style = np.arange(len(curve.values)), line_style(number)
    axes.fill_between(x, curve.low, curve.high, color=style["color"], alpha=0.2, linewidth=0)
    errors = np.abs(np.array([curve.low, curve.high]) - np.array(curve.values))
    axes.errorbar(x, curve.values, yerr=np.nan_to_num(errors), capsize=2, elinewidth=0.8, label=name, **style)


def _name_layers(axes: "Axes", layers: Sequence[str]) -> None:
    step = -(-len(layers) // _MOST_LABELS_SIMILARITY_CURVE)
    crowded = len(layers) > 6 or max(map(len, layers)) > 8
    axes.set_xticks(range(0, len(layers), step), layers[::step], rotation=90 if crowded else 0)


if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_NUMBERS = 8
_MOST_LABELS_SIMILARITY_HEAT_MAP = 40


@in_paper_style
def similarity_heat_map(
    matrix: np.ndarray, *, rows: Sequence[str], columns: Sequence[str], row_title: str, column_title: str, title: str
) -> "Figure":
    """A square per pair, with its value in it where there is room; colours run from 0 to 1.

    Args:
        matrix: float (rows, columns).
        rows: Layers of the first network, the lowest first; it is drawn at the bottom.
        columns: Layers of the second.
        row_title: What the first network is called.
        column_title: What the second is called.
        title: Of the colour scale.
    """
    figure, (axes,) = new_figure(width=COLUMN + 0.5, height=COLUMN)
    image = axes.imshow(matrix, origin="lower", vmin=0, vmax=1, cmap="viridis", aspect="auto")
    for axis, names in ((axes.xaxis, columns), (axes.yaxis, rows)):
        step = -(-len(names) // _MOST_LABELS_SIMILARITY_HEAT_MAP)
        axis.set_ticks(range(0, len(names), step), names[::step], fontsize=8 if len(names) <= _MOST_NUMBERS else 4)
    axes.tick_params(axis="x", rotation=90 if max(map(len, columns)) > 6 else 0)
    axes.set_xlabel(column_title)
    axes.set_ylabel(row_title)
    if max(matrix.shape) <= _MOST_NUMBERS:
        for (row, column), value in np.ndenumerate(matrix):
            color = "white" if value < 0.6 else "black"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=color, fontsize=7)
    bar = figure.colorbar(image)
    bar.set_label(title, fontsize=8)
    bar.ax.tick_params(labelsize=8)
    return figure
