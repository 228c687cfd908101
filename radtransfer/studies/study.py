"""A study: a grid of runs told in one YAML file, computed once each, and their tables.

A study: named arms and lists of values whose combinations are runs, and what is to be compared among them.

study:                 what it is about, in words
  name: depth
  title: How deep should ImageNet weights be reused?
  reference: scratch   the arm that gains are measured against
  threshold: 0.9       the AUC that steps are counted to
base:                  settings of every run, as in any config
  data: {source: images.csv}
  model.weights: imagenet
arms:                  what is compared: each a few settings more; a control says so itself
  scratch: {model.weights: random}
  transfer: {}
  transfusion:
    transfer.scheme: transfusion
    grid: {transfer.through: [stem, stage1]}
grid:                  every arm is run with every combination of these
  seed: [0, 1, 2]
exclude:               but not these
  - {arm: scratch, seed: 2}
sources:               runs to start from, as the weights `source:NAME`; a source has the backbone of the run
  natural:             that starts from it, or what else is listed under `same`
    data: {source: photographs}
    same: [model.backbone]
compare:               for the report: pairs of arms, before (@initial) or after training
  cca: [[transfer@initial, transfer]]
  predictions: [[transfer, scratch]]
preprocessing:         input scale of the arms of a network that do not name their own; by default that of the first
  resnet50: caffe      pretrained weights among them

The parts of a study's YAML: its settings flat, where each stands, and what is wrong with them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from radtransfer.config.load import checked_settings, flat_settings
from radtransfer.errors import ConfigError, closest_names
from radtransfer.training.names import check_value

SOURCE = "source:"
"""What weights begin with that a source run of the study makes."""

Values = Mapping[str, Any]
"""Dotted settings and their values, of the settings' types."""


@dataclass(frozen=True)
class StudyArm:
    """One thing that is compared with others.

    Attributes:
        settings: In which it differs from the base; they also win over the study's grid.
        grid: Dotted settings of this arm alone, each with its values; they win over the study's grid.
    """

    settings: Values = field(default_factory=dict)
    grid: Mapping[str, tuple] = field(default_factory=dict)


@dataclass(frozen=True)
class StudySource:
    """A run that others start from.

    Attributes:
        settings: All that differs from the defaults of a run; the study's base is not part of it.
        same: Settings that it has in common with the run that starts from it.
    """

    settings: Values = field(default_factory=dict)
    same: tuple[str, ...] = ("model.backbone",)


@dataclass(frozen=True)
class Comparisons:
    """Pairs of arms that a report compares, run by run; each side is ARM or ARM@initial.

    Attributes:
        cca: By their representations.
        predictions: By their decisions on the test images.
    """

    cca: tuple[tuple[str, str], ...] = ()
    predictions: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Study:
    """A study as its file says it.

    Attributes:
        name: Of its folder.
        title: One line.
        arms: By name, in order.
        base: Settings of every run.
        grid: Dotted settings, each with the values that every arm is run with.
        exclude: Combinations that are not run: `arm` and dotted settings, each with the values that match.
        sources: By name.
        reference: The arm that gains are measured against.
        threshold: AUC that steps are counted to, 0 to 1.
        compare: What a report compares.
        follows: Where it comes from.
        needs: What it needs.
        published: Numbers to compare with.
        preprocessing: Backbone to the input scale of its arms whose own is `auto`; of others it is found.
        given: Where data settings stand that were given on the command line, such as "base.data.source". Those of the
            file that do not fit these data are left out.
    """

    name: str
    arms: Mapping[str, StudyArm]
    title: str = ""
    base: Values = field(default_factory=dict)
    grid: Mapping[str, tuple] = field(default_factory=dict)
    exclude: tuple[Mapping[str, tuple], ...] = ()
    sources: Mapping[str, StudySource] = field(default_factory=dict)
    reference: str | None = None
    threshold: float | None = None
    compare: Comparisons = Comparisons()
    follows: str = ""
    needs: str = ""
    published: str = ""
    preprocessing: Mapping[str, str] = field(default_factory=dict)
    given: frozenset[str] = frozenset()

    @property
    def axes(self) -> tuple[str, ...]:
        """Every setting that some arm is run with several values of, in order."""
        own = (name for arm in self.arms.values() for name in arm.grid)
        return tuple(dict.fromkeys([*self.grid, *own]))

    @property
    def data_sources(self) -> tuple[str, ...]:
        """Every data set that some run is given."""
        parts = (*self.arms.values(), *self.sources.values())
        one = [self.base, *(part.settings for part in parts)]
        several = [self.grid, *(arm.grid for arm in self.arms.values())]
        named = [values.get("data.source") for values in one]
        named += [source for values in several for source in values.get("data.source", ())]
        return tuple(dict.fromkeys(source for source in named if source is not None))


def side_arm(side: str) -> str:
    """The arm that one side of a comparison, ARM or ARM@initial, names."""
    return side.partition("@")[0]


def only_arms(study: Study, names: tuple[str, ...]) -> Study:
    """The study of some of its arms; of all of them if none is named.

    Raises:
        ConfigError: There is no such arm.
    """
    for name in names:
        if name not in study.arms:
            raise ConfigError(f"No arm {name!r} in study {study.name}. {closest_names(name, study.arms)}")
    if not names:
        return study
    pairs = {
        kind: tuple(pair for pair in getattr(study.compare, kind) if {side_arm(side) for side in pair} <= set(names))
        for kind in ("cca", "predictions")
    }
    return replace(
        study,
        arms={name: arm for name, arm in study.arms.items() if name in names},
        exclude=tuple(rule for rule in study.exclude if set(rule.get("arm", names)) & set(names)),
        reference=study.reference if study.reference in names else None,
        compare=Comparisons(**pairs),
    )


def study_folder(study: Study, out: str | None) -> Path:
    """The study's folder: `out`, or `studies/<name>`."""
    return Path(out) if out is not None else Path("studies") / study.name


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
