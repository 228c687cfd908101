"""Changes during training in the arms of a report: CCA of layers, filters of the first convolution, and seeds.

References:
    Raghu et al. 2019, Transfusion (arXiv 1902.07208), Fig. 2 and 4 (seeds), Table 5 (change of layers).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from radtransfer.errors import RadtransferError, SimilarityError
from radtransfer.process import Progress
from radtransfer.reports.collect import Arm, ArmRun
from radtransfer.reports.statistics import GainPoint, Interval, relative_gain
from radtransfer.reports.subject import Subject, all_but_start
from radtransfer.runs.read import init_in_words

# These modules import TensorFlow, which a report without --cca does not need.
if TYPE_CHECKING:
    from radtransfer.similarity.compare_layers import ComparisonSettings
    from radtransfer.similarity.compare_weights import Filters
    from radtransfer.similarity.population import Population

CHANNELS = (64, 16)  # channels per layer for CCA; the smaller number for all arms if one of them has too few images
MOST_RUNS = 3  # of an arm
MOST_FILTERS = 4  # arms with filters in the report

_Key, _T = TypeVar("_Key"), TypeVar("_T")


@dataclass(frozen=True)
class LayerChange:
    """Similarity of a layer before and after training, or in two networks."""

    layer: str
    similarity: float | None  # CCA, 0–1; None if undefined
    ci95: Interval | None = None  # over images
    chance: float | None = None  # score of unrelated layers
    dims: int | None = None  # channels; only scores with the same dims and rows are comparable
    rows: int | None = None  # positions
    by_training: Mapping[str, float] = field(default_factory=dict)  # of each fold, by `TrainedFold.key`


@dataclass(frozen=True)
class LayerChanges:
    """All similarities of layers."""

    own: Mapping[str, Sequence[LayerChange]]  # arm to its layers before and after training, lowest first
    pairs: Mapping[tuple[str, str], Sequence[LayerChange]]  # two sides, ARM or ARM@initial, to their layers
    channels: int = CHANNELS[0]  # for every similarity


def layer_changes(subject: Subject, progress: Progress) -> LayerChanges:
    """The pairs named in the study, or each arm before and after training; failures are noted."""
    wanted = subject.cca
    if wanted is None:
        wanted = {(f"{arm.name}@initial", arm.name): [(run, run) for run in arm.runs] for arm in subject.arms}
    own_arm = {sides: _own_arm(sides) for sides in wanted}

    def compare(sides: tuple[str, str], settings: "ComparisonSettings") -> tuple[list[LayerChange], list[str], bool]:
        return _compare_sides(sides, wanted[sides][:MOST_RUNS], settings, progress)

    def describe(sides: tuple[str, str], failed: bool) -> str:
        if own_arm[sides] is None:
            return f"{' and '.join(sides)}{' are not compared' if failed else ''}"
        return f"{own_arm[sides]}{' is not compared' if failed else ''} before and after training"

    counted = lambda done: progress.count("networks compared", done, len(wanted))  # noqa: E731
    found, channels, notes = _in_enough_channels(list(wanted), compare, describe, counted)
    subject.notes.extend(notes)
    own = {own_arm[sides]: changes for sides, changes in found.items() if own_arm[sides] is not None}
    return LayerChanges(own, {sides: items for sides, items in found.items() if own_arm[sides] is None}, channels)


def seed_pairs(subject: Subject, progress: Progress, *, channels: int = CHANNELS[0]) -> "dict[str, Population]":
    """Every pair of the first runs of an arm and of its random reference (their first folds), by the arm's name.

    Only fully pretrained arms with a reference that differs only in its random initialization, both with at least two
    seeds. Failures are noted. CCA uses at most `channels` per layer.
    """
    by_name, wanted = {arm.name: arm for arm in subject.arms}, {}
    for name, baseline in subject.references.items():
        arms = by_name[name], by_name[baseline]
        # The initialization of the first fold of each run, from its plan.
        starts = [
            {
                f"{run.path}/fold_{run.folds[0].fold}": init_in_words(run.record, "pretrained")
                for run in arm.runs[:MOST_RUNS]
            }
            for arm in arms
        ]
        known = [{*each.values()} for each in starts] == [{"pretrained"}, {"random"}]
        if all_but_start(arms[0]) == all_but_start(arms[1]) and known and min(map(len, starts)) > 1:
            wanted[name] = starts[0] | starts[1]
    if not wanted:
        return {}
    from radtransfer.similarity.population import compare_population

    def compare(name: str, settings: "ComparisonSettings") -> "tuple[Population, list[str], bool]":
        starts = wanted[name]
        found = compare_population(list(starts), settings, starts=starts, progress=progress)
        return found, found.left_out, bool(found.few_rows)

    def describe(name: str, failed: bool) -> str:
        return f"the seeds of {name}" + (" are not compared with each other" if failed else "")

    counted = lambda done: progress.count("arms compared over seeds", done, len(wanted))  # noqa: E731
    found, _, notes = _in_enough_channels(list(wanted), compare, describe, counted, channels)
    subject.notes.extend(notes)
    return found


def change_differences(subject: Subject, changes: Mapping[str, Sequence[LayerChange]]) -> list[dict[str, Any]]:
    """CCA before and after training, minus that of the reference of the same backbone, with a 95 % interval.

    The errors of both are taken as independent. Reference: Raghu et al. 2019, Transfusion, Table 5.
    """
    rows, by_name = [], {arm.name: arm for arm in subject.arms}
    for name, baseline in subject.references.items():
        if by_name[name].backbone != by_name[baseline].backbone:
            continue
        of_random = {change.layer: change for change in changes.get(baseline, ())}
        for change in changes.get(name, ()):
            other = of_random.get(change.layer)
            if other is None or change.similarity is None or other.similarity is None:
                continue
            value, interval = change.similarity - other.similarity, None
            if change.ci95 is not None and other.ci95 is not None:
                half = float(np.hypot(np.ptp(change.ci95), np.ptp(other.ci95))) / 2
                interval = (value - half, value + half)
            row = {"arm": name, "reference": baseline, "layer": change.layer}
            rows.append(row | {"difference": value, "ci95": interval})
    return rows


def gain_points(subject: Subject, changes: Mapping[str, Sequence[LayerChange]]) -> dict[tuple[str, str], list]:
    """Similarity and gain of each training, by arm and layer; the gain is relative to the reference on its fold."""
    points: dict[tuple[str, str], list] = {}
    by_name = {arm.name: arm for arm in subject.arms}
    for name, baseline in subject.references.items():
        arm, other = by_name[name], by_name[baseline]
        aucs, of_random = ({fold.key: fold.auc for fold in each.folds} for each in (arm, other))
        target = Path(str(arm.runs[0].settings.get("data.source") or "the data")).name
        for change in changes.get(name, ()):
            points[name, change.layer] = [
                GainPoint(target, key, similarity, relative_gain(aucs[key], of_random[key]))
                for key, similarity in change.by_training.items()
                if aucs.get(key) is not None and of_random.get(key)
            ]
    return points


def filter_changes(arms: Sequence[Arm], notes: list[str]) -> "dict[str, Filters]":
    """The first convolution of each arm's first network before and after training; failures are noted."""
    from radtransfer.similarity.compare_weights import compare_weights

    found = {}
    for arm in arms[:MOST_FILTERS]:
        path, fold = arm.runs[0].path, arm.runs[0].folds[0].fold
        try:
            filters = compare_weights(f"{path}@initial", f"{path}@final", folds=(fold,)).filters
        except (RadtransferError, OSError) as error:
            notes.append(f"{arm.name}: its filters cannot be read: {error}")
            continue
        if filters is not None:
            found[arm.name] = filters
    if len(arms) > MOST_FILTERS:
        notes.append(f"filters of {', '.join(arm.name for arm in arms[MOST_FILTERS:])} are not shown")
    return found


def _in_enough_channels(
    wanted: Sequence[_Key],
    compare: "Callable[[_Key, ComparisonSettings], tuple[_T, list[str], bool]]",
    describe: Callable[[_Key, bool], str],
    counted: Callable[[int], None],
    most: int = CHANNELS[0],
) -> tuple[dict[_Key, _T], int, list[str]]:
    """The results for all of `wanted`, with as many channels as their images allow; the channels, and notes.

    `compare` gives a result, notes on omitted layers, and whether images were too few.
    """
    from radtransfer.similarity.compare_layers import ComparisonSettings
    from radtransfer.similarity.layer_rows import Sampling

    for dims in (dims for dims in CHANNELS if dims <= most):
        found, notes, too_few = {}, [], False
        for number, key in enumerate(wanted, start=1):
            counted(number)
            try:
                found[key], left_out, few = compare(key, ComparisonSettings(sampling=Sampling(dims=dims)))
                notes += [f"{describe(key, False)}: {text}" for text in left_out]
                too_few = too_few or few
            except (RadtransferError, OSError) as error:
                notes.append(f"{describe(key, True)}: {error}")
                too_few = too_few or isinstance(error, SimilarityError)
            if too_few and dims > min(CHANNELS):
                break
        if not too_few:
            break
    return found, dims, notes


def _compare_sides(
    sides: tuple[str, str], runs: Sequence[tuple[ArmRun, ArmRun]], settings: "ComparisonSettings", progress: Progress
) -> tuple[list[LayerChange], list[str], bool]:
    """All common folds of each pair of runs; notes on omitted layers, and whether rows were too few."""
    from radtransfer.similarity.compare_layers import compare

    moments = [side.partition("@")[2] or "final" for side in sides]
    compared, left_out, few_rows = [], {}, False
    for one, other in runs:
        for fold in one.folds:
            if fold.fold in {each.fold for each in other.folds}:
                a, b = (f"{run.path}@{moment}" for run, moment in zip((one, other), moments, strict=True))
                comparison = compare(a, b, replace(settings, folds=(fold.fold,)), progress=progress)
                left_out |= dict.fromkeys(comparison.left_out)
                few_rows = few_rows or bool(comparison.few_rows)
                compared.append((fold.key, fold.fold, comparison.layers))
    keys, folds, layers = zip(*compared, strict=True) if compared else ((), (), ())
    return [_change(keys, folds, items) for items in zip(*layers, strict=True)], list(left_out), few_rows


def _change(keys: Sequence[str], folds: Sequence[int], items: Sequence[Any]) -> LayerChange:
    """The mean over trainings, and each one's value."""
    by_training = {k: item.similarity for k, item in zip(keys, items, strict=True) if item.similarity is not None}
    value = float(np.mean(list(by_training.values()))) if len(by_training) == len(items) else None
    interval = None
    if value is not None and all(item.ci95 is not None for item in items):
        # Runs of one fold use the same images: their errors add up. Those of different folds are independent.
        half = dict.fromkeys(folds, 0.0)
        for fold, item in zip(folds, items, strict=True):
            half[fold] += (item.ci95[1] - item.ci95[0]) / 2 / len(items)
        error = float(np.sqrt(sum(each**2 for each in half.values())))
        interval = (value - error, value + error)
    ends = (end for item in items for end in (item.null.closed_form, item.null.permuted) if end is not None)
    chance, fewest = max(ends, default=None), min(items, key=lambda item: item.rows)
    return LayerChange(items[0].layer, value, interval, chance, fewest.dims, fewest.rows, by_training)


def _own_arm(sides: tuple[str, str]) -> str | None:
    """The arm of which these are the networks before and after training; None for any other pair."""
    arms, moments = zip(*(side.partition("@")[::2] for side in sides), strict=True)
    return arms[0] if arms[0] == arms[1] and set(moments) == {"initial", ""} else None
