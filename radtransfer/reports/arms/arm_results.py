"""What a comparison of arms found, as plain values: the table from which a report is drawn and its advice is worded."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from radtransfer.reports.arms.step_differences import Interval, StepDifference

NETWORK = "network"
"""What arms of different backbones differ in, as `ArmDifference.differ_in` calls it."""

SETTINGS = ("recipe", "context", "preprocessing")
"""Attributes of an arm that must be equal where its start, or what of it trains, is compared."""


@dataclass(frozen=True)
class ArmSummary:
    """Networks that were trained alike but for chance: runs that differ in their seed, and their folds.

    Attributes:
        name: Unique.
        start: What it starts from, such as "imagenet" or "random".
        depth: What trains, such as "all" or "above stage1".
        backbone: Of the network, and its width.
        recipe: Settings of training in which arms of the report differ; empty where there are none.
        context: The same of all other settings.
        parameters, trainable: Of the backbone.
        trainings: Networks trained, each a seed and a fold.
        seeds: Different seeds.
        mean, sd: AUC over trainings, sd with ddof 1.
        pooled: AUC of the out-of-fold predictions taken together, averaged over repeats and seeds.
        ci95: Its 95 % interval over patients.
        of_study: Whether its name is that of a study's arm.
        images: Which of the report's sets of test images it was tested on, from 1.
        preprocessing: Its input scale, such as "caffe input"; empty where all arms of its backbone have the same.
    """

    name: str
    start: str
    depth: str
    backbone: str
    recipe: str = ""
    context: str = ""
    parameters: int | None = None
    trainable: int | None = None
    trainings: int = 1
    seeds: int = 1
    mean: float | None = None
    sd: float | None = None
    pooled: float | None = None
    ci95: Interval | None = None
    of_study: bool = False
    images: int = 1
    preprocessing: str = ""

    @property
    def origin(self) -> str:
        """What it starts from, in a sentence: the arm itself, where a study gave it a name."""
        return f"“{self.name}”" if self.of_study else self.start


@dataclass(frozen=True)
class ArmDifference:
    """Arm A less arm B on the same images and folds.

    Attributes:
        a, b: Names.
        value: Difference of the pooled AUCs.
        ci95: 95 % interval over patients, the trained networks taken as they are.
        patients: How many; images where patients are not known.
        unit: What `patients` counts: "patients" or "images".
        fold_mean, fold_sd, fold_ci95: Of the differences training by training, on the same fold and seed.
        trainings, better: How many such differences, and in how many A is better.
        p: Of DeLong's test, where each arm is one run of one question; None otherwise.
        kappa: Cohen's, of being right or wrong about the same images.
        kappa_ci95: Its 95 % interval over patients.
        agreement: Share of images on which both are right or both wrong, and that of independent networks.
        differ_in: In words, such as "start" or "learning rate".
    """

    a: str
    b: str
    value: float
    ci95: Interval | None
    patients: int
    unit: str = "patients"
    fold_mean: float | None = None
    fold_sd: float | None = None
    fold_ci95: Interval | None = None
    trainings: int = 1
    better: int = 0
    p: float | None = None
    kappa: float | None = None
    kappa_ci95: Interval | None = None
    agreement: tuple[float, float] | None = None
    differ_in: tuple[str, ...] = ()

    def turned(self) -> "ArmDifference":
        """B less A."""
        return replace(
            self,
            a=self.b,
            b=self.a,
            value=-self.value,
            ci95=_turned(self.ci95),
            fold_mean=None if self.fold_mean is None else -self.fold_mean,
            fold_ci95=_turned(self.fold_ci95),
            better=self.trainings - self.better,
        )


@dataclass(frozen=True)
class LayerChange:
    """How alike a layer is before and after training.

    Attributes:
        layer: Which.
        similarity: CCA, 0–1; None where it is not defined.
        ci95: 95 % interval over images.
        chance: What unrelated layers score.
        dims, rows: Channels and positions that it was computed of; only scores of the same compare.
        by_training: Similarity of each fold, by what `TrainedFold.key` calls it.
    """

    layer: str
    similarity: float | None
    ci95: Interval | None = None
    chance: float | None = None
    dims: int | None = None
    rows: int | None = None
    by_training: Mapping[str, float] = field(default_factory=dict)


_Difference = TypeVar("_Difference", ArmDifference, StepDifference)


@dataclass(frozen=True)
class ArmResults:
    """The whole table.

    Attributes:
        arms: In the order given.
        differences: Of the pairs that were compared.
        changes: Arm to the layers before and after training, lowest first; empty where it was not compared.
        steps: Differences in training steps to the threshold.
        threshold: Test AUC that steps are counted to.
    """

    arms: Sequence[ArmSummary]
    differences: Sequence[ArmDifference] = ()
    changes: Mapping[str, Sequence[LayerChange]] = field(default_factory=dict)
    steps: Sequence[StepDifference] = ()
    threshold: float | None = None

    def difference(self, a: str, b: str) -> ArmDifference | None:
        """A less B; None where they were not compared."""
        return _between(self.differences, a, b)

    def step_difference(self, a: str, b: str) -> StepDifference | None:
        """Steps of A less steps of B; None where they were not compared."""
        return _between(self.steps, a, b)

    @property
    def scored(self) -> list[ArmSummary]:
        """The arms that have an AUC, best first among those of the same test images: by the pooled, else the mean."""
        return sorted((arm for arm in self.arms if arm.mean is not None), key=lambda arm: (arm.images, -_score(arm)))

    @property
    def image_sets(self) -> int:
        """How many sets of images were tested on; arms of different ones are not compared."""
        return len({arm.images for arm in self.scored})


def groups_of(found: ArmResults, alike: Sequence[str], *, by: str) -> Iterator[list[ArmSummary]]:
    """Arms, best first, that have the same test images and attributes in `alike`, and at least two values of `by`."""
    groups: dict[tuple, list[ArmSummary]] = {}
    for arm in found.scored:
        groups.setdefault(tuple(getattr(arm, name) for name in (*alike, "images")), []).append(arm)
    for arms in groups.values():
        if len({getattr(arm, by) for arm in arms}) > 1:
            yield arms


def _between(differences: Sequence[_Difference], a: str, b: str) -> _Difference | None:
    for found in differences:
        if (found.a, found.b) == (a, b):
            return found
        if (found.a, found.b) == (b, a):
            return found.turned()
    return None


def _score(arm: ArmSummary) -> float:
    return arm.mean if arm.pooled is None else arm.pooled


def _turned(interval: Interval | None) -> Interval | None:
    return None if interval is None else (-interval[1], -interval[0])
