"""The parts of a study's YAML: its settings flat, where each stands, and what is wrong with them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from radtransfer.config import checked_settings, flat_settings
from radtransfer.errors import closest_names
from radtransfer.run_names import check_value

SECTIONS = ("study", "base", "sources", "arms", "grid", "exclude", "compare", "preprocessing")
"""Of a study's file, in the order in which it is best read."""


@dataclass(frozen=True)
class Reader:
    """Where things stand, and what is wrong with them."""

    file: str
    lines: dict[str, int | str]
    mistakes: list[str]

    def place(self, *parts: str) -> str:
        name = ".".join(parts)
        line = self.lines.get(name)
        return line if isinstance(line, str) else f"{self.file}, {name}" if line is None else f"{self.file} line {line}"

    def wrong(self, text: str, *parts: str) -> None:
        self.mistakes.append(f"{self.place(*parts)}: {text}")

    def mapping(self, value: Any, *parts: str) -> dict[str, Any]:
        """`value`, or an empty mapping, and a mistake, if it is none."""
        if isinstance(value, dict) or value is None:
            return {str(key): item for key, item in (value or {}).items()}
        self.wrong(f"{parts[-1]} holds `key: value` lines. Received: {value!r}", *parts)
        return {}

    def settings(self, value: Any, *parts: str) -> dict[str, Any]:
        """Nested or dotted settings as dotted names and values, unchecked."""
        return flat_settings(self.mapping(value, *parts), source=self.place(*parts), mistakes=self.mistakes)

    def checked(self, values: Mapping[str, Any], *parts: str) -> dict[str, Any]:
        """Dotted settings with their values as the settings' types."""
        places = {name: self.place(*parts, name) for name in values}
        if "out" in values:
            self.wrong("the study names its run folders itself; leave `out` away", *parts, "out")
        kept = {key: item for key, item in values.items() if key != "out"}
        sections = checked_settings(kept, places, self.mistakes, check=check_value)
        return {
            f"{section}.{key}".lstrip("."): item for section, part in sections.items() for key, item in part.items()
        }

    def lists(self, values: Mapping[str, Any], *parts: str) -> dict[str, tuple]:
        """Dotted settings, each with its list of values, as the settings' types."""
        result = {}
        for name, items in values.items():
            if not isinstance(items, list) or not items:
                self.wrong(f"{name} needs a list of values, such as [0, 1]. Received: {items!r}", *parts, name)
                continue
            found = [self.checked({name: item}, *parts) for item in items]
            values_found = [item[name] for item in found if name in item]
            result[name] = tuple(value for i, value in enumerate(values_found) if value not in values_found[:i])
        return result


@dataclass(frozen=True)
class Parts:
    """The file, its settings flat and unchecked."""

    about: dict[str, Any]
    base: dict[str, Any]
    sources: dict[str, dict[str, Any]]
    arms: dict[str, dict[str, Any]]
    grid: dict[str, Any]
    arm_grids: dict[str, dict[str, Any]]
    same: dict[str, Any]
    exclude: Any
    compare: Any
    preprocessing: dict[str, Any]

    @classmethod
    def of(cls, document: dict[str, Any], reader: Reader) -> "Parts":
        for key in document:
            if key not in SECTIONS:
                reader.wrong(f"unknown section {key!r}. {closest_names(str(key), SECTIONS)}", str(key))
        arms = {
            name: reader.mapping(arm, "arms", name)
            for name, arm in reader.mapping(document.get("arms"), "arms").items()
        }
        named = reader.mapping(document.get("sources"), "sources")
        sources = {name: reader.mapping(source, "sources", name) for name, source in named.items()}
        grids = {name: reader.settings(arm.pop("grid", None), "arms", name, "grid") for name, arm in arms.items()}
        same = {name: source.pop("same") for name, source in sources.items() if "same" in source}
        return cls(
            about=reader.mapping(document.get("study"), "study"),
            base=reader.settings(document.get("base"), "base"),
            sources={name: reader.settings(source, "sources", name) for name, source in sources.items()},
            arms={name: reader.settings(arm, "arms", name) for name, arm in arms.items()},
            grid=reader.settings(document.get("grid"), "grid"),
            arm_grids=grids,
            same=same,
            exclude=document.get("exclude") or [],
            compare=document.get("compare"),
            preprocessing=reader.mapping(document.get("preprocessing"), "preprocessing"),
        )

    def put(self, key: str, value: Any, reader: Reader, *, origin: str) -> None:
        """Change one value, as `--set` does; `origin` says where it comes from."""
        section, _, rest = key.partition(".")
        if section in ("arms", "sources"):
            named = getattr(self, section)
            name = next((name for name in named if rest.startswith(f"{name}.")), None)
            if name is None:
                reader.mistakes.append(f"{origin}: {closest_names(rest.partition('.')[0], named)}")
                return
            rest = rest[len(name) + 1 :]
            in_grid = section == "arms" and rest.startswith("grid.")
            (self.arm_grids if in_grid else named)[name][rest.removeprefix("grid.") if in_grid else rest] = value
        elif section in ("base", "grid", "study") or (section == "preprocessing" and rest):
            (self.about if section == "study" else getattr(self, section))[rest] = value
        else:
            self.base[key] = value
            key = f"base.{key}"
        reader.lines[key] = origin
