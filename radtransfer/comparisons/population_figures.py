"""The figures of several runs compared in pairs: by what they started from, and before against after training.

References:
    Raghu et al. 2019, Transfusion (arXiv 1902.07208), Fig. 2 and 4.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from radtransfer.figures.before_after import Panel, before_after
from radtransfer.figures.similarity_curve import Curve, similarity_curve
from radtransfer.similarity import SIMILARITIES

# This module imports TensorFlow, which drawing does without.
if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from radtransfer.comparisons.population import Group, Population

TOP = "top two"
"""What the mean of the last two layers is called among the layers."""


def draw_groups(population: "Population", kind: str, *, top: bool = False) -> "Figure":
    """A line per kind of pair over the layers, after training; with `top`, also the mean of the two highest."""
    groups = [group for group in population.groups if group.kind == kind and (top or group.layer != TOP)]
    names = list(dict.fromkeys(group.layer for group in groups))
    starts = dict.fromkeys(group.starts for group in groups)
    curves = {s: _curve([group for group in groups if group.starts == s]) for s in starts}
    return similarity_curve(names, curves, measure=f"similarity ({SIMILARITIES[kind].title})")


def draw_training(population: "Population", kind: str) -> "Figure":
    """Before against after training, a point per pair and draw: a row of panels per kind of pair, one per layer."""
    groups = [group for group in population.groups if group.kind == kind and group.layer != TOP]
    pairs = [pair for pair in population.pairs if pair.kind == kind]
    return before_after(
        {
            (g.starts, g.layer): Panel(
                [pair.points for pair in pairs if (pair.starts, pair.layer) == (g.starts, g.layer)],
                g.r_squared,
                g.r_squared_ci95,
            )
            for g in groups
        }
    )


def _curve(groups: Sequence["Group"]) -> Curve:
    """The mean after training, give or take the standard deviation over pairs."""
    values = np.array([group.final for group in groups], float)
    sd = np.array([group.sd for group in groups], float)
    nothing = [np.nan] * len(groups)
    return Curve(values.tolist(), (values - sd).tolist(), (values + sd).tolist(), nothing)
