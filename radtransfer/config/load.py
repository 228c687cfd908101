"""Read, merge and check the settings of a run: defaults < recipe < YAML file < `--set` < options."""

import dataclasses
import functools
import importlib.resources
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from radtransfer.config.recipes import recipe_values
from radtransfer.config.schema import Config, check_range, converted, fields_of
from radtransfer.config.yaml_text import parse_scalar, read_yaml, write_yaml
from radtransfer.errors import (
    OPTIONS,
    SECTIONS,
    ConfigError,
    UnknownNameError,
    close_matches,
    closest_names,
    meant_names,
    suggest_path,
)

Check = Callable[[str, Any], None]
"""Raises ConfigError if a setting, by its dotted name, cannot have a value."""


def load_config(
    source: str | None = None,
    *,
    sets: tuple[str, ...] = (),
    options: Mapping[str, Any] | None = None,
    options_from: str = "the command line",
    check: Check | None = None,
) -> Config:
    """The checked settings of a run.

    Args:
        source: A shipped name (`"quickstart"`), a YAML path, or None for defaults alone.
        sets: Texts such as `"training.epochs=5"`, with values in YAML.
        options: Dotted names and values that override everything else.
        options_from: Their origin, for messages.
        check: Called with each setting and its value, such as `training.prepare.check_value`.

    Raises:
        ConfigError: Lists all mistakes with their lines.
    """
    values, sources, mistakes = {}, {}, []
    if source is not None:
        path = find_config(source)
        document, lines = read_yaml(path)
        if isinstance(document, dict) and "arms" in document:
            raise ConfigError(f"{path.name} is a study of many runs. Use: radtransfer study {source}")
        values |= flat_settings(document, source=str(path), mistakes=mistakes)
        sources |= {key: f"{path.name} line {line}" for key, line in lines.items()}
    outside = dict(parse_sets(sets, mistakes))
    sources |= {key: f"--set {key}" for key in outside} | dict.fromkeys(options or {}, options_from)
    outside |= options or {}
    config = build_config({**values, **outside}, sources=sources, mistakes=mistakes, check=check)
    other_data = "data.source" in outside and source is not None and path in shipped_configs().values()
    optional = [name for name in values if name.startswith("data.") and name not in outside] if other_data else []
    return dataclasses.replace(config, optional=frozenset(optional))


def build_config(
    values: Mapping[str, Any],
    *,
    sources: Mapping[str, str] | None = None,
    mistakes: Sequence[str] = (),
    check: Check | None = None,
) -> Config:
    """The settings from dotted names and values, over their recipe and the defaults.

    `sources` gives the origin of each setting for messages. Raises ConfigError with all mistakes.
    """
    mistakes, sources, given = list(mistakes), sources or {}, frozenset(values)
    try:
        recipe = values.get("recipe", Config.recipe)
        # Values of other types are reported below.
        name = str(recipe) if isinstance(recipe, str | int | float) else Config.recipe
        values = {**recipe_values(name), **values}
    except UnknownNameError as error:
        mistakes.append(str(error))
    sections = checked_settings(values, sources, mistakes, check=check)
    if values.get("training.learning_rate", 0.0) is None:
        mistakes.append(
            "training.learning_rate must be given, with --learning-rate or in the config "
            "(the source of recipe mei uses 1e-3 or 1e-4 for whole networks, 1e-2 or 1e-3 for frozen ones)"
        )
    raise_mistakes(mistakes, "settings")
    top, base = sections.pop("", {}), Config()
    changed = {name: dataclasses.replace(getattr(base, name), **fields) for name, fields in sections.items()}
    return dataclasses.replace(base, given=given, **top, **changed)


def raise_mistakes(mistakes: Sequence[str], where: str) -> None:
    """Raise ConfigError with all `mistakes`, if there are any."""
    if mistakes:
        title = [f"{len(mistakes)} mistakes in the {where}:"] if len(mistakes) > 1 else []
        raise ConfigError("\n  ".join([*title, *mistakes]))


def checked_settings(
    values: Mapping[str, Any], sources: Mapping[str, str], mistakes: list[str], *, check: Check | None = None
) -> dict[str, dict[str, Any]]:
    """The converted values by section ("": top level) and name; adds to `mistakes`."""
    known = setting_fields()
    sections: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        where = f" ({sources[name]})" if name in sources else ""
        if name not in known:
            mistakes.append(f"unknown key {name!r}{where}. {closest_setting(name, known)}")
            continue
        item, annotation = known[name]
        try:
            checked = converted(value, annotation)
            check_range(checked, item)
            if check is not None:
                check(name, checked)
        except ConfigError as error:
            mistakes.append(f"{name}{where}: {error}")
            continue
        except (TypeError, ValueError) as error:
            stop = "" if str(error).endswith("?") else "."
            mistakes.append(f"{name}{where}: {error}{stop} Received: {value!r}")
            continue
        section, _, key = name.rpartition(".")
        sections.setdefault(section, {})[key] = checked
    return sections


def changed_config(config: Config, changes: Mapping[str, Any]) -> Config:
    """`config` with other, unchecked values for some dotted settings."""
    for name, value in changes.items():
        section, _, key = name.rpartition(".")
        inner = dataclasses.replace(getattr(config, section), **{key: value}) if section else value
        config = dataclasses.replace(config, **{section or key: inner})
    return config


def setting_value(config: Config, name: str) -> Any:
    """The value of the setting with this dotted name."""
    section, _, key = name.rpartition(".")
    return getattr(getattr(config, section) if section else config, key)


def config_values(config: Config) -> dict[str, Any]:
    """The settings as nested plain values, which load back to an equal `Config`."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return list(value) if isinstance(value, tuple) else value

    values = plain(dataclasses.asdict(config))
    del values["given"], values["optional"]
    return values


def config_text(config: Config) -> str:
    """The settings as YAML."""
    return write_yaml(config_values(config))


@functools.cache
def setting_fields() -> Mapping[str, tuple[dataclasses.Field, Any]]:
    """Every setting by dotted name, with its field and type."""
    return MappingProxyType({name: (item, annotation) for name, item, annotation in fields_of(Config)})


def shipped_configs() -> dict[str, Path]:
    """The shipped configs by name."""
    folder = Path(str(importlib.resources.files("radtransfer.configs")))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_config(source: str) -> Path:
    """The file of a shipped name or a path; ConfigError if there is none."""
    if Path(source).is_file():
        return Path(source)
    shipped = shipped_configs()
    if source in shipped:
        return shipped[source]
    meant = suggest_path(source) if Path(source).suffix in (".yaml", ".yml") else ""
    names = meant or f" {closest_names(source, shipped)}"
    raise ConfigError(f"No config {source!r}: expected a YAML file or a shipped name.{names}")


def parse_sets(sets: Iterable[str], mistakes: list[str]) -> list[tuple[str, Any]]:
    """Texts such as `"training.epochs=5"` as names and YAML values; adds to `mistakes`."""
    parsed = []
    for text in sets:
        key, equals, value = text.partition("=")
        if not equals:
            mistakes.append(f"--set expects KEY=VALUE, such as training.epochs=5. Received: {text!r}")
            continue
        if re.fullmatch("[|;,/&+]+", value):  # a separator, not valid YAML
            parsed.append((key.strip(), value))
            continue
        try:
            parsed.append((key.strip(), parse_scalar(value, key=key.strip())))
        except ConfigError as error:
            mistakes.append(f"--set {key}: {error}")
    return parsed


def flat_settings(document: Any, *, source: str, mistakes: list[str]) -> dict[str, Any]:
    """Nested sections as dotted names (settings that are mappings are kept); adds to `mistakes`."""
    if document is None:
        return {}
    if not isinstance(document, dict):
        mistakes.append(f"{source}: expected settings (`key: value`). Received: {type(document).__name__}")
        return {}
    sections = {item.name for item in dataclasses.fields(Config) if dataclasses.is_dataclass(item.type)}
    flat = {}
    for key, value in document.items():
        if key not in sections:
            flat[str(key)] = value
        elif isinstance(value, dict):
            flat |= {f"{key}.{inner}": item for inner, item in value.items()}
        elif value is not None:
            mistakes.append(f"{source}: {key} is a section, expected settings in it. Received: {value!r}")
    return flat


def closest_setting(name: str, known: Iterable[str]) -> str:
    """A sentence with the settings or sections closest to the unknown `name`, else with the `known` ones."""
    known = list(known)
    section, _, last = name.rpartition(".")
    sections: dict[str, dict[str, str]] = {}
    for item in known:
        above, _, key = item.rpartition(".")
        sections.setdefault(above, {})[key] = item
    sections.pop("", None)
    lasts = {item.rpartition(".")[2]: item for item in known}
    same = [item for item in known if item.rpartition(".")[2] == last]
    found = same[:1] or [lasts[key] for key in meant_names(last, lasts, OPTIONS)]
    if not section and name not in sections:
        found += meant_names(name, sections, SECTIONS)
    if found:
        return f"Did you mean {' or '.join(map(repr, found))}?"
    if section in sections:
        found = [sections[section][key] for key in close_matches(last, sections[section])]
    elif section:
        found = close_matches(name, known)
    elif name not in sections:
        parts = lasts | {item: item for item in sections}
        found = [parts[part] for part in close_matches(name, parts)]
    if found:
        return f"Did you mean {' or '.join(map(repr, found))}?"
    for given in (name, section):
        if given in sections:
            return f"Keys of {given}: {', '.join(sections[given])}."
    return f"Sections: {', '.join(sections)}. `radtransfer configs show quickstart --full` lists every key."
