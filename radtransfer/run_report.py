"""A report on runs: what each arm scores, how they differ, and what to do, with the evidence."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from radtransfer import run_sections as sections
from radtransfer import training_sections as training
from radtransfer.arm_comparison import PredictionShelf, compare_arms, summarize_arms
from radtransfer.arm_results import ArmResults
from radtransfer.progress import Progress
from radtransfer.report_folder import write_report
from radtransfer.report_page import Points, Report, Section
from radtransfer.run_advice import advice
from radtransfer.run_arms import find_runs, sort_arms
from radtransfer.run_changes import change_differences, filter_changes, gain_points, layer_changes


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
    filters = filter_changes(arms, notes) if cca else {}
    gains = gain_points(arms, changes)
    lines = training.gain_rows(gains)
    found = ArmResults(summaries, differences, changes)
    curves = training.watched_curves(arms)
    reached = training.usual_threshold(curves) if threshold is None else threshold
    steps = training.step_rows(arms, reached) if reached is not None else []
    points = advice(found)
    reused = change_differences(arms, changes)
    changed = [
        *training.change_parts(found),
        *training.change_difference_parts(reused),
        *training.filter_parts(filters),
    ]
    report = Report(
        title="What did transfer learning bring?",
        subtitle=", ".join(dict.fromkeys(str(path) for path in paths)),
        facts=sections.facts(found, arms),
        sections=[
            Section("advice", "Advice", [Points(points)] if points else []),
            Section("auc", "AUC", sections.auc_parts(found, arms)),
            Section("differences", "Differences", sections.difference_parts(found)),
            Section("convergence", "Convergence", training.convergence_parts(curves, steps)),
            Section("size", "Is a small network enough?", training.size_parts(found)),
            Section("cca", "What did training change?", changed),
            Section("gain", "Similarity against gain", training.gain_parts(gains, lines)),
            Section("predictions", "Do they err on the same images?", sections.agreement_parts(found)),
            Section("sources", "What was read, and what was left out", sections.source_parts(arms, notes)),
        ],
    )
    values = {
        "kind": "runs",
        "advice": [dataclasses.asdict(point) for point in points],
        "auc": [dataclasses.asdict(arm) for arm in found.arms],
        "differences": [dataclasses.asdict(difference) for difference in differences],
        "steps": steps,
        "cca": [{"arm": name} | dataclasses.asdict(c) for name, items in changes.items() for c in items],
        "cca_difference": reused,
        "gain": lines,
        "runs": [{"arm": arm.name, "path": str(run.path), "seed": run.seed} for arm in arms for run in arm.runs],
        "notes": notes,
    }
    return write_report(report, values, out)
