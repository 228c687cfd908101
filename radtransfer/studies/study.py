"""A study and its cells: every arm with every combination of its grid, except excluded ones."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from radtransfer.config.load import build_config, changed_config, raise_mistakes, setting_fields, setting_value
from radtransfer.config.schema import Config
from radtransfer.errors import ConfigError, RadtransferError, closest_names
from radtransfer.images.preprocessing import RANDOM_PREPROCESSING
from radtransfer.pretrained.source import resolve_weights, spec_named
from radtransfer.training.names import resolve_names

STORE = "runs/studies"
"""The folder of runs that all studies share."""

SOURCE = "source:"
"""Prefix of weights that come from a source run of the study."""

COMPARISONS = ("cca", "predictions")

Values = Mapping[str, Any]
"""Dotted settings and their values, of the settings' types."""

KeyedCells = Sequence[tuple["Cell", str]]
"""Cells, each with the key of its run."""


@dataclass(frozen=True)
class StudyArm:
    """The settings and the grid of an arm; both override base and grid of the study."""

    settings: Values = field(default_factory=dict)
    grid: Mapping[str, tuple] = field(default_factory=dict)


@dataclass(frozen=True)
class StudySource:
    """A run whose weights other runs start from."""

    settings: Values = field(default_factory=dict)  # differences from the defaults, without the study's base
    same: tuple[str, ...] = ("model.backbone",)  # settings shared with the run that uses it


@dataclass(frozen=True)
class Study:
    """The content of a study's file."""

    name: str
    arms: Mapping[str, StudyArm]  # in order
    title: str = ""  # one line
    base: Values = field(default_factory=dict)  # settings of every run
    grid: Mapping[str, tuple] = field(default_factory=dict)  # dotted setting to the values for every arm
    # Combinations to leave out: `arm` and dotted settings, each with the values that match.
    exclude: tuple[Mapping[str, tuple], ...] = ()
    sources: Mapping[str, StudySource] = field(default_factory=dict)
    reference: str | None = None  # the arm that gains are measured against
    threshold: float | None = None  # AUC, 0 to 1, for counting steps
    # A kind of `COMPARISONS` to the pairs of arms, ARM or ARM@initial, in the report.
    compare: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    follows: str = ""  # the paper it follows
    needs: str = ""  # required data
    published: str = ""  # published results
    preprocessing: Mapping[str, str] = field(default_factory=dict)  # backbone to the mode of its arms with `auto`
    # Data settings given on the command line, such as "base.data.source". Settings of the file that do not fit these
    # data are left out.
    given: frozenset[str] = frozenset()

    @property
    def axes(self) -> tuple[str, ...]:
        """The settings in the grids of the study and its arms, in order."""
        own = (name for arm in self.arms.values() for name in arm.grid)
        return tuple(dict.fromkeys([*self.grid, *own]))


@dataclass(frozen=True)
class Cell:
    """One run of a study, before it has a folder."""

    arm: str  # `source:NAME` for a source run
    labels: Mapping[str, Any]  # value of each axis of the study
    config: Config  # weights of a source run are still `source:NAME`
    source: "Cell | None" = None
    combination: Mapping[str, Any] = field(default_factory=dict)  # values of the grid
    own_preprocessing: str | None = None  # the mode that `auto` would give without the study

    @property
    def is_source(self) -> bool:
        return self.arm.startswith(SOURCE)

    @property
    def name(self) -> str:
        """The arm and its combination: "transfer, backbone cbr_tiny, seed 0"."""
        return _name(self.arm, self.combination)


def side_arm(side: str) -> str:
    """The arm in one side of a comparison, ARM or ARM@initial."""
    return side.partition("@")[0]


def only_arms(study: Study, names: tuple[str, ...]) -> Study:
    """The study with only these arms; ConfigError for an unknown arm."""
    for name in names:
        if name not in study.arms:
            raise ConfigError(f"No arm {name!r} in study {study.name}. {closest_names(name, study.arms)}")
    compare = {}
    for kind, pairs in study.compare.items():
        if kept := tuple(pair for pair in pairs if set(map(side_arm, pair)) <= set(names)):
            compare[kind] = kept
    return replace(
        study,
        arms={name: arm for name, arm in study.arms.items() if name in names},
        exclude=tuple(rule for rule in study.exclude if set(rule.get("arm", names)) & set(names)),
        reference=study.reference if study.reference in names else None,
        compare=compare,
    )


def study_cells(study: Study) -> tuple[Cell, ...]:
    """Every run of the arms, in the order of the file: arms, then the grid with its last setting fastest.

    Names in the settings are checked; data and weights may still be missing. All arms of a network get the same
    preprocessing, unless they set their own. Raises ConfigError for bad settings, all listed, or if every run is
    excluded.
    """
    mistakes: dict[str, str] = {}
    cells = _cells(study, mistakes)
    raise_mistakes([f"{name}: {error}" for error, name in mistakes.items()], "study")
    if not cells:
        raise ConfigError(f"Study {study.name}: every run is excluded.")
    modes = {**_shared_preprocessing(cells), **study.preprocessing}
    return tuple(_resolved(cell, modes) for cell in cells)


def with_preprocessing(study: Study) -> Study:
    """The study with the preprocessing of each network set, so that it stays the same if arms are left out."""
    return replace(study, preprocessing={**_shared_preprocessing(_cells(study, {})), **study.preprocessing})


def idle_exclusions(study: Study) -> Iterator[str]:
    """A note for each exclusion that excludes nothing."""
    cells = [
        _cell(study, name, arm, combination)
        for name, arm in study.arms.items()
        for combination in _combinations(study, arm)
    ]
    for rule in study.exclude:
        if not any(_matches(rule, cell) for cell in cells):
            text = ", ".join(f"{name}: {' or '.join(map(_text, values))}" for name, values in rule.items())
            yield f"exclude {{{text}}} matches no run; correct or remove it"


def source_cells(cells: tuple[Cell, ...]) -> tuple[Cell, ...]:
    """The source runs of `cells`, each once, in the order of their first use."""
    found: list[Cell] = []
    for cell in cells:
        if cell.source is not None and cell.source not in found:
            found.append(cell.source)
    return tuple(found)


def paired_runs(cells: KeyedCells, one: str, other: str) -> list[tuple[str, str]]:
    """The pairs of keys that a comparison of two sides, ARM or ARM@initial, compares; every pair once."""
    first = [item for item in cells if item[0].arm == side_arm(one)]
    second = [item for item in cells if item[0].arm == side_arm(other)]
    return list(dict.fromkeys((a, b) for cell, a in first for against, b in second if _is_pair(cell, against)))


def reference_run(cells: KeyedCells, cell: Cell, reference: str | None) -> str | None:
    """The key of the run of arm `reference` that `cell` is compared with; None if there is not exactly one."""
    keys = {key for other, key in cells if other.arm == reference and _is_pair(other, cell)}
    return keys.pop() if len(keys) == 1 and not cell.is_source else None


def _is_pair(one: Cell, other: Cell) -> bool:
    """Whether two runs have the same values of the settings that both of their arms vary."""
    shared = one.combination.keys() & other.combination.keys()
    return all(one.combination[name] == other.combination[name] for name in shared)


def _cells(study: Study, mistakes: dict[str, str]) -> list[Cell]:
    """Every run that is not excluded; errors are added to `mistakes` with the name of the run."""
    cells = []
    for name, arm in study.arms.items():
        for combination in _combinations(study, arm):
            try:
                cell = _cell(study, name, arm, combination)
                if not any(_matches(rule, cell) for rule in study.exclude):
                    for made in filter(None, (cell.source, cell)):
                        resolve_names(made.config)
                    cells.append(cell)
            except ConfigError as error:
                mistakes.setdefault(str(error), _name(name, combination))
    return cells


def _combinations(study: Study, arm: StudyArm) -> Iterator[dict[str, Any]]:
    """The combinations of an arm; its own settings override the grid of the study."""
    axes = {name: values for name, values in study.grid.items() if name not in arm.settings} | dict(arm.grid)
    for values in itertools.product(*axes.values()):
        yield dict(zip(axes, values, strict=True))


def _cell(study: Study, name: str, arm: StudyArm, combination: Mapping[str, Any]) -> Cell:
    """One run with its source run, if any."""
    parts = {f"arms.{name}.grid": arm.grid, f"arms.{name}": arm.settings, "grid": study.grid, "base": study.base}
    config = build_config({**study.base, **arm.settings, **combination})
    config = replace(config, optional=_optional(study, parts))
    labels = {axis: setting_value(config, axis) for axis in study.axes}
    weights = config.model.weights
    if not weights.startswith(SOURCE):
        return Cell(name, labels, config, None, combination)
    source_name = weights.removeprefix(SOURCE)
    source = study.sources[source_name]
    shared = {item: setting_value(config, item) for item in source.same}
    made = build_config({"splits.folds": 1, **source.settings, **shared})
    made = replace(made, optional=_optional(study, {f"sources.{source_name}": source.settings}))
    varied = {item: value for item, value in shared.items() if item in study.axes}
    made_labels = {axis: setting_value(made, axis) for axis in study.axes}
    return Cell(name, labels, config, Cell(weights, made_labels, made, None, varied), combination)


def _optional(study: Study, parts: Mapping[str, Values]) -> frozenset[str]:
    """The data settings of the file for a run whose data are given on the command line.

    `parts` are the sections that may contain a setting; the first one counts.
    """
    places = {
        name: next((f"{where}.{name}" for where, values in parts.items() if name in values), None)
        for name in setting_fields()
        if name.startswith("data.")
    }
    if places["data.source"] not in study.given:
        return frozenset()
    return frozenset(name for name, place in places.items() if place is not None and place not in study.given)


def _shared_preprocessing(cells: Sequence[Cell]) -> dict[str, str]:
    """Backbone to the preprocessing of its cells with `auto`: that of the first pretrained weights, if any."""
    modes: dict[str, str] = {}
    pretrained = [cell for cell in cells if cell.config.model.weights != "random"]
    for cell in sorted(pretrained, key=lambda cell: cell.config.model.preprocessing != "auto"):
        if (mode := _own_preprocessing(cell)) is not None:
            modes.setdefault(cell.config.model.backbone, mode)
    return {cell.config.model.backbone: RANDOM_PREPROCESSING for cell in cells} | modes


def _own_preprocessing(cell: Cell) -> str | None:
    """The preprocessing of a cell without the study; None if its weights are not found."""
    model = cell.config.model
    if model.preprocessing != "auto":
        return model.preprocessing
    if cell.source is not None:
        return _own_preprocessing(cell.source)
    try:
        source = resolve_weights(model.weights, backbone=model.backbone)
        return source.preprocessing_for(model.backbone)[0] if source else RANDOM_PREPROCESSING
    except RadtransferError:  # reported when the study is planned
        spec = spec_named(model.weights, backbone=model.backbone)
        return spec and spec.preprocessing


def _resolved(cell: Cell, modes: Mapping[str, str]) -> Cell:
    """The cell and its source run, with a preprocessing in place of `auto`."""
    source = None if cell.source is None else _resolved(cell.source, {})
    own = _own_preprocessing(cell) if cell.config.model.preprocessing == "auto" else None
    mode = modes.get(cell.config.model.backbone, own) if own else cell.config.model.preprocessing
    config = changed_config(cell.config, {"model.preprocessing": mode})
    return replace(cell, config=config, source=source, own_preprocessing=own)


def _matches(rule: Mapping[str, tuple], cell: Cell) -> bool:
    return all(
        (cell.arm if name == "arm" else setting_value(cell.config, name)) in values for name, values in rule.items()
    )


def _name(arm: str, combination: Mapping[str, Any]) -> str:
    return ", ".join([arm, *(f"{name.rpartition('.')[2]} {_text(value)}" for name, value in combination.items())])


def _text(value: Any) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
