"""What a report is about: runs sorted into arms and named by what they differ in, and what is to be compared.

What an arm starts from and what of it trains is read from the plan that each run records, so that equal plans of
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
from radtransfer.runs.read import WITHOUT_WEIGHTS, depth_in_words, network_in_words, start_in_words, weights_in_words

NETWORK = "network"
"""What arms of different backbones differ in, as `differ_in` calls it."""

SETTINGS = ("recipe", "context", "preprocessing")
"""Attributes of an arm that must be equal where its start, or what of it trains, is compared."""

MOST_CLASSES = 12
"""Classes that a question names; of more, the first."""

TITLE = "Does transfer learning help?"
TITLE_WITHOUT_TRANSFER = "How do these networks compare?"

_PLAN = ("model.weights", "model.backbone", "transfer.")
"""Settings that are told by start, depth and backbone."""

Side = str
"""The name of an arm, or of an arm as it started: ARM@initial."""


@dataclass(frozen=True)
class Subject:
    """What a report is about."""

    title: str
    subtitle: str
    arms: Sequence[Arm]
    notes: list[str]  # what was left out
    about: Mapping[str, Any] = field(default_factory=dict)  # a study's words; empty outside of one
    threshold: float | None = None  # AUC that steps are counted to; None where none was asked for
    references: Mapping[str, str] = field(default_factory=dict)  # arm to the arm that its gain is measured against
    cca: Mapping[tuple[Side, Side], Sequence[tuple[ArmRun, ArmRun]]] | None = None
    """Pairs of sides to compare layer by layer, each with its pairs of runs; None for each arm and its start."""
    predictions: frozenset[frozenset[str]] | None = None  # pairs of arms whose errors are compared; None for all
    sources: Sequence[Row] = ()  # of the runs that arms start from
    unfinished: Sequence[Row] = ()  # what is known of runs that are not finished; see `StudyRecord.state`


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


def check_one_question(runs: Iterable[ArmRun], out: Path, options: Sequence[str] = ()) -> None:
    """See that all runs have the same classes, kind of labels, and positive grades or class.

    Raises:
        RunError: They have not; the message names the runs of each question, and a command with `options` for each,
            whose folder is called after `out`.
    """
    asked: dict[Scoring, list[ArmRun]] = {}
    for run in runs:
        asked.setdefault(run.scoring, []).append(run)
    if len(asked) < 2:
        return
    lines = [
        f"Expected runs that answer one question: AUCs of different questions cannot be compared. "
        f"Received {len(asked)} questions:"
    ]
    words = [question(scoring) for scoring in asked]
    for text, (scoring, its) in zip(words, asked.items(), strict=True):
        # Of two runs that tell the same classes apart, the positive class is what differs.
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
    """Runs that differ only by chance belong to one arm; arms are named by what they differ in."""
    groups: dict[str, list[ArmRun]] = {}
    for run in runs:
        kept = {name: value for name, value in run.settings.items() if not name.startswith(CHANCE)}
        groups.setdefault(json.dumps(kept, sort_keys=True, default=str), []).append(run)
    arms = describe_arms(list(groups.values()))
    return [replace(arm, name=name) for arm, name in zip(arms, _names(arms), strict=True)]


def describe_arms(groups: Sequence[Sequence[ArmRun]]) -> list[Arm]:
    """An arm, without a name, for each group of runs."""
    firsts = [group[0] for group in groups]
    apart = (*CHANCE, *_PLAN, "model.preprocessing")
    names = dict.fromkeys(name for run in firsts for name in run.settings if not name.startswith(apart))
    others = [name for name in names if len({short(run.settings.get(name)) for run in firsts}) > 1]
    networks = [network_in_words(run.record) or str(run.settings.get("model.backbone")) for run in firsts]
    scales: dict[str, set] = {}
    for network, run in zip(networks, firsts, strict=True):
        scales.setdefault(network, set()).add(str(run.settings.get("model.preprocessing")))

    def told(run: ArmRun, *, training: bool) -> str:
        shown = [name for name in others if name.startswith("training.") == training]
        return ", ".join(f"{_word(name)} {short(run.settings.get(name), 'not given')}" for name in shown)

    return [
        Arm(
            name="",
            start=_start(run),
            depth=depth_in_words(run.record),
            backbone=network,
            recipe=told(run, training=True),
            context=told(run, training=False),
            runs=tuple(group),
            preprocessing=f"{run.settings.get('model.preprocessing')} input" if len(scales[network]) > 1 else "",
        )
        for group, network, run in zip(groups, networks, firsts, strict=True)
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
    differing = [name for name in names if len({short(arm.runs[0].settings.get(name)) for arm in (a, b)}) > 1]
    # Settings of a plan are told by the words above; where these are equal, nothing else tells of them.
    settings = [name for name in differing if not (of_plan and name.startswith(_PLAN))]
    return (*of_plan, *("data" if name == "data.source" else _word(name) for name in settings))


def but_start(arm: Any) -> tuple[str, ...]:
    """What arms have in common, `Arm` or `ArmSummary`, that differ in their start alone."""
    return tuple(getattr(arm, key) for key in ("backbone", "depth", *SETTINGS))


def _title(arms: Sequence[Arm]) -> str:
    if len(arms) == 1:
        return f"How well does {arms[0].backbone} perform, trained from {started_from(arms[0])}?"
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
    # Arm to the first arm that is the very same runs, most often itself.
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
    random = {but_start(arm): arm.name for arm in arms if arm.start == "random"}
    return {arm.name: random[but_start(arm)] for arm in arms if arm.start != "random" and but_start(arm) in random}


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


def _word(setting: str) -> str:
    return setting.split(".")[-1].replace("_", " ")


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
