"""Reads a study's YAML: every mistake in it is found before anything runs, and told with its line.

The runs of a study: every arm with every combination of its grid, less what is excluded.

Which runs of two arms belong together: those that agree in everything that both are run with several values of.
"""

import dataclasses
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from radtransfer.config.load import (
    build_config,
    changed_config,
    closest_setting,
    find_config,
    parse_sets,
    raise_mistakes,
    setting_fields,
    setting_value,
)
from radtransfer.config.schema import Config
from radtransfer.config.yaml_text import read_yaml, write_blocks
from radtransfer.errors import ConfigError, RadtransferError, closest_names
from radtransfer.images.preprocessing import RANDOM_PREPROCESSING
from radtransfer.models.backbone import BACKBONES
from radtransfer.pretrained.source import card_named, resolve_weights
from radtransfer.studies.study import (
    SOURCE,
    Comparisons,
    Parts,
    Reader,
    Study,
    StudyArm,
    StudySource,
    only_arms,
    side_arm,
)
from radtransfer.training.names import check_value, has_weights, look_up


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
        source = resolve_weights(model.weights, backbone=model.backbone)
        return source.preprocessing_for(model.backbone)[0] if source else RANDOM_PREPROCESSING
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


_WORDS = ("title", "follows", "needs", "published")
ABOUT = ("name", *_WORDS, "reference", "threshold", "given")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*$")


def is_study(source: str) -> bool:
    """Whether the shipped name or file holds a study, and not the settings of one run."""
    document, _ = read_yaml(find_config(source))
    return isinstance(document, dict) and bool({"arms", "study"} & set(document))


def load_study(
    source: str, *, sets: Iterable[str] = (), options: Mapping[str, Any] | None = None, arms: Iterable[str] = ()
) -> Study:
    """The checked study of a shipped name or file.

    Args:
        source: A shipped name (`"quick-advice"`) or a YAML path.
        sets: Texts such as `"base.training.epochs=5"`, `"grid.seed=[0, 1]"` or
            `"arms.transfer.model.weights=FILE"`; a bare setting is the base's.
        options: Dotted settings of the base that win over the file.
        arms: Only these; all if empty.

    Raises:
        ConfigError: One or more mistakes, all listed, each with its line.
    """
    path = find_config(source)
    document, lines = read_yaml(path)
    reader = Reader(path.name, dict(lines), [])
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: expected a study with arms. Received: {type(document).__name__}")
    if "arms" not in document and not set(document) & {"study", "base", "grid"}:
        raise ConfigError(f"{path.name} holds the settings of one run. Use: radtransfer finetune {source}")
    parts = Parts.of(document, reader)
    controls = _controls(parts)
    for key, value in parse_sets(sets, reader.mistakes):
        parts.put(key, value, reader, origin=f"--set {key}")
    for key, value in (options or {}).items():
        parts.put(key, value, reader, origin="the command line")
    study = _read(parts, reader, name=path.stem)
    _check_names(study, reader)
    _check_controls(study, controls, reader)
    raise_mistakes(reader.mistakes, "study")
    arms = tuple(arms)
    return only_arms(with_preprocessing(study), arms) if arms else study


def study_text(study: Study) -> str:
    """The study as YAML that runs as it is."""
    arms = {
        name: {**arm.settings, **({"grid": _lists(arm.grid)} if arm.grid else {})} for name, arm in study.arms.items()
    }
    sources = {name: {**item.settings, "same": list(item.same)} for name, item in study.sources.items()}
    document = {
        "study": {name: item for name in ABOUT if (item := _word(getattr(study, name))) not in ("", None, [])},
        "base": dict(study.base),
        "sources": sources,
        "arms": arms,
        "grid": _lists(study.grid),
        "exclude": [_lists(rule) for rule in study.exclude],
        "compare": {kind: list(map(list, pairs)) for kind, pairs in vars(study.compare).items() if pairs},
        "preprocessing": dict(study.preprocessing),
    }
    return write_blocks(_plain({name: value for name, value in document.items() if value}))


def _read(parts: Parts, reader: Reader, *, name: str) -> Study:
    about = _about(parts.about, reader, name=name)
    if not parts.arms:
        reader.wrong("a study needs arms, such as `arms: {scratch: {}, transfer: {model.weights: imagenet}}`", "arms")
    for name in (*parts.arms, *parts.sources):
        if not _NAME.match(name):
            reader.mistakes.append(f"{reader.file}: {name!r} is no name for an arm or source: letters, digits and _.+-")
    arms = {
        name: StudyArm(reader.checked(arm, "arms", name), reader.lists(parts.arm_grids[name], "arms", name, "grid"))
        for name, arm in parts.arms.items()
    }
    return Study(
        **about,
        arms=arms,
        base=reader.checked(parts.base, "base"),
        grid=reader.lists(parts.grid, "grid"),
        exclude=_exclude(parts.exclude, reader),
        sources={name: _source_study_file(name, parts, reader) for name in parts.sources},
        compare=_compare(parts.compare, reader),
        preprocessing=_preprocessing(parts.preprocessing, reader),
    )


def _about(values: dict[str, Any], reader: Reader, *, name: str) -> dict[str, Any]:
    about = {"name": name} | values
    for key in [key for key in about if key not in ABOUT]:
        reader.wrong(f"unknown key {key!r}. {closest_names(key, ABOUT)}", "study", key)
        del about[key]
    for key in _WORDS:
        about[key] = str(about.get(key) or "").strip()
    if not _NAME.match(str(about["name"])):
        reader.wrong(f"expected a name of letters, digits and _.+-. Received: {about['name']!r}", "study", "name")
    if not isinstance(about.get("reference"), str | None):
        reader.wrong(f"reference is an arm. Received: {about['reference']!r}", "study", "reference")
        del about["reference"]
    given = about.get("given", [])
    if not isinstance(given, list):
        reader.wrong(f"given is a list of settings such as base.data.source. Received: {given!r}", "study", "given")
        given = []
    outside = (name for name, line in reader.lines.items() if isinstance(line, str) and ".data." in name)
    about["given"] = frozenset([*map(str, given), *outside])
    threshold = about.get("threshold")
    is_number = isinstance(threshold, int | float) and not isinstance(threshold, bool)
    if threshold is not None and not (is_number and 0 <= threshold <= 1):
        reader.wrong(f"threshold is an AUC from 0 to 1. Received: {threshold!r}", "study", "threshold")
    return about


def _preprocessing(modes: Mapping[str, Any], reader: Reader) -> dict[str, str]:
    """Backbone to mode; `auto` leaves it to the weights."""
    for backbone, mode in modes.items():
        try:
            BACKBONES.check(backbone)
            check_value("model.preprocessing", str(mode))
        except ConfigError as error:
            reader.wrong(str(error), "preprocessing", backbone)
    return {backbone: str(mode) for backbone, mode in modes.items() if mode != "auto"}


def _controls(parts: Parts) -> list[str]:
    """Arms that start at random only because they name no weights, in a study where other arms name theirs."""
    if parts.base.get("model.weights", "random") != "random" or "model.weights" in parts.grid:
        return []
    named = {name: {**arm, **parts.arm_grids[name]}.get("model.weights") for name, arm in parts.arms.items()}
    pretrained = any(weights not in (None, "random") for weights in named.values())
    return [name for name, weights in named.items() if weights is None and pretrained]


def _check_controls(study: Study, controls: Sequence[str], reader: Reader) -> None:
    """Weights for all arms must not turn the controls of the file into pretrained arms."""
    for section, values in (("base", [study.base.get("model.weights")]), ("grid", study.grid.get("model.weights", ()))):
        if controls and set(values) - {None, "random"}:
            reader.wrong(
                f"{', '.join(controls)} would start from these weights; {reader.file} lets them start at random, "
                "beside arms that name their weights. Give the weights to an arm, --set arms.NAME.model.weights=…; or "
                f"write `model.weights: random` into {', '.join(controls)}, and the weights into base.",
                section,
                "model.weights",
            )


def _source_study_file(name: str, parts: Parts, reader: Reader) -> StudySource:
    settings = reader.checked(parts.sources[name], "sources", name)
    if str(settings.get("model.weights", "")).startswith(SOURCE):
        reader.wrong("a source starts from no other source", "sources", name, "model.weights")
    same = parts.same.get(name, [item for item in StudySource.same if item not in settings])
    same = [same] if isinstance(same, str) else same
    if not isinstance(same, list):
        reader.wrong(f"same is a list of settings. Received: {same!r}", "sources", name, "same")
        same = []
    for item in same:
        if item not in setting_fields():
            hint = closest_setting(str(item), setting_fields())
            reader.wrong(f"unknown setting {item!r}. {hint}", "sources", name, "same")
    return StudySource(settings, tuple(map(str, same)))


def _exclude(rules: Any, reader: Reader) -> tuple[dict[str, tuple], ...]:
    if not isinstance(rules, list):
        reader.wrong("exclude is a list of `- {arm: …, setting: …}`", "exclude")
        return ()
    result = []
    for number, rule in enumerate(rules):
        flat = {key: item if isinstance(item, list) else [item] for key, item in _rule(rule, number, reader).items()}
        arms = {"arm": tuple(flat.pop("arm"))} if "arm" in flat else {}
        result.append(arms | reader.lists(flat, "exclude", str(number)))
    return tuple(result)


def _rule(rule: Any, number: int, reader: Reader) -> dict[str, Any]:
    if not isinstance(rule, dict) or not rule:
        reader.wrong(f"entry {number + 1} of exclude is no `{{arm: …, setting: …}}`. Received: {rule!r}", "exclude")
        return {}
    return reader.settings(rule, "exclude", str(number))


def _compare(value: Any, reader: Reader) -> Comparisons:
    kinds = {}
    for kind, pairs in reader.mapping(value, "compare").items():
        if kind not in ("cca", "predictions"):
            reader.wrong(f"unknown key {kind!r}. {closest_names(kind, ('cca', 'predictions'))}", "compare", kind)
        elif not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
            reader.wrong(f"{kind} is a list of pairs of arms, [[a, b], …]. Received: {pairs!r}", "compare", kind)
        else:
            kinds[kind] = tuple((str(one), str(other)) for one, other in pairs)
    return Comparisons(**kinds)


def _check_names(study: Study, reader: Reader) -> None:
    """What names an arm, a source or a setting must name one that is there."""
    for name in set(study.base) & set(study.grid):
        reader.wrong(f"{name} stands in base and in grid; leave one away", "grid", name)

    def check(name: str, known: Mapping[str, Any], kind: str, *parts: str) -> None:
        if name not in known:
            reader.wrong(f"no {kind} {name!r}. {closest_names(name, known) if known else ''}", *parts)

    if study.reference is not None:
        check(study.reference, study.arms, "arm", "study", "reference")
    for number, rule in enumerate(study.exclude):
        for name in rule.get("arm", ()):
            check(str(name), study.arms, "arm", "exclude", str(number), "arm")
    for kind in ("cca", "predictions"):
        for side in (side for pair in getattr(study.compare, kind) for side in pair):
            check(side_arm(side), study.arms, "arm", "compare", kind)
            if side.partition("@")[2] not in ("", "initial", "final") or (kind == "predictions" and "@" in side):
                reader.wrong(f"expected ARM or, for cca, ARM@initial. Received: {side!r}", "compare", kind)
    _check_sources(study, lambda name, *parts: check(name.removeprefix(SOURCE), study.sources, "source", *parts))


def _check_sources(study: Study, check: Callable[..., None]) -> None:
    places: list[tuple[Any, tuple[str, ...]]] = [((study.base.get("model.weights"),), ("base",))]
    places.append((study.grid.get("model.weights", ()), ("grid",)))
    for name, arm in study.arms.items():
        places.append(((arm.settings.get("model.weights"),), ("arms", name)))
        places.append((arm.grid.get("model.weights", ()), ("arms", name, "grid")))
    for values, parts in places:
        for value in values:
            if str(value).startswith(SOURCE):
                check(value, *parts, "model.weights")


def _word(value: Any) -> Any:
    return sorted(value) if isinstance(value, frozenset) else value


def _lists(values: Mapping[str, tuple]) -> dict[str, list]:
    return {name: list(items) for name, items in values.items()}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return dataclasses.asdict(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


Keyed = Sequence[tuple[Cell, str]]
"""Cells, each with the key of its run."""


def paired_runs(cells: Keyed, one: str, other: str) -> list[tuple[str, str]]:
    """The keys of the runs that a comparison of two sides, ARM or ARM@initial, compares; every pair once."""
    first = [item for item in cells if item[0].arm == side_arm(one)]
    second = [item for item in cells if item[0].arm == side_arm(other)]
    pairs = [(a, b) for cell, a in first for against, b in second if belong_together(cell, against)]
    return list(dict.fromkeys(pairs))


def reference_run(cells: Keyed, cell: Cell, reference: str | None) -> str | None:
    """The key of the run of arm `reference` that `cell` is measured against; None if there is not exactly one."""
    keys = {key for other, key in cells if other.arm == reference and belong_together(other, cell)}
    return keys.pop() if len(keys) == 1 and not cell.is_source else None


def belong_together(one: Cell, other: Cell) -> bool:
    """Whether two runs have the same value of every axis that both of their arms vary."""
    shared = one.combination.keys() & other.combination.keys()
    return all(one.combination[name] == other.combination[name] for name in shared)
