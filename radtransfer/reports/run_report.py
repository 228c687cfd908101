"""A report on a study or on any runs: what each arm scores, how they differ, and what to do, with the evidence."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radtransfer.figures.style import set_subject
from radtransfer.progress import Progress
from radtransfer.reports.advice.advice import advice
from radtransfer.reports.advice.leaks import leak_points
from radtransfer.reports.advice.one_arm import one_arm
from radtransfer.reports.arms.arm_comparison import PredictionShelf, compare_arms, summarize_arms
from radtransfer.reports.arms.arm_results import ArmResults
from radtransfer.reports.arms.one_question import check_one_question, question
from radtransfer.reports.arms.run_changes import (
    LayerChanges,
    change_differences,
    filter_changes,
    gain_points,
    layer_changes,
)
from radtransfer.reports.arms.seed_pairs import seed_pairs
from radtransfer.reports.arms.step_differences import step_differences, step_rows, usual_threshold, watched_curves
from radtransfer.reports.arms.subject import Subject, find_subject
from radtransfer.reports.page import Picture, Point, Points, Report, Section, Table
from radtransfer.reports.report_folder import write_report
from radtransfer.reports.sections import changes as changed
from radtransfer.reports.sections import provenance
from radtransfer.reports.sections import runs as sections
from radtransfer.reports.sections.convergence import convergence_parts
from radtransfer.reports.sections.gain import gain_parts, gain_rows
from radtransfer.reports.sections.image_counts import ImageCounts, count_images
from radtransfer.reports.sections.seeds import seed_parts, seed_rows
from radtransfer.reports.sections.sources import source_rows, source_table

if TYPE_CHECKING:
    from radtransfer.comparisons.population import Population
    from radtransfer.comparisons.weights import Filters


def report_runs(
    paths: Sequence[Path],
    out: Path,
    *,
    threshold: float | None = None,
    cca: bool = True,
    progress: Progress | None = None,
) -> list[Path]:
    """Write a report on a study, or on runs; gives the files, the page first.

    A study, named alone, gives the page its words, and says what is compared and measured against what; the arms are
    called as in it. Of anything else, runs that differ in their seed alone are one arm.

    Args:
        paths: A study's folder, or run folders, studies and folders of runs.
        out: The folder of the report.
        threshold: AUC that training steps are counted to; None for the study's, or one that every arm reaches.
        cca: Also compare layers and filters, which needs the runs' images and TensorFlow.
        progress: Hears what happens.

    Raises:
        RunError: No run, none with a result, runs that answer different questions, or the folder cannot be written.
    """
    progress = _Counts(progress or Progress())
    subject = find_subject(paths)
    options = [] if threshold is None else ["--threshold", f"{threshold:g}"]
    runs = [run for arm in subject.arms for run in arm.runs]
    check_one_question(runs, out, options + ([] if cca else ["--no-cca"]))
    results = _results(subject, threshold if threshold is not None else subject.threshold, cca, progress)
    alone = one_arm(subject.arms[0]) if len(subject.arms) == 1 else ()
    points = [*leak_points(subject.arms), *alone, *advice(results.found)]
    return write_report(_page(results, points), _values(results, points), out)


class _Counts(Progress):
    """Passes on how far the work is; what each of many comparisons notes would be said many times over."""

    def __init__(self, progress: Progress):
        self._progress = progress

    def count(self, what: str, done: int, total: int) -> None:
        self._progress.count(what, done, total)


@dataclass(frozen=True)
class _Results:
    """All that the page shows; what each part is stands where it is made."""

    subject: Subject
    found: ArmResults
    counts: Mapping[str, ImageCounts]
    curves: Mapping[str, Any]
    steps: Sequence[Mapping[str, Any]]
    changes: LayerChanges
    gains: Mapping[tuple[str, str], Any]
    seeds: "Mapping[str, Population]"
    filters: "Mapping[str, Filters]"


def _results(subject: Subject, threshold: float | None, cca: bool, progress: Progress) -> _Results:
    arms = subject.arms
    predictions = PredictionShelf(subject.notes)
    summaries = summarize_arms(arms, predictions)
    images = {arm.name: arm.images for arm in summaries}
    kept = {arm: other for arm, other in subject.references.items() if images[arm] == images[other]}
    subject = dataclasses.replace(subject, references=kept)
    differences = compare_arms(arms, summaries, predictions, progress, named=subject.predictions or ())
    curves = watched_curves(arms)
    threshold = usual_threshold(curves) if threshold is None else threshold
    changes = layer_changes(subject, progress) if cca else LayerChanges({}, {})
    steps = [] if threshold is None else step_differences(arms, threshold)
    steps = [difference for difference in steps if images[difference.a] == images[difference.b]]
    return _Results(
        subject=subject,
        found=ArmResults(summaries, differences, changes.own, steps, threshold),
        counts=count_images(arms),
        curves=curves,
        steps=[] if threshold is None else step_rows(arms, threshold),
        changes=changes,
        gains=gain_points(subject, changes.own),
        seeds=seed_pairs(subject, progress, channels=changes.channels) if cca else {},
        filters=filter_changes(arms, subject.notes) if cca else {},
    )


def _page(results: _Results, points: Sequence[Point]) -> Report:
    found, subject = results.found, results.subject
    own = [
        *changed.own_parts(results.changes.own),
        *changed.change_difference_parts(change_differences(subject, results.changes.own)),
        *changed.filter_parts(results.filters),
    ]
    gain = gain_parts(results.gains, gain_rows(results.gains))
    what = subject.arms[0].runs[0].scoring.subject
    return Report(
        title=subject.title,
        subtitle=subject.subtitle,
        facts=provenance.facts(found, subject, results.counts),
        sections=[
            Section("advice", "Advice", [Points(points)] if points else []),
            Section(
                "auc",
                "AUC",
                [*_of(what, sections.auc_parts(found, subject.arms)), *provenance.published_parts(subject)],
            ),
            Section("differences", "Differences", _of(what, sections.difference_parts(found, subject.references))),
            Section(
                "convergence", "How soon", _of(what, convergence_parts(results.curves, results.steps, found.steps))
            ),
            Section("size", "Is a small network enough?", _of(what, sections.size_parts(found))),
            Section("sources", "What the source knew", source_table(source_rows(subject, found))),
            Section("cca", "What did training change?", own),
            Section("pairs", "How alike are the networks?", changed.pair_parts(results.changes.pairs)),
            Section("seeds", "Pretrained against random, over seeds", seed_parts(results.seeds)),
            Section("gain", "Similarity against gain", gain),
            Section("predictions", "Same errors?", sections.agreement_parts(found, subject.predictions)),
            Section(
                "runs", "What was read, and what was left out", provenance.provenance_parts(subject, results.counts)
            ),
        ],
    )


def _of(subject: str, parts: Sequence[Any]) -> list[Any]:
    """Figures and tables of AUCs, with what these are of, as `Scoring.subject` says it."""
    if not subject:
        return list(parts)
    for part in parts:
        if isinstance(part, Picture):
            set_subject(part.figure.axes[0], subject)
    return [
        dataclasses.replace(part, caption=f"{part.caption} AUC of {subject}.")
        if isinstance(part, Picture | Table)
        else part
        for part in parts
    ]


def _values(results: _Results, points: Sequence[Point]) -> dict[str, Any]:
    """What `report.json` holds; what is not defined is null."""
    found, subject, own = results.found, results.subject, results.changes.own
    return {
        "kind": "study" if subject.about else "runs",
        "study": dict(subject.about) or None,
        "question": question(subject.arms[0].runs[0].scoring),
        "positive_class": subject.arms[0].runs[0].scoring.positive_class,
        "data": [{"arm": name} | dataclasses.asdict(counts) for name, counts in results.counts.items()],
        "advice": [dataclasses.asdict(point) for point in points],
        "auc": [dataclasses.asdict(arm) for arm in found.arms],
        "differences": [dataclasses.asdict(difference) for difference in found.differences],
        "steps": list(results.steps),
        "step_differences": [dataclasses.asdict(difference) for difference in found.steps],
        "sources": source_rows(subject, found),
        "cca": [{"arm": name} | dataclasses.asdict(c) for name, items in own.items() for c in items],
        "cca_difference": change_differences(subject, own),
        "cca_pairs": [
            {"a": a, "b": b} | dataclasses.asdict(c) for (a, b), items in results.changes.pairs.items() for c in items
        ],
        "seed_pairs": seed_rows(results.seeds),
        "gain": gain_rows(results.gains),
        "runs": [
            {"arm": arm.name, "path": str(run.path), "seed": run.seed} for arm in subject.arms for run in arm.runs
        ],
        "unfinished": list(subject.unfinished),
        "notes": list(subject.notes),
    }
