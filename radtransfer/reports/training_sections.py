"""The sections of a report on runs that tell how networks learned, how large they are and what training changed."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from radtransfer.curve import steps_to
from radtransfer.figures.auc_by_size import draw_auc_by_size
from radtransfer.figures.convergence import draw_convergence, mean_curve
from radtransfer.figures.filter_change import filter_change
from radtransfer.figures.gain_scatter import draw_gain
from radtransfer.figures.similarity_curve import Curve, similarity_curve
from radtransfer.reports.arm_results import ArmResults
from radtransfer.reports.fold_statistics import spread
from radtransfer.reports.gain import GainPoint, fit_line
from radtransfer.reports.numbers import interval, mean_sd, number, signed
from radtransfer.reports.page import Picture, Table
from radtransfer.reports.run_arms import Arm

_NAN = float("nan")
_CHANGE = ("layer", "similarity", "ci95", "chance", "dims", "rows")


def watched_curves(arms: Sequence[Arm]) -> dict[str, list[list[tuple[int, float]]]]:
    """Steps and test AUC of every training that was watched, by arm."""
    curves = {}
    for arm in arms:
        watched = [
            [(int(row["step"]), float(row["auc"])) for row in fold.curve if row["split"] == "test" and row["auc"]]
            for fold in arm.folds
        ]
        if any(watched):
            curves[arm.name] = [curve for curve in watched if curve]
    return curves


def usual_threshold(curves: Mapping[str, Sequence[Sequence[tuple[int, float]]]]) -> float | None:
    """An AUC that every arm reaches on average: the lowest of the arms' highest means, down to two places."""
    highest = [mean.max() for folds in curves.values() if (mean := mean_curve(folds)[1]).size]
    return float(np.floor(100 * min(highest)) / 100) if highest else None


def step_rows(arms: Sequence[Arm], threshold: float) -> list[dict[str, Any]]:
    """Steps to the threshold: mean and sd over the trainings that reach it, and how many of how many do."""
    rows = []
    for arm in arms:
        watched = [fold.curve for fold in arm.folds if fold.curve]
        reached = [step for curve in watched if (step := steps_to(curve, threshold)) is not None]
        found = spread(reached)
        if watched:
            row = {"arm": arm.name, "threshold": threshold, "steps_mean": found.mean, "steps_sd": found.sd}
            rows.append(row | {"reached": len(reached), "watched": len(watched)})
    return rows


def convergence_parts(
    curves: Mapping[str, Sequence[Sequence[tuple[int, float]]]], rows: Sequence[Mapping[str, Any]]
) -> list[Any]:
    """AUC against steps, and steps to the threshold."""
    if not curves or not rows:
        return []
    threshold = rows[0]["threshold"]
    cells = [
        [row["arm"], mean_sd(row["steps_mean"], row["steps_sd"], 0), f"{row['reached']} of {row['watched']}"]
        for row in rows
    ]
    counts = sorted({len(folds) for folds in curves.values()})
    return [
        Picture(
            "convergence",
            f"Test AUC against training steps of {', '.join(curves)}.",
            f"Test AUC against training steps: mean over n = {' or '.join(map(str, counts))} trainings, band ± sd "
            f"(ddof 1). Dotted: the threshold of the table, {threshold:g}.",
            draw_convergence(curves, threshold=threshold),
        ),
        Table(
            "steps",
            f"Training steps to a test AUC of {threshold:g}: mean ± sd (ddof 1) over the trainings that reach it; "
            "where some do not, the mean is of the faster ones.",
            ["arm", "steps", "reached"],
            cells,
            rows,
        ),
    ]


def size_parts(found: ArmResults) -> list[Any]:
    """AUC against parameters, where arms differ in size."""
    known = [arm for arm in found.scored if arm.parameters and arm.pooled is not None]
    if len({arm.parameters for arm in known}) < 2:
        return []
    groups: dict[str, list] = {}
    for arm in known:
        name = ", ".join(filter(None, (arm.start, arm.depth, arm.context)))
        point = (arm.backbone, arm.parameters, arm.pooled, *(arm.ci95 or (_NAN, _NAN)))
        groups.setdefault(name, []).append(point)
    return [
        Picture(
            "size",
            f"AUC against parameters of {', '.join(arm.name for arm in known)}; the figures are in the first table.",
            "Pooled test AUC against the parameters of the backbone; bars: 95 % interval by bootstrap over patients.",
            draw_auc_by_size(groups),
        )
    ]


def change_parts(found: ArmResults) -> list[Any]:
    """Similarity of every layer before and after training, a figure per set of layers."""
    groups: dict[tuple[str, ...], dict[str, Sequence]] = {}
    for name, changes in found.changes.items():
        if changes:
            groups.setdefault(tuple(change.layer for change in changes), {})[name] = changes
    parts: list[Any] = []
    for place, (layers, arms) in enumerate(groups.items(), start=1):
        curves = {name: _curve(changes) for name, changes in arms.items()}
        parts.append(
            Picture(
                f"cca_before_after_{place}",
                f"Similarity before and after training of {', '.join(arms)} over {', '.join(layers)}; see the table.",
                "CCA of each layer before and after training, first run of each arm, averaged over its folds; bars: "
                "95 % interval, jackknife over images; bands: what unrelated layers score.",
                similarity_curve(layers, curves),
            )
        )
    rows = [(name, change) for arms in groups.values() for name, changes in arms.items() for change in changes]
    if not rows:
        return []
    cells = [
        [name, c.layer, number(c.similarity), "–" if c.ci95 is None else f"{number(c.ci95[0])} to {number(c.ci95[1])}"]
        + [number(c.chance)]
        for name, c in rows
    ]
    caption = (
        f"CCA before and after training of {_range([c.dims for _, c in rows])} channels at "
        f"{_range([c.rows for _, c in rows])} positions, 95 % interval (jackknife over images), and what unrelated "
        "layers score, which fewer positions or more channels raise."
    )
    records = [{"arm": name} | {key: getattr(c, key) for key in _CHANGE} for name, c in rows]
    header = ["arm", "layer", "similarity", "95 % interval", "chance"]
    return [*parts, Table("cca_before_after", caption, header, cells, records, text_columns=2)]


def change_difference_parts(rows: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Similarity to the start, less that of networks that started at random."""
    if not rows:
        return []
    cells = [[row["arm"], row["layer"], signed(row["difference"]), interval(row["ci95"])] for row in rows]
    caption = (
        "How much more alike to its start each layer stayed than in the arm that differs in nothing but that it starts "
        "at random: difference of CCA with its 95 % interval, the errors of both taken as independent."
    )
    header = ["arm", "layer", "pretrained − random", "95 % interval"]
    return [Table("cca_difference", caption, header, cells, rows, text_columns=2)]


def filter_parts(filters: Mapping[str, Any]) -> list[Picture]:
    """The filters of each arm's first convolution, before and after training."""
    return [
        Picture(
            f"filters_{place}",
            f"Filters of the first convolution of {name} before and after training, and histograms of their weights.",
            f"{name}: filters of {change.layer} before and after training in the first network of the arm, and all "
            "their weights. A filter and its counterpart share one scale.",
            filter_change(change.a, change.b, title_a="before", title_b="after"),
        )
        for place, (name, change) in enumerate(filters.items(), start=1)
    ]


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
    """Similarity against gain, where there is an arm that starts at random to gain over."""
    if not any(points.values()):
        return []
    arms, layers = (list(dict.fromkeys(key[place] for key in points)) for place in (0, 1))
    cells = [
        [r["arm"], r["layer"], signed(r["slope"], 2), interval(r["ci95"], 2), signed(r["r"], 2), str(r["n"])]
        for r in rows
    ]
    caption = (
        "Least squares of relative gain over random initialization, (AUC − AUC of random) / AUC of random on the same "
        "fold and seed, on CCA before and after; first run of each arm, n = its folds. 95 % interval of the slope: "
        "Student's t on n − 2 degrees of freedom, folds taken as independent."
    )
    return [
        Picture(
            "gain",
            f"Gain against similarity of {', '.join(arms)} at {', '.join(layers)}, a point per fold; see the table.",
            "Similarity against gain, a row per arm and a column per layer, a point per fold. Line: least squares.",
            draw_gain(
                arms,
                layers,
                {key: [(p.target, p.similarity, p.gain) for p in members] for key, members in points.items()},
                {(r["arm"], r["layer"]): None if r["slope"] is None else (r["slope"], r["intercept"]) for r in rows},
            ),
        ),
        Table("gain", caption, ["arm", "layer", "slope", "95 % interval", "r", "n"], cells, rows, text_columns=2),
    ]


def _range(counts: Sequence[int | None]) -> str:
    known = [count for count in counts if count is not None]
    return "–" if not known else f"{min(known):,}" if min(known) == max(known) else f"{min(known):,} to {max(known):,}"


def _curve(changes: Sequence[Any]) -> Curve:
    chance = [_nan(change.chance) for change in changes]
    ends = [change.ci95 or (_NAN, _NAN) for change in changes]
    values = [_nan(change.similarity) for change in changes]
    return Curve(values, [low for low, _ in ends], [high for _, high in ends], [0.0] * len(chance), chance)


def _nan(value: float | None) -> float:
    return _NAN if value is None else value
