"""Reads and writes the YAML file of a study; all mistakes are reported together, each with its line.

study:                 the name and a description
  name: depth
  title: How deep should ImageNet weights be reused?
  reference: scratch   the arm that gains are measured against
  threshold: 0.9       the AUC for counting steps
base:                  settings of every run, as in any config
  data: {source: images.csv}
  model.weights: imagenet
arms:                  the arms to compare, each with its differences from the base; a control names its weights
  scratch: {model.weights: random}
  transfer: {}
  transfusion:
    transfer.scheme: transfusion
    grid: {transfer.through: [stem, stage1]}
grid:                  every arm runs with every combination of these settings
  seed: [0, 1, 2]
exclude:               combinations to leave out
  - {arm: scratch, seed: 2}
sources:               runs whose weights others use as `source:NAME`; a source has the same backbone as the run that
  natural:             uses it, or shares the settings listed under `same`
    data: {source: photographs}
    same: [model.backbone]
compare:               for the report: pairs of arms, before (@initial) or after training
  cca: [[transfer@initial, transfer]]
  predictions: [[transfer, scratch]]
preprocessing:         input scale of a network's arms that do not set their own; default: that of the first
  resnet50: caffe      pretrained weights among them
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from radtransfer.config.load import (
    checked_settings,
    closest_setting,
    find_config,
    flat_settings,
    parse_sets,
    raise_mistakes,
    setting_fields,
)
from radtransfer.config.yaml_text import read_yaml, write_blocks
from radtransfer.errors import ConfigError, closest_names
from radtransfer.models.backbone import BACKBONES
from radtransfer.studies.study import (
    COMPARISONS,
    SOURCE,
    Study,
    StudyArm,
    StudySource,
    only_arms,
    side_arm,
    with_preprocessing,
)
from radtransfer.training.names import check_value

_WORDS = ("title", "follows", "needs", "published")
_ABOUT = ("name", *_WORDS, "reference", "threshold", "given")
_SECTIONS = ("study", "base", "sources", "arms", "grid", "exclude", "compare", "preprocessing")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*$")


def is_study(source: str) -> bool:
    """Whether the shipped name or file is a study, not the settings of one run."""
    document, _ = read_yaml(find_config(source))
    return isinstance(document, dict) and bool({"arms", "study"} & set(document))


def load_study(
    source: str, *, sets: Iterable[str] = (), options: Mapping[str, Any] | None = None, arms: Iterable[str] = ()
) -> Study:
    """Read and check the study of a shipped name (`"quick-advice"`) or a YAML path, with all `arms` or only these.

    `sets` are texts such as `"base.training.epochs=5"`, `"grid.seed=[0, 1]"` or `"arms.transfer.model.weights=FILE"`;
    a setting without a section belongs to the base, as do the dotted `options`. Raises ConfigError, which lists all
    mistakes with their lines.
    """
    path = find_config(source)
    document, lines = read_yaml(path)
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: expected a study with arms. Received: {type(document).__name__}")
    if "arms" not in document and not set(document) & {"study", "base", "grid"}:
        raise ConfigError(
            f"{path.name}: expected a study with arms. Received: the settings of one run. "
            f"Use: radtransfer finetune {source}"
        )
    reader = _Reader(document, path.name, dict(lines))
    controls = reader.controls()
    for key, value in parse_sets(sets, reader.mistakes):
        reader.put(key, value, origin=f"--set {key}")
    for key, value in (options or {}).items():
        reader.put(key, value, origin="the command line")
    study = reader.study(path.stem)
    reader.check_names(study)
    reader.check_controls(study, controls)
    raise_mistakes(reader.mistakes, "study")
    arms = tuple(arms)
    return only_arms(with_preprocessing(study), arms) if arms else study


def study_text(study: Study) -> str:
    """The study as YAML that `load_study` reads."""
    about = {name: getattr(study, name) for name in _ABOUT} | {"given": sorted(study.given)}
    document = {
        "study": {name: value for name, value in about.items() if value not in ("", None, [])},
        "base": study.base,
        "sources": {name: {**item.settings, "same": item.same} for name, item in study.sources.items()},
        "arms": {name: arm.settings | ({"grid": arm.grid} if arm.grid else {}) for name, arm in study.arms.items()},
        "grid": study.grid,
        "exclude": study.exclude,
        "compare": {kind: study.compare[kind] for kind in COMPARISONS if study.compare.get(kind)},
        "preprocessing": study.preprocessing,
    }
    return write_blocks(_plain({name: value for name, value in document.items() if value}))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


class _Reader:
    """The sections of a study's file with flat, unchecked settings, their lines, and the mistakes found."""

    def __init__(self, document: dict[str, Any], file: str, lines: dict[str, int | str]) -> None:
        self.file, self.lines, self.mistakes = file, lines, []
        for key in document:
            if key not in _SECTIONS:
                self.wrong(f"unknown section {key!r}. {closest_names(str(key), _SECTIONS)}", str(key))
        arms = {
            name: self.mapping(arm, "arms", name) for name, arm in self.mapping(document.get("arms"), "arms").items()
        }
        named = self.mapping(document.get("sources"), "sources")
        sources = {name: self.mapping(source, "sources", name) for name, source in named.items()}
        self.arm_grids = {
            name: self.settings(arm.pop("grid", None), "arms", name, "grid") for name, arm in arms.items()
        }
        self.same = {name: source.pop("same") for name, source in sources.items() if "same" in source}
        self.about = self.mapping(document.get("study"), "study")
        self.base = self.settings(document.get("base"), "base")
        self.sources = {name: self.settings(source, "sources", name) for name, source in sources.items()}
        self.arms = {name: self.settings(arm, "arms", name) for name, arm in arms.items()}
        self.grid = self.settings(document.get("grid"), "grid")
        self.exclude = document.get("exclude") or []
        self.compare = document.get("compare")
        self.preprocessing = self.mapping(document.get("preprocessing"), "preprocessing")

    def put(self, key: str, value: Any, *, origin: str) -> None:
        """Change one value, as `--set` does; `origin` names it in messages."""
        section, _, rest = key.partition(".")
        if section in ("arms", "sources"):
            named = getattr(self, section)
            name = next((name for name in named if rest.startswith(f"{name}.")), None)
            if name is None:
                self.mistakes.append(f"{origin}: {closest_names(rest.partition('.')[0], named)}")
                return
            rest = rest[len(name) + 1 :]
            in_grid = section == "arms" and rest.startswith("grid.")
            (self.arm_grids if in_grid else named)[name][rest.removeprefix("grid.") if in_grid else rest] = value
        elif section in ("base", "grid", "study") or (section == "preprocessing" and rest):
            (self.about if section == "study" else getattr(self, section))[rest] = value
        else:
            self.base[key] = value
            key = f"base.{key}"
        self.lines[key] = origin

    def place(self, *parts: str) -> str:
        name = ".".join(parts)
        line = self.lines.get(name)
        return line if isinstance(line, str) else f"{self.file}, {name}" if line is None else f"{self.file} line {line}"

    def wrong(self, text: str, *parts: str) -> None:
        self.mistakes.append(f"{self.place(*parts)}: {text}")

    def mapping(self, value: Any, *parts: str) -> dict[str, Any]:
        """`value` if it is a mapping; otherwise an empty one and a mistake."""
        if isinstance(value, dict) or value is None:
            return {str(key): item for key, item in (value or {}).items()}
        self.wrong(f"{parts[-1]}: expected `key: value` lines. Received: {value!r}", *parts)
        return {}

    def settings(self, value: Any, *parts: str) -> dict[str, Any]:
        """Nested or dotted settings as unchecked dotted names and values."""
        return flat_settings(self.mapping(value, *parts), source=self.place(*parts), mistakes=self.mistakes)

    def checked(self, values: Mapping[str, Any], *parts: str) -> dict[str, Any]:
        """Dotted settings with checked and converted values."""
        places = {name: self.place(*parts, name) for name in values}
        if "out" in values:
            self.wrong("the study names its run folders itself; remove `out`", *parts, "out")
        kept = {key: item for key, item in values.items() if key != "out"}
        sections = checked_settings(kept, places, self.mistakes, check=check_value)
        return {
            f"{section}.{key}".lstrip("."): item for section, part in sections.items() for key, item in part.items()
        }

    def lists(self, values: Mapping[str, Any], *parts: str) -> dict[str, tuple]:
        """Dotted settings, each with its distinct, checked values."""
        result = {}
        for name, items in values.items():
            if not isinstance(items, list) or not items:
                self.wrong(f"{name} needs a list of values, such as [0, 1]. Received: {items!r}", *parts, name)
                continue
            checked = [self.checked({name: item}, *parts) for item in items]
            found = [item[name] for item in checked if name in item]
            result[name] = tuple(value for i, value in enumerate(found) if value not in found[:i])
        return result

    def study(self, name: str) -> Study:
        """Check all sections; `name` is the default name of the study."""
        about = self._read_about(name)
        if not self.arms:
            self.wrong("a study needs arms, such as `arms: {scratch: {}, transfer: {model.weights: imagenet}}`", "arms")
        for item in (*self.arms, *self.sources):
            if not _NAME.match(item):
                self.mistakes.append(
                    f"{self.file}: expected a name of letters, digits and _.+- for an arm or source. Received: {item!r}"
                )
        arms = {
            item: StudyArm(self.checked(arm, "arms", item), self.lists(self.arm_grids[item], "arms", item, "grid"))
            for item, arm in self.arms.items()
        }
        return Study(
            **about,
            arms=arms,
            base=self.checked(self.base, "base"),
            grid=self.lists(self.grid, "grid"),
            exclude=self._read_exclude(),
            sources={item: self._read_source(item) for item in self.sources},
            compare=self._read_compare(),
            preprocessing=self._read_preprocessing(),
        )

    def _read_about(self, name: str) -> dict[str, Any]:
        about = {"name": name} | self.about
        for key in [key for key in about if key not in _ABOUT]:
            self.wrong(f"unknown key {key!r}. {closest_names(key, _ABOUT)}", "study", key)
            del about[key]
        for key in _WORDS:
            about[key] = str(about.get(key) or "").strip()
        if not _NAME.match(str(about["name"])):
            self.wrong(f"expected a name of letters, digits and _.+-. Received: {about['name']!r}", "study", "name")
        if not isinstance(about.get("reference"), str | None):
            self.wrong(
                f"reference: expected the name of an arm. Received: {about['reference']!r}", "study", "reference"
            )
            del about["reference"]
        given = about.get("given", [])
        if not isinstance(given, list):
            text = f"given: expected a list of settings such as base.data.source. Received: {given!r}"
            self.wrong(text, "study", "given")
            given = []
        outside = (key for key, line in self.lines.items() if isinstance(line, str) and ".data." in key)
        about["given"] = frozenset([*map(str, given), *outside])
        threshold = about.get("threshold")
        is_number = isinstance(threshold, int | float) and not isinstance(threshold, bool)
        if threshold is not None and not (is_number and 0 <= threshold <= 1):
            self.wrong(f"threshold: expected an AUC from 0 to 1. Received: {threshold!r}", "study", "threshold")
        return about

    def _read_exclude(self) -> tuple[dict[str, tuple], ...]:
        if not isinstance(self.exclude, list):
            self.wrong(f"exclude: expected a list of `- {{arm: …, setting: …}}`. Received: {self.exclude!r}", "exclude")
            return ()
        result = []
        for number, rule in enumerate(self.exclude):
            if not isinstance(rule, dict) or not rule:
                text = f"entry {number + 1} of exclude: expected `{{arm: …, setting: …}}`. Received: {rule!r}"
                self.wrong(text, "exclude")
                result.append({})
                continue
            flat = self.settings(rule, "exclude", str(number))
            lists = {key: item if isinstance(item, list) else [item] for key, item in flat.items()}
            arms = {"arm": tuple(lists.pop("arm"))} if "arm" in lists else {}
            result.append(arms | self.lists(lists, "exclude", str(number)))
        return tuple(result)

    def _read_source(self, name: str) -> StudySource:
        settings = self.checked(self.sources[name], "sources", name)
        if str(settings.get("model.weights", "")).startswith(SOURCE):
            self.wrong("a source cannot start from another source", "sources", name, "model.weights")
        same = self.same.get(name, [item for item in StudySource.same if item not in settings])
        same = [same] if isinstance(same, str) else same
        if not isinstance(same, list):
            self.wrong(f"same: expected a list of settings. Received: {same!r}", "sources", name, "same")
            same = []
        for item in same:
            if item not in setting_fields():
                hint = closest_setting(str(item), setting_fields())
                self.wrong(f"unknown setting {item!r}. {hint}", "sources", name, "same")
        return StudySource(settings, tuple(map(str, same)))

    def _read_compare(self) -> dict[str, tuple[tuple[str, str], ...]]:
        kinds = {}
        for kind, pairs in self.mapping(self.compare, "compare").items():
            if kind not in COMPARISONS:
                self.wrong(f"unknown key {kind!r}. {closest_names(kind, COMPARISONS)}", "compare", kind)
            elif not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
                text = f"{kind}: expected a list of pairs of arms, [[a, b], …]. Received: {pairs!r}"
                self.wrong(text, "compare", kind)
            elif pairs:
                kinds[kind] = tuple((str(one), str(other)) for one, other in pairs)
        return kinds

    def _read_preprocessing(self) -> dict[str, str]:
        """Backbone to input scale; `auto` leaves it to the weights."""
        for backbone, mode in self.preprocessing.items():
            try:
                BACKBONES.check(backbone)
                check_value("model.preprocessing", str(mode))
            except ConfigError as error:
                self.wrong(str(error), "preprocessing", backbone)
        return {backbone: str(mode) for backbone, mode in self.preprocessing.items() if mode != "auto"}

    def controls(self) -> list[str]:
        """Arms with random weights only by default, in a study where other arms set theirs."""
        if self.base.get("model.weights", "random") != "random" or "model.weights" in self.grid:
            return []
        named = {name: {**arm, **self.arm_grids[name]}.get("model.weights") for name, arm in self.arms.items()}
        pretrained = any(weights not in (None, "random") for weights in named.values())
        return [name for name, weights in named.items() if weights is None and pretrained]

    def check_controls(self, study: Study, controls: Sequence[str]) -> None:
        """Weights given for all arms must not turn the controls of the file into pretrained arms."""
        weights = {"base": [study.base.get("model.weights")], "grid": study.grid.get("model.weights", ())}
        for section, values in weights.items():
            if controls and set(values) - {None, "random"}:
                names = ", ".join(controls)
                self.wrong(
                    f"{names} would start from these weights, but in {self.file} they start from random ones, in "
                    "contrast to arms with weights. Give the weights to an arm, --set arms.NAME.model.weights=…; or "
                    f"set `model.weights: random` in {names} and the weights in base.",
                    section,
                    "model.weights",
                )

    def check_names(self, study: Study) -> None:
        """Check that every name of an arm, a source or a setting exists."""
        for name in set(study.base) & set(study.grid):
            self.wrong(f"{name} is in base and in grid; remove one of them", "grid", name)

        def check(name: str, known: Mapping[str, Any], kind: str, *parts: str) -> None:
            if name not in known:
                self.wrong(f"no {kind} {name!r}. {closest_names(name, known) if known else ''}", *parts)

        if study.reference is not None:
            check(study.reference, study.arms, "arm", "study", "reference")
        for number, rule in enumerate(study.exclude):
            for name in rule.get("arm", ()):
                check(str(name), study.arms, "arm", "exclude", str(number), "arm")
        for kind in COMPARISONS:
            for side in (side for pair in study.compare.get(kind, ()) for side in pair):
                check(side_arm(side), study.arms, "arm", "compare", kind)
                if side.partition("@")[2] not in ("", "initial", "final") or (kind == "predictions" and "@" in side):
                    self.wrong(f"expected ARM or, for cca, ARM@initial. Received: {side!r}", "compare", kind)
        weights = [(("base",), (study.base.get("model.weights"),)), (("grid",), study.grid.get("model.weights", ()))]
        for name, arm in study.arms.items():
            weights.append((("arms", name), (arm.settings.get("model.weights"),)))
            weights.append((("arms", name, "grid"), arm.grid.get("model.weights", ())))
        for parts, values in weights:
            for value in values:
                if str(value).startswith(SOURCE):
                    check(value.removeprefix(SOURCE), study.sources, "source", *parts, "model.weights")
