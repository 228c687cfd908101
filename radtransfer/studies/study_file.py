"""Reads a study's YAML: every mistake in it is found before anything runs, and told with its line."""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from radtransfer.backbones import BACKBONES
from radtransfer.closest_setting import closest_setting
from radtransfer.config import find_config, parse_sets, raise_mistakes, setting_fields
from radtransfer.errors import ConfigError, closest_names
from radtransfer.run_names import check_value
from radtransfer.studies.cells import with_preprocessing
from radtransfer.studies.reader import Parts, Reader
from radtransfer.studies.study import SOURCE, Comparisons, Study, StudyArm, StudySource, only_arms, side_arm
from radtransfer.yaml_text import read_yaml, write_blocks

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
        sources={name: _source(name, parts, reader) for name in parts.sources},
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


def _source(name: str, parts: Parts, reader: Reader) -> StudySource:
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
