"""The runs of a study: every arm with every combination of its grid, less what is excluded."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from radtransfer.config import build_config, changed_config, raise_mistakes, setting_fields, setting_value
from radtransfer.errors import ConfigError, RadtransferError
from radtransfer.preprocessing import RANDOM_PREPROCESSING
from radtransfer.pretrained.manifest import card_named
from radtransfer.pretrained.weight_sources import preprocessing_of
from radtransfer.run_names import has_weights, look_up
from radtransfer.settings import Config
from radtransfer.studies.study import SOURCE, Study, StudyArm


@dataclass(frozen=True)
class Cell:
    """One run of a study, before it has a place.

    Attributes:
        arm: Its arm; of a source `source:NAME`.
        labels: Of each of the study's axes, the value that this run has.
        config: Its settings; weights that are a source's are still `source:NAME`.
        source: The run that it starts from.
        combination: What it is run with, for messages.
        own_preprocessing: The input scale that it would have by itself, where the study has resolved it.
    """

    arm: str
    labels: Mapping[str, Any]
    config: Config
    source: "Cell | None" = None
    combination: Mapping[str, Any] = field(default_factory=dict)
    own_preprocessing: str | None = None

    @property
    def is_source(self) -> bool:
        return self.arm.startswith(SOURCE)

    @property
    def name(self) -> str:
        """The arm and what distinguishes the run within it: "transfer, backbone cbr_tiny, seed 0"."""
        return _name(self.arm, self.combination)


def study_cells(study: Study) -> tuple[Cell, ...]:
    """Every run of the arms, in the order of the file: arms, then the grid, its last setting fastest.

    Every name in their settings is looked up; data and weights may still be missing. All arms of a network get one
    input scale, unless they name their own.

    Raises:
        ConfigError: Settings that cannot be or do not go together, all listed; or every run is excluded.
    """
    mistakes: dict[str, str] = {}
    cells = _cells(study, mistakes)
    raise_mistakes([f"{name}: {error}" for error, name in mistakes.items()], "study")
    if not cells:
        raise ConfigError(f"Study {study.name}: every run is excluded.")
    modes = {**_shared_preprocessing(cells), **study.preprocessing}
    return tuple(_resolved(cell, modes) for cell in cells)


def with_preprocessing(study: Study) -> Study:
    """The study, which says the input scale of each network: the same when some of its arms are left out."""
    return replace(study, preprocessing={**_shared_preprocessing(_cells(study, {})), **study.preprocessing})


def _cells(study: Study, mistakes: dict[str, str]) -> list[Cell]:
    """Every run as its settings say; adds to `mistakes` what is wrong, and with which run."""
    cells = []
    for name, arm in study.arms.items():
        for combination in _combinations(study, arm):
            try:
                cell = _cell(study, name, arm, combination)
                if not any(_matches(rule, cell) for rule in study.exclude):
                    for made in filter(None, (cell.source, cell)):
                        look_up(made.config)
                    cells.append(cell)
            except ConfigError as error:
                mistakes.setdefault(str(error), _name(name, combination))
    return cells


def _shared_preprocessing(cells: Sequence[Cell]) -> dict[str, str]:
    """Backbone to the input scale of its cells that leave it to the study (`auto`).

    That of the first pretrained weights in the order of the file; of random weights where there are no others.
    """
    modes: dict[str, str] = {}
    pretrained = [cell for cell in cells if has_weights(cell.config)]
    for cell in sorted(pretrained, key=lambda cell: cell.config.model.preprocessing != "auto"):
        if (mode := _own_preprocessing(cell)) is not None:
            modes.setdefault(cell.config.model.backbone, mode)
    return {cell.config.model.backbone: RANDOM_PREPROCESSING for cell in cells} | modes


def _own_preprocessing(cell: Cell) -> str | None:
    """The input scale that a cell has by itself; None where its weights are not found."""
    model = cell.config.model
    if model.preprocessing != "auto":
        return model.preprocessing
    if cell.source is not None:
        return _own_preprocessing(cell.source)
    try:
        return preprocessing_of(model.weights, backbone=model.backbone) or RANDOM_PREPROCESSING
    except RadtransferError:  # said by the plan
        card = card_named(model.weights, backbone=model.backbone)
        return card and card.preprocessing


def _resolved(cell: Cell, modes: Mapping[str, str]) -> Cell:
    """The cell, and what it starts from, with an input scale in place of `auto`."""
    source = None if cell.source is None else _resolved(cell.source, {})
    own = _own_preprocessing(cell) if cell.config.model.preprocessing == "auto" else None
    mode = modes.get(cell.config.model.backbone, own) if own else cell.config.model.preprocessing
    config = changed_config(cell.config, {"model.preprocessing": mode})
    return replace(cell, config=config, source=source, own_preprocessing=own)


def idle_exclusions(study: Study) -> Iterator[str]:
    """A sentence for each exclusion that excludes nothing."""
    cells = [
        _cell(study, name, arm, combination)
        for name, arm in study.arms.items()
        for combination in _combinations(study, arm)
    ]
    for rule in study.exclude:
        if not any(_matches(rule, cell) for cell in cells):
            yield f"exclude {_rule_text(rule)}: no run is like that; correct it, or leave it away"


def source_cells(cells: tuple[Cell, ...]) -> tuple[Cell, ...]:
    """The runs that `cells` start from, each once, in the order of their first use."""
    found: list[Cell] = []
    for cell in cells:
        if cell.source is not None and cell.source not in found:
            found.append(cell.source)
    return tuple(found)


def _combinations(study: Study, arm: StudyArm) -> Iterator[dict[str, Any]]:
    """What an arm is run with; its own settings are no axes of the study's grid."""
    axes = {name: values for name, values in study.grid.items() if name not in arm.settings} | dict(arm.grid)
    for values in itertools.product(*axes.values()):
        yield dict(zip(axes, values, strict=True))


def _cell(study: Study, name: str, arm: StudyArm, combination: Mapping[str, Any]) -> Cell:
    config = build_config({**study.base, **arm.settings, **combination})
    parts = [(arm.grid, f"arms.{name}.grid"), (arm.settings, f"arms.{name}"), (study.grid, "grid")]
    config = replace(config, optional=_optional(study, [*parts, (study.base, "base")]))
    labels = {axis: setting_value(config, axis) for axis in study.axes}
    return Cell(name, labels, config, _source(study, config), combination)


def _source(study: Study, config: Config) -> Cell | None:
    weights = config.model.weights
    if not weights.startswith(SOURCE):
        return None
    source = study.sources[weights.removeprefix(SOURCE)]
    shared = {name: setting_value(config, name) for name in source.same}
    made = build_config({"splits.folds": 1, **source.settings, **shared})
    parts = [(source.settings, f"sources.{weights.removeprefix(SOURCE)}")]
    made = replace(made, optional=_optional(study, parts))
    labels = {axis: setting_value(made, axis) for axis in study.axes}
    return Cell(weights, labels, made, None, {name: value for name, value in shared.items() if name in study.axes})


def _optional(study: Study, parts: Sequence[tuple[Mapping[str, Any], str]]) -> frozenset[str]:
    """The data settings of a run that the study's file has, where its data are named on the command line.

    Args:
        study: The study.
        parts: Settings and where they stand; the first that has a setting counts.
    """
    places = {
        name: next((f"{where}.{name}" for values, where in parts if name in values), None)
        for name in setting_fields()
        if name.startswith("data.")
    }
    if places["data.source"] not in study.given:
        return frozenset()
    return frozenset(name for name, place in places.items() if place is not None and place not in study.given)


def _name(arm: str, combination: Mapping[str, Any]) -> str:
    return ", ".join([arm, *(f"{name.rpartition('.')[2]} {_text(value)}" for name, value in combination.items())])


def _matches(rule: Mapping[str, tuple], cell: Cell) -> bool:
    return all(
        (cell.arm if name == "arm" else setting_value(cell.config, name)) in values for name, values in rule.items()
    )


def _rule_text(rule: Mapping[str, tuple]) -> str:
    return "{" + ", ".join(f"{name}: {' or '.join(map(_text, values))}" for name, values in rule.items()) + "}"


def _text(value: Any) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
