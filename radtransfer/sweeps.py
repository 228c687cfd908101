"""The sweeps of Transfusion over stages: freezing up to each, and transfusing up to each.

References:
    Raghu et al. 2019, Transfusion (arXiv 1902.07208), Figure 7 and Appendix E (Figures 12, 13).
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from radtransfer.backbones.backbone import Backbone
from radtransfer.curve import steps_to
from radtransfer.figures.by_stage import draw_by_stage
from radtransfer.figures.convergence import draw_convergence
from radtransfer.figures.style import save_figure
from radtransfer.runs import write_json, write_rows
from radtransfer.study import Arm, ArmResult

VARIANTS = {
    "fixed_features": "pretrained, frozen through L",
    "fixed_features_reinit": "the same, random after L",
    "random_features": "random, frozen through L",
}
"""Scheme of each variant of a freeze sweep, and how the figure calls it: App. E's variants 1 and 2, its baseline."""


def freeze_arms(card: Backbone, stages: Sequence[str]) -> list[Arm]:
    """Every variant frozen through each of `stages`.

    Frozen through the last stage the first two variants are the same run.
    """
    last = list(card.stages)[-1]
    arms = []
    for scheme in VARIANTS:
        for stage in stages:
            same = "fixed_features" if stage == last and scheme == "fixed_features_reinit" else scheme
            settings = {"transfer.scheme": same, "transfer.through": stage}
            arms.append(Arm(f"{same}-{stage}", settings, {"variant": scheme, "through": stage}))
    return arms


def transfusion_arms(card: Backbone, stages: Sequence[str]) -> list[Arm]:
    """All random, pretrained through each of `stages`, and, through the last, all pretrained."""
    last = list(card.stages)[-1]
    arms = [Arm("scratch", {"transfer.scheme": "scratch"}, {"through": "none"})]
    for stage in stages:
        if stage == last:
            arms.append(Arm("transfer", {"transfer.scheme": "transfer"}, {"through": stage}))
        else:
            settings = {"transfer.scheme": "transfusion", "transfer.through": stage}
            arms.append(Arm(f"transfusion-{stage}", settings, {"through": stage}))
    return arms


def write_freeze_sweep(results: Sequence[ArmResult], out: Path) -> list[dict[str, Any]]:
    """`sweep.csv`, `sweep.json` and `auc_by_stage.png` and `.svg`; gives the table's rows."""
    rows = [result.row() for result in results]
    _write_table(rows, out)
    stages = list(dict.fromkeys(row["through"] for row in rows))
    points = {(row["variant"], row["through"]): _point(row, "auc") for row in rows}
    series = {name: [points.get((scheme, stage)) for stage in stages] for scheme, name in VARIANTS.items()}
    _save(draw_by_stage(stages, series, x="frozen through L", y="test AUC (mean ± sd)"), out, "auc_by_stage")
    return rows


def write_transfusion_sweep(results: Sequence[ArmResult], out: Path, *, threshold: float) -> list[dict[str, Any]]:
    """`sweep.csv`, `sweep.json`, `convergence` and `steps_to_threshold` as PNG and SVG; gives the table's rows."""
    rows = [result.row() | _steps(result, threshold) for result in results]
    _write_table(rows, out)
    curves = {f"through {result.arm.labels['through']}": list(_test_curves(result)) for result in results}
    _save(
        draw_convergence({name: folds for name, folds in curves.items() if folds}, threshold=threshold),
        out,
        "convergence",
    )
    stages = [row["through"] for row in rows]
    series = {"steps": [_point(row, "steps") for row in rows]}
    label = f"steps to a test AUC of {threshold:g}"
    _save(draw_by_stage(stages, series, x="pretrained through L", y=label), out, "steps_to_threshold")
    return rows


def _steps(result: ArmResult, threshold: float) -> dict[str, Any]:
    """Steps to the threshold: mean and sd over the folds that reach it, and how many of how many watched ones do."""
    found = [steps_to(curve, threshold) for curve in result.curves()]
    reached = [step for step in found if step is not None]
    return {
        "threshold": threshold,
        "steps_mean": float(np.mean(reached)) if reached else None,
        "steps_sd": float(np.std(reached, ddof=1)) if len(reached) > 1 else None,
        "steps_reached": len(reached),
        "steps_watched": len(found),
    }


def _test_curves(result: ArmResult) -> Iterator[list[tuple[int, float]]]:
    for curve in result.curves():
        yield [(int(row["step"]), float(row["auc"])) for row in curve if row["split"] == "test" and row["auc"]]


def _point(row: Mapping[str, Any], name: str) -> tuple[float, float] | None:
    mean, sd = row[f"{name}_mean"], row[f"{name}_sd"]
    return None if mean is None else (mean, sd or 0.0)


def _write_table(rows: Sequence[Mapping[str, Any]], out: Path) -> None:
    write_rows(out / "sweep.csv", list(rows[0]), [list(row.values()) for row in rows])
    write_json(out / "sweep.json", list(rows))


def _save(figure: Any, out: Path, name: str) -> None:
    for suffix in (".png", ".svg"):
        save_figure(figure, out / f"{name}{suffix}")
