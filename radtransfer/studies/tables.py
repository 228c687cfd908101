"""The tables of a study: `table.json`, and `table.csv` with a line for each run and each fold; and of sweeps.

table.json:

    study     name, title, follows, needs, published, reference (arm), threshold (AUC), axes (dotted settings)
    data      source of images → fingerprint of its table
    runs      for each arm and combination, in the order of the file, sources first; see `run_row`
    compare   cca, predictions → [{a, b, runs: [[key, key], …]}]: sides of each comparison, and its pairs of runs

Two rows with the same `run` are the same run in two arms. Missing values are null.

References:
    Raghu et al. 2019, Transfusion (arXiv 1902.07208), Figure 7 and Appendix E (Figures 12, 13).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from radtransfer.config.load import setting_fields, setting_value
from radtransfer.config.schema import Config
from radtransfer.evaluation.metrics import stored_metrics
from radtransfer.evaluation.scoring import recorded_scoring
from radtransfer.files import atomic_files
from radtransfer.models.backbone import BACKBONES
from radtransfer.reports.figures import draw_by_stage, draw_convergence, save_figure, set_subject
from radtransfer.runs.folder import finished_folds, read_run, write_json, write_rows
from radtransfer.runs.read import read_record, read_rows, reading, steps_to
from radtransfer.studies.grid import PlannedRun, StudyPlan, data_tables
from radtransfer.studies.study import COMPARISONS, Cell, Study, StudyArm, paired_runs, reference_run
from radtransfer.training.names import resolve_names

_FIRST = ("level", "run", "kind", "arm")
_SETTINGS = ("backbone", "weights", "preprocessing", "scheme", "through", "image_size", "seed", "fold")
_FIGURES = ("auc", "auc_sd", "auc_pooled", "ci95_low", "ci95_high", "val_auc")
_STEPS = ("threshold", "steps", "steps_sd", "steps_reached", "steps_watched")
_LAST = ("epochs", "best_epoch", "images", "patients", "parameters", "trainable_parameters", "seconds", "status")
_LAST += ("positive_class",)
_SHARED = ("kind", "arm", *_SETTINGS[:-2], "positive_class")
_BY_CLASS = "auc_class_"
_END = ("reference", "path", "error")


def study_table(plan: StudyPlan) -> dict[str, Any]:
    """The content of `table.json`."""
    study, compare = plan.study, {}
    for kind in COMPARISONS:
        compare[kind] = [
            {"a": a, "b": b, "runs": [list(pair) for pair in paired_runs(plan.cells, a, b)]}
            for a, b in study.compare.get(kind, ())
        ]
    words = ("name", "title", "follows", "needs", "published", "reference", "threshold")
    return {
        "study": {name: getattr(study, name) for name in words} | {"axes": list(study.axes)},
        "data": data_tables(plan),
        "runs": [run_row(plan, cell, plan.runs[key]) for cell, key in plan.cells],
        "compare": compare,
    }


def write_study_table(plan: StudyPlan, out: Path) -> None:
    """Write `table.json` and `table.csv` in `out`."""

    def by_class(row: Mapping[str, Any]) -> dict[str, float | None]:
        return {f"{_BY_CLASS}{name}": value for name, value in (row["per_class"] or {}).items()}

    table, lines = study_table(plan), []
    for row in table["runs"]:
        shared = {"run": row["run"], **row["labels"], **{name: row[name] for name in _SHARED}}
        lines.append({**row, **shared, **by_class(row), "level": "run"})
        for fold in row["folds"]:
            line = {**shared, "threshold": row["threshold"], **fold, "level": "fold", "status": "finished"}
            lines.append(line | by_class(fold))
    columns = [*_FIRST, *plan.study.axes, *_SETTINGS, *_FIGURES, *stored_metrics("studies"), *_STEPS, *_LAST, *_END]
    columns += [name for line in lines for name in line if name.startswith(_BY_CLASS)]
    columns = list(dict.fromkeys(columns))
    write_rows(out / "table.csv", columns, ([line.get(name) for name in columns] for line in lines), for_people=True)
    write_json(out / "table.json", table)


def run_row(plan: StudyPlan, cell: Cell, run: PlannedRun) -> dict[str, Any]:
    """The row of a run in `table.json`.

    Keys: `run` (key), `kind` ("arm" or "source"), `arm`, `labels` (axis → value), `backbone`, `weights` (as in the
    study), `preprocessing`, `scheme`, `through`, `image_size`, `seed`, `positive_class` (None unless there are two
    classes); `status` ("finished", "partly", "failed", "waiting") and `error`; `auc` (mean), `auc_sd` (ddof 1),
    `auc_pooled`, `ci95_low`, `ci95_high`, `per_class` (class → mean AUC), `accuracy`, `top5_accuracy`, `images`,
    `patients`; `threshold`, and `steps`, `steps_sd` over the folds that reached it, `steps_reached` of `steps_watched`
    folds; `parameters` and `trainable_parameters` of the backbone; `seconds` of training; `reference`, the run that
    gains are measured against; `path`; and `folds`, for each finished one `fold`, `repeat`, `seed`, `auc`,
    `per_class`, `val_auc`, `accuracy`, `top5_accuracy`, `epochs`, `best_epoch`, `images`, `patients`, `steps` (null:
    never), `steps_watched`, `seconds`, `path`.
    """
    config, path, threshold = cell.config, run.path, plan.study.threshold
    record = read_run(path) if (path / "run.json").is_file() else {}
    model_plan = record.get("plan", {})
    folds = list(_fold_rows(path, record, threshold))
    failure = run.failure()
    status = "finished" if run.done else "waiting" if failure is None else "partly" if folds else "failed"
    metrics = read_record(path / "metrics.json") if (path / "metrics.json").is_file() else {}
    auc = metrics.get("auc") or {}
    low, high = auc.get("ci95") or (None, None)
    reached = [fold["steps"] for fold in folds if fold["steps"] is not None]
    return {
        "run": run.key,
        "kind": "source" if cell.is_source else "arm",
        "arm": cell.arm,
        "labels": {name: list(value) if isinstance(value, tuple) else value for name, value in cell.labels.items()},
        "backbone": config.model.backbone,
        "weights": config.model.weights,
        "preprocessing": config.model.preprocessing,
        "scheme": resolve_names(config)[1].scheme,
        "through": config.transfer.through,
        "image_size": config.model.image_size,
        "seed": config.seed,
        "positive_class": recorded_scoring(record).positive_class if "classes" in record else None,
        "status": status,
        "error": failure,
        "auc": auc.get("mean"),
        "auc_sd": auc.get("sd"),
        "auc_pooled": auc.get("pooled"),
        "ci95_low": low,
        "ci95_high": high,
        "per_class": auc.get("per_class"),
        **{name: metrics.get(name) for name in stored_metrics("studies")},
        "images": metrics.get("n_images"),
        "patients": metrics.get("n_patients"),
        "threshold": threshold,
        "steps": float(np.mean(reached)) if reached else None,
        "steps_sd": float(np.std(reached, ddof=1)) if len(reached) > 1 else None,
        "steps_reached": len(reached),
        "steps_watched": sum(fold["steps_watched"] for fold in folds),
        "parameters": model_plan.get("total_parameters"),
        "trainable_parameters": model_plan.get("trainable_parameters"),
        "seconds": record.get("timings", {}).get("seconds"),
        "reference": reference_run(plan.cells, cell, plan.study.reference),
        "path": str(path),
        "folds": folds,
    }


def _fold_rows(path: Path, record: Mapping[str, Any], threshold: float | None) -> Iterator[dict[str, Any]]:
    seconds = record.get("timings", {}).get("seconds_per_fold", {})
    kept = ("repeat", "seed", "auc", "per_class", *stored_metrics("studies"), "epochs", "best_epoch")
    for number, folder in finished_folds(path).items():
        metrics, curve = read_record(folder / "metrics.json"), folder / "curve.csv"
        with reading(path):
            rows = read_rows(curve) if curve.exists() and threshold is not None else []
            steps = steps_to(rows, threshold) if rows else None
        yield {
            "fold": number,
            **{name: metrics.get(name) for name in kept},
            "val_auc": (metrics.get("val") or {}).get("auc"),
            "images": metrics.get("n_images"),
            "patients": metrics.get("n_patients"),
            "steps": steps,
            "steps_watched": bool(rows),
            "seconds": seconds.get(str(number)),
            "path": str(folder),
        }


VARIANTS = {
    "fixed_features": "pretrained, frozen through L",
    "fixed_features_reinit": "the same, random after L",
    "random_features": "random, frozen through L",
}
"""Scheme to name in the figure, for the variants of a freeze sweep: App. E's variants 1 and 2 and baseline."""


@dataclass(frozen=True)
class Sweep:
    """A study of one network over its stages, and the columns of each arm in the table of the sweep."""

    study: Study
    labels: Mapping[str, Mapping[str, str]]


def freeze_sweep(config: Config, stages: Sequence[str]) -> Sweep:
    """Every variant frozen through each of `stages`; at the last stage the first two variants are the same run."""
    last = list(BACKBONES[config.model.backbone].stages)[-1]
    arms, labels = {}, {}
    for scheme in VARIANTS:
        for stage in stages:
            same = "fixed_features" if stage == last and scheme == "fixed_features_reinit" else scheme
            arms[f"{scheme}-{stage}"] = StudyArm({"transfer.scheme": same, "transfer.through": stage})
            labels[f"{scheme}-{stage}"] = {"variant": scheme, "through": stage}
    return Sweep(Study("freeze-sweep", arms, base=_base(config)), labels)


def transfusion_sweep(config: Config, stages: Sequence[str], *, threshold: float) -> Sweep:
    """All random, and pretrained through each of `stages`; at the last stage all is pretrained."""
    last = list(BACKBONES[config.model.backbone].stages)[-1]
    arms, labels = {"scratch": StudyArm({"transfer.scheme": "scratch"})}, {"scratch": {"through": "none"}}
    for stage in stages:
        plan = {"transfer.scheme": "transfusion", "transfer.through": stage}
        name = "transfer" if stage == last else f"transfusion-{stage}"
        arms[name] = StudyArm({"transfer.scheme": "transfer"} if stage == last else plan)
        labels[name] = {"through": stage}
    return Sweep(Study("transfusion-sweep", arms, base=_base(config), threshold=threshold), labels)


def write_freeze_sweep(sweep: Sweep, plan: StudyPlan, out: Path) -> list[dict[str, Any]]:
    """Write `sweep.csv`, `sweep.json` and `auc_by_stage` as PNG and SVG; returns the rows."""
    rows = [_sweep_row(sweep, run) for run in study_table(plan)["runs"]]
    stages = list(dict.fromkeys(row["through"] for row in rows))
    points = {(row["variant"], row["through"]): _point(row, "auc") for row in rows}
    series = {name: [points.get((scheme, stage)) for stage in stages] for scheme, name in VARIANTS.items()}
    figure = draw_by_stage(stages, series, x="frozen through L", y="test AUC (mean ± sd)")
    _write_sweep(rows, {"auc_by_stage": figure}, out)
    return rows


def write_transfusion_sweep(sweep: Sweep, plan: StudyPlan, out: Path) -> list[dict[str, Any]]:
    """Write `sweep.csv`, `sweep.json`, `convergence` and `steps_to_threshold` as PNG and SVG; returns the rows."""
    threshold, rows, curves = sweep.study.threshold, [], {}
    for run in study_table(plan)["runs"]:
        row = _sweep_row(sweep, run) | {"threshold": threshold, "steps_mean": run["steps"]}
        row |= {name: run[name] for name in ("steps_sd", "steps_reached", "steps_watched")}
        rows.append(row)
        files = [Path(fold["path"]) / "curve.csv" for fold in run["folds"]]
        folds = [
            [(int(p["step"]), float(p["auc"])) for p in read_rows(file) if p["split"] == "test" and p["auc"]]
            for file in files
            if file.exists()
        ]
        if folds:
            curves[f"through {row['through']}"] = folds
    convergence = draw_convergence(curves, threshold=threshold)
    series = {"steps": [_point(row, "steps") for row in rows]}
    stages = [row["through"] for row in rows]
    by_stage = draw_by_stage(stages, series, x="pretrained through L", y=f"steps to a test AUC of {threshold:g}")
    _write_sweep(rows, {"convergence": convergence, "steps_to_threshold": by_stage}, out)
    return rows


def _base(config: Config) -> dict[str, Any]:
    return {name: setting_value(config, name) for name in setting_fields() if name != "out"}


def _sweep_row(sweep: Sweep, run: Mapping[str, Any]) -> dict[str, Any]:
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


def _point(row: Mapping[str, Any], name: str) -> tuple[float, float] | None:
    mean, sd = row[f"{name}_mean"], row[f"{name}_sd"]
    return None if mean is None else (mean, sd or 0.0)


def _write_sweep(rows: Sequence[Mapping[str, Any]], figures: Mapping[str, Any], out: Path) -> None:
    """Write the table and all figures, or nothing."""
    positive = next((row["positive_class"] for row in rows if row["positive_class"] is not None), None)
    with atomic_files(out, first="*") as folder:
        write_rows(folder / "sweep.csv", list(rows[0]), [list(row.values()) for row in rows], for_people=True)
        write_json(folder / "sweep.json", list(rows))
        for name, figure in figures.items():
            set_subject(figure.axes[0], "" if positive is None else f"positive class {positive}")
            for suffix in (".png", ".svg"):
                save_figure(figure, folder / f"{name}{suffix}")
