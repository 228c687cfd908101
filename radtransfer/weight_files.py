"""What a comparison of weights leaves in a folder."""

import dataclasses
from pathlib import Path

from radtransfer.compare_weights import WeightComparison
from radtransfer.comparison_folder import check_out
from radtransfer.figures.filter_change import filter_change
from radtransfer.figures.layer_change import layer_change
from radtransfer.figures.style import save_figure
from radtransfer.runs import write_json, write_rows
from radtransfer.weight_change import WeightChange


def write_weights(comparison: WeightComparison, out: Path) -> list[Path]:
    """Write `weights.csv`, `weights.json`, `weights.png` and, where both have them, `filters.png`.

    Raises:
        RunError: As `check_out`.
    """
    check_out(out)
    out.mkdir(parents=True, exist_ok=True)
    written = [out / f"weights.{suffix}" for suffix in ("csv", "json", "png")]
    columns = [field.name for field in dataclasses.fields(WeightChange)]
    write_rows(written[0], columns, map(dataclasses.astuple, comparison.layers))
    write_json(written[1], comparison.to_dict())
    layers = comparison.layers
    changes = [layer.relative_change for layer in layers]
    save_figure(layer_change([layer.layer for layer in layers], [layer.kind for layer in layers], changes), written[2])
    if comparison.filters is not None:
        titles = {f"title_{side}": f"{side.upper()}: {Path(comparison.settings[side]).name}" for side in "ab"}
        written.append(out / "filters.png")
        save_figure(filter_change(comparison.filters.a, comparison.filters.b, **titles), written[-1])
    return written
