"""What a comparison of many pairs leaves in a folder."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from radtransfer.compare_population import Group, PairSimilarity, Population
from radtransfer.comparison_folder import check_out
from radtransfer.figures.before_after import Points, before_after
from radtransfer.figures.similarity_curve import Curve, similarity_curve
from radtransfer.figures.style import save_figure
from radtransfer.runs import write_json, write_rows


def write_population(population: Population, out: Path) -> list[Path]:
    """Write `pairs.csv`, `groups.csv`, `population.json` and for each kind `groups_KIND.png` and `training_KIND.png`.

    Raises:
        RunError: As `check_out`.
    """
    check_out(out)
    out.mkdir(parents=True, exist_ok=True)
    written = [out / "pairs.csv", out / "groups.csv", out / "population.json"]
    for path, rows, kind in zip(written, (population.pairs, population.groups), (PairSimilarity, Group), strict=False):
        columns = [field.name for field in dataclasses.fields(kind)]
        write_rows(path, columns, map(dataclasses.astuple, rows))
    write_json(written[2], population.to_dict())
    for kind, r_squared in population.r_squared.items():
        groups = [group for group in population.groups if group.kind == kind and group.layer != "top two"]
        names = list(dict.fromkeys(group.layer for group in groups))
        curves = {starts: _curve([g for g in groups if g.starts == starts]) for starts in r_squared}
        pairs = [pair for pair in population.pairs if pair.kind == kind]
        points = {s: _points([p for p in pairs if p.starts == s], r) for s, r in r_squared.items()}
        figures = {f"groups_{kind}.png": similarity_curve(names, curves), f"training_{kind}.png": before_after(points)}
        for name, figure in figures.items():
            save_figure(figure, out / name)
            written.append(out / name)
    return written


def _curve(groups: Sequence[Group]) -> Curve:
    """The mean after training, give or take the standard deviation over pairs."""
    values = np.array([group.final for group in groups], float)
    sd = np.array([group.sd for group in groups], float)
    nothing = [np.nan] * len(groups)
    return Curve(values.tolist(), (values - sd).tolist(), (values + sd).tolist(), nothing, nothing)


def _points(pairs: Sequence[PairSimilarity], r_squared: float | None) -> Points:
    values = np.array([(pair.initial, pair.final) for pair in pairs], float)
    return Points(values[:, 0].tolist(), values[:, 1].tolist(), r_squared)
