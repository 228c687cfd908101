"""What a comparison of layers leaves in a folder: a table, everything as JSON, and its figures."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from radtransfer.compare import Comparison
from radtransfer.comparison_folder import check_out
from radtransfer.figures.similarity_curve import Curve, similarity_curve
from radtransfer.figures.similarity_heat_map import similarity_heat_map
from radtransfer.figures.style import save_figure
from radtransfer.layer_scores import LayerSimilarity
from radtransfer.runs import write_json, write_rows

CSV_COLUMNS = [
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


def write_comparison(comparison: Comparison, out: Path) -> list[Path]:
    """Write `similarity.csv`, `similarity.json`, `similarity.png` and, for crossed layers, a heat-map per kind.

    Raises:
        RunError: As `check_out`.
    """
    check_out(out)
    out.mkdir(parents=True, exist_ok=True)
    write_rows(out / "similarity.csv", CSV_COLUMNS, (_row(item) for item in comparison.layers))
    write_json(out / "similarity.json", comparison.to_dict())
    kinds = comparison.settings["similarity"]
    curves = {kind: _curve([item for item in comparison.layers if item.kind == kind]) for kind in kinds}
    save_figure(similarity_curve(comparison.names, curves), out / "similarity.png")
    written = [out / f"similarity.{suffix}" for suffix in ("csv", "json", "png")]
    return [*written, *_heat_maps(comparison, out)]


def _heat_maps(comparison: Comparison, out: Path) -> Iterator[Path]:
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


def _row(item: LayerSimilarity) -> list:
    interval = item.ci95 or ("", "")
    figures = [item.similarity, *interval, item.null.closed_form, item.null.permuted]
    counts = [item.rank_a, item.rank_b, item.rows, item.images, item.dims, item.repeats]
    return [item.layer, item.kind, *("" if value is None else value for value in figures), *counts]


def _curve(items: list[LayerSimilarity]) -> Curve:
    nulls = np.array([[item.null.closed_form, item.null.permuted] for item in items], float)
    # Where only one of the two is known it is the whole band; NaN where none is.
    nulls = np.where(np.isnan(nulls), nulls[:, ::-1], nulls)
    intervals = np.array([item.ci95 or (np.nan, np.nan) for item in items])
    return Curve(
        values=[np.nan if item.similarity is None else item.similarity for item in items],
        low=intervals[:, 0].tolist(),
        high=intervals[:, 1].tolist(),
        chance_low=nulls.min(axis=1).tolist(),
        chance_high=nulls.max(axis=1).tolist(),
    )
