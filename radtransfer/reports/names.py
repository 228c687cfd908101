"""Sorts runs into arms, what was trained alike but for chance, and says in words what each arm is.

What an arm starts from and what of it trains is read from the resolved plan that each run records, so that equal plans
of different names are equal.

What training changed in the arms of a report: layers by CCA, and the filters of the first convolution.

What a report is about: the arms, and what is to be said and compared, of a study or of any runs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from radtransfer.errors import RadtransferError, SimilarityError
from radtransfer.process import Progress
from radtransfer.reports.collect import CHANCE_RUN_ARMS as CHANCE
from radtransfer.reports.collect import (
    NETWORK,
    Arm,
    ArmRun,
    LayerChange,
    Row,
    StudyRecord,
    check_any,
    find_runs,
    read_arm_run,
    read_study,
)
from radtransfer.reports.statistics import GainPoint, relative_gain
from radtransfer.runs.folder import finished_folds
from radtransfer.runs.read import WITHOUT_WEIGHTS, depth_in_words, network_in_words, start_in_words, weights_in_words

_PREPROCESSING = "model.preprocessing"

_PLAN = ("model.weights", "model.backbone", "transfer.")
"""Settings that are told by start, depth and backbone."""

_RECIPE = "training."

_WORDS = {"data.source": "data"}
"""Settings whose own names would not be understood in a sentence."""


def sort_arms(runs: Sequence[ArmRun]) -> list[Arm]:
    """Runs that differ only by chance belong to one arm; arms are named by what they differ in."""
    groups: dict[str, list[ArmRun]] = {}
    for run in runs:
        groups.setdefault(run.alike, []).append(run)
    arms = describe_arms(list(groups.values()))
    return [replace(arm, name=name) for arm, name in zip(arms, _names(arms), strict=True)]


def describe_arms(groups: Sequence[Sequence[ArmRun]]) -> list[Arm]:
    """An arm, without a name, for each group of runs."""
    firsts = [group[0] for group in groups]
    apart = (*CHANCE, *_PLAN, _PREPROCESSING)
    names = dict.fromkeys(name for run in firsts for name in run.settings if not name.startswith(apart))
    others = [name for name in names if len({_text(run.settings.get(name)) for run in firsts}) > 1]
    networks = [network_in_words(run.record) or str(run.settings.get("model.backbone")) for run in firsts]
    modes: dict[str, set[str | None]] = {}
    for run, network in zip(firsts, networks, strict=True):
        modes.setdefault(network, set()).add(run.settings.get(_PREPROCESSING))
    return [
        Arm(
            name="",
            start=_start(run),
            depth=depth_in_words(run.record),
            backbone=network,
            recipe=_told(run, [name for name in others if name.startswith(_RECIPE)]),
            context=_told(run, [name for name in others if not name.startswith(_RECIPE)]),
            runs=tuple(group),
            preprocessing=f"{run.settings.get(_PREPROCESSING)} input" if len(modes[network]) > 1 else "",
        )
        for run, network, group in zip(firsts, networks, groups, strict=True)
    ]


def what_it_is(arm: Any) -> str:
    """Backbone, start, depth and what else is special, of an `Arm` or `ArmSummary`."""
    words = (arm.backbone, arm.start, arm.depth, arm.preprocessing, arm.recipe, arm.context)
    return ", ".join(filter(None, words))


def started_from(arm: Arm) -> str:
    """What an arm starts from, to follow "started from"."""
    return "random weights" if arm.start == "random" else arm.start


def differ_in(a: Arm, b: Arm) -> tuple[str, ...]:
    """What two arms differ in but for chance, in words: network, start, what trains, then names of settings."""
    pairs = [(NETWORK, a.backbone, b.backbone), ("start", a.start, b.start), ("what trains", a.depth, b.depth)]
    of_plan = [name for name, one, other in pairs if one != other]
    names = dict.fromkeys(name for arm in (a, b) for name in arm.runs[0].settings if not name.startswith(CHANCE))
    differing = [name for name in names if len({_text(arm.runs[0].settings.get(name)) for arm in (a, b)}) > 1]
    # Settings of a plan are told by the words above; where these are equal, nothing else tells of them.
    settings = [name for name in differing if not (of_plan and name.startswith(_PLAN))]
    return (*of_plan, *map(_called, settings))


def uses_weights(arm: Arm) -> bool:
    """Whether anything of an arm starts from pretrained weights, or from what is drawn like them."""
    stages = arm.runs[0].record.get("plan", {}).get("stages", [])
    return any(stage["starts_from"] not in WITHOUT_WEIGHTS for stage in stages)


def _called(setting: str) -> str:
    return _WORDS.get(setting) or setting.split(".")[-1].replace("_", " ")


def _told(run: ArmRun, names: Sequence[str]) -> str:
    return ", ".join(f"{name.split('.')[-1].replace('_', ' ')} {_text(run.settings.get(name))}" for name in names)


def _start(run: ArmRun) -> str:
    weights = str(run.record.get("weights", {}).get("source") or run.settings.get("model.weights") or "pretrained")
    told = start_in_words(run.record, weights_in_words(run.weights or weights))
    return told or str(run.settings.get("transfer.scheme") or weights)


def _names(arms: Sequence[Arm]) -> list[str]:
    """Folder names where each arm is one run, else what arms differ in; made unique."""
    if all(len(arm.runs) == 1 for arm in arms):
        names = [arm.runs[0].path.resolve().name for arm in arms]
        if len(set(names)) < len(names):
            names = [f"{arm.runs[0].path.resolve().parent.name}/{name}" for arm, name in zip(arms, names, strict=True)]
    else:
        keys = ("backbone", "start", "depth", "preprocessing", "recipe", "context")
        shown = [key for key in keys if len({getattr(arm, key) for arm in arms}) > 1]
        names = [", ".join(filter(None, (getattr(arm, key) for key in shown))) or arm.start for arm in arms]
    return [name if names.count(name) == 1 else f"{name} #{number}" for number, name in enumerate(names, start=1)]


def _text(value: Any) -> str:
    if value is None:
        return "not given"
    if isinstance(value, str) and "/" in value:
        return Path(value).name
    return f"{value:g}" if isinstance(value, float) else str(value)


TITLE = "What did transfer learning bring?"
TITLE_WITHOUT_TRANSFER = "How do these networks compare?"

Side = str
"""The name of an arm, or of an arm as it started: ARM@initial."""


@dataclass(frozen=True)
class Subject:
    """What a report is about.

    Attributes:
        title, subtitle: Of the page.
        arms: What is compared.
        notes: What was left out.
        about: A study's words; empty outside of one.
        threshold: AUC that steps are counted to; None where none was asked for.
        references: Arm to the arm that its gain is measured against.
        cca: Pairs of sides to compare layer by layer, each with its pairs of runs; None for each arm and its start.
        predictions: Pairs of arms whose errors are compared; None for all.
        sources: Rows of the runs that arms start from.
        unfinished: What is known of runs that are not finished; see `StudyRecord.state`.
    """

    title: str
    subtitle: str
    arms: Sequence[Arm]
    notes: list[str]
    about: Mapping[str, Any] = field(default_factory=dict)
    threshold: float | None = None
    references: Mapping[str, str] = field(default_factory=dict)
    cca: Mapping[tuple[Side, Side], Sequence[tuple[ArmRun, ArmRun]]] | None = None
    predictions: frozenset[frozenset[str]] | None = None
    sources: Sequence[Row] = ()
    unfinished: Sequence[Row] = ()


def find_subject(paths: Sequence[Path]) -> Subject:
    """The study, if one is named alone; else the runs in `paths`.

    Raises:
        RunError: No run, or none with a finished fold.
    """
    study = read_study(paths[0]) if len(paths) == 1 else None
    if study is not None:
        return _of_study(study)
    runs, notes = find_runs(paths)
    arms = sort_arms(runs)
    subtitle = ", ".join(dict.fromkeys(map(str, paths)))
    return Subject(_title(arms), subtitle, arms, notes, references=_random_starts(arms))


def _title(arms: Sequence[Arm]) -> str:
    if len(arms) == 1:
        return f"How well does {arms[0].backbone} do, started from {started_from(arms[0])}?"
    return TITLE if any(uses_weights(arm) for arm in arms) else TITLE_WITHOUT_TRANSFER


def _of_study(study: StudyRecord) -> Subject:
    notes: list[str] = []
    runs = _read_runs(study)
    check_any(list(runs.values()), [study.path])
    named = {name: [runs[row["run"]] for row in rows if row["run"] in runs] for name, rows in study.by_name().items()}
    same = _same_runs(named, notes)
    kept = {name: members for name, members in named.items() if members and same[name] == name}
    arms = [
        replace(arm, name=name, of_study=True)
        for name, arm in zip(kept, describe_arms(list(kept.values())), strict=True)
    ]
    pairs = [(same[a], same[b]) for a, b, *_ in study.pairs("predictions")]
    return Subject(
        title=study.about.get("title") or _title(arms),
        subtitle=f"Study {study.about.get('name') or study.path.name}, {study.path}",
        arms=arms,
        notes=notes,
        about=study.about,
        threshold=study.about.get("threshold"),
        references=_references(study, same, kept) or _random_starts(arms),
        cca=_cca_pairs(study, runs, same),
        predictions=frozenset(map(frozenset, pairs)) or None,
        sources=study.sources,
        unfinished=[now for row in study.rows if (now := study.state(row))["status"] != "finished"],
    )


def _read_runs(study: StudyRecord) -> dict[str, ArmRun]:
    """The runs of arms that have a finished fold, by key."""
    runs = {}
    for row in study.arms:
        folder = study.folder(row)
        if (folder / "run.json").is_file() and finished_folds(folder):
            runs[row["run"]] = read_arm_run(folder, weights=row["weights"])
    return runs


def _same_runs(named: Mapping[str, Sequence[ArmRun]], notes: list[str]) -> dict[str, str]:
    """Arm to the first arm that is the very same runs, most often itself."""
    first: dict[frozenset, str] = {}
    same = {}
    for name, members in named.items():
        same[name] = first.setdefault(frozenset(run.path for run in members), name) if members else name
        if same[name] != name:
            notes.append(f"{name}: the same runs as {same[name]}, shown once")
    return same


def _references(study: StudyRecord, same: Mapping[str, str], kept: Mapping[str, Any]) -> dict[str, str]:
    """Arm to the arm of the runs that the study measures it against, where both have a result."""
    arm_of = {row["run"]: study.arm_name(row) for row in study.arms if row["arm"] == study.about.get("reference")}
    found = {}
    for row in study.arms:
        name, other = same[study.arm_name(row)], arm_of.get(row["reference"])
        if other is not None and same[other] != name and {name, same[other]} <= kept.keys():
            found[name] = same[other]
    return found


def _random_starts(arms: Sequence[Arm]) -> dict[str, str]:
    """Arm to the arm that differs from it in nothing but that it starts at random."""
    random = {_but_start(arm): arm.name for arm in arms if arm.start == "random"}
    return {arm.name: random[_but_start(arm)] for arm in arms if arm.start != "random" and _but_start(arm) in random}


def _but_start(arm: Arm) -> tuple[str, ...]:
    return (arm.backbone, arm.depth, arm.recipe, arm.context, arm.preprocessing)


def _cca_pairs(
    study: StudyRecord, runs: Mapping[str, ArmRun], same: Mapping[str, str]
) -> dict[tuple[Side, Side], list[tuple[ArmRun, ArmRun]]] | None:
    """The pairs that the study names, with those of their runs that have a result; None where it names none."""
    found: dict[tuple[Side, Side], list] = {}
    for a, b, *keys in study.pairs("cca"):
        sides = tuple(same[arm] + at + moment for arm, at, moment in (side.partition("@") for side in (a, b)))
        if all(key in runs for key in keys):
            found.setdefault(sides, []).append(tuple(runs[key] for key in keys))
    return found or None


# These modules import TensorFlow, which a report without --cca does without.
if TYPE_CHECKING:
    from radtransfer.similarity.compare_layers import ComparisonSettings
    from radtransfer.similarity.compare_weights import Filters

CHANNELS = (64, 16)
"""Channels of a layer that CCA is computed of: fewer for all arms where images are too few for one of them."""

MOST_RUNS = 3
"""Runs of an arm that are compared."""

MOST_FILTERS = 4
"""Arms whose filters are shown."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class LayerChanges:
    """What was compared.

    Attributes:
        own: Arm to its layers before and after training, lowest first.
        pairs: Two sides, ARM or ARM@initial, to their layers.
        channels: Of which every similarity was computed.
    """

    own: Mapping[str, Sequence[LayerChange]]
    pairs: Mapping[tuple[str, str], Sequence[LayerChange]]
    channels: int = CHANNELS[0]


def layer_changes(subject: Subject, progress: Progress) -> LayerChanges:
    """The pairs that the study names, or each arm before and after training; what cannot be done is noted."""
    wanted = subject.cca
    if wanted is None:
        wanted = {(f"{arm.name}@initial", arm.name): [(run, run) for run in arm.runs] for arm in subject.arms}
    found, channels, notes = in_enough_channels(lambda settings: _compare_all(wanted, settings, progress))
    subject.notes.extend(notes)
    own = {sides: changes for sides, changes in found.items() if _is_own(sides)}
    return LayerChanges(
        {sides[0].partition("@")[0]: changes for sides, changes in own.items()},
        {sides: changes for sides, changes in found.items() if sides not in own},
        channels,
    )


def in_enough_channels(
    compare_all: "Callable[[ComparisonSettings], tuple[_T, list[str], bool]]", most: int = CHANNELS[0]
) -> tuple[_T, int, list[str]]:
    """What `compare_all` finds of as many channels as its images allow for, how many these are, and its notes.

    Args:
        compare_all: Gives what it found, what it could not, and whether there were too few images for something.
        most: Channels to begin with.
    """
    from radtransfer.similarity.compare_layers import ComparisonSettings
    from radtransfer.similarity.layer_rows import Sampling

    for dims in (dims for dims in CHANNELS if dims <= most):
        found, notes, too_few = compare_all(ComparisonSettings(sampling=Sampling(dims=dims)))
        if not too_few:
            break
    return found, dims, notes


def _compare_all(
    wanted: Mapping[tuple[str, str], Sequence[tuple[ArmRun, ArmRun]]],
    settings: "ComparisonSettings",
    progress: Progress,
) -> tuple[dict[tuple[str, str], list[LayerChange]], list[str], bool]:
    found, notes, too_few = {}, [], False
    for number, (sides, runs) in enumerate(wanted.items(), start=1):
        progress.count("networks compared", number, len(wanted))
        try:
            found[sides], left_out, few_rows = _compare_sides(sides, runs[:MOST_RUNS], settings, progress)
            who = f"{sides[0].partition('@')[0]} before and after training" if _is_own(sides) else " and ".join(sides)
            notes += [f"{who}: {text}" for text in left_out]
            too_few = too_few or few_rows
        except (RadtransferError, OSError) as error:
            what = (
                f"{sides[0].partition('@')[0]} is not compared before and after training"
                if _is_own(sides)
                else f"{' and '.join(sides)} are not compared"
            )
            notes.append(f"{what}: {error}")
            too_few = too_few or isinstance(error, SimilarityError)
        if too_few and settings.sampling.dims > min(CHANNELS):
            break
    return found, notes, too_few


def _compare_sides(
    sides: tuple[str, str], runs: Sequence[tuple[ArmRun, ArmRun]], settings: "ComparisonSettings", progress: Progress
) -> tuple[list[LayerChange], list[str], bool]:
    """All folds that both runs of each pair have; what is left out, and whether that is for want of rows."""
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
        # Runs of one fold see the same images: their errors add up. Those of other folds are independent.
        half = dict.fromkeys(folds, 0.0)
        for fold, item in zip(folds, items, strict=True):
            half[fold] += (item.ci95[1] - item.ci95[0]) / 2 / len(items)
        error = float(np.sqrt(sum(each**2 for each in half.values())))
        interval = (value - error, value + error)
    chance = max(
        (end for item in items for end in (item.null.closed_form, item.null.permuted) if end is not None), default=None
    )
    fewest = min(items, key=lambda item: item.rows)
    return LayerChange(items[0].layer, value, interval, chance, fewest.dims, fewest.rows, by_training=by_training)


def _is_own(sides: tuple[str, str]) -> bool:
    arms, moments = zip(*(side.partition("@")[::2] for side in sides), strict=True)
    return arms[0] == arms[1] and set(moments) == {"initial", ""}


def change_differences(subject: Subject, changes: Mapping[str, Sequence[LayerChange]]) -> list[dict[str, Any]]:
    """How much more alike to its start each layer stayed than in the reference of the same backbone.

    Each row has the difference and its 95 % interval, the errors of both taken as independent.

    References:
        Raghu et al. 2019, Transfusion (arXiv 1902.07208), Table 5.
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
    """Similarity and gain of each training, by arm and layer.

    The gain is relative to the arm's reference on the same seed and fold; arms without one are left out.
    """
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
    """The first convolution of each arm's first network before and after training; what cannot be read is noted."""
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
