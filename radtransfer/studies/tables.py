"""What a study has found so far: `table.json`, and as `table.csv` a line for each run and each of its folds.

table.json:

    study     name, title, follows, needs, published, reference (arm), threshold (AUC), axes (dotted settings)
    data      source of images → fingerprint of its table
    runs      for each arm and combination, in the order of the file, sources first; see `run_row`
    compare   cca, predictions → [{a, b, runs: [[key, key], …]}]: sides of each comparison, and the runs it pairs

Two rows with one `run` are the same run seen from two arms. Figures are null where there are none (yet).

The sweeps of Transfusion over stages: freezing up to each, and transfusing up to each.

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
from radtransfer.files import files_together
from radtransfer.models.backbone import BACKBONES
from radtransfer.reports.figures import draw_by_stage, draw_convergence, save_figure, set_subject
from radtransfer.runs.folder import finished_folds, read_run, write_json, write_rows
from radtransfer.runs.folder import read_rows as read_rows_folder
from radtransfer.runs.read import read_record, read_rows, reading, steps_to
from radtransfer.studies.file import Cell, paired_runs, reference_run
from radtransfer.studies.grid import PlannedRun, StudyPlan, data_tables
from radtransfer.studies.study import Study, StudyArm
from radtransfer.training.names import look_up

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
    """What `table.json` holds."""
    study, compare = plan.study, {}
    for kind in ("cca", "predictions"):
        sides = getattr(study.compare, kind)
        compare[kind] = [
            {"a": a, "b": b, "runs": [list(pair) for pair in paired_runs(plan.cells, a, b)]} for a, b in sides
        ]
    words = ("name", "title", "follows", "needs", "published", "reference", "threshold")
    return {
        "study": {name: getattr(study, name) for name in words} | {"axes": list(study.axes)},
        "data": data_tables(plan),
        "runs": [run_row(plan, cell, plan.runs[key]) for cell, key in plan.cells],
        "compare": compare,
    }


def write_study_table(plan: StudyPlan, out: Path) -> dict[str, Any]:
    """`table.json` and `table.csv` in `out`; gives what `table.json` holds."""
    table = study_table(plan)
    axes = plan.study.axes
    columns = list(
        dict.fromkeys([*_FIRST, *axes, *_SETTINGS, *_FIGURES, *stored_metrics("studies"), *_STEPS, *_LAST, *_END])
    )
    rows = [line for row in table["runs"] for line in _lines(row)]
    columns += dict.fromkeys(name for line in rows for name in line if name.startswith(_BY_CLASS))
    write_rows(out / "table.csv", columns, ([row.get(name) for name in columns] for row in rows), for_people=True)
    write_json(out / "table.json", table)
    return table


def run_row(plan: StudyPlan, cell: Cell, run: PlannedRun) -> dict[str, Any]:
    """All that is known of a run.

    Its keys: `run` (key), `kind` ("arm" or "source"), `arm`, `labels` (axis → value), `backbone`, `weights` (as the
    study says), `preprocessing`, `scheme`, `through`, `image_size`, `seed`, `positive_class` (None where there are not
    two classes); `status` ("finished", "partly", "failed", "waiting") and `error`; `auc` (mean), `auc_sd` (ddof 1),
    `auc_pooled`, `ci95_low`, `ci95_high`, `per_class` (class → mean AUC), `accuracy`, `top5_accuracy`, `images`,
    `patients`; `threshold`, and `steps`, `steps_sd` over the folds that reached it, `steps_reached` of `steps_watched`
    folds; `parameters` and `trainable_parameters` of the backbone; `seconds` of training; `reference`, the run that
    gains are measured against; `path`; and `folds`, for each finished one its `fold`, `repeat`, `seed`, `auc`,
    `per_class`, `val_auc`, `accuracy`, `top5_accuracy`, `epochs`, `best_epoch`, `images`, `patients`, `steps` (null:
    never), `steps_watched`, `seconds`, `path`.
    """
    config, record = cell.config, _record(run.path)
    plan_record = record.get("plan", {})
    folds = list(_fold_rows(run.path, record, plan.study.threshold))
    return {
        "run": run.key,
        "kind": "source" if cell.is_source else "arm",
        "arm": cell.arm,
        "labels": {name: _plain(value) for name, value in cell.labels.items()},
        "backbone": config.model.backbone,
        "weights": config.model.weights,
        "preprocessing": config.model.preprocessing,
        "scheme": look_up(config)[1].scheme,
        "through": config.transfer.through,
        "image_size": config.model.image_size,
        "seed": config.seed,
        "positive_class": recorded_scoring(record).positive_class if "classes" in record else None,
        **_state(run, folds),
        **_summary(run.path),
        **_steps(folds, plan.study.threshold),
        "parameters": plan_record.get("total_parameters"),
        "trainable_parameters": plan_record.get("trainable_parameters"),
        "seconds": record.get("timings", {}).get("seconds"),
        "reference": reference_run(plan.cells, cell, plan.study.reference),
        "path": str(run.path),
        "folds": folds,
    }


def _lines(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    shared = {"run": row["run"], **row["labels"], **{name: row[name] for name in _SHARED}}
    yield {**row, **shared, **_by_class(row), "level": "run"}
    for fold in row["folds"]:
        line = {**shared, "threshold": row["threshold"], **fold, "level": "fold", "status": "finished"}
        yield line | _by_class(fold)


def _by_class(row: Mapping[str, Any]) -> dict[str, float | None]:
    return {f"{_BY_CLASS}{name}": value for name, value in (row["per_class"] or {}).items()}


def _state(run: PlannedRun, folds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    if run.done:
        return {"status": "finished", "error": None}
    failure = run.failure()
    if failure is None:
        return {"status": "waiting", "error": None}
    return {"status": "partly" if folds else "failed", "error": failure}


def _summary(path: Path) -> dict[str, Any]:
    file = path / "metrics.json"
    metrics = _read(file) if file.is_file() else {}
    auc = metrics.get("auc") or {}
    low, high = auc.get("ci95") or (None, None)
    return {
        "auc": auc.get("mean"),
        "auc_sd": auc.get("sd"),
        "auc_pooled": auc.get("pooled"),
        "ci95_low": low,
        "ci95_high": high,
        "per_class": auc.get("per_class"),
        **{name: metrics.get(name) for name in stored_metrics("studies")},
        "images": metrics.get("n_images"),
        "patients": metrics.get("n_patients"),
    }


def _fold_rows(path: Path, record: Mapping[str, Any], threshold: float | None) -> Iterator[dict[str, Any]]:
    seconds = record.get("timings", {}).get("seconds_per_fold", {})
    for number, folder in finished_folds(path).items():
        metrics, curve = _read(folder / "metrics.json"), folder / "curve.csv"
        with reading(path):
            rows = read_rows(curve) if curve.exists() and threshold is not None else []
            steps = steps_to(rows, threshold) if rows else None
        kept = ("repeat", "seed", "auc", "per_class", *stored_metrics("studies"), "epochs", "best_epoch")
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


def _steps(folds: Sequence[Mapping[str, Any]], threshold: float | None) -> dict[str, Any]:
    reached = [fold["steps"] for fold in folds if fold["steps"] is not None]
    return {
        "threshold": threshold,
        "steps": float(np.mean(reached)) if reached else None,
        "steps_sd": float(np.std(reached, ddof=1)) if len(reached) > 1 else None,
        "steps_reached": len(reached),
        "steps_watched": sum(fold["steps_watched"] for fold in folds),
    }


def _record(path: Path) -> dict[str, Any]:
    return read_run(path) if (path / "run.json").is_file() else {}


def _read(path: Path) -> dict[str, Any]:
    return read_record(path)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


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
    rows = [_row(sweep, run) | _steps_sweeps(run) for run in runs]
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


def _steps_sweeps(run: Mapping[str, Any]) -> dict[str, Any]:
    """Steps to the threshold: mean and sd over the folds that reach it, and how many of how many watched ones do."""
    names = {"threshold": "threshold", "steps": "steps_mean", "steps_sd": "steps_sd"}
    names |= {name: name for name in ("steps_reached", "steps_watched")}
    return {column: run[name] for name, column in names.items()}


def _test_curves(run: Mapping[str, Any]) -> Iterator[list[tuple[int, float]]]:
    for file in (Path(fold["path"]) / "curve.csv" for fold in run["folds"]):
        if file.exists():
            yield [
                (int(row["step"]), float(row["auc"]))
                for row in read_rows_folder(file)
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
