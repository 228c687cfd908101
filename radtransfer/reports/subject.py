"""The subject of a report: runs grouped into arms, named by their differences, and the comparisons to make.

Initialization and trained layers of an arm are read from the plan recorded by each run, so that equal plans with
different names are equal.
"""

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from radtransfer.errors import RunError
from radtransfer.evaluation.scoring import Scoring
from radtransfer.reports.collect import (
    CHANCE,
    Arm,
    ArmRun,
    Row,
    StudyRecord,
    find_runs,
    read_arm_run,
    read_study,
    short,
)
from radtransfer.reports.statistics import listed
from radtransfer.runs.folder import finished_folds
from radtransfer.runs.read import WITHOUT_WEIGHTS, depth_in_words, init_in_words, network_in_words, weights_in_words

NETWORK = "network"  # the word of `differ_in` for different backbones

SETTINGS = ("recipe", "context", "preprocessing")
"""Attributes of arms that have to be equal to compare their initialization or depth."""

MOST_CLASSES = 12  # most classes named in a question

TITLE = "Does transfer learning help?"
TITLE_WITHOUT_TRANSFER = "How do these networks compare?"

_PLAN = ("model.weights", "model.backbone", "transfer.")  # settings that are part of start, depth and backbone

Side = str
"""The name of an arm, or ARM@initial for its networks before training."""


@dataclass(frozen=True)
class Subject:
    """The subject of a report."""

    title: str
    subtitle: str
    arms: Sequence[Arm]
    notes: list[str]  # on omitted runs and comparisons
    about: Mapping[str, Any] = field(default_factory=dict)  # the texts of a study; empty without one
    threshold: float | None = None  # AUC for the steps, if given by the study
    references: Mapping[str, str] = field(default_factory=dict)  # arm to its reference for the gain
    cca: Mapping[tuple[Side, Side], Sequence[tuple[ArmRun, ArmRun]]] | None = None
    """Pairs to compare layer by layer, each with its pairs of runs; None for each arm before and after training."""
    predictions: frozenset[frozenset[str]] | None = None  # pairs of arms for the agreement of errors; None for all
    sources: Sequence[Row] = ()  # runs that provide initial weights
    unfinished: Sequence[Row] = ()  # runs that are not finished; see `StudyRecord.state`


def find_subject(paths: Sequence[Path]) -> Subject:
    """The study, if `paths` is a single study; else the runs in `paths`. RunError without a finished fold."""
    study = read_study(paths[0]) if len(paths) == 1 else None
    if study is not None:
        return _of_study(study)
    runs, notes = find_runs(paths)
    arms = sort_arms(runs)
    subtitle = ", ".join(dict.fromkeys(map(str, paths)))
    return Subject(_title(arms), subtitle, arms, notes, references=_random_starts(arms))


def check_one_question(runs: Iterable[ArmRun], out: Path, options: Sequence[str] = ()) -> None:
    """Raise RunError unless all runs have the same classes, kind of labels, and positive grades or class.

    The message names the runs of each question and a command for each, with `options` and a folder named after `out`.
    """
    asked: dict[Scoring, list[ArmRun]] = {}
    for run in runs:
        asked.setdefault(run.scoring, []).append(run)
    if len(asked) < 2:
        return
    lines = [
        f"Expected runs of one question, because AUCs of different questions cannot be compared. "
        f"Received {len(asked)} questions:"
    ]
    words = [question(scoring) for scoring in asked]
    for text, (scoring, its) in zip(words, asked.items(), strict=True):
        # With the same classes, the positive class is what differs.
        text = f"{text} {scoring.subject}" if words.count(text) > 1 else text
        lines.append(f"  {text}  {listed([str(run.path) for run in its])}")
    lines.append("Make a report of each:")
    for number, its in enumerate(asked.values(), start=1):
        words = ["radtransfer", "report", *(str(run.path) for run in its), *options, "--out", f"{out}-{number}"]
        lines.append(f"  {shlex.join(words)}")
    raise RunError("\n".join(lines))


def question(scoring: Scoring) -> str:
    """What the main AUC measures, such as "benign or malignant?" or "grade ≥ 2, of grades 0, 1 and 2?"."""
    classes = scoring.classes
    word = "and" if scoring.positive_from is not None or scoring.task == "multilabel" else "or"
    names = listed(classes, word)
    if len(classes) > MOST_CLASSES:
        names = f"{', '.join(classes[:MOST_CLASSES])}, … ({len(classes):,} classes)"
    if scoring.positive_from is not None:
        return f"grade ≥ {scoring.positive_from}, of grades {names}?"
    if scoring.task == "multilabel":
        return f"{names}: {'each ' if len(classes) > 1 else ''}present or not?"
    return f"{names}?"


def sort_arms(runs: Sequence[ArmRun]) -> list[Arm]:
    """Group runs that differ only by chance into arms, and name the arms by their differences."""
    groups: dict[str, list[ArmRun]] = {}
    for run in runs:
        kept = {name: value for name, value in run.settings.items() if not name.startswith(CHANCE)}
        groups.setdefault(json.dumps(kept, sort_keys=True, default=str), []).append(run)
    arms = describe_arms(list(groups.values()))
    return [replace(arm, name=name) for arm, name in zip(arms, _names(arms), strict=True)]


def describe_arms(groups: Sequence[Sequence[ArmRun]]) -> list[Arm]:
    """An arm without a name for each group of runs."""
    firsts = [group[0] for group in groups]
    apart = (*CHANCE, *_PLAN, "model.preprocessing")
    names = dict.fromkeys(name for run in firsts for name in run.settings if not name.startswith(apart))
    others = [name for name in names if len({short(run.settings.get(name)) for run in firsts}) > 1]
    networks = [network_in_words(run.record) or str(run.settings.get("model.backbone")) for run in firsts]
    scales: dict[str, set] = {}
    for network, run in zip(networks, firsts, strict=True):
        scales.setdefault(network, set()).add(str(run.settings.get("model.preprocessing")))

    def differing(run: ArmRun, *, training: bool) -> str:
        shown = [name for name in others if name.startswith("training.") == training]
        return ", ".join(f"{_word(name)} {short(run.settings.get(name), 'not given')}" for name in shown)

    return [
        Arm(
            name="",
            start=_start(run),
            depth=depth_in_words(run.record),
            backbone=network,
            recipe=differing(run, training=True),
            context=differing(run, training=False),
            runs=tuple(group),
            preprocessing=f"{run.settings.get('model.preprocessing')} input" if len(scales[network]) > 1 else "",
        )
        for group, network, run in zip(groups, networks, firsts, strict=True)
    ]


def describe_arm(arm: Any) -> str:
    """Backbone, initialization, depth and special settings of an `Arm` or `ArmSummary`."""
    words = (arm.backbone, arm.start, arm.depth, arm.preprocessing, arm.recipe, arm.context)
    return ", ".join(filter(None, words))


def initial_weights(arm: Arm) -> str:
    """The initialization of an arm, to follow "from"."""
    return "random weights" if arm.start == "random" else arm.start


def differ_in(a: Arm, b: Arm) -> tuple[str, ...]:
    """The differences of two arms except for chance, in words: network, start, what trains, names of settings."""
    pairs = [(NETWORK, a.backbone, b.backbone), ("start", a.start, b.start), ("what trains", a.depth, b.depth)]
    of_plan = [name for name, one, other in pairs if one != other]
    names = dict.fromkeys(name for arm in (a, b) for name in arm.runs[0].settings if not name.startswith(CHANCE))
    differing = [name for name in names if len({short(arm.runs[0].settings.get(name)) for arm in (a, b)}) > 1]
    # Settings of a plan are listed only if the words above are equal.
    settings = [name for name in differing if not (of_plan and name.startswith(_PLAN))]
    return (*of_plan, *("data" if name == "data.source" else _word(name) for name in settings))


def all_but_start(arm: Any) -> tuple[str, ...]:
    """Everything but the initialization of an `Arm` or `ArmSummary`, for comparison."""
    return tuple(getattr(arm, key) for key in ("backbone", "depth", *SETTINGS))


def _title(arms: Sequence[Arm]) -> str:
    if len(arms) == 1:
        return f"How well does {arms[0].backbone} perform, trained from {initial_weights(arms[0])}?"
    stages = [stage for arm in arms for stage in arm.runs[0].record.get("plan", {}).get("stages", [])]
    return TITLE if any(stage["starts_from"] not in WITHOUT_WEIGHTS for stage in stages) else TITLE_WITHOUT_TRANSFER


def _of_study(study: StudyRecord) -> Subject:
    notes: list[str] = []
    runs = {}
    for row in study.arms:
        folder = study.folder(row)
        if (folder / "run.json").is_file() and finished_folds(folder):
            runs[row["run"]] = read_arm_run(folder, weights=row["weights"])
    if not runs:
        raise RunError(f"Expected runs with a finished fold. Received: {study.path}.")
    named = {name: [runs[row["run"]] for row in rows if row["run"] in runs] for name, rows in study.by_name().items()}
    # Arm to the first arm with the same runs, usually itself.
    first: dict[frozenset, str] = {}
    same = {}
    for name, members in named.items():
        same[name] = first.setdefault(frozenset(run.path for run in members), name) if members else name
        if same[name] != name:
            notes.append(f"{name}: the same runs as {same[name]}, shown once")
    kept = {name: members for name, members in named.items() if members and same[name] == name}
    described = zip(kept, describe_arms(list(kept.values())), strict=True)
    arms = [replace(arm, name=name, of_study=True) for name, arm in described]
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


def _references(study: StudyRecord, same: Mapping[str, str], kept: Mapping[str, Any]) -> dict[str, str]:
    """Arm to its reference in the study, if both have a result."""
    arm_of = {row["run"]: study.arm_name(row) for row in study.arms if row["arm"] == study.about.get("reference")}
    found = {}
    for row in study.arms:
        name, other = same[study.arm_name(row)], arm_of.get(row["reference"])
        if other is not None and same[other] != name and {name, same[other]} <= kept.keys():
            found[name] = same[other]
    return found


def _random_starts(arms: Sequence[Arm]) -> dict[str, str]:
    """Arm to the arm that differs from it only in its random initialization."""
    random = {all_but_start(arm): arm.name for arm in arms if arm.start == "random"}
    return {
        arm.name: random[all_but_start(arm)] for arm in arms if arm.start != "random" and all_but_start(arm) in random
    }


def _cca_pairs(
    study: StudyRecord, runs: Mapping[str, ArmRun], same: Mapping[str, str]
) -> dict[tuple[Side, Side], list[tuple[ArmRun, ArmRun]]] | None:
    """The pairs named in the study, with their runs that have a result; None if it names none."""
    found: dict[tuple[Side, Side], list] = {}
    for a, b, *keys in study.pairs("cca"):
        sides = tuple(same[arm] + at + moment for arm, at, moment in (side.partition("@") for side in (a, b)))
        if all(key in runs for key in keys):
            found.setdefault(sides, []).append(tuple(runs[key] for key in keys))
    return found or None


def _word(setting: str) -> str:
    return setting.split(".")[-1].replace("_", " ")


def _start(run: ArmRun) -> str:
    weights = str(run.record.get("weights", {}).get("source") or run.settings.get("model.weights") or "pretrained")
    start = init_in_words(run.record, weights_in_words(run.weights or weights))
    return start or str(run.settings.get("transfer.scheme") or weights)


def _names(arms: Sequence[Arm]) -> list[str]:
    """Unique names of arms: folder names if each arm is one run, else their differences."""
    if all(len(arm.runs) == 1 for arm in arms):
        names = [arm.runs[0].path.resolve().name for arm in arms]
        if len(set(names)) < len(names):
            names = [f"{arm.runs[0].path.resolve().parent.name}/{name}" for arm, name in zip(arms, names, strict=True)]
    else:
        keys = ("backbone", "start", "depth", "preprocessing", "recipe", "context")
        shown = [key for key in keys if len({getattr(arm, key) for arm in arms}) > 1]
        names = [", ".join(filter(None, (getattr(arm, key) for key in shown))) or arm.start for arm in arms]
    return [name if names.count(name) == 1 else f"{name} #{number}" for number, name in enumerate(names, start=1)]
