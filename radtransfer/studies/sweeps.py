"""The sweeps of Transfusion over stages: freezing up to each, and transfusing up to each.

References:
    Raghu et al. 2019, Transfusion (arXiv 1902.07208), Figure 7 and Appendix E (Figures 12, 13).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from radtransfer.backbones import BACKBONES
from radtransfer.config import setting_fields, setting_value
from radtransfer.figures.by_stage import draw_by_stage
from radtransfer.figures.convergence import draw_convergence
from radtransfer.figures.style import save_figure, set_subject
from radtransfer.result_folder import files_together
from radtransfer.runs import read_rows, write_json, write_rows
from radtransfer.settings import Config
from radtransfer.studies.plan import StudyPlan
from radtransfer.studies.study import Study, StudyArm
from radtransfer.studies.tables import study_table

VARIANTS = {
    "fixed_features": "pretrained, frozen through L",
    "fixed_features_reinit": "the same, random after L",
    "random_features": "random, frozen through L",
}
"""Scheme of each variant of a freeze sweep, and how the figure calls it: App. E's variants 1 and 2, its baseline."""


@dataclass(frozen=True)
class Sweep:
    """A study of one network over its stages.

    Attributes:
        study: The study.
        labels: Of each arm, as columns of the sweep's table.
    """

    study: Study
    labels: Mapping[str, Mapping[str, str]]


def freeze_sweep(config: Config, stages: Sequence[str]) -> Sweep:
    """Every variant frozen through each of `stages`.

    Frozen through the last stage the first two variants are the same run.
    """
    last = list(BACKBONES[config.model.backbone].stages)[-1]
    arms, labels = {}, {}
    for scheme in VARIANTS:
        for stage in stages:
            same = "fixed_features" if stage == last and scheme == "fixed_features_reinit" else scheme
            arms[f"{scheme}-{stage}"] = StudyArm({"transfer.scheme": same, "transfer.through": stage})
            labels[f"{scheme}-{stage}"] = {"variant": scheme, "through": stage}
    return Sweep(Study("freeze-sweep", arms, base=_base(config)), labels)


def transfusion_sweep(config: Config, stages: Sequence[str], *, threshold: float) -> Sweep:
    """All random, pretrained through each of `stages`, and, through the last, all pretrained."""
    last = list(BACKBONES[config.model.backbone].stages)[-1]
    arms, labels = {"scratch": StudyArm({"transfer.scheme": "scratch"})}, {"scratch": {"through": "none"}}
    for stage in stages:
        plan = {"transfer.scheme": "transfusion", "transfer.through": stage}
        name = "transfer" if stage == last else f"transfusion-{stage}"
        arms[name] = StudyArm({"transfer.scheme": "transfer"} if stage == last else plan)
        labels[name] = {"through": stage}
    return Sweep(Study("transfusion-sweep", arms, base=_base(config), threshold=threshold), labels)


def write_freeze_sweep(sweep: Sweep, plan: StudyPlan, out: Path) -> list[dict[str, Any]]:
    """`sweep.csv`, `sweep.json` and `auc_by_stage.png` and `.svg`; gives the table's rows."""
    rows = [_row(sweep, row) for row in study_table(plan)["runs"]]
    stages = list(dict.fromkeys(row["through"] for row in rows))
    points = {(row["variant"], row["through"]): _point(row, "auc") for row in rows}
    series = {name: [points.get((scheme, stage)) for stage in stages] for scheme, name in VARIANTS.items()}
    figure = draw_by_stage(stages, series, x="frozen through L", y="test AUC (mean ± sd)")
    _write(rows, {"auc_by_stage": figure}, out)
    return rows


def write_transfusion_sweep(sweep: Sweep, plan: StudyPlan, out: Path) -> list[dict[str, Any]]:
    """`sweep.csv`, `sweep.json`, `convergence` and `steps_to_threshold` as PNG and SVG; gives the table's rows."""
    runs, threshold = study_table(plan)["runs"], sweep.study.threshold
    rows = [_row(sweep, run) | _steps(run) for run in runs]
    curves = {f"through {row['through']}": list(_test_curves(run)) for row, run in zip(rows, runs, strict=True)}
    convergence = draw_convergence({name: folds for name, folds in curves.items() if folds}, threshold=threshold)
    stages = [row["through"] for row in rows]
    series = {"steps": [_point(row, "steps") for row in rows]}
    label = f"steps to a test AUC of {threshold:g}"
    by_stage = draw_by_stage(stages, series, x="pretrained through L", y=label)
    _write(rows, {"convergence": convergence, "steps_to_threshold": by_stage}, out)
    return rows


def _base(config: Config) -> dict[str, Any]:
    """Every setting; the arms set the plan, and the store the folder."""
    return {name: setting_value(config, name) for name in setting_fields() if name != "out"}


def _row(sweep: Sweep, run: Mapping[str, Any]) -> dict[str, Any]:
    """A run's line in the sweep's table: labels, AUC over folds, the pooled AUC with its interval, and the run."""
    return {
        **sweep.labels[run["arm"]],
        "auc_mean": run["auc"],
        "auc_sd": run["auc_sd"],
        "auc_pooled": run["auc_pooled"],
        "ci95_low": run["ci95_low"],
        "ci95_high": run["ci95_high"],
        "folds": len(run["folds"]),
        "trainable_parameters": run["trainable_parameters"],
        "positive_class": run["positive_class"],
        "run": run["path"],
        "error": run["error"],
    }


def _steps(run: Mapping[str, Any]) -> dict[str, Any]:
    """Steps to the threshold: mean and sd over the folds that reach it, and how many of how many watched ones do."""
    names = {"threshold": "threshold", "steps": "steps_mean", "steps_sd": "steps_sd"}
    names |= {name: name for name in ("steps_reached", "steps_watched")}
    return {column: run[name] for name, column in names.items()}


def _test_curves(run: Mapping[str, Any]) -> Iterator[list[tuple[int, float]]]:
    for file in (Path(fold["path"]) / "curve.csv" for fold in run["folds"]):
        if file.exists():
            yield [
                (int(row["step"]), float(row["auc"]))
                for row in read_rows(file)
                if row["split"] == "test" and row["auc"]
            ]


def _point(row: Mapping[str, Any], name: str) -> tuple[float, float] | None:
    mean, sd = row[f"{name}_mean"], row[f"{name}_sd"]
    return None if mean is None else (mean, sd or 0.0)


def _write(rows: Sequence[Mapping[str, Any]], figures: Mapping[str, Any], out: Path) -> None:
    """The table and the figures, by name, all or none."""
    positive = next((row["positive_class"] for row in rows if row["positive_class"] is not None), None)
    with files_together(out, first="*") as folder:
        write_rows(folder / "sweep.csv", list(rows[0]), [list(row.values()) for row in rows], for_people=True)
        write_json(folder / "sweep.json", list(rows))
        for name, figure in figures.items():
            set_subject(figure.axes[0], "" if positive is None else f"positive class {positive}")
            for suffix in (".png", ".svg"):
                save_figure(figure, folder / f"{name}{suffix}")
