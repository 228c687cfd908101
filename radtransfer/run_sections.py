"""The sections of a report on runs: what each figure and table shows, and how it is captioned."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from radtransfer.arm_results import ArmDifference, ArmResults
from radtransfer.curve import steps_to
from radtransfer.figures.auc_by_size import draw_auc_by_size
from radtransfer.figures.convergence import draw_convergence, mean_curve
from radtransfer.figures.forest import draw_forest
from radtransfer.figures.similarity_curve import Curve, similarity_curve
from radtransfer.fold_statistics import spread
from radtransfer.report_numbers import interval, mean_sd, number, signed
from radtransfer.report_page import Picture, Prose, Table
from radtransfer.run_arms import Arm

_NAN = float("nan")


def auc_parts(found: ArmResults, arms: Sequence[Arm]) -> list[Any]:
    """AUC of every arm: a forest of pooled AUCs, and the table."""
    aucs = {arm.name: [fold.auc for fold in arm.folds if fold.auc is not None] for arm in arms}
    scored = found.scored
    parts: list[Any] = []
    if scored:
        parts.append(
            Picture(
                "auc",
                f"AUC of {', '.join(arm.name for arm in scored)}, best first; the figures are in the first table.",
                "AUC of each arm, best first. Dot and bar: the out-of-fold predictions taken together, with the 95 % "
                "interval by bootstrap over patients (images where patients are not known); strokes: single trainings.",
                draw_forest(
                    [arm.name for arm in scored],
                    [(_nan(arm.pooled), *(arm.ci95 or (_NAN, _NAN))) for arm in scored],
                    label="test AUC",
                    points=[aucs[arm.name] for arm in scored],
                ),
            )
        )
    order = [*scored, *(arm for arm in found.arms if arm.mean is None)]
    cells = [
        [
            arm.name,
            ", ".join(filter(None, (arm.backbone, arm.start, arm.depth, arm.context))),
            mean_sd(arm.mean, arm.sd),
            str(arm.trainings),
            number(arm.pooled),
            "–" if arm.ci95 is None else f"{number(arm.ci95[0])} to {number(arm.ci95[1])}",
        ]
        for arm in order
    ]
    caption = (
        "Test AUC. Mean ± sd over trainings (each a seed and a fold; ddof 1), which is no interval; pooled: all "
        "out-of-fold predictions of a repeat together, averaged over repeats and seeds, with its 95 % interval by "
        "bootstrap over patients. The interval takes the trained networks as they are."
    )
    header = ["arm", "what it is", "AUC, mean ± sd", "trainings", "pooled", "95 % interval"]
    return [*parts, Table("auc", caption, header, cells, [dataclasses.asdict(a) for a in order], text_columns=2)]


def difference_parts(found: ArmResults) -> list[Any]:
    """Paired differences: the best arm against each other one as a forest, and every pair as a table."""
    if not found.differences:
        return []
    best = found.scored[0]
    against = [d for arm in found.scored[1:] if (d := found.difference(best.name, arm.name)) is not None]
    parts: list[Any] = []
    if against:
        parts.append(
            Picture(
                "differences",
                f"Difference of AUC between {best.name} and {', '.join(d.b for d in against)}; see the table.",
                f"AUC of {best.name}, the best arm, less that of each other, on the same images: 95 % interval by "
                "bootstrap over patients, both arms given the same patients in every draw. Hollow: the interval "
                "contains zero.",
                draw_forest(
                    [f"− {difference.b}" for difference in against],
                    [(difference.value, *(difference.ci95 or (_NAN, _NAN))) for difference in against],
                    label=f"AUC of {best.name} less AUC of …",
                    reference=0.0,
                ),
            )
        )
    caption = (
        "Paired differences of AUC, A less B, on the images that both tested, with the 95 % interval by bootstrap over "
        "patients; then training by training on the same seed and fold, mean ± sd (ddof 1), with Student's 95 % "
        "interval corrected for shared training images (Nadeau and Bengio 2003). p: DeLong's test, images counted as "
        "independent, where each arm is a single run without repeats."
    )
    header = ["A", "B", "A − B", "95 % interval", "n", "by training", "95 % interval", "A better", "p"]
    cells = [_difference_cells(difference) for difference in found.differences]
    records = [dataclasses.asdict(difference) for difference in found.differences]
    return [*parts, Table("differences", caption, header, cells, records, text_columns=2)]


def _difference_cells(difference: ArmDifference) -> list[str]:
    return [
        difference.a,
        difference.b,
        signed(difference.value),
        interval(difference.ci95),
        f"{difference.patients:,} {difference.unit}",
        "–" if difference.fold_mean is None else mean_sd(difference.fold_mean, difference.fold_sd),
        interval(difference.fold_ci95),
        f"{difference.better} of {difference.trainings}",
        "–" if difference.p is None else f"{difference.p:.2g}",
    ]


def agreement_parts(found: ArmResults) -> list[Any]:
    """Whether arms are right and wrong about the same images."""
    known = [difference for difference in found.differences if difference.agreement is not None]
    if not known:
        return []
    cells = [
        [d.a, d.b, number(d.agreement[0]), number(d.agreement[1]), number(d.kappa), interval(d.kappa_ci95)]
        for d in known
    ]
    records = [
        {"a": d.a, "b": d.b, "observed": d.agreement[0], "independent": d.agreement[1]}
        | {"kappa": d.kappa, "kappa_ci95": d.kappa_ci95, "n": d.patients, "unit": d.unit}
        for d in known
    ]
    caption = (
        "Prediction similarity: share of images on which A and B are both right or both wrong, against that of "
        "independent networks of the same accuracies, a·b + (1 − a)(1 − b); Cohen's kappa with its 95 % interval by "
        "bootstrap over patients."
    )
    header = ["A", "B", "observed", "independent", "kappa", "95 % interval"]
    return [Table("predictions", caption, header, cells, records, text_columns=2)]


def test_curves(arms: Sequence[Arm]) -> dict[str, list[list[tuple[int, float]]]]:
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
    caption = "CCA before and after training, 95 % interval (jackknife over images), and what unrelated layers score."
    records = [{"arm": name} | dataclasses.asdict(change) for name, change in rows]
    header = ["arm", "layer", "similarity", "95 % interval", "chance"]
    return [*parts, Table("cca_before_after", caption, header, cells, records, text_columns=2)]


def source_parts(arms: Sequence[Arm], notes: Sequence[str]) -> list[Any]:
    """Which runs were read, and what was left out."""
    rows = [
        {"arm": arm.name, "run": str(run.path), "seed": run.seed, "folds": [fold.fold for fold in run.folds]}
        for arm in arms
        for run in arm.runs
    ]
    cells = [[row["arm"], row["run"], str(row["seed"]), ", ".join(map(str, row["folds"]))] for row in rows]
    table = Table("runs", "The runs behind each arm.", ["arm", "run", "seed", "folds"], cells, rows, text_columns=2)
    return [table, *(Prose(f"Left out: {note}.") for note in notes)]


def facts(found: ArmResults, arms: Sequence[Arm]) -> list[tuple[str, str]]:
    """What stands under the title."""
    images = {d.patients for d in found.differences}
    shown = [("arms", str(len(arms))), ("runs", str(sum(len(arm.runs) for arm in arms)))]
    shown.append(("networks trained", str(sum(arm.trainings for arm in found.arms))))
    if len(images) == 1:
        shown.append((f"{found.differences[0].unit} tested", f"{images.pop():,}"))
    return shown


def _curve(changes: Sequence[Any]) -> Curve:
    chance = [_nan(change.chance) for change in changes]
    ends = [change.ci95 or (_NAN, _NAN) for change in changes]
    values = [_nan(change.similarity) for change in changes]
    return Curve(values, [low for low, _ in ends], [high for _, high in ends], [0.0] * len(chance), chance)


def _nan(value: float | None) -> float:
    return _NAN if value is None else value
