"""Reads the files of a run folder, which may have been cut off or edited by hand since they were written."""

import contextlib
import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from radtransfer.config.yaml_text import read_yaml
from radtransfer.errors import ConfigError, RadtransferError, RunError

_NUMBER, _TEXT, _FIGURE = (int, float), (str,), (int, float, type(None))
_RECORDS: dict[str, dict[str, Any]] = {
    "run.json": {
        "status": _TEXT,
        "started": _TEXT,
        "backbone": (str, type(None)),
        "task": _TEXT,
        "classes": [_TEXT],
        "image_size": (int,),
        "seed": (int,),
        "positive_from": (int, type(None)),
        "positive_class": (str, type(None)),
        "preprocessing": (str, type(None)),
        "weights": {"source": (str, type(None))},
        "plan": {
            "stages": [{"stage": _TEXT, "starts_from": _TEXT, "trains": (bool,), "width": _NUMBER}],
            "total_parameters": _FIGURE,
            "trainable_parameters": _FIGURE,
        },
        "timings": {"seconds": _FIGURE, "seconds_per_fold": {}},
        "versions": {},
        "resumed": [{}],
    },
    "metrics.json": {
        "auc": (int, float, type(None), dict),
        "accuracy": _FIGURE,
        "n_images": (int,),
        "n_patients": (int, type(None)),
        "folds": [(int,)],
        "fold": (int,),
        "repeat": (int,),
        "seed": (int,),
        "best_epoch": (int,),
        "per_class": (dict, type(None)),
        "val": {"auc": _FIGURE},
        "positive_from": (int, type(None)),
        "positive_class": (str, type(None)),
    },
}
_OF_ALL_FOLDS = {"mean": _FIGURE, "sd": _FIGURE, "pooled": _FIGURE, "per_fold": [_FIGURE], "ci95": (list, type(None))}
"""Types of `auc` in the metrics.json of a whole run."""

_COLUMNS = {
    "folds.csv": ("path", "label", "patient", "fold", "split"),
    "predictions.csv": ("path", "patient", "label"),
    "history.csv": ("epoch", "step"),
    "curve.csv": ("step", "split", "auc"),
}
"""Columns that the tables of a run have at least."""

WITHOUT_WEIGHTS = {"random": "random", "gabor": "Gabor filters"}
"""Initializations of stages that need no weights, in words."""

_DRAWN = {"mean_var": "mean and variance", "sampled": "sampled weights", "shuffled": "shuffled weights"}
_FILES = (".h5", ".keras", ".npz", ".safetensors")


def read_record(path: Path) -> dict[str, Any]:
    """The content of `run.json` or `metrics.json`; a missing value is a RunError when it is asked for.

    Raises:
        FileNotFoundError: It is not there.
        RunError: It cannot be read, or a value is not of the type that was written.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path} cannot be read ({error}). Restore it, or begin anew with --overwrite.") from None
    if not isinstance(record, dict):
        raise RunError(f"{path} does not hold a run's record. Restore it, or start the run anew with --overwrite.")
    _check(record, _RECORDS.get(path.name, {}), path)
    if isinstance(record.get("auc"), dict):
        _check(record["auc"], _OF_ALL_FOLDS, path, "auc")
    return Record(record, path)


class Record(dict):
    """Values by name; a missing one is the folder's fault and not a bug."""

    def __init__(self, values: dict[str, Any], path: Path) -> None:
        super().__init__(values)
        self._path = path

    def __missing__(self, name: str) -> Any:
        raise RunError(f"{self._path} lacks {name!r}, which every run has. Restore it, or take the original run.")


def run_file(run: Path, name: str) -> Path:
    """A file of a run; RunError if it is missing, as in a copy of a part of the run."""
    if not (run / name).is_file():
        raise RunError(f"Run {run} lacks {name}, which the comparison needs. Restore it, or compare the original run.")
    return run / name


def read_settings(run: Path) -> dict[str, Any]:
    """The settings in config.yaml of a run, by section; RunError if it does not hold any."""
    path = run / "config.yaml"
    if not path.is_file():
        raise RunError(f"Run {run} lacks config.yaml, which every run has. Restore it, or take the original run.")
    try:
        settings, _ = read_yaml(path)
    except ConfigError as error:
        raise RunError(f"{error} Restore the file, or take the original run.") from None
    if not isinstance(settings, dict) or not isinstance(settings.get("model"), dict):
        raise RunError(f"{path} does not hold the settings of a run: it was changed or cut. Restore it.")
    return settings


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV of a run; RunError if it has none, was cut, or lacks a column that a run writes."""
    try:
        text = path.read_bytes().decode("utf-8")
        reader = csv.DictReader(io.StringIO(text, newline=""))
        header, rows = reader.fieldnames or (), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RunError(f"{path} cannot be read ({error}). Restore it.") from None
    missing = [name for name in _COLUMNS.get(path.name, ()) if name not in header]
    if missing:
        found = f"found {', '.join(header)!s:.80}" if header else "it is empty"
        raise RunError(f"{path}: expected a column {missing[0]!r}; {found}. It was changed or cut: restore it.")
    for number, row in enumerate(rows, start=1):
        if None in row or None in row.values():
            raise RunError(f"{path}: row {number} is not as long as the header; it was changed or cut. Restore it.")
    # A cut split shows by its name, a cut number only by its missing line end.
    if not rows or not text.endswith("\n") and path.name != "folds.csv":
        what = "its last line is cut off" if rows else "it has a header and no rows, which no run writes"
        raise RunError(f"{path}: {what}. Restore it.")
    return rows


def steps_to(rows: Sequence[dict[str, Any]], threshold: float, *, split: str = "test") -> int | None:
    """The first step whose AUC on `split` reaches `threshold`; None if it never does.

    Args:
        rows: Of `curve.csv`, in order; values may be text.
        threshold: AUC, 0 to 1.
        split: "val" or "test".

    References:
        Raghu et al. 2019, Transfusion (arXiv 1902.07208), Figure 7.
    """
    reached = (row for row in rows if row["split"] == split and row["auc"] not in (None, ""))
    return next((int(row["step"]) for row in reached if float(row["auc"]) >= threshold), None)


def start_in_words(record: Mapping[str, Any], weights: str) -> str:
    """The initialization of the stages of a run, by the plan in its run.json; empty where that has no stages.

    Args:
        record: The run.json.
        weights: The name of its pretrained weights.

    Returns:
        Such as "imagenet", "random", "mean and variance of imagenet", or "imagenet through stage1, then random".
    """
    plan = record.get("plan", {})
    stages = plan.get("stages", [])
    names = {"pretrained": weights, **WITHOUT_WEIGHTS}
    texts = [
        names.get(s["starts_from"], f"{_DRAWN.get(s['starts_from'], s['starts_from'])} of {weights}") for s in stages
    ]
    told = ""
    for text, following, stage, after in zip(texts, texts[1:], stages, stages[1:], strict=False):
        if text != following:  # within a stage, the last layer says where
            end = stage["layers"][-1] if stage["stage"] == after["stage"] else stage["stage"]
            told += f"{text} through {end}, then "
    told += texts[-1] if texts else ""
    batch_norm = plan.get("batch_norm", "identity")
    drawn = any(stage["starts_from"] != "pretrained" for stage in stages)
    return f"{told}, batch norm {batch_norm}" if drawn and batch_norm != "identity" else told


def weights_in_words(source: str) -> str:
    """The name of weights: of a source by its name, of a run by its folder, whichever fold and file is named."""
    if source.startswith("source:"):
        return f"source run “{source.removeprefix('source:')}”"
    path = Path(source)
    for part in (path, path.parent):
        if part.name.startswith("fold_"):
            return part.parent.name or source
    return path.stem if path.suffix in _FILES else path.name


def depth_in_words(record: Mapping[str, Any]) -> str:
    """What trains: "all stages", "the head alone", or the stages from the first that does."""
    plan = record.get("plan", {})
    trains = [stage["stage"] for stage in plan.get("stages", []) if stage["trains"]]
    if len(trains) == len(plan.get("stages", [])):
        return "all stages" + (", after the head" if plan.get("head_first") else "")
    return "the head alone" if not trains else f"from {trains[0]} up"


def network_in_words(record: Mapping[str, Any]) -> str:
    """The backbone, and whether it is slim; empty where that is not recorded."""
    widths = {stage["width"] for stage in record.get("plan", {}).get("stages", [])}
    backbone = record.get("backbone") or ""
    return f"{backbone}, slim" if backbone and widths - {1.0} else backbone


@contextlib.contextmanager
def reading(run: Path) -> Iterator[None]:
    """Turn errors of a block that reads only files of `run` into a RunError: they are not what a run writes."""
    try:
        yield
    except RadtransferError:
        raise
    except (KeyError, ValueError, TypeError, IndexError, AttributeError, OSError) as error:
        raise RunError(
            f"Run {run} is not as it was written ({type(error).__name__}: {error}): a file of it was changed or is "
            "damaged. Restore it."
        ) from error


def _check(values: Any, kinds: Any, path: Path, *names: str) -> None:
    """Check that nested `values` are of the `kinds` that are written; missing ones are ignored."""
    expected = dict if isinstance(kinds, dict) else list if isinstance(kinds, list) else kinds
    is_bool = isinstance(values, bool) and isinstance(kinds, tuple) and bool not in kinds
    if not isinstance(values, expected) or is_bool:
        raise RunError(f"{path}: {'.'.join(names) or 'it'} is not what a run writes: {values!r:.80}. Restore the file.")
    if isinstance(kinds, dict):
        for name, kind in kinds.items():
            if name in values:
                _check(values[name], kind, path, *names, name)
    elif isinstance(kinds, list):
        for number, item in enumerate(values):
            _check(item, kinds[0], path, *names, str(number))
