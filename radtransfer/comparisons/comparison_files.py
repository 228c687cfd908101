"""What comparisons leave in a folder: a table, everything as JSON, and figures.

compare-cca A B         similarity.csv .json .png, and cross_KIND.png for crossed layers
compare-cca --pairs     pairs.csv groups.csv population.json, and groups_KIND.png training_KIND.png
compare-predictions     predictions.csv .json .png
compare-weights         weights.csv .json .png, and filters.png

What an earlier comparison of the same kind left there is replaced or deleted.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from radtransfer.comparisons.population_figures import draw_groups, draw_training
from radtransfer.comparisons.predictions import ROW_COLUMNS, PredictionComparison
from radtransfer.figures.filter_change import filter_change
from radtransfer.figures.layer_change import layer_change
from radtransfer.figures.prediction_agreement import prediction_agreement
from radtransfer.figures.similarity_curve import Curve, similarity_curve
from radtransfer.figures.similarity_heat_map import similarity_heat_map
from radtransfer.figures.style import save_figure
from radtransfer.result_folder import whole_folder
from radtransfer.runs import write_json, write_rows

# These modules import TensorFlow, which the comparison of predictions does without.
if TYPE_CHECKING:
    from radtransfer.comparisons.compare import Comparison
    from radtransfer.comparisons.layer_scores import LayerSimilarity
    from radtransfer.comparisons.population import Population
    from radtransfer.comparisons.weights import WeightComparison

COMPARISON_FILES = ("similarity.csv", "similarity.json", "similarity.png", "cross_*.png")
POPULATION_FILES = ("pairs.csv", "groups.csv", "population.json", "groups_*.png", "training_*.png")
PREDICTION_FILES = ("predictions.csv", "predictions.json", "predictions.png")
WEIGHT_FILES = ("weights.csv", "weights.json", "weights.png", "filters.png")

_SIMILARITY_COLUMNS = [
    "layer",
    "kind",
    "similarity",
    "ci95_low",
    "ci95_high",
    "null_closed_form",
    "null_permuted",
    "rank_a",
    "rank_b",
    "rows",
    "images",
    "dims",
    "repeats",
]


def write_comparison(comparison: "Comparison", out: Path) -> list[Path]:
    """Write `similarity.csv`, `similarity.json`, `similarity.png` and, for crossed layers, a heat-map per kind.

    Raises:
        DiskError, RunError: As `whole_folder`.
    """
    kinds = comparison.settings["similarity"]
    curves = {kind: _curve([item for item in comparison.layers if item.kind == kind]) for kind in kinds}
    with whole_folder(out, COMPARISON_FILES, last="similarity.json") as folder:
        write_rows(folder / "similarity.csv", _SIMILARITY_COLUMNS, map(_row, comparison.layers), for_people=True)
        write_json(folder / "similarity.json", comparison.to_dict())
        figure = similarity_curve(comparison.names, curves, measure=_measure(comparison))
        save_figure(figure, folder / "similarity.png")
        maps = list(_heat_maps(comparison, folder))
    return [out / name for name in ("similarity.csv", "similarity.json", "similarity.png", *maps)]


def _heat_maps(comparison: "Comparison", out: Path) -> Iterator[str]:
    for kind, matrix in comparison.cross.items():
        figure = similarity_heat_map(
            matrix,
            rows=comparison.names,
            columns=comparison.names,
            row_title=Path(comparison.settings["a"]).name,
            column_title=Path(comparison.settings["b"]).name,
            title=kind,
        )
        name = f"cross_{kind}.png"
        save_figure(figure, out / name)
        yield name


def _row(item: "LayerSimilarity") -> list:
    interval = item.ci95 or ("", "")
    figures = [item.similarity, *interval, item.null.closed_form, item.null.permuted]
    counts = [item.rank_a, item.rank_b, item.rows, item.images, item.dims, item.repeats]
    return [item.layer, item.kind, *("" if value is None else value for value in figures), *counts]


def _measure(comparison: "Comparison") -> str:
    """What the curve shows: its measure, if it is one, and whether a network is compared with its own start."""
    from radtransfer.similarity import SIMILARITIES

    kinds, (a, b) = comparison.settings["similarity"], (comparison.settings[side].partition("@") for side in "ab")
    what = f"similarity ({SIMILARITIES[kinds[0]].title})" if len(kinds) == 1 else "similarity"
    of_itself = a[0] == b[0] and a[2] == "initial" and b[2] in ("", "final")
    return f"{what},\nbefore and after training" if of_itself else what


def _curve(items: list["LayerSimilarity"]) -> Curve:
    # The larger of the two that is known; NaN where none is.
    chance = np.fmax(*np.array([[item.null.closed_form, item.null.permuted] for item in items], float).T)
    intervals = np.array([item.ci95 or (np.nan, np.nan) for item in items])
    return Curve(
        values=[np.nan if item.similarity is None else item.similarity for item in items],
        low=intervals[:, 0].tolist(),
        high=intervals[:, 1].tolist(),
        chance=chance.tolist(),
    )


def write_population(population: "Population", out: Path) -> list[Path]:
    """Write `pairs.csv`, `groups.csv`, `population.json` and for each kind `groups_KIND.png` and `training_KIND.png`.

    Raises:
        DiskError, RunError: As `whole_folder`.
    """
    names = ["pairs.csv", "groups.csv", "population.json"]
    with whole_folder(out, POPULATION_FILES, last="population.json") as folder:
        _write_records(folder / names[0], population.pairs, without=("points",))
        _write_records(folder / names[1], population.groups)
        write_json(folder / names[2], population.to_dict())
        for kind in dict.fromkeys(group.kind for group in population.groups):
            figures = {
                f"groups_{kind}.png": draw_groups(population, kind),
                f"training_{kind}.png": draw_training(population, kind),
            }
            for name, figure in figures.items():
                save_figure(figure, folder / name)
                names.append(name)
    return [out / name for name in names]


def write_predictions(comparison: PredictionComparison, out: Path) -> list[Path]:
    """Write `predictions.csv` (a line per image), `predictions.json` and `predictions.png`.

    Raises:
        DiskError, RunError: As `whole_folder`.
    """
    columns = dict(zip(ROW_COLUMNS, zip(*comparison.rows, strict=True), strict=True))
    a, b = comparison.accuracy_a, comparison.accuracy_b
    figure = prediction_agreement(
        columns["p_truth_a"],
        columns["p_truth_b"],
        right_a=columns["right_a"],
        right_b=columns["right_b"],
        independent=[a * b, a * (1 - b), (1 - a) * b, (1 - a) * (1 - b)],
        title_a=Path(comparison.settings["a"]).name,
        title_b=Path(comparison.settings["b"]).name,
    )
    table, values, picture = PREDICTION_FILES
    with whole_folder(out, PREDICTION_FILES, last=values) as folder:
        write_rows(folder / table, ROW_COLUMNS, comparison.rows)
        write_json(folder / values, comparison.to_dict())
        save_figure(figure, folder / picture)
    return [out / name for name in PREDICTION_FILES]


def write_weights(comparison: "WeightComparison", out: Path) -> list[Path]:
    """Write `weights.csv`, `weights.json`, `weights.png` and, where both have them, `filters.png`.

    Raises:
        DiskError, RunError: As `whole_folder`.
    """
    names, layers = [f"weights.{suffix}" for suffix in ("csv", "json", "png")], comparison.layers
    changes = [layer.relative_change for layer in layers]
    with whole_folder(out, WEIGHT_FILES, last="weights.json") as folder:
        _write_records(folder / names[0], layers)
        write_json(folder / names[1], comparison.to_dict())
        figure = layer_change([layer.layer for layer in layers], [layer.kind for layer in layers], changes)
        save_figure(figure, folder / names[2])
        if comparison.filters is not None:
            titles = {f"title_{side}": f"{side.upper()}: {Path(comparison.settings[side]).name}" for side in "ab"}
            names.append("filters.png")
            save_figure(filter_change(comparison.filters.a, comparison.filters.b, **titles), folder / names[-1])
    return [out / name for name in names]


def _write_records(path: Path, records: Sequence[Any], *, without: Sequence[str] = ()) -> None:
    """A line per record, a dataclass whose fields are the columns; an interval has two."""
    rows = []
    for record in records:
        row = {}
        for name, value in vars(record).items():
            if name.endswith("ci95"):
                row[f"{name}_low"], row[f"{name}_high"] = value or ("", "")
            elif name not in without:
                row[name] = value
        rows.append(row)
    write_rows(path, list(rows[0]), (row.values() for row in rows), for_people=True)
