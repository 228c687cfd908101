"""The parts of a report that tell what it was made from: facts, published figures, the runs, and what is missing."""

from collections.abc import Mapping
from typing import Any

from radtransfer.reports.arms.arm_results import ArmResults
from radtransfer.reports.arms.one_question import question
from radtransfer.reports.arms.subject import Subject
from radtransfer.reports.page import Point, Points, Prose, Table
from radtransfer.reports.sections.image_counts import ImageCounts, count_facts, count_table


def facts(found: ArmResults, subject: Subject, counts: Mapping[str, ImageCounts]) -> list[tuple[str, str]]:
    """What stands under the title."""
    tested = {(difference.patients, difference.unit) for difference in found.differences}
    runs = {run.path for arm in subject.arms for run in arm.runs}
    sets = found.image_sets
    scoring = subject.arms[0].runs[0].scoring
    shown = [("question", question(scoring))]
    shown += count_facts(counts) if sets < 2 else [("sets of test images", str(sets))]
    shown += [("arms", str(len(subject.arms))), ("runs", str(len(runs)))]
    shown.append(("networks trained", str(sum(arm.trainings for arm in found.arms))))
    if len(tested) == 1:
        (count, unit) = tested.pop()
        shown.append((f"{unit} tested", f"{count:,}"))
    shown += [("positive class", scoring.positive_class)] if scoring.positive_class is not None else []
    unfinished = [row["status"] for row in subject.unfinished]
    shown += [(f"runs {_STATUS[status]}", str(unfinished.count(status))) for status in _STATUS if status in unfinished]
    return shown


def published_parts(subject: Subject) -> list[Prose]:
    """What a study follows, and the published figures to hold its own against."""
    words = {"follows": "Follows", "published": "Published, to compare with"}
    return [Prose(f"{title}: {text}", kept=True) for key, title in words.items() if (text := subject.about.get(key))]


def provenance_parts(subject: Subject, counts: Mapping[str, ImageCounts]) -> list[Any]:
    """Which runs were read, which have no result, and what was left out."""
    rows = [
        {"arm": arm.name, "run": str(run.path), "seed": run.seed, "folds": [fold.fold for fold in run.folds]}
        for arm in subject.arms
        for run in arm.runs
    ]
    cells = [[row["arm"], row["run"], str(row["seed"]), ", ".join(map(str, row["folds"]))] for row in rows]
    parts: list[Any] = [*_unfinished_table(subject), *count_table(counts, subject.arms)]
    parts.append(
        Table("runs", "The runs behind each arm.", ["arm", "run", "seed", "folds"], cells, rows, text_columns=2)
    )
    notes = [Point("left out", f"{note.rstrip('.')}.") for note in subject.notes]
    return [*parts, Points(notes)] if notes else parts


def _unfinished_table(subject: Subject) -> list[Table]:
    if not subject.unfinished:
        return []
    rows = [
        {"arm": row["arm"], **row["labels"], "run": row["run"], "status": row["status"]}
        | {"folds": row["folds"], "error": row["error"]}
        for row in subject.unfinished
    ]
    labels = any(row["labels"] for row in subject.unfinished)
    cells = [
        [row["arm"], *([_labels(row["labels"])] if labels else []), row["run"]]
        + [_STATUS[row["status"]], _short(row["error"]), str(row["folds"])]
        for row in subject.unfinished
    ]
    caption = (
        "Runs of the study that are not finished. Folds that are count in this report; the rest is missing from it, "
        "and an arm without any is not in it."
    )
    header = ["arm", *(["with"] if labels else []), "run", "state", "why", "folds done"]
    return [Table("unfinished", caption, header, cells, rows, text_columns=len(header) - 1)]


def _labels(labels: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.rpartition('.')[2]} {value}" for name, value in labels.items())


def _short(error: str | None) -> str:
    """The first line of a message; the whole is in the table's file."""
    lines = (error or "–").splitlines()
    return lines[0] if len(lines[0]) <= _LONG else f"{lines[0][:_LONG]}…"


_LONG = 160
_STATUS = {"partly": "partly done", "failed": "failed", "waiting": "not yet run", "gone": "no longer there"}
