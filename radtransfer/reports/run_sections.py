"""The sections of a report on runs that tell what each arm scores and how arms differ."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from radtransfer.figures.forest import draw_forest
from radtransfer.reports.arm_results import ArmDifference, ArmResults
from radtransfer.reports.numbers import interval, mean_sd, number, signed
from radtransfer.reports.page import Picture, Prose, Table
from radtransfer.reports.run_arms import Arm

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
    what = [", ".join(filter(None, (arm.backbone, arm.start, arm.depth, arm.context))) for arm in order]
    named = all(arm.name == text for arm, text in zip(order, what, strict=True))
    cells = [
        [
            arm.name,
            *([] if named else [text]),
            mean_sd(arm.mean, arm.sd),
            str(arm.trainings),
            number(arm.pooled),
            "–" if arm.ci95 is None else f"{number(arm.ci95[0])} to {number(arm.ci95[1])}",
        ]
        for arm, text in zip(order, what, strict=True)
    ]
    caption = (
        "Test AUC. Mean ± sd over trainings (each a seed and a fold; ddof 1), which is no interval; pooled: all "
        "out-of-fold predictions of a repeat together, averaged over repeats and seeds, with its 95 % interval by "
        "bootstrap over patients. The interval takes the trained networks as they are."
    )
    header = ["arm", *([] if named else ["what it is"]), "AUC, mean ± sd", "trainings", "pooled", "95 % interval"]
    records = [dataclasses.asdict(arm) for arm in order]
    return [*parts, Table("auc", caption, header, cells, records, text_columns=1 if named else 2)]


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
    counts = {f"{difference.patients:,} {difference.unit}" for difference in found.differences}
    caption = (
        f"Paired differences of AUC, A less B, on the images that both tested (n = {', '.join(sorted(counts))}), "
        "with the 95 % interval by bootstrap over "
        "patients; then training by training on the same seed and fold, mean ± sd (ddof 1), with Student's 95 % "
        "interval corrected for shared training images (Nadeau and Bengio 2003). p: DeLong's test, images counted as "
        "independent, where each arm is a single run without repeats."
    )
    header = ["A", "B", "A − B", "95 % interval", "by training", "95 % interval", "A better", "p"]
    cells = [_difference_cells(difference) for difference in found.differences]
    records = [dataclasses.asdict(difference) for difference in found.differences]
    return [*parts, Table("differences", caption, header, cells, records, text_columns=2)]


def _difference_cells(difference: ArmDifference) -> list[str]:
    return [
        difference.a,
        difference.b,
        signed(difference.value),
        interval(difference.ci95),
        _signed_sd(difference.fold_mean, difference.fold_sd),
        interval(difference.fold_ci95),
        f"{difference.better} of {difference.trainings}",
        "–" if difference.p is None else f"{difference.p:.2g}",
    ]


def _signed_sd(mean: float | None, sd: float | None) -> str:
    return signed(mean) if mean is None or sd is None else f"{signed(mean)} ± {number(sd)}"


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


def source_parts(arms: Sequence[Arm], notes: Sequence[str]) -> list[Any]:
    """Which runs were read, and what was left out."""
    rows = [
        {"arm": arm.name, "run": str(run.path), "seed": run.seed, "folds": [fold.fold for fold in run.folds]}
        for arm in arms
        for run in arm.runs
    ]
    cells = [[row["arm"], row["run"], str(row["seed"]), ", ".join(map(str, row["folds"]))] for row in rows]
    table = Table("runs", "The runs behind each arm.", ["arm", "run", "seed", "folds"], cells, rows, text_columns=2)
    return [table, *(Prose(f"Left out: {note.rstrip('.')}.") for note in notes)]


def facts(found: ArmResults, arms: Sequence[Arm]) -> list[tuple[str, str]]:
    """What stands under the title."""
    images = {d.patients for d in found.differences}
    shown = [("arms", str(len(arms))), ("runs", str(sum(len(arm.runs) for arm in arms)))]
    shown.append(("networks trained", str(sum(arm.trainings for arm in found.arms))))
    if len(images) == 1:
        shown.append((f"{found.differences[0].unit} tested", f"{images.pop():,}"))
    return shown


def _nan(value: float | None) -> float:
    return _NAN if value is None else value
