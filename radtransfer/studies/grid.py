"""The plan of a study: its runs with their folders, what is done of them, and how long the others will take."""

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
from radtransfer.process import Progress
from radtransfer.runs.folder import finished_folds, read_run, write_json
from radtransfer.runs.read import read_record
from radtransfer.studies.study import SOURCE, Cell, KeyedCells, Study, idle_exclusions, source_cells, study_cells
from radtransfer.training.address import address, files_fingerprint, run_identity, table_fingerprint
from radtransfer.training.names import check_names, has_weights

LENGTH = 12
"""Digits of the address that name a run's folder."""

_NETWORK = ("model.backbone", "model.image_size")
_STEP = (*_NETWORK, "training.batch_size", "transfer.scheme", "transfer.through", "transfer.freeze_to", "transfer.slim")


@dataclass(frozen=True)
class PlannedRun:
    """A run with its folder in the store."""

    cell: Cell  # what it is in the study; the first one, where several are the same run
    config: Config  # its settings, with the folder of the run that it starts from as its weights
    path: Path
    address: str  # the hash of what determines it
    identity: Mapping[str, Any]  # what determines it
    images: int
    folds: int
    files: str  # fingerprint of the image files' sizes and times
    source: str | None = None  # key of the run that it starts from

    @property
    def key(self) -> str:
        """Its address, shortened."""
        return self.path.name

    @property
    def done(self) -> bool:
        return (self.path / "run.json").is_file() and read_run(self.path).get("status") == "finished"

    def note(self) -> dict[str, Any]:
        """What stands in the file beside the folder: `identity`, `files` and `failure`; empty if it is damaged."""
        path = self.path.with_suffix(".json")
        try:
            return dict(read_record(path)) if path.is_file() else {}
        except RunError:
            return {}  # it is written again

    def failure(self) -> str | None:
        """Why it failed when it was last tried."""
        return self.note().get("failure") if not self.done else None

    def write_note(self, *, failure: str | None) -> None:
        """Write the file beside the folder; `files` stays as it was when the run was made.

        Raises:
            RunError: Another run has the same short address.
        """
        before, path = self.note(), self.path.with_suffix(".json")
        if before and before.get("identity") != json.loads(json.dumps(self.identity)):
            raise RunError(f"{path} is the card of another run. Use another --runs.")
        made = before.get("files") if self.path.exists() else None
        write_json(path, {"identity": self.identity, "files": made or self.files, "failure": failure})


@dataclass(frozen=True)
class StudyPlan:
    """Every run of a study, those that others start from first."""

    study: Study
    cells: tuple[tuple[Cell, str], ...]  # each with the key of its run; several may be the same run
    runs: Mapping[str, PlannedRun]
    store: Path
    notes: tuple[str, ...] = ()  # what the user should know, one sentence each


def check_study(study: Study) -> tuple[Cell, ...]:
    """The cells of a study that was not narrowed on the command line, those that others start from first.

    Raises:
        ConfigError: Settings, or exclusions that exclude nothing.
    """
    cells = study_cells(study)
    raise_mistakes(list(idle_exclusions(study)), "study")
    return (*source_cells(cells), *cells)


def plan_study(study: Study, *, store: Path, progress: Progress | None = None) -> StudyPlan:
    """Read the tables, find the weights, and give every run its folder.

    Raises:
        ConfigError: Settings, or no data.
        DataError: A table cannot be used.
        WeightsError: Weights are not found.
    """
    cells = study_cells(study)
    _check_images(study, cells)
    runs: dict[str, PlannedRun] = {}
    keyed: list[tuple[Cell, str]] = []
    notes: list[str] = []
    tables: dict[tuple[DataSettings, frozenset[str]], tuple[ImageTable, DataSettings, str, str]] = {}
    for cell in (*source_cells(cells), *cells):
        asked = cell.config.data, cell.config.optional
        source = None if cell.source is None else runs[next(key for known, key in keyed if known == cell.source)]
        try:
            _check_cell(cell)
            if asked not in tables:
                used = drop_unfit_settings(cell.config, progress or Progress(), note=notes.append).data
                table = read_table(used, progress=progress)
                tables[asked] = table, used, table_fingerprint(table), files_fingerprint(table)
            run = _planned_run(cell, *tables[asked], source=source, store=store)
        except RadtransferError as error:
            kind = next((kind for kind in (DataError, WeightsError) if isinstance(error, kind)), ConfigError)
            raise kind(f"{cell.name}: {error}") from error
        runs.setdefault(run.key, run)
        keyed.append((cell, run.key))
    notes = [*idle_exclusions(study), *notes, *_preprocessing_notes(keyed)]
    return StudyPlan(study, tuple(keyed), runs, store, tuple(notes))


def changed_data(plan: StudyPlan, before: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each data set that has changed since its runs were made.

    Args:
        plan: As it is now.
        before: `data_tables` from when the study was last run.
    """
    for source, table in data_tables(plan).items():
        if before.get(source, table) != table:
            yield (
                f"the table of {source} has changed since this study was last run: its runs are computed anew, those "
                f"of the old table stay in {plan.store}"
            )
    replaced: dict[str, list[str]] = {}
    for run in plan.runs.values():
        if run.path.exists() and run.note().get("files", run.files) != run.files:
            replaced.setdefault(str(run.config.data.source), []).append(run.key)
    for source, keys in replaced.items():
        yield (
            f"image files of {source} were changed after runs on them were made: {', '.join(keys)}. They are kept as "
            "they are; where pixels changed, delete them or use another --runs"
        )


def data_tables(plan: StudyPlan) -> dict[str, str]:
    """Data source to the fingerprint of its table."""
    return {str(run.config.data.source): run.identity["table"] for run in plan.runs.values()}


def _check_images(study: Study, cells: Sequence[Cell]) -> None:
    """Raise ConfigError if runs, other than those that others start from, have no images."""
    without = dict.fromkeys(cell.arm for cell in cells if cell.config.data.source is None)
    if not without:
        return
    needs = f" It needs: {study.needs}." if study.needs else ""
    if all(cell.arm in without for cell in cells):
        raise ConfigError(
            f"No images given for {study.name}.{needs} Pass --data with a folder or a CSV, and --image-root if its "
            "paths begin elsewhere."
        )
    raise ConfigError(
        f"No images given for {', '.join(without)} of {study.name}.{needs} Pass --data with a folder or a CSV for all "
        f"arms that name none, or --set arms.{next(iter(without))}.data.source=…"
    )


def _check_cell(cell: Cell) -> None:
    if cell.is_source and cell.config.data.source is None:
        name = cell.arm.removeprefix(SOURCE)
        raise ConfigError(f"Name its images with --set sources.{name}.data.source=…, or choose --arms without it.")
    check_names(cell.config)
    if cell.config.system.distribute == "multiworker":
        raise ConfigError("A study computes each run in one process: system.distribute none or mirrored.")


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
    """The run of a cell on a table, with the settings that fit it and the fingerprints of its rows and files."""
    weights = {} if source is None else {"model.weights": str(source.path.absolute())}
    config = changed_config(cell.config, {"data": data, "optional": frozenset(), **weights})
    # A run with the input scale that it has by itself keeps the address that it has with `auto`.
    alone = cell.own_preprocessing == config.model.preprocessing
    known = changed_config(config, {"model.preprocessing": "auto"}) if alone else config
    identity = run_identity(known, table=rows, source=source and source.address)
    found = address(identity)
    return PlannedRun(
        cell=cell,
        config=config,
        path=store / found[:LENGTH],
        address=found,
        identity=identity,
        images=len(table),
        folds=len(config.splits.fold) or fold_count(table, config.splits),
        files=files,
        source=source and source.key,
    )


def _preprocessing_notes(cells: KeyedCells) -> Iterator[str]:
    """A sentence for each network of which some weights were trained with another input scale than its arms get."""
    arms: dict[tuple[str, str, str], dict[str, None]] = {}
    for cell, _ in cells:
        model, own = cell.config.model, cell.own_preprocessing
        if own not in (None, model.preprocessing) and has_weights(cell.config):
            arms.setdefault((model.backbone, model.preprocessing, own), {})[cell.arm] = None
    for (backbone, mode, own), names in arms.items():
        yield (
            f"{backbone}: its arms get {mode} input, and the weights of {', '.join(names)} were trained with {own}; "
            f"--set arms.{next(iter(names))}.model.preprocessing={own} gives an arm its own"
        )


@dataclass
class Speeds:
    """Seconds per image and epoch, validation included, of network, size, batch and plan; and of network and size."""

    exact: dict[tuple, float] = field(default_factory=dict)
    rough: dict[tuple, float] = field(default_factory=dict)

    def learn(self, identity: Mapping[str, Any], seconds: float, *, epochs: int, images: int) -> None:
        """Note that `epochs`, over all folds, on a table of `images` took `seconds`."""
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
        """The most that a run may still take, since patience may stop it; None where nothing like it was timed."""
        known = self.exact.get(_values(run.identity, _STEP), self.rough.get(_values(run.identity, _NETWORK)))
        folds = run.folds - len(finished_folds(run.path))
        return None if known is None else known * run.images * run.config.training.epochs * folds


def store_speeds(store: Path) -> Speeds:
    """The speeds of the finished runs in `store`."""
    speeds = Speeds()
    for note in sorted(store.glob("*.json")):
        with contextlib.suppress(OSError, ValueError, KeyError):  # not of a run
            speeds.learn_run(_read_json(note)["identity"], note.with_suffix(""))
    return speeds


def untimed_runs(plan: StudyPlan, speeds: Speeds) -> Iterator[PlannedRun]:
    """One run of each network and size that is still to be computed and was never timed."""
    seen = set()
    for run in plan.runs.values():
        network = _values(run.identity, _NETWORK)
        if not run.done and network not in seen and network not in speeds.rough:
            seen.add(network)
            yield run


def rehearsal(run: PlannedRun) -> Config:
    """What to time in place of `run`, whose weights may not be there yet: the same network, all of it trained."""
    plain = {"model.weights": "random", "transfer": TransferSettings(), "training.eval_every": None}
    return changed_config(run.config, plain)


def _values(identity: Mapping[str, Any], names: tuple[str, ...]) -> tuple:
    return tuple(identity[name] for name in names)


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
