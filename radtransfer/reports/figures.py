"""Figures for papers: functions from plain values to a matplotlib `Figure`.

Common style (colors for grayscale print and color blindness, sizes, saving), and the figures of reports, training and
augmentation.

References:
    Okabe, Ito 2008, Color Universal Design (the eight colours).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from radtransfer.errors import ConfigError
from radtransfer.files import printable
from radtransfer.runs.folder import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
"""In order of use; lines also have their own marker and dash, so that they can be distinguished without color."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", "--", "-.", ":", "-", "--", "-.", ":")
FORMATS = (".png", ".svg", ".pdf")  # suffixes of figures
COLUMN = 3.5  # width of one column of a paper, inches
_STYLE = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "radtransfer",  # the same figure gives the same file
}


def new_figure(
    rows: int = 1, columns: int = 1, *, width: float = COLUMN, height: float = 2.5
) -> tuple["Figure", list["Axes"]]:
    """A figure of `width` × `height` inches and its axes, row by row, without global state."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False)
    return figure, list(axes.flat)


def in_paper_style(draw: Callable[..., "Figure"]) -> Callable[..., "Figure"]:
    """Decorator: draw the figure in the common style."""

    @wraps(draw)
    def styled(*args, **keywords) -> "Figure":
        import matplotlib

        with matplotlib.rc_context(_STYLE):
            return draw(*args, **keywords)

    return styled


def line_style(number: int) -> dict[str, str]:
    """Color, marker and dash of line `number` (from 0), as keywords of `Axes.plot`."""
    return {
        "color": COLORS[number % len(COLORS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": DASHES[number % len(DASHES)],
    }


def plain(text: str) -> str:
    """`text` for matplotlib without special meaning: no formula after "$", no label hidden by a leading "_"."""
    shown = "".join(letter if letter.isprintable() else " " for letter in text).replace("$", "\\$")
    return f" {shown}" if shown.startswith("_") else shown


def shortened(name: str, letters: int) -> str:
    """`name` in at most `letters` letters."""
    return name if len(name) <= letters else f"{name[: letters - 1]}…"


def set_subject(axes: "Axes", subject: str) -> None:
    """Write a subject above the axes, such as "positive class sick"; nothing for ""."""
    if subject:
        axes.set_title(plain(shortened(subject, 16 * int(axes.figure.get_size_inches()[0]))), fontsize=8)


def name_above(
    figure: "Figure", names: Sequence[str], handles: Sequence | None = None, values: Sequence[str] | None = None
) -> None:
    """A legend above the axes, in as many columns as fit; long names are shortened, `values` after them are not.

    Without `handles`, those of the first axes with a label.
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
    """Write `figure` atomically in the format of the suffix; a PNG has 200 dots per inch."""
    import matplotlib

    check_figure_path(path)
    suffix = path.suffix.lower()
    # Without a date the same values give the same bytes.
    metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(suffix)
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(_STYLE), atomic_write(path) as part:
        figure.savefig(part, format=suffix[1:], dpi=200, metadata=metadata)


def check_figure_path(path: Path) -> None:
    """Raise ConfigError unless a figure can be saved as `path`."""
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(f"Expected a figure that ends in {', '.join(FORMATS)}. Received: {path}.")


Sized = Sequence[tuple[str, int, float, float, float]]
"""Backbone, parameters, AUC, and low and high end of its interval (NaN without one) of each point."""


@in_paper_style
def draw_auc_by_size(arms: Mapping[str, Sized]) -> "Figure":
    """AUC against the size of the network on a logarithmic axis: a marker per arm, a color per initialization.

    References:
        Raghu et al. 2019, Transfusion (arXiv 1902.07208), Table 1.
    """
    figure, (axes,) = new_figure(width=1.4 * COLUMN, height=2.8)
    for number, (name, points) in enumerate(arms.items()):
        style = line_style(number) | {"linestyle": "none"}
        values = [auc for *_, auc, _, _ in points]
        ends = [[max(auc - low, 0) for *_, auc, low, _ in points], [max(high - auc, 0) for *_, auc, _, high in points]]
        # Shifted, so that markers of one size do not overlap.
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


@in_paper_style
def draw_by_group(
    groups: Sequence[str], arms: Mapping[str, Sequence[Sequence[float]]], *, label: str, reference: float | None = None
) -> "Figure":
    """A row per group, with mean ± SD (ddof 1) and single values of each arm; `reference` is a line.

    `arms` is name to the values in each group, which may be empty.
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


@in_paper_style
def draw_by_stage(
    stages: Sequence[str], series: Mapping[str, Sequence[tuple[float, float] | None]], *, x: str, y: str
) -> "Figure":
    """A metric against the last transferred stage, a line with error bars for each series.

    `series` is name to mean and standard deviation for each stage; None without a result.

    References:
        Raghu et al. 2019, Transfusion (arXiv 1902.07208), Figures 7, 12 and 13.
    """
    figure, (axes,) = new_figure()
    for number, (name, points) in enumerate(series.items()):
        known = [(place, point) for place, point in enumerate(points) if point is not None]
        shift = 0.06 * (number - (len(series) - 1) / 2)  # so that bars do not overlap
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


Curve = Sequence[tuple[int, float]]
"""Step and AUC, in order of steps."""


@in_paper_style
def draw_convergence(curves: Mapping[str, Sequence[Curve]], *, threshold: float | None = None) -> "Figure":
    """AUC against training steps: mean over folds for each arm, with a band, or with bars for many arms.

    References:
        Raghu et al. 2019, Transfusion (arXiv 1902.07208), Figures 6 to 8 and 15 to 20.
    """
    figure, (axes,) = new_figure(width=1.4 * COLUMN, height=2.6 + 0.09 * len(curves))
    for number, (name, folds) in enumerate(curves.items()):
        steps, mean, sd = mean_curve(folds)
        style = line_style(number)
        every = max(len(steps) // 8, 1)
        if len(curves) <= 3:
            axes.plot(steps, mean, label=plain(name), markevery=every, **style)
            axes.fill_between(steps, mean - sd, mean + sd, color=style["color"], alpha=0.15, linewidth=0)
        else:
            # Many bands would overlap; bars are drawn side by side.
            shift = (number - (len(curves) - 1) / 2) * 0.1 * (steps[every] - steps[0] if len(steps) > every else 0)
            bars = {"yerr": sd, "errorevery": every, "markevery": every, "elinewidth": 0.6, "capsize": 1.5}
            axes.errorbar(steps + shift, mean, label=plain(name), **bars, **style)
    if threshold is not None:
        axes.axhline(threshold, color="0.5", linewidth=0.8, linestyle=":")
    axes.set_xlabel("training steps")
    axes.set_ylabel("test AUC (mean ± SD)")
    if curves:
        name_above(figure, list(curves))
    return figure


def mean_curve(folds: Sequence[Curve]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps common to all folds, and mean and standard deviation (ddof 1; 0 for one fold) of the AUC at these."""
    values = [dict(fold) for fold in folds]
    steps = sorted(set.intersection(*(set(fold) for fold in values))) if values else []
    table = np.array([[fold[step] for step in steps] for fold in values], dtype=np.float64).reshape(len(values), -1)
    sd = table.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(len(steps))
    return np.array(steps), table.mean(axis=0), sd


@in_paper_style
def draw_forest(
    names: Sequence[str],
    rows: Sequence[tuple[float, float, float]],
    *,
    label: str,
    reference: float | None = None,
    points: Sequence[Sequence[float]] = (),
) -> "Figure":
    """A forest plot: a row per name (of one or two lines) with value, low and high end (NaN if missing).

    `points` are the single values of each row, drawn as small strokes; `reference` is a line.
    """
    row = 0.28 if not any("\n" in name for name in names) else 0.4
    figure, (axes,) = new_figure(width=2 * COLUMN, height=0.8 + row * len(names))
    for place, (value, low, high) in enumerate(rows):
        # Filled if the interval excludes the reference, else hollow.
        crosses = reference is not None and not (low > reference or high < reference)
        axes.plot([low, high], [place, place], color=COLORS[0], linewidth=1.2)
        face = "white" if crosses else COLORS[0]
        axes.plot(value, place, marker="o", markersize=5, color=COLORS[0], markerfacecolor=face)
    for place, values in enumerate(points):
        axes.plot(values, np.full(len(values), place + 0.27), linestyle="", marker="|", color="0.35", markersize=5)
    if reference is not None:
        axes.axvline(reference, color="0.4", linewidth=0.8, linestyle=":")
    axes.set_yticks(
        range(len(names)), ["\n".join(plain(shortened(line, 46)) for line in name.split("\n")) for name in names]
    )
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel(label)
    return figure


Scatter = Sequence[tuple[str, float, float]]
"""Target, similarity and gain of each point."""


@in_paper_style
def draw_gain(
    sources: Sequence[str],
    layers: Sequence[str],
    points: Mapping[tuple[str, str], Scatter],
    lines: Mapping[tuple[str, str], tuple[float, float] | None],
) -> "Figure":
    """Similarity against gain: a row of panels per source, a column per layer, a point per target and fold.

    `points` and `lines` (slope and intercept, or None) are by source and layer.

    References:
        Juodelyte et al. 2023 (arXiv 2302.08272), similarity against performance gain.
    """
    rows, across = len(sources), len(layers)
    targets = list(dict.fromkeys(target for members in points.values() for target, _, _ in members))

    def mark(number: int, size: float) -> dict:
        style = line_style(number)
        # Every other marker is hollow, for grayscale.
        face = "white" if (number + number // len(MARKERS)) % 2 else style["color"]
        return {"marker": style["marker"], "color": style["color"], "markerfacecolor": face, "markersize": size}

    width = max(2 * COLUMN, 1.4 * across)
    figure, axes = new_figure(rows, across, width=width, height=0.7 + 1.6 * rows)
    gains = [gain for members in points.values() for _, _, gain in members]
    room = 0.06 * (max(gains) - min(gains)) or 0.1
    for place, panel in enumerate(axes):
        source, layer = sources[place // across], layers[place % across]
        members, line = points.get((source, layer), ()), lines.get((source, layer))
        for number, target in enumerate(targets):
            mine = np.array([(x, y) for name, x, y in members if name == target]).reshape(-1, 2)
            panel.plot(mine[:, 0], mine[:, 1], linestyle="", **mark(number, 3.5))
        panel.axhline(0, color="0.8", linewidth=0.6, zorder=0)
        if line is not None:
            ends = np.array([min(x for _, x, _ in members), max(x for _, x, _ in members)])
            panel.plot(ends, line[0] * ends + line[1], color="black", linewidth=1)
        panel.set_ylim(min(gains) - room, max(gains) + room)
        if place < across:
            panel.set_title(plain(layer))
        if place % across == 0:
            panel.set_ylabel(f"{plain(source)}\nrelative AUC gain")
        else:
            panel.tick_params(labelleft=False)
        if place >= across * (rows - 1):
            panel.set_xlabel("CCA to own initialization")
    handles = [
        axes[0].plot([], [], linestyle="", **mark(number, 4.5), label=plain(target))[0]
        for number, target in enumerate(targets)
    ]
    name_above(figure, targets, handles)
    return figure


@in_paper_style
def draw_loss_by_rate(rates: np.ndarray, losses: np.ndarray, *, steepest: float | None, upper: float) -> "Figure":
    """Loss against learning rate: each step, the running mean, and two rates.

    `steepest`: the rate with the steepest descent of the loss; `upper`: a tenth of the rate with the lowest loss.
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
    # The loss of the last steps may be very large.
    axes.set_ylim(losses.min() * 0.95, max(np.quantile(losses, 0.9) * 1.2, means[0] * 1.3))
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss")
    # Above the axes, the legend covers no line.
    figure.legend(loc="outside upper center", ncols=2, fontsize=7)
    return figure


CELL, GAP, CAPTION, HEAD = 1.2, 0.06, 1.35, 0.5
"""Side of a picture, gap, width of the captions, and height of the header, inches."""
LETTERS = 24  # letters per line of a caption


@dataclass(frozen=True, eq=False)
class SheetRow:
    """One image of the contact sheet."""

    name: str  # file name, shortened to three lines
    label: str  # its class
    pictures: tuple[np.ndarray, ...]  # the image and its augmentations, each uint8 (height, width, 3), RGB


@in_paper_style
def draw_contact_sheet(
    rows: Sequence[SheetRow], *, heads: Sequence[str], classes: Sequence[str], title: str
) -> "Figure":
    """A contact sheet: a row per image, with its random augmentations.

    Each row has a picture per column title in `heads`; `classes` are in the order of their colors.
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
        # The class above the middle of the row, the name below it, both right-aligned.
        x, y = (CAPTION - 0.1) / width, (bottom + CELL / 2) / height
        label = shortened_middle(printable(row.label or "no label"), LETTERS)
        figure.text(x, y, label, ha="right", va="bottom", color=color, fontweight="bold", parse_math=False)
        name = shortened_middle(printable(row.name), 3 * LETTERS)
        lines = "\n".join(name[start : start + LETTERS] for start in range(0, len(name), LETTERS))
        figure.text(x, y - 0.004, lines, ha="right", va="top", fontsize=6, color="0.35", parse_math=False)
        for j, picture in enumerate(row.pictures):
            axes = figure.add_axes(((CAPTION + step * j) / width, bottom / height, CELL / width, CELL / height))
            axes.imshow(picture, interpolation="antialiased")
            axes.set_axis_off()
    return figure


def shortened_middle(text: str, letters: int) -> str:
    """`text` with its middle replaced by "…" if it is longer than `letters`."""
    if len(text) <= letters:
        return text
    end = (letters - 1) // 2
    return f"{text[: letters - 1 - end]}…{text[-end:]}"
