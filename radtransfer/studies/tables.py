"""What a study has found so far: `table.json`, and as `table.csv` a line for each run and each of its folds.

table.json:

    study     name, title, follows, needs, published, reference (arm), threshold (AUC), axes (dotted settings)
    data      source of images → fingerprint of its table
    runs      for each arm and combination, in the order of the file, sources first; see `run_row`
    compare   cca, predictions → [{a, b, runs: [[key, key], …]}]: sides of each comparison, and the runs it pairs

Two rows with one `run` are the same run seen from two arms. Figures are null where there are none (yet).
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from radtransfer.curve import steps_to
from radtransfer.metrics.scoring import recorded_scoring
from radtransfer.run_names import look_up
from radtransfer.run_reading import read_record, read_rows, reading
from radtransfer.runs import finished_folds, read_run, write_json, write_rows
from radtransfer.studies.cells import Cell
from radtransfer.studies.pairs import paired_runs, reference_run
from radtransfer.studies.plan import PlannedRun, StudyPlan, data_tables

_FIRST = ("level", "run", "kind", "arm")
_SETTINGS = ("backbone", "weights", "preprocessing", "scheme", "through", "image_size", "seed", "fold")
_FIGURES = ("auc", "auc_sd", "auc_pooled", "ci95_low", "ci95_high", "val_auc", "accuracy", "top5_accuracy")
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
    columns = list(dict.fromkeys([*_FIRST, *axes, *_SETTINGS, *_FIGURES, *_STEPS, *_LAST, *_END]))
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
        "accuracy": metrics.get("accuracy"),
        "top5_accuracy": metrics.get("top5_accuracy"),
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
        kept = ("repeat", "seed", "auc", "per_class", "accuracy", "top5_accuracy", "epochs", "best_epoch")
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
