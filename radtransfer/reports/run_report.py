"""A report on runs: what each arm scores, how they differ, and what to do, with the evidence."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from radtransfer.progress import Progress
from radtransfer.reports import run_sections as sections
from radtransfer.reports import training_sections as training
from radtransfer.reports.arm_comparison import PredictionShelf, compare_arms, summarize_arms
from radtransfer.reports.arm_results import ArmResults
from radtransfer.reports.page import Point, Points, Report, Section
from radtransfer.reports.report_folder import write_report
from radtransfer.reports.run_advice import advice
from radtransfer.reports.run_arms import Arm, find_runs, sort_arms
from radtransfer.reports.run_changes import change_differences, filter_changes, gain_points, layer_changes


def report_runs(
    paths: Sequence[Path],
    out: Path,
    *,
    threshold: float | None = None,
    cca: bool = True,
    progress: Progress | None = None,
) -> list[Path]:
    """Write a report on runs, each a run folder, a study or a folder of runs; gives the files, the page first.

    Args:
        paths: Where the runs are.
        out: The folder of the report.
        threshold: AUC that training steps are counted to; None chooses one that every arm reaches.
        cca: Also compare each arm's layers and filters before and after training, which needs its images and
            TensorFlow.
        progress: Hears what happens.

    Raises:
        RunError: No run, none with a result, or the folder cannot be written.
    """
    progress = progress or Progress()
    runs, notes = find_runs(paths)
    arms = sort_arms(runs)
    predictions = PredictionShelf(notes)
    summaries = summarize_arms(arms, predictions)
    differences = compare_arms(arms, summaries, predictions, progress)
    changes = layer_changes(arms, notes, progress) if cca else {}
    gains = gain_points(arms, changes)
    curves = training.watched_curves(arms)
    reached = training.usual_threshold(curves) if threshold is None else threshold
    results = _Results(
        arms=arms,
        found=ArmResults(summaries, differences, changes),
        notes=notes,
        curves=curves,
        steps=training.step_rows(arms, reached) if reached is not None else [],
        reused=change_differences(arms, changes),
        gains=gains,
        lines=training.gain_rows(gains),
        filters=filter_changes(arms, notes) if cca else {},
    )
    points = advice(results.found)
    subtitle = ", ".join(dict.fromkeys(str(path) for path in paths))
    return write_report(_page(results, points, subtitle), _values(results, points), out)


@dataclass(frozen=True)
class _Results:
    """All that the page shows; what each part is stands where it is made."""

    arms: Sequence[Arm]
    found: ArmResults
    notes: Sequence[str]
    curves: Mapping[str, Any]
    steps: Sequence[Mapping[str, Any]]
    reused: Sequence[Mapping[str, Any]]
    gains: Mapping[tuple[str, str], Any]
    lines: Sequence[Mapping[str, Any]]
    filters: Mapping[str, Any]


def _page(results: _Results, points: Sequence[Point], subtitle: str) -> Report:
    found, arms = results.found, results.arms
    changed = [
        *training.change_parts(found),
        *training.change_difference_parts(results.reused),
        *training.filter_parts(results.filters),
    ]
    return Report(
        title="What did transfer learning bring?",
        subtitle=subtitle,
        facts=sections.facts(found, arms),
        sections=[
            Section("advice", "Advice", [Points(points)] if points else []),
            Section("auc", "AUC", sections.auc_parts(found, arms)),
            Section("differences", "Differences", sections.difference_parts(found)),
            Section("convergence", "Convergence", training.convergence_parts(results.curves, results.steps)),
            Section("size", "Is a small network enough?", training.size_parts(found)),
            Section("cca", "What did training change?", changed),
            Section("gain", "Similarity against gain", training.gain_parts(results.gains, results.lines)),
            Section("predictions", "Do they err on the same images?", sections.agreement_parts(found)),
            Section("sources", "What was read, and what was left out", sections.source_parts(arms, results.notes)),
        ],
    )


def _values(results: _Results, points: Sequence[Point]) -> dict[str, Any]:
    """What `report.json` holds; what is not defined is null."""
    found, arms = results.found, results.arms
    return {
        "kind": "runs",
        "advice": [dataclasses.asdict(point) for point in points],
        "auc": [dataclasses.asdict(arm) for arm in found.arms],
        "differences": [dataclasses.asdict(difference) for difference in found.differences],
        "steps": list(results.steps),
        "cca": [{"arm": name} | dataclasses.asdict(c) for name, items in found.changes.items() for c in items],
        "cca_difference": list(results.reused),
        "gain": list(results.lines),
        "runs": [{"arm": arm.name, "path": str(run.path), "seed": run.seed} for arm in arms for run in arm.runs],
        "notes": list(results.notes),
    }
