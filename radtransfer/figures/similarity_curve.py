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
        chance_low, chance_high: Ends of the band of unrelated layers.
    """

    values: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    chance_low: Sequence[float]
    chance_high: Sequence[float]


@in_paper_style
def similarity_curve(
    layers: Sequence[str], curves: Mapping[str, Curve], *, chance: Sequence[float] | None = None
) -> "Figure":
    """A line per name in `curves` over the layers.

    Args:
        layers: Along the axis.
        curves: Of each name.
        chance: The most that unrelated layers score, of all curves together: a value per layer, NaN where unknown.

    References:
        Raghu, Zhang, Kleinberg and Bengio 2019, Transfusion, Fig. 3.
    """
    figure, (axes,) = new_figure(width=COLUMN if len(layers) <= _WIDE else 2 * COLUMN)
    if chance is not None and not np.isnan(np.array(chance, float)).all():
        axes.fill_between(range(len(layers)), 0, chance, color=COLORS[-1], alpha=0.3, linewidth=0, label="chance")
    for number, (name, curve) in enumerate(curves.items()):
        _draw(axes, number, name, curve, single=len(curves) == 1)
    _name_layers(axes, layers)
    values = np.array([[*curve.values, *curve.low, *curve.chance_low] for curve in curves.values()], float)
    axes.set_ylim(min(0.0, np.nanmin(values)), 1.02)
    axes.set_ylabel("similarity")
    figure.legend(
        loc="outside upper center", ncols=2 if max(map(len, curves)) < _LONG else 1, fontsize=7, frameon=False
    )
    return figure


def _draw(axes: "Axes", number: int, name: str, curve: Curve, *, single: bool) -> None:
    x, style = np.arange(len(curve.values)), line_style(number)
    chance = COLORS[-1] if single else style["color"]
    label = "chance" if single else f"chance, {name}"
    if not np.isnan(np.array(curve.chance_low, float)).all():
        axes.fill_between(x, curve.chance_low, curve.chance_high, color=chance, alpha=0.3, linewidth=0, label=label)
    axes.fill_between(x, curve.low, curve.high, color=style["color"], alpha=0.2, linewidth=0)
    errors = np.abs(np.array([curve.low, curve.high]) - np.array(curve.values))
    axes.errorbar(x, curve.values, yerr=np.nan_to_num(errors), capsize=2, elinewidth=0.8, label=name, **style)


def _name_layers(axes: "Axes", layers: Sequence[str]) -> None:
    step = -(-len(layers) // _MOST_LABELS)
    crowded = len(layers) > 6 or max(map(len, layers)) > 8
    axes.set_xticks(range(0, len(layers), step), layers[::step], rotation=90 if crowded else 0)
