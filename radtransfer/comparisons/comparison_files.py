"""What comparisons leave in a folder: a table, everything as JSON, and figures.

compare-cca A B         similarity.csv .json .png, and cross_KIND.png for crossed layers
compare-cca --pairs     pairs.csv groups.csv population.json, and groups_KIND.png training_KIND.png
compare-predictions     predictions.csv .json .png
compare-weights         weights.csv .json .png, and filters.png

What an earlier comparison of the same kind left there is replaced or deleted.
"""

import dataclasses
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
from radtransfer.result_folder import delete_others, make_out
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
        RunError: As `check_out`.
    """
    make_out(out)
    write_rows(out / "similarity.csv", _SIMILARITY_COLUMNS, map(_row, comparison.layers), for_people=True)
    write_json(out / "similarity.json", comparison.to_dict())
    kinds = comparison.settings["similarity"]
    curves = {kind: _curve([item for item in comparison.layers if item.kind == kind]) for kind in kinds}
    save_figure(similarity_curve(comparison.names, curves, measure=_measure(comparison)), out / "similarity.png")
    written = [out / f"similarity.{suffix}" for suffix in ("csv", "json", "png")]
    written += _heat_maps(comparison, out)
    delete_others(out, COMPARISON_FILES, written)
    return written


def _heat_maps(comparison: "Comparison", out: Path) -> Iterator[Path]:
    for kind, matrix in comparison.cross.items():
        figure = similarity_heat_map(
            matrix,
            rows=comparison.names,
            columns=comparison.names,
            row_title=Path(comparison.settings["a"]).name,
            column_title=Path(comparison.settings["b"]).name,
            title=kind,
        )
        path = out / f"cross_{kind}.png"
        save_figure(figure, path)
        yield path


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
        RunError: As `check_out`.
    """
    make_out(out)
    written = [out / "pairs.csv", out / "groups.csv", out / "population.json"]
    _write_records(written[0], population.pairs)
    _write_records(written[1], population.groups)
    write_json(written[2], population.to_dict())
    for kind in population.r_squared:
        figures = {
            f"groups_{kind}.png": draw_groups(population, kind),
            f"training_{kind}.png": draw_training(population, kind),
        }
        for name, figure in figures.items():
            save_figure(figure, out / name)
            written.append(out / name)
    delete_others(out, POPULATION_FILES, written)
    return written


def write_predictions(comparison: PredictionComparison, out: Path) -> list[Path]:
    """Write `predictions.csv` (a line per image), `predictions.json` and `predictions.png`.

    Raises:
        RunError: As `check_out`.
    """
    make_out(out)
    written = [out / name for name in PREDICTION_FILES]
    write_rows(written[0], ROW_COLUMNS, comparison.rows)
    write_json(written[1], comparison.to_dict())
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
    save_figure(figure, written[2])
    return written


def write_weights(comparison: "WeightComparison", out: Path) -> list[Path]:
    """Write `weights.csv`, `weights.json`, `weights.png` and, where both have them, `filters.png`.

    Raises:
        RunError: As `check_out`.
    """
    make_out(out)
    written = [out / f"weights.{suffix}" for suffix in ("csv", "json", "png")]
    _write_records(written[0], comparison.layers)
    write_json(written[1], comparison.to_dict())
    layers = comparison.layers
    changes = [layer.relative_change for layer in layers]
    save_figure(layer_change([layer.layer for layer in layers], [layer.kind for layer in layers], changes), written[2])
    if comparison.filters is not None:
        titles = {f"title_{side}": f"{side.upper()}: {Path(comparison.settings[side]).name}" for side in "ab"}
        written.append(out / "filters.png")
        save_figure(filter_change(comparison.filters.a, comparison.filters.b, **titles), written[-1])
    delete_others(out, WEIGHT_FILES, written)
    return written


def _write_records(path: Path, records: Sequence[Any]) -> None:
    """A line per record, a dataclass whose fields are the columns."""
    columns = [field.name for field in dataclasses.fields(records[0])]
    write_rows(path, columns, map(dataclasses.astuple, records), for_people=True)
