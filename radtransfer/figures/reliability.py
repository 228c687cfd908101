"""A reliability diagram: how often what was said with some confidence was so, and how often such confidence was."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from radtransfer.figures.style import COLUMN, in_paper_style, line_style, name_above, new_figure, plain, set_subject

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
