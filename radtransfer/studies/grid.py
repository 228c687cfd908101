"""The plan of a study: its runs with their folders, which of them are done, and the time for the others."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from radtransfer.config.load import changed_config, raise_mistakes
from radtransfer.config.schema import Config, DataSettings, TransferSettings
from radtransfer.data.readers import drop_unfit_settings, read_table
from radtransfer.data.splits import fold_count
from radtransfer.data.table import ImageTable
from radtransfer.errors import ConfigError, DataError, RadtransferError, RunError, WeightsError
from radtransfer.process import Progress, require_keras
from radtransfer.runs.folder import finished_folds, read_run, write_json
from radtransfer.runs.read import read_record
from radtransfer.studies.study import SOURCE, Cell, KeyedCells, Study, idle_exclusions, source_cells, study_cells
from radtransfer.training.address import address, files_fingerprint, run_identity, table_fingerprint
from radtransfer.training.names import check_names

LENGTH = 12
"""Digits of the address that name a run's folder."""

_NETWORK = ("model.backbone", "model.image_size")
_STEP = (*_NETWORK, "training.batch_size", "transfer.scheme", "transfer.through", "transfer.freeze_to", "transfer.slim")


@dataclass(frozen=True)
class PlannedRun:
    """A run with its folder in the store."""

    cell: Cell  # the first one, if several cells are the same run
    config: Config  # with the folder of its source run, if any, as weights
    path: Path
    address: str  # the hash of `identity`
    identity: Mapping[str, Any]  # everything that determines the run
    images: int
    folds: int
    files: str  # fingerprint of the sizes and times of the image files
    source: str | None = None  # key of its source run

    @property
    def key(self) -> str:
        """The shortened address."""
        return self.path.name

    @property
    def done(self) -> bool:
        return (self.path / "run.json").is_file() and read_run(self.path).get("status") == "finished"

    def note(self) -> dict[str, Any]:
        """The content of the file beside the folder: `identity`, `files` and `failure`; empty if it is damaged."""
        path = self.path.with_suffix(".json")
        try:
            return dict(read_record(path)) if path.is_file() else {}
        except RunError:
            return {}  # will be written again

    def failure(self) -> str | None:
        """The error of the last attempt, if the run is not done."""
        return self.note().get("failure") if not self.done else None

    def write_note(self, *, failure: str | None) -> None:
        """Write the file beside the folder; `files` keeps its value from the start of the run.

        Raises RunError if another run has the same short address.
        """
        before, path = self.note(), self.path.with_suffix(".json")
        if before and before.get("identity") != json.loads(json.dumps(self.identity)):
            raise RunError(f"{path} describes another run. Use another --runs.")
        files = before.get("files") if self.path.exists() else None
        write_json(path, {"identity": self.identity, "files": files or self.files, "failure": failure})


@dataclass(frozen=True)
class StudyPlan:
    """Every run of a study, source runs first."""

    study: Study
    cells: tuple[tuple[Cell, str], ...]  # with the key of the run; several cells may be the same run
    runs: Mapping[str, PlannedRun]
    store: Path
    notes: tuple[str, ...] = ()  # for the user, one sentence each


def check_study(study: Study) -> tuple[Cell, ...]:
    """The cells of a complete study, source runs first; ConfigError for bad settings or idle exclusions."""
    cells = study_cells(study)
    raise_mistakes(list(idle_exclusions(study)), "study")
    return (*source_cells(cells), *cells)


def plan_study(study: Study, *, store: Path, progress: Progress | None = None) -> StudyPlan:
    """Read the tables, find the weights, and assign every run its folder.

    Raises ConfigError for bad settings or missing data, DataError for a bad table, WeightsError for missing weights.
    """
    cells = study_cells(study)
    _check_images(study, cells)
    runs: dict[str, PlannedRun] = {}
    keyed: list[tuple[Cell, str]] = []
    notes: list[str] = []
    tables: dict[tuple[DataSettings, frozenset[str]], tuple[ImageTable, DataSettings, str, str]] = {}
    for cell in (*source_cells(cells), *cells):
        table_key = cell.config.data, cell.config.optional
        source = None if cell.source is None else runs[next(key for known, key in keyed if known == cell.source)]
        try:
            _check_cell(cell)
            if table_key not in tables:
                used = drop_unfit_settings(cell.config, progress or Progress(), note=notes.append).data
                table = read_table(used, progress=progress)
                tables[table_key] = table, used, table_fingerprint(table), files_fingerprint(table)
            run = _planned_run(cell, *tables[table_key], source=source, store=store)
        except RadtransferError as error:
            kind = next((kind for kind in (DataError, WeightsError) if isinstance(error, kind)), ConfigError)
            raise kind(f"{cell.name}: {error}") from error
        runs.setdefault(run.key, run)
        keyed.append((cell, run.key))
    notes = [*idle_exclusions(study), *notes, *_preprocessing_notes(keyed)]
    return StudyPlan(study, tuple(keyed), runs, store, tuple(notes))


def changed_data(plan: StudyPlan, before: Mapping[str, Any]) -> Iterator[str]:
    """A note for each data set that has changed since its runs; `before` is `data_tables` of the last call."""
    for source, table in data_tables(plan).items():
        if before.get(source, table) != table:
            yield (
                f"the table of {source} has changed since this study was last run: its runs are computed again, those "
                f"of the old table stay in {plan.store}"
            )
    replaced: dict[str, list[str]] = {}
    for run in plan.runs.values():
        if run.path.exists() and run.note().get("files", run.files) != run.files:
            replaced.setdefault(str(run.config.data.source), []).append(run.key)
    for source, keys in replaced.items():
        yield (
            f"image files of {source} have changed since these runs: {', '.join(keys)}. The runs are used as they "
            "are; if pixels have changed, delete the runs or use another --runs"
        )


def data_tables(plan: StudyPlan) -> dict[str, str]:
    """Data source to the fingerprint of its table."""
    return {str(run.config.data.source): run.identity["table"] for run in plan.runs.values()}


def _check_images(study: Study, cells: Sequence[Cell]) -> None:
    """Raise ConfigError if runs, other than source runs, have no images."""
    without = dict.fromkeys(cell.arm for cell in cells if cell.config.data.source is None)
    if not without:
        return
    needs = f" It needs: {study.needs}." if study.needs else ""
    if all(cell.arm in without for cell in cells):
        raise ConfigError(
            f"No images given for {study.name}.{needs} Pass --data with a folder or a CSV, and --image-root if its "
            "paths are relative to another folder."
        )
    raise ConfigError(
        f"No images given for {', '.join(without)} of {study.name}.{needs} Pass --data with a folder or a CSV for all "
        f"arms without images, or --set arms.{next(iter(without))}.data.source=…"
    )


def _check_cell(cell: Cell) -> None:
    if cell.is_source and cell.config.data.source is None:
        name = cell.arm.removeprefix(SOURCE)
        raise ConfigError(f"No images given. Pass --set sources.{name}.data.source=…, or --arms without it.")
    check_names(cell.config)
    if cell.config.system.distribute == "multiworker":
        raise ConfigError(
            "system.distribute: expected none or mirrored, as a study computes each run in one process. "
            "Received: multiworker."
        )


def _planned_run(
    cell: Cell,
    table: ImageTable,
    data: DataSettings,
    rows: str,
    files: str,
    *,
    source: PlannedRun | None,
    store: Path,
) -> PlannedRun:
    """The run of a cell on a table; `rows` and `files` are the fingerprints of its rows and image files."""
    weights = {} if source is None else {"model.weights": str(source.path.absolute())}
    config = changed_config(cell.config, {"data": data, "optional": frozenset(), **weights})
    # A preprocessing equal to the run's own gives the same address as `auto`.
    is_own = cell.own_preprocessing == config.model.preprocessing
    addressed = changed_config(config, {"model.preprocessing": "auto"}) if is_own else config
    identity = run_identity(addressed, table=rows, source=source and source.address)
    run_address = address(identity)
    return PlannedRun(
        cell=cell,
        config=config,
        path=store / run_address[:LENGTH],
        address=run_address,
        identity=identity,
        images=len(table),
        folds=len(config.splits.fold) or fold_count(table, config.splits),
        files=files,
        source=source and source.key,
    )


def _preprocessing_notes(cells: KeyedCells) -> Iterator[str]:
    """A note for each network with weights that were trained with another preprocessing than its arms get."""
    arms: dict[tuple[str, str, str], dict[str, None]] = {}
    for cell, _ in cells:
        model, own = cell.config.model, cell.own_preprocessing
        if own not in (None, model.preprocessing) and model.weights != "random":
            arms.setdefault((model.backbone, model.preprocessing, own), {})[cell.arm] = None
    for (backbone, mode, own), names in arms.items():
        yield (
            f"{backbone}: its arms get preprocessing {mode}, but the weights of {', '.join(names)} were trained with "
            f"{own}; change it for one arm with --set arms.{next(iter(names))}.model.preprocessing={own}"
        )


@dataclass
class Speeds:
    """Seconds per image and epoch: exact by network, size, batch and plan; rough by network and size."""

    exact: dict[tuple, float] = field(default_factory=dict)
    rough: dict[tuple, float] = field(default_factory=dict)

    def learn(self, identity: Mapping[str, Any], seconds: float, *, epochs: int, images: int) -> None:
        """Record that `epochs`, over all folds, on a table of `images` took `seconds`."""
        rate = seconds / max(epochs * images, 1)
        self.exact[_values(identity, _STEP)] = self.rough[_values(identity, _NETWORK)] = rate

    def learn_run(self, identity: Mapping[str, Any], path: Path) -> None:
        """Learn from the run in `path`, if it is finished."""
        with contextlib.suppress(OSError, ValueError, KeyError):
            record = _read_json(path / "run.json")
            if record["status"] == "finished":
                epochs = sum(_read_json(fold / "metrics.json")["epochs"] for fold in finished_folds(path).values())
                self.learn(identity, record["timings"]["seconds"], epochs=epochs, images=record["data"]["images"])

    def seconds(self, run: PlannedRun) -> float | None:
        """The maximum time left for a run, which patience may shorten; None if no similar run was timed."""
        known = self.exact.get(_values(run.identity, _STEP), self.rough.get(_values(run.identity, _NETWORK)))
        folds = run.folds - len(finished_folds(run.path))
        return None if known is None else known * run.images * run.config.training.epochs * folds


def store_speeds(store: Path) -> Speeds:
    """The speeds of the finished runs in `store`."""
    speeds = Speeds()
    for note in sorted(store.glob("*.json")):
        with contextlib.suppress(OSError, ValueError, KeyError):  # other JSON files
            speeds.learn_run(_read_json(note)["identity"], note.with_suffix(""))
    return speeds


def time_networks(plan: StudyPlan, speeds: Speeds, progress: Progress) -> None:
    """Time each network and image size of a missing run that was never timed."""
    seen = set()
    for run in plan.runs.values():
        network = _values(run.identity, _NETWORK)
        if run.done or network in seen or network in speeds.rough:
            continue
        seen.add(network)
        require_keras()
        from radtransfer.training.plan import dry_run

        progress.note(f"timing {run.config.model.backbone} at {run.config.model.image_size} px")
        # The weights of the run may not be there yet: the same network is timed, all of it trained.
        plain = {"model.weights": "random", "transfer": TransferSettings(), "training.eval_every": None}
        try:
            seconds = 3600 * dry_run(changed_config(run.config, plain)).total_hours
        except RadtransferError as error:
            progress.note(f"{run.cell.name}: {error}")
            continue
        speeds.learn(run.identity, seconds, epochs=run.config.training.epochs * run.folds, images=run.images)


def estimate_study(plan: StudyPlan, *, jobs: int, timing: bool, progress: Progress) -> dict[str, Any]:
    """The runs, and the time that the missing ones take; with `timing`, unknown networks are timed first."""
    speeds, rows = store_speeds(plan.store), []
    if timing:
        time_networks(plan, speeds, progress)
    for run in plan.runs.values():
        seconds, failure = speeds.seconds(run), run.failure()
        waits = run.source is not None and not plan.runs[run.source].done
        labels = run.cell.labels.items()
        row = {
            "run": run.key,
            "status": "done" if run.done else "waiting" if waits else "failed" if failure else "to do",
            "arm": run.cell.arm,
            "labels": {name: list(value) if isinstance(value, tuple) else value for name, value in labels},
            "source": run.source,
            "preprocessing": run.config.model.preprocessing,
            "seconds": None if run.done or seconds is None else round(seconds, 1),
            "error": failure,
        }
        rows.append(row)
    todo = [row["seconds"] for row in rows if row["status"] != "done"]
    seconds = None if None in todo else round(sum(todo) / max(min(jobs, len(todo)), 1))
    counts = {"total": len(rows), "done": len(rows) - len(todo), "to_do": len(todo), "seconds": seconds}
    return {"study": plan.study.name, **counts, "runs": rows}


def _values(identity: Mapping[str, Any], names: tuple[str, ...]) -> tuple:
    return tuple(identity[name] for name in names)


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
