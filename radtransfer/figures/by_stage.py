"""A figure of merit against the stage that weights are reused through.

References:
    Raghu et al. 2019, Transfusion (arXiv 1902.07208), Figures 7, 12 and 13.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from radtransfer.figures.style import in_paper_style, line_style, new_figure

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
