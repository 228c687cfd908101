"""The section of a report on runs that tells whether networks that stay like their start gain more."""

from collections.abc import Mapping, Sequence
from typing import Any

from radtransfer.figures.gain_scatter import draw_gain
from radtransfer.reports.gain import GainPoint, fit_line
from radtransfer.reports.numbers import interval, signed
from radtransfer.reports.page import Picture, Table


def gain_rows(points: Mapping[tuple[str, str], Sequence[GainPoint]]) -> list[dict[str, Any]]:
    """Least squares of gain on similarity, by arm and layer."""
    rows = []
    for (arm, layer), members in points.items():
        line = fit_line([point.similarity for point in members], [point.gain for point in members])
        figures = {"slope": line.slope, "intercept": line.intercept, "r": line.r, "ci95": line.ci95, "n": line.n}
        rows.append({"arm": arm, "layer": layer} | figures)
    return rows


def gain_parts(
    points: Mapping[tuple[str, str], Sequence[GainPoint]], rows: Sequence[Mapping[str, Any]]
) -> list[Picture | Table]:
    """Similarity against gain, where a line can be laid through the trainings of some arm."""
    lines = {(row["arm"], row["layer"]): row for row in rows if row["slope"] is not None}
    drawn = {arm for arm, _ in lines}
    if not drawn:
        return []
    arms, layers = (list(dict.fromkeys(key[place] for key in points if key[0] in drawn)) for place in (0, 1))
    shown = [row for row in rows if row["arm"] in drawn]
    cells = [
        [r["arm"], r["layer"], signed(r["slope"], 2), interval(r["ci95"], 2), signed(r["r"], 2), str(r["n"])]
        for r in shown
    ]
    caption = (
        "Least squares of relative gain over the reference arm, (AUC − its AUC) / its AUC on the same fold and seed, "
        "on CCA before and after; n = trainings. 95 % interval of the slope: Student's t on n − 2 degrees of freedom, "
        "trainings taken as independent, which folds and seeds of one data set are not: it is too narrow."
    )
    return [
        Picture(
            "gain",
            f"Gain against similarity of {', '.join(arms)} at {', '.join(layers)}, a point per training; see the "
            "table.",
            "Similarity against gain, a row per arm and a column per layer, a point per training. Line: least squares.",
            draw_gain(
                arms,
                layers,
                {key: [(p.target, p.similarity, p.gain) for p in points[key]] for key in points if key[0] in drawn},
                {key: (row["slope"], row["intercept"]) for key, row in lines.items()},
            ),
        ),
        Table("gain", caption, ["arm", "layer", "slope", "95 % interval", "r", "n"], cells, shown, text_columns=2),
    ]
