"""Similarity from the lowest layer to the highest, with its interval and what chance gives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from radtransfer.figures.style import COLORS, COLUMN, in_paper_style, line_style, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDE = 12
_MOST_LABELS = 24
_LONG = 24


@dataclass(frozen=True)
class Curve:
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
    layers: Sequence[str], curves: Mapping[str, Curve], *, measure: str, chance: Sequence[float] | None = None
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
        _draw(axes, number, name, curve)
    _name_layers(axes, layers)
    axes.set_ylim(bottom, 1.02)
    axes.set_ylabel(measure)
    figure.legend(
        loc="outside upper center", ncols=2 if max(map(len, curves)) < _LONG else 1, fontsize=7, frameon=False
    )
    return figure


def _draw_chance(axes: "Axes", bottom: float, chance: Sequence[float], color: str, label: str) -> None:
    if not np.isnan(np.array(chance, float)).all():
        axes.fill_between(range(len(chance)), bottom, chance, color=color, alpha=0.3, linewidth=0, label=label)


def _draw(axes: "Axes", number: int, name: str, curve: Curve) -> None:
    x, style = np.arange(len(curve.values)), line_style(number)
    axes.fill_between(x, curve.low, curve.high, color=style["color"], alpha=0.2, linewidth=0)
    errors = np.abs(np.array([curve.low, curve.high]) - np.array(curve.values))
    axes.errorbar(x, curve.values, yerr=np.nan_to_num(errors), capsize=2, elinewidth=0.8, label=name, **style)


def _name_layers(axes: "Axes", layers: Sequence[str]) -> None:
    step = -(-len(layers) // _MOST_LABELS)
    crowded = len(layers) > 6 or max(map(len, layers)) > 8
    axes.set_xticks(range(0, len(layers), step), layers[::step], rotation=90 if crowded else 0)
