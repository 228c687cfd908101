"""The section of a report that tells how soon networks learn."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from radtransfer.figures.convergence import draw_convergence
from radtransfer.reports.arms.step_differences import StepDifference
from radtransfer.reports.numbers import interval, mean_sd, number, signed
from radtransfer.reports.page import Picture, Table


def convergence_parts(
    curves: Mapping[str, Sequence[Sequence[tuple[int, float]]]],
    rows: Sequence[Mapping[str, Any]],
    differences: Sequence[StepDifference],
) -> list[Any]:
    """AUC against steps, steps to the threshold, and how arms differ in them."""
    if not curves or not rows:
        return []
    threshold = rows[0]["threshold"]
    cells = [
        [row["arm"], mean_sd(row["steps_mean"], row["steps_sd"], 0), f"{row['reached']} of {row['watched']}"]
        for row in rows
    ]
    counts = sorted({len(folds) for folds in curves.values()})
    parts = [
        Picture(
            "convergence",
            f"Test AUC against training steps of {', '.join(curves)}.",
            f"Test AUC against training steps: mean over n = {' or '.join(map(str, counts))} trainings, band or bars ± "
            f"sd (ddof 1); bars stand beside their step. Dotted: the threshold of the table, {threshold:g}.",
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
    return [*parts, _difference_table(differences, threshold)] if differences else parts


def _difference_table(differences: Sequence[StepDifference], threshold: float) -> Table:
    cells = [
        [d.a, d.b, signed(d.mean, 0), number(d.sd, 0), interval(d.ci95, 0)]
        + [str(d.trainings), str(d.only_a), str(d.only_b)]
        for d in differences
    ]
    caption = (
        f"Steps of A less steps of B to a test AUC of {threshold:g}, on the same seed and fold: mean, sd (ddof 1), and "
        "Student's 95 % interval corrected for shared training images, never narrower than ± the steps between two "
        "looks. A training that never gets there counts with its last step: the real difference is larger."
    )
    header = ["A", "B", "A − B", "sd", "95 % interval", "trainings", "A alone", "B alone"]
    records = [dataclasses.asdict(difference) for difference in differences]
    return Table("step_differences", caption, header, cells, records, text_columns=2)
