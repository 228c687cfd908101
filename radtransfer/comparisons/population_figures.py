"""The figures of several runs compared in pairs: by what they started from, and before against after training.

References:
    Raghu et al. 2019, Transfusion (arXiv 1902.07208), Fig. 2 and 4.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from radtransfer.figures.before_after import Points, before_after
from radtransfer.figures.similarity_curve import Curve, similarity_curve
from radtransfer.similarity import SIMILARITIES

# This module imports TensorFlow, which drawing does without.
if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from radtransfer.comparisons.population import Group, PairSimilarity, Population

TOP = "top two"
"""What the mean of the last two layers is called among the layers."""


def draw_groups(population: "Population", kind: str, *, top: bool = False) -> "Figure":
    """A line per kind of pair over the layers, after training; with `top`, also the mean of the two highest."""
    groups = [group for group in population.groups if group.kind == kind and (top or group.layer != TOP)]
    names = list(dict.fromkeys(group.layer for group in groups))
    starts = population.r_squared[kind]
    curves = {s: _curve([group for group in groups if group.starts == s]) for s in starts}
    return similarity_curve(names, curves, measure=f"similarity ({SIMILARITIES[kind].title})")


def draw_training(population: "Population", kind: str) -> "Figure":
    """A point per pair and layer, before against after training, a colour per kind of pair."""
    pairs = [pair for pair in population.pairs if pair.kind == kind]
    r_squared = population.r_squared[kind]
    return before_after({s: _points([p for p in pairs if p.starts == s], r) for s, r in r_squared.items()})


def _curve(groups: Sequence["Group"]) -> Curve:
    """The mean after training, give or take the standard deviation over pairs."""
    values = np.array([group.final for group in groups], float)
    sd = np.array([group.sd for group in groups], float)
    nothing = [np.nan] * len(groups)
    return Curve(values.tolist(), (values - sd).tolist(), (values + sd).tolist(), nothing)


def _points(pairs: Sequence["PairSimilarity"], r_squared: float | None) -> Points:
    values = np.array([(pair.initial, pair.final) for pair in pairs], float)
    return Points(values[:, 0].tolist(), values[:, 1].tolist(), r_squared)
