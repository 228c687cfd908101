"""What a report is about: the arms, and what is to be said and compared, of a study or of any runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from radtransfer.reports.arms.arm_names import describe_arms, sort_arms, started_from, uses_weights
from radtransfer.reports.arms.run_arms import Arm, ArmRun, check_any, find_runs, read_arm_run
from radtransfer.reports.arms.study_record import Row, StudyRecord, read_study
from radtransfer.runs import finished_folds

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
