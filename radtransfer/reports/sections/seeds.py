"""The figures of several seeds: pretrained and random networks against each other, before and after training.

References:
    Raghu et al. 2019, Transfusion (arXiv 1902.07208), Fig. 2 (the top two stages averaged) and Fig. 4 (R² of
    each layer).
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from radtransfer.comparisons.population_figures import draw_groups, draw_training
from radtransfer.reports.numbers import mean_sd, number, plain_interval
from radtransfer.reports.page import Picture, Table

if TYPE_CHECKING:
    from radtransfer.comparisons.population import Population


def seed_parts(found: "Mapping[str, Population]") -> list[Any]:
    """Two figures for each arm, and one table."""
    parts: list[Any] = []
    for place, (name, population) in enumerate(found.items(), start=1):
        starts = list(dict.fromkeys(group.starts for group in population.groups))
        counts = ", ".join(f"{s} {_pairs(population, s)}" for s in starts)
        parts += [
            Picture(
                f"seed_pairs_{place}",
                f"Similarity of networks of several seeds of {name} and its reference, layer by layer: "
                f"{', '.join(starts)}; see the table.",
                f"{name} and its random reference, every two seeds compared after training: mean CCA over pairs, bars "
                f"± sd (ddof 1; pairs share networks, so it is no interval). Last place: mean of the two highest "
                f"stages. Pairs: {counts}.",
                draw_groups(population, "cca", top=True),
            ),
            Picture(
                f"seed_training_{place}",
                f"Similarity before training against after it of every pair of seeds of {name} and its reference.",
                f"{name} and its random reference: CCA of every pair of seeds before training (across) against after "
                "it, layer by layer, the lowest first, each panel with its own scales; a point per pair and draw of "
                "channels and positions, a mark per pair. R² with its 95 % interval: see the table. Points on the line "
                "did not change.",
                draw_training(population, "cca"),
            ),
        ]
    return [*parts, _table(found)] if parts else []


def seed_rows(found: "Mapping[str, Population]") -> list[dict[str, Any]]:
    """A row for each arm, kind of pair and layer."""
    return [
        {"arm": name, "starts": g.starts, "layer": g.layer, "pairs": g.pairs, "before": g.initial, "after": g.final}
        | {"after_sd": g.sd, "r_squared": g.r_squared, "r_squared_ci95": g.r_squared_ci95, "n_points": g.n_points}
        for name, population in found.items()
        for g in population.groups
    ]


def _table(found: "Mapping[str, Population]") -> Table:
    rows = seed_rows(found)
    cells = [
        [r["arm"], r["starts"], r["layer"], number(r["before"]), mean_sd(r["after"], r["after_sd"]), str(r["pairs"])]
        + [number(r["r_squared"], 2), plain_interval(r["r_squared_ci95"], 2), str(r["n_points"] or "–")]
        for r in rows
    ]
    caption = (
        "CCA of every two seeds before and after training, mean and sd (ddof 1) over pairs, which share networks. R²: "
        "squared correlation of similarity before and after training in the layer, over points, which are pairs × "
        "draws of channels and positions; none where all start alike or nothing moved. Pairs that share a network are "
        "not independent, so its 95 % interval is a jackknife that leaves out one network after another (Fisher's z, "
        "Student's t; never narrower than that of independent points): wide with few networks, 0 to 1 where they are "
        "too few to tell. With a single pair its draws are left out, which says nothing of other networks."
    )
    header = ["arm", "starts", "layer", "before", "after", "pairs", "R²", "95 % interval", "points"]
    return Table("seed_pairs", caption, header, cells, rows, text_columns=3)


def _pairs(population: "Population", starts: str) -> int:
    return next(group.pairs for group in population.groups if group.starts == starts)
