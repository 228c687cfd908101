"""The run folder: created once, locked while in use, with every file written atomically.

config.yaml   run.json   folds.csv   predictions.csv   metrics.json
fold_1/ initial.weights.h5  model.keras  history.csv  predictions.csv  metrics.json
fold_2/ …
"""

import contextlib
import csv
import datetime
import itertools
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from radtransfer.config.load import config_values, load_config
from radtransfer.config.schema import Config
from radtransfer.config.yaml_text import write_yaml
from radtransfer.errors import RunError, suggest_path
from radtransfer.files import PART, atomic_write, delete_part, is_written, spreadsheet_cell, write_error
from radtransfer.images.refs import check_local_path
from radtransfer.runs.lock import LOCK, locked, made_folder
from radtransfer.runs.read import read_record, read_rows

FREE_SETTINGS = frozenset(
    {
        "out",
        "track",
        "system.workers",
        "system.cache",
        "system.hosts",
        "system.worker_index",
        "data.outside_root",
        "data.allow_alike_patients",
    }
)
"""Settings that change no number."""

_REPLACED = "replaced"
"""The status of a run that is partly deleted because another one replaces it with --overwrite."""

_BEFORE_A_RUN = {"bad_images.txt", "config.yaml"}
# In the order of deletion: as long as run.json exists, the folder is a run and can be replaced.
_OF_A_RUN = ("trackers", "fold_*", "folds.csv", "predictions.csv", "metrics.json", "config.yaml", "run.json")


def remove_parts(folder: Path) -> None:
    """Delete the partial files of killed processes in `folder`, which is locked."""
    for part in list(folder.rglob(f"{PART}*")):
        if part.is_file() or not is_written(part):  # folders belong to other commands
            delete_part(part)


def write_text(path: Path, text: str) -> None:
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON; ValueError for NaN, which JSON does not have."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_rows(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]], *, for_people: bool = False) -> None:
    """Write a CSV with a header; with `for_people`, cells that a spreadsheet would take for formulas are escaped."""
    cell = spreadsheet_cell if for_people else lambda value: value
    with atomic_write(path) as part, part.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerows(map(cell, row) for row in itertools.chain([header], rows))


def write_records(path: Path, records: Sequence[Any], *, without: Sequence[str] = ()) -> None:
    """Write a CSV with a row per dataclass record and a column per field, two for an interval."""
    rows = []
    for record in records:
        row = {}
        for name, value in vars(record).items():
            if name.endswith("ci95"):
                row[f"{name}_low"], row[f"{name}_high"] = value or ("", "")
            elif name not in without:
                row[name] = value
        rows.append(row)
    write_rows(path, list(rows[0]), (row.values() for row in rows), for_people=True)


@dataclass
class Run:
    """A run folder in use by this process."""

    path: Path
    record: dict[str, Any] = field(default_factory=dict)  # the content of `run.json`; empty before `begin`
    replaces: bool = False  # whether `begin` deletes an older run in the folder

    def update(self, **values: Any) -> None:
        """Add or change entries of `run.json`."""
        self.record |= values
        write_json(self.path / "run.json", self.record)

    def fold(self, number: int) -> Path:
        """The folder of fold `number`, made if needed."""
        return _make(self.path / f"fold_{number}")

    def head_phase(self, number: int) -> Path:
        """The folder of the head phase of fold `number`, made if needed."""
        return _make(self.fold(number) / "head_phase")

    def begin(self, settings: dict[str, Any]) -> None:
        """Write `config.yaml` and the first `run.json`, after deleting a replaced run."""
        if self.replaces:
            # If the process is killed during deletion, the old run must not appear finished.
            write_json(self.path / "run.json", {"status": _REPLACED})
            self.replaces = False
            for item in (item for pattern in _OF_A_RUN for item in self.path.glob(pattern)):
                shutil.rmtree(item) if item.is_dir() and not item.is_symlink() else item.unlink()
        write_text(self.path / "config.yaml", write_yaml(settings))
        self.record = {name: value for name, value in self.record.items() if name not in ("ended", "error")}
        self.update(status="running", started=self.record.get("started", now()))

    @property
    def finished(self) -> bool:
        return self.record.get("status") == "finished"


def run_folder(config: Config, *, name: str | None, reuse: bool) -> Path:
    """The folder of the run: `config.out`, or a free folder in `runs/`; ConfigError for a remote address."""
    check_local_path(config.out)
    if config.out is not None:
        return Path(config.out)
    data, weights = Path(config.data.source or "data").stem, Path(config.model.weights).stem
    base = Path("runs") / (name or f"{data}-{config.model.backbone}-{weights}")
    number, out = 1, base
    while not reuse and (out / "run.json").exists():
        number += 1
        out = base.with_name(f"{base.name}-{number}")
    return out


@contextlib.contextmanager
def open_run(out: Path, settings: dict[str, Any], *, resume: bool = False, overwrite: bool = False) -> Iterator[Run]:
    """Hold the lock of the run folder `out`, which becomes a run with `Run.begin`.

    `resume` continues a run with the same `settings`, or starts one; `overwrite` replaces an existing run when the new
    one begins. Raises RunError if the folder contains a run and neither is given, contains other files, is in use, or
    was made with other settings.
    """
    with made_folder(out), locked(out):
        existing = _existing_record(out)
        if existing is None:
            names = sorted(item.name for item in out.iterdir() if not item.name.startswith((PART, LOCK)))
            others = [name for name in names if name not in _BEFORE_A_RUN]
            if others:
                raise RunError(
                    f"{out} is not a run folder: it contains {', '.join(others[:3])}. Nothing was written. "
                    "Use another --out."
                )
        elif overwrite or existing.get("status") == _REPLACED:
            yield Run(out, replaces=True)
            return
        elif resume:
            # Loaded as settings, so that those added in later versions have their defaults.
            before = config_values(load_config(str(out / "config.yaml")))
            changed = [change for change in differences(before, settings) if change[0] not in FREE_SETTINGS]
            changes = [f"{name} {old} → {new}" for name, old, new in changed]
            if changes:
                raise RunError(
                    f"--resume: the settings differ from those of {out}: {'; '.join(changes)}. "
                    "Use the same settings, or another --out."
                )
        else:
            raise RunError(
                f"Run folder {out} exists ({existing.get('status')}, started {existing.get('started', '?')}). "
                "Use --resume to continue it, --overwrite to replace it, or another --out."
            )
        remove_parts(out)
        yield Run(out, existing or {})


def read_run(path: Path) -> dict[str, Any]:
    """The content of `run.json`; RunError if it cannot be read, or `path` is not a run folder."""
    record = _existing_record(path)
    if record is None:
        missing = "" if path.exists() else f" There is nothing at that path.{suggest_path(path)}"
        raise RunError(f"{path} is not a run folder: expected a run.json in it.{missing}")
    return record


def finished_folds(path: Path) -> dict[int, Path]:
    """The finished folds of a run by number; RunError if one that its metrics.json counts is missing."""
    folders = {int(item.name[5:]): item for item in path.glob("fold_*") if item.name[5:].isdigit()}
    finished = {number: folders[number] for number in sorted(folders) if (folders[number] / "metrics.json").is_file()}
    if (path / "metrics.json").is_file():
        for number in read_record(path / "metrics.json").get("folds", ()):
            if number not in finished:
                raise RunError(
                    f"Run {path} lacks fold_{number}/metrics.json, which its metrics.json counts. Restore it."
                )
    return finished


def read_folds(run: Path) -> list[dict[str, str]]:
    """The rows of `folds.csv`: each image in each of its folds.

    Raises RunError if the file is missing, or its counts of rows and test images differ from the run's records.
    """
    file = run / "folds.csv"
    if not file.is_file():
        raise RunError(f"Run {run} lacks folds.csv, which lists the training and test images. Restore it.")
    rows, wrong = read_rows(file), None
    if not all(row["fold"].isdigit() and row["split"] in ("train", "val", "test") for row in rows):
        wrong = "contains an invalid fold or split"
    written = read_run(run).get("fold_rows") if (run / "run.json").is_file() else None
    if written not in (None, len(rows)):
        wrong = f"has {len(rows)} rows, but the run wrote {written}"
    tested = Counter(int(row["fold"]) for row in rows if row["split"] == "test" and not wrong)
    for number, folder in finished_folds(run).items():
        count = read_record(folder / "metrics.json").get("n_images", tested[number])
        if not wrong and count != tested[number]:
            wrong = f"has {tested[number]} test images of fold {number}, but {count} were tested"
    if wrong:
        raise RunError(f"{file} {wrong}: it was changed or truncated. Restore it.")
    return rows


def find_fold(source: str | Path, *, fold: int | None = None) -> tuple[Path, int]:
    """The run folder and the number of a finished fold, named by RUN/fold_K, or by RUN and `fold`.

    `fold` may be omitted if there is one fold. Raises RunError if the fold is not finished or not named.
    """
    path = Path(source)
    if path.name.startswith("fold_") and path.name[5:].isdigit() and (path.parent / "run.json").is_file():
        path, fold = path.parent, int(path.name[5:])
    read_run(path)
    folds = finished_folds(path)
    if fold is None and len(folds) == 1:
        fold = next(iter(folds))
    if fold is None or fold not in folds:
        problem = f"it has {len(folds)} finished folds" if fold is None else f"fold {fold} is not finished"
        finished = ", ".join(map(str, folds)) or "none"
        raise RunError(
            f"Run {path}: {problem}. Finished folds: {finished}. Name one with --fold K or as {path}/fold_K."
        )
    return path, fold


def run_and_folds(given: str | Path) -> tuple[Path, tuple[int, ...]]:
    """The run folder of RUN or RUN/fold_K, with all finished folds or the named one; RunError if there is none."""
    path = Path(given)
    if not (path / "run.json").is_file():
        run, fold = find_fold(path)
        return run, (fold,)
    folds = tuple(finished_folds(path))
    if not folds:
        raise RunError(f"Run {path} has no finished fold yet, so there is nothing to compare. Finish it with --resume.")
    return path, folds


def differences(before: Any, after: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The differences of two nested values: dotted name, value before, value after."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in {**before, **after}:
            yield from differences(before.get(key), after.get(key), f"{prefix}.{key}" if prefix else key)
    elif before != after:
        yield prefix, before, after


def now() -> str:
    """The UTC time to the second, in ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _make(folder: Path) -> Path:
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise write_error(folder, error) or error from None
    return folder


def _existing_record(out: Path) -> dict[str, Any] | None:
    try:
        return read_record(out / "run.json")
    except FileNotFoundError:
        return None
