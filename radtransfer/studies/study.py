"""A study: named arms and lists of values whose combinations are runs, and what is to be compared among them.

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
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from radtransfer.errors import ConfigError, closest_names

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
