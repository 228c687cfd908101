"""The runs of a study: every arm with every combination of its grid, less what is excluded."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from radtransfer.config import build_config, raise_mistakes, setting_value
from radtransfer.errors import ConfigError
from radtransfer.run_names import look_up
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
    """

    arm: str
    labels: Mapping[str, Any]
    config: Config
    source: "Cell | None" = None
    combination: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_source(self) -> bool:
        return self.arm.startswith(SOURCE)

    @property
    def name(self) -> str:
        """The arm and what distinguishes the run within it: "transfer, backbone cbr_tiny, seed 0"."""
        return _name(self.arm, self.combination)


def study_cells(study: Study) -> tuple[Cell, ...]:
    """Every run of the arms, in the order of the file: arms, then the grid, its last setting fastest.

    Every name in their settings is looked up; data and weights may still be missing.

    Raises:
        ConfigError: Settings that cannot be or do not go together, all listed; or every run is excluded.
    """
    mistakes: dict[str, str] = {}
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
    raise_mistakes([f"{name}: {error}" for error, name in mistakes.items()], "study")
    if not cells:
        raise ConfigError(f"Study {study.name}: every run is excluded.")
    return tuple(cells)


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
    labels = {axis: setting_value(config, axis) for axis in study.axes}
    return Cell(name, labels, config, _source(study, config), combination)


def _source(study: Study, config: Config) -> Cell | None:
    weights = config.model.weights
    if not weights.startswith(SOURCE):
        return None
    source = study.sources[weights.removeprefix(SOURCE)]
    shared = {name: setting_value(config, name) for name in source.same}
    made = build_config({"splits.folds": 1, **source.settings, **shared})
    labels = {axis: setting_value(made, axis) for axis in study.axes}
    return Cell(weights, labels, made, None, {name: value for name, value in shared.items() if name in study.axes})


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
