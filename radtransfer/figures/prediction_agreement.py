"""What two networks think of the truth, image by image, and how often they err together."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from radtransfer.figures.style import COLORS, COLUMN, MARKERS, in_paper_style, new_figure

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
