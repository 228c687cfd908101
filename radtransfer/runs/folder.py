"""The run folder: created once, locked while in use, every file written whole or not at all.

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

FREE = frozenset(
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
"""The status of a run that another one, begun with --overwrite, has partly deleted."""

_BEFORE_A_RUN = {"bad_images.txt", "config.yaml"}
# In the order in which they are deleted: while run.json stands, the folder is a run and can be replaced again.
_OF_A_RUN = ("trackers", "fold_*", "folds.csv", "predictions.csv", "metrics.json", "config.yaml", "run.json")


def remove_parts(folder: Path) -> None:
    """Delete the parts of files that killed processes left below `folder`, which is locked."""
    for part in list(folder.rglob(f"{PART}*")):
        if part.is_file() or not is_written(part):  # folders are results of other commands
            delete_part(part)


def write_text(path: Path, text: str) -> None:
    """`text` as UTF-8, whole or not at all."""
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """`value` as JSON; NaN is refused, since JSON has none."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_rows(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]], *, for_people: bool = False) -> None:
    """A CSV with a header; floats read back exactly.

    A table `for_people` has no cell that a spreadsheet takes for a formula; others hold every name as it is.
    """
    cell = spreadsheet_cell if for_people else lambda value: value
    with atomic_write(path) as part, part.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerows(map(cell, row) for row in itertools.chain([header], rows))


def write_records(path: Path, records: Sequence[Any], *, without: Sequence[str] = ()) -> None:
    """A CSV with a row per dataclass record and a column per field; two for an interval."""
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
    # The content of `run.json`; empty for a run that has not begun.
    record: dict[str, Any] = field(default_factory=dict)
    replaces: bool = False  # whether an older run stands in the folder until this one begins

    def update(self, **values: Any) -> None:
        """Add to `run.json`, or change what it holds."""
        self.record |= values
        write_json(self.path / "run.json", self.record)

    def fold(self, number: int) -> Path:
        """The folder of fold `number`, made if needed."""
        return _made(self.path / f"fold_{number}")

    def head_phase(self, number: int) -> Path:
        """The folder of the head phase of fold `number`, made if needed."""
        return _made(self.fold(number) / "head_phase")

    def begin(self, settings: dict[str, Any]) -> None:
        """Write `config.yaml` and the first `run.json`: from now on the folder is this run."""
        if self.replaces:
            # Killed while it deletes, it must not leave what calls itself finished.
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
    """Where the run goes: `config.out`, or a free folder below `runs/`; ConfigError if it is an address."""
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
    """Hold the lock of the run folder `out`; a new one becomes a run only with `Run.begin`.

    Args:
        out: The folder.
        settings: The resolved settings, compared with those of a run that is resumed.
        resume: Go on with a run of the same settings, or start one where there is none.
        overwrite: Replace the existing run, once the new one begins.

    Raises:
        RunError: The folder holds a run and neither flag is given, holds something else, is in use
            by another process, or was made with other settings.
    """
    with made_folder(out), locked(out):
        existing = _existing_record(out)
        if existing is None:
            names = sorted(item.name for item in out.iterdir() if not item.name.startswith((PART, LOCK)))
            others = [name for name in names if name not in _BEFORE_A_RUN]
            if others:
                raise RunError(
                    f"{out} holds other files ({', '.join(others[:3])}) and is not a run folder; nothing was written. "
                    "Choose another --out."
                )
        elif overwrite or existing.get("status") == _REPLACED:
            yield Run(out, replaces=True)
            return
        elif resume:
            # Read as settings, not as text: those that did not exist when the run was started have their defaults.
            before = config_values(load_config(str(out / "config.yaml")))
            changes = [f"{name} {old} → {new}" for name, old, new in differences(before, settings) if name not in FREE]
            if changes:
                raise RunError(
                    f"--resume: the settings differ from those {out} was made with: {'; '.join(changes)}. "
                    "Use the same ones, or another --out."
                )
        else:
            raise RunError(
                f"Run folder {out} exists ({existing.get('status')}, started {existing.get('started', '?')}). "
                "Use --resume to go on, --overwrite to replace it, or another --out."
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
    """The folds of a run that hold a result, by number; RunError if one that its metrics.json counts has none."""
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
    """The rows of `folds.csv`: each image in each fold that it takes part in.

    Raises:
        RunError: It is missing, was cut or changed, going by the counts of rows and test images in the run's records.
    """
    file = run / "folds.csv"
    if not file.is_file():
        raise RunError(f"Run {run} lacks folds.csv, which says what was trained and tested. Restore it.")
    rows, wrong = read_rows(file), None
    if not all(row["fold"].isdigit() and row["split"] in ("train", "val", "test") for row in rows):
        wrong = "holds a fold or a split that no run writes"
    written = read_run(run).get("fold_rows") if (run / "run.json").is_file() else None
    if written not in (None, len(rows)):
        wrong = f"holds {len(rows)} rows, and the run wrote {written}"
    tested = Counter(int(row["fold"]) for row in rows if row["split"] == "test" and not wrong)
    for number, folder in finished_folds(run).items():
        count = read_record(folder / "metrics.json").get("n_images", tested[number])
        if not wrong and count != tested[number]:
            wrong = f"holds {tested[number]} test images of fold {number}, and {count} were tested"
    if wrong:
        raise RunError(f"{file} {wrong}: it was changed or cut. Restore it.")
    return rows


def find_fold(source: str | Path, *, fold: int | None = None) -> tuple[Path, int]:
    """The run folder and fold number that `RUN`, `RUN/fold_K` or RUN with `fold` name.

    Raises:
        RunError: Not a run, the fold is not finished, or there are several and none is named.
    """
    path = Path(source)
    if path.name.startswith("fold_") and path.name[5:].isdigit() and (path.parent / "run.json").is_file():
        path, fold = path.parent, int(path.name[5:])
    read_run(path)
    folds = finished_folds(path)
    if fold is None and len(folds) == 1:
        fold = next(iter(folds))
    if fold is None or fold not in folds:
        asked = "which fold?" if fold is None else f"fold {fold} is not finished."
        finished = ", ".join(map(str, folds)) or "none"
        raise RunError(f"Run {path}: {asked} Finished folds: {finished}. Name one with --fold K or as {path}/fold_K.")
    return path, fold


def run_and_folds(given: str | Path) -> tuple[Path, tuple[int, ...]]:
    """The run folder that RUN or RUN/fold_K names, with its finished folds or the named one; RunError if none is."""
    path = Path(given)
    if not (path / "run.json").is_file():
        run, fold = find_fold(path)
        return run, (fold,)
    folds = tuple(finished_folds(path))
    if not folds:
        raise RunError(f"Run {path} has no finished fold yet; nothing to compare.")
    return path, folds


def differences(before: Any, after: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Where two nested values differ: dotted name, value before, value after."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in {**before, **after}:
            yield from differences(before.get(key), after.get(key), f"{prefix}.{key}" if prefix else key)
    elif before != after:
        yield prefix, before, after


def now() -> str:
    """The time, UTC, to the second, ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _made(folder: Path) -> Path:
    """The folder, made if needed."""
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
