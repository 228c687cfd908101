"""Reads the files of a run folder, which may have been truncated or edited since."""

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
"""Types of `auc` in the metrics.json of all folds."""

_COLUMNS = {
    "folds.csv": ("path", "label", "patient", "fold", "split"),
    "predictions.csv": ("path", "patient", "label"),
    "history.csv": ("epoch", "step"),
    "curve.csv": ("step", "split", "auc"),
}
"""Required columns of the tables of a run."""

WITHOUT_WEIGHTS = {"random": "random", "gabor": "Gabor filters"}
"""Initializations that need no weights, in words."""

_DRAWN = {"mean_var": "mean and variance", "sampled": "sampled weights", "shuffled": "shuffled weights"}
_FILES = (".h5", ".keras", ".npz", ".safetensors")


def read_record(path: Path) -> dict[str, Any]:
    """The content of `run.json` or `metrics.json`; RunError if it cannot be read or a value is missing or invalid."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(
            f"{path} cannot be read ({error}). Restore it, or start the run again with --overwrite."
        ) from None
    if not isinstance(record, dict):
        raise RunError(f"{path} is not the record of a run. Restore it, or start the run again with --overwrite.")
    _check(record, _RECORDS.get(path.name, {}), path)
    if isinstance(record.get("auc"), dict):
        _check(record["auc"], _OF_ALL_FOLDS, path, "auc")
    return Record(record, path)


class Record(dict):
    """Values by name; a missing one raises RunError instead of KeyError."""

    def __init__(self, values: dict[str, Any], path: Path) -> None:
        super().__init__(values)
        self._path = path

    def __missing__(self, name: str) -> Any:
        raise RunError(f"{self._path} lacks {name!r}, which every run has. Restore it, or use the original run.")


def run_file(run: Path, name: str) -> Path:
    """A file of a run; RunError if it is missing, as in a partial copy."""
    if not (run / name).is_file():
        raise RunError(f"Run {run} lacks {name}, which the comparison needs. Restore it, or compare the original run.")
    return run / name


def read_settings(run: Path) -> dict[str, Any]:
    """The settings in config.yaml of a run, by section; RunError if there are none."""
    path = run / "config.yaml"
    if not path.is_file():
        raise RunError(f"Run {run} lacks config.yaml, which every run has. Restore it, or use the original run.")
    try:
        settings, _ = read_yaml(path)
    except ConfigError as error:
        raise RunError(f"{error} Restore the file, or use the original run.") from None
    if not isinstance(settings, dict) or not isinstance(settings.get("model"), dict):
        raise RunError(f"{path} does not contain the settings of a run: it was changed or truncated. Restore it.")
    return settings


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV of a run; RunError if it has none, was truncated, or lacks a required column."""
    try:
        text = path.read_bytes().decode("utf-8")
        reader = csv.DictReader(io.StringIO(text, newline=""))
        header, rows = reader.fieldnames or (), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RunError(f"{path} cannot be read ({error}). Restore it.") from None
    missing = [name for name in _COLUMNS.get(path.name, ()) if name not in header]
    if missing:
        found = f"found {', '.join(header)!s:.80}" if header else "it is empty"
        raise RunError(f"{path}: expected a column {missing[0]!r}; {found}. It was changed or truncated: restore it.")
    for number, row in enumerate(rows, start=1):
        if None in row or None in row.values():
            raise RunError(
                f"{path}: row {number} is not as long as the header; it was changed or truncated. Restore it."
            )
    # A truncated split in folds.csv is an invalid name; a truncated number shows only by the missing line end.
    if not rows or not text.endswith("\n") and path.name != "folds.csv":
        raise RunError(
            f"{path}: {'its last line is truncated' if rows else 'it has a header but no rows'}. Restore it."
        )
    return rows


def steps_to(rows: Sequence[dict[str, Any]], threshold: float, *, split: str = "test") -> int | None:
    """The first step at which the AUC on `split` ("val" or "test") reaches `threshold` (0 to 1); None if it never does.

    `rows` are those of `curve.csv`, in order; values may be text.

    References:
        Raghu et al. 2019, Transfusion (arXiv 1902.07208), Figure 7.
    """
    reached = (row for row in rows if row["split"] == split and row["auc"] not in (None, ""))
    return next((int(row["step"]) for row in reached if float(row["auc"]) >= threshold), None)


def init_in_words(record: Mapping[str, Any], weights: str) -> str:
    """The initialization of a run in words, from its run.json and the name of its weights; "" without stages.

    Such as "imagenet", "random", "mean and variance of imagenet", or "imagenet through stage1, then random".
    """
    plan = record.get("plan", {})
    stages = plan.get("stages", [])
    names = {"pretrained": weights, **WITHOUT_WEIGHTS}
    texts = [
        names.get(s["starts_from"], f"{_DRAWN.get(s['starts_from'], s['starts_from'])} of {weights}") for s in stages
    ]
    words = ""
    for text, following, stage, after in zip(texts, texts[1:], stages, stages[1:], strict=False):
        if text != following:  # a boundary within a stage is named by its last layer
            end = stage["layers"][-1] if stage["stage"] == after["stage"] else stage["stage"]
            words += f"{text} through {end}, then "
    words += texts[-1] if texts else ""
    batch_norm = plan.get("batch_norm", "identity")
    drawn = any(stage["starts_from"] != "pretrained" for stage in stages)
    return f"{words}, batch norm {batch_norm}" if drawn and batch_norm != "identity" else words


def weights_in_words(source: str) -> str:
    """The name of weights: that of a source, of a run's folder (for any of its folds and files), or of the file."""
    if source.startswith("source:"):
        return f"source run “{source.removeprefix('source:')}”"
    path = Path(source)
    for part in (path, path.parent):
        if part.name.startswith("fold_"):
            return part.parent.name or source
    return path.stem if path.suffix in _FILES else path.name


def depth_in_words(record: Mapping[str, Any]) -> str:
    """The trained part: "all stages", "the head alone", or "from STAGE up"."""
    plan = record.get("plan", {})
    trains = [stage["stage"] for stage in plan.get("stages", []) if stage["trains"]]
    if len(trains) == len(plan.get("stages", [])):
        return "all stages" + (", after the head" if plan.get("head_first") else "")
    return "the head alone" if not trains else f"from {trains[0]} up"


def network_in_words(record: Mapping[str, Any]) -> str:
    """The backbone, and whether it is slim; empty if not recorded."""
    widths = {stage["width"] for stage in record.get("plan", {}).get("stages", [])}
    backbone = record.get("backbone") or ""
    return f"{backbone}, slim" if backbone and widths - {1.0} else backbone


@contextlib.contextmanager
def reading(run: Path) -> Iterator[None]:
    """Turn errors in a block that reads only files of `run` into a RunError that the files were changed."""
    try:
        yield
    except RadtransferError:
        raise
    except (KeyError, ValueError, TypeError, IndexError, AttributeError, OSError) as error:
        raise RunError(
            f"Run {run} has a file that was changed or is damaged ({type(error).__name__}: {error}). Restore it."
        ) from error


def _check(values: Any, kinds: Any, path: Path, *names: str) -> None:
    """Check the types of nested `values`; missing values are ignored."""
    expected = dict if isinstance(kinds, dict) else list if isinstance(kinds, list) else kinds
    is_bool = isinstance(values, bool) and isinstance(kinds, tuple) and bool not in kinds
    if not isinstance(values, expected) or is_bool:
        raise RunError(f"{path}: {'.'.join(names) or 'it'} has an invalid value: {values!r:.80}. Restore the file.")
    if isinstance(kinds, dict):
        for name, kind in kinds.items():
            if name in values:
                _check(values[name], kind, path, *names, name)
    elif isinstance(kinds, list):
        for number, item in enumerate(values):
            _check(item, kinds[0], path, *names, str(number))
