"""A reliability diagram: how often what was said with some confidence was so, and how often such confidence was."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from radtransfer.figures.style import COLUMN, in_paper_style, line_style, name_above, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Bins = tuple[Sequence[float], Sequence[float], Sequence[int], float]
"""Mean confidence, frequency and count of each bin; the calibration error."""


@in_paper_style
def draw_reliability(diagrams: Mapping[str, Bins]) -> "Figure":
    """Frequencies against confidences above, counts below; a line for each diagram.

    Args:
        diagrams: Name to bins.
    """
    figure, (above, below) = new_figure(2, 1, width=COLUMN, height=1.4 * COLUMN + 0.12 * len(diagrams))
    grid = above.get_gridspec()
    grid.set_height_ratios([3, 1])
    handles = []
    for number, (confidence, frequency, count, _) in enumerate(diagrams.values()):
        style = line_style(number)
        handles += above.plot(confidence, frequency, **style)
        below.plot(confidence, count, **style)
    above.plot([0, 1], [0, 1], color="0.5", linewidth=0.8, linestyle=":")
    above.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    above.set_ylabel("observed frequency")
    below.set(xlim=(-0.01, 1.01), ylim=(0, None))
    below.set_xlabel("confidence")
    below.set_ylabel("answers")
    name_above(figure, [f"{name}, ECE {bins[3]:.3f}" for name, bins in diagrams.items()], handles)
    return figure
