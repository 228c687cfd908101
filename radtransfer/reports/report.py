"""A report on a study or on any runs: AUC of each arm, differences, and advice with its evidence."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radtransfer.process import Progress
from radtransfer.reports import sections
from radtransfer.reports.advice import advice, leak_points, one_arm
from radtransfer.reports.arms import (
    ArmResults,
    PredictionCache,
    compare_arms,
    step_differences,
    step_rows,
    summarize_arms,
    test_curves,
    usual_threshold,
)
from radtransfer.reports.changes import (
    LayerChanges,
    change_differences,
    filter_changes,
    gain_points,
    layer_changes,
    seed_pairs,
)
from radtransfer.reports.figures import set_subject
from radtransfer.reports.page import Picture, Point, Report, say, write_report
from radtransfer.reports.subject import Subject, check_one_question, find_subject, question

if TYPE_CHECKING:
    from radtransfer.similarity.compare_weights import Filters
    from radtransfer.similarity.population import Population


def report_runs(
    paths: Sequence[Path],
    out: Path,
    *,
    threshold: float | None = None,
    cca: bool = True,
    progress: Progress | None = None,
) -> list[Path]:
    """Write a report on a study, or on runs, and give its files, the page first.

    A single study defines texts, names of arms, comparisons and references; otherwise, runs that differ only in their
    seed are one arm. `threshold` is the AUC for steps, by default that of the study or one that every arm reaches;
    `cca` also compares layers and filters, which needs the images of the runs and TensorFlow.
    """
    progress = _Counts(progress or Progress())
    subject = find_subject(paths)
    arms = subject.arms
    options = [] if threshold is None else ["--threshold", f"{threshold:g}"]
    check_one_question([run for arm in arms for run in arm.runs], out, options + ([] if cca else ["--no-cca"]))
    results = _results(subject, threshold if threshold is not None else subject.threshold, cca, progress)
    alone = one_arm(arms[0]) if len(arms) == 1 else ()
    points = [*leak_points(arms), *alone, *advice(results.found)]
    return write_report(_page(results, points), _values(results, points), out)


class _Counts(Progress):
    """Passes on counts only, without the notes of each of many comparisons."""

    def __init__(self, progress: Progress):
        self._progress = progress

    def count(self, what: str, done: int, total: int) -> None:
        self._progress.count(what, done, total)


@dataclass(frozen=True)
class _Results:
    """The content of the page."""

    subject: Subject
    found: ArmResults
    counts: Sequence[Mapping[str, Any]]
    curves: Mapping[str, Any]
    steps: Sequence[Mapping[str, Any]]
    changes: LayerChanges
    gains: Mapping[tuple[str, str], Any]
    seeds: "Mapping[str, Population]"
    filters: "Mapping[str, Filters]"


def _results(subject: Subject, threshold: float | None, cca: bool, progress: Progress) -> _Results:
    arms, predictions = subject.arms, PredictionCache(subject.notes)
    summaries = summarize_arms(arms, predictions)
    images = {arm.name: arm.images for arm in summaries}
    kept = {arm: other for arm, other in subject.references.items() if images[arm] == images[other]}
    subject = replace(subject, references=kept)
    differences = compare_arms(arms, summaries, predictions, progress, named=subject.predictions or ())
    curves = test_curves(arms)
    threshold = usual_threshold(curves) if threshold is None else threshold
    changes = layer_changes(subject, progress) if cca else LayerChanges({}, {})
    steps = [] if threshold is None else step_differences(arms, threshold)
    steps = [difference for difference in steps if images[difference.a] == images[difference.b]]
    return _Results(
        subject=subject,
        found=ArmResults(summaries, differences, changes.own, steps, threshold),
        counts=sections.count_images(arms),
        curves=curves,
        steps=[] if threshold is None else step_rows(arms, threshold),
        changes=changes,
        gains=gain_points(subject, changes.own),
        seeds=seed_pairs(subject, progress, channels=changes.channels) if cca else {},
        filters=filter_changes(arms, subject.notes) if cca else {},
    )


def _page(results: _Results, points: Sequence[Point]) -> Report:
    found, subject, own = results.found, results.subject, results.changes.own
    scoring = subject.arms[0].runs[0].scoring

    def of_subject(parts: Sequence[Any]) -> list[Any]:
        """Figures and tables with the positive class, grade or label of the AUC."""
        if not scoring.subject:
            return list(parts)
        for part in parts:
            if isinstance(part, Picture):
                set_subject(part.figure.axes[0], scoring.subject)
        return [replace(part, caption=say("captions.with_subject", part.caption, scoring.subject)) for part in parts]

    words = (("Follows", "follows"), ("Published results", "published"))
    published = [f"{title}: {text}" for title, key in words if (text := subject.about.get(key))]
    changes = [
        *sections.similarity_parts(own, own=True),
        *sections.change_difference_parts(change_differences(subject, own)),
        *sections.filter_parts(results.filters),
    ]
    convergence = sections.convergence_parts(results.curves, results.steps, found.steps)
    return Report(
        title=subject.title,
        subtitle=subject.subtitle,
        facts=sections.facts(found, subject, results.counts),
        sections=[
            ("advice", "Advice", [points] if points else []),
            ("auc", "AUC", [*of_subject(sections.auc_parts(found, subject.arms)), *published]),
            ("differences", "Differences", of_subject(sections.difference_parts(found, subject.references))),
            ("convergence", "Convergence", of_subject(convergence)),
            ("size", "Is a small network enough?", of_subject(sections.size_parts(found))),
            ("sources", "Source-task performance", sections.source_table(sections.source_rows(subject, found))),
            ("cca", "What did training change?", changes),
            ("pairs", "Similarity between models", sections.similarity_parts(results.changes.pairs, own=False)),
            ("seeds", "Pretrained and random initialization over seeds", sections.seed_parts(results.seeds)),
            ("gain", "Similarity against gain", sections.gain_parts(results.gains, sections.gain_rows(results.gains))),
            ("predictions", "Agreement of errors", sections.agreement_parts(found, subject.predictions)),
            ("runs", "Data and runs", sections.provenance_parts(subject, results.counts)),
        ],
    )


def _values(results: _Results, points: Sequence[Point]) -> dict[str, Any]:
    """The content of `report.json`; undefined values are null."""
    found, subject, own = results.found, results.subject, results.changes.own
    scoring, pairs = subject.arms[0].runs[0].scoring, results.changes.pairs
    return {
        "kind": "study" if subject.about else "runs",
        "study": dict(subject.about) or None,
        "question": question(scoring),
        "positive_class": scoring.positive_class,
        "data": list(results.counts),
        "advice": [asdict(point) for point in points],
        "auc": [asdict(arm) for arm in found.arms],
        "differences": [asdict(difference) for difference in found.differences],
        "steps": list(results.steps),
        "step_differences": [asdict(difference) for difference in found.steps],
        "sources": sections.source_rows(subject, found),
        "cca": [{"arm": name} | asdict(c) for name, items in own.items() for c in items],
        "cca_difference": change_differences(subject, own),
        "cca_pairs": [{"a": a, "b": b} | asdict(c) for (a, b), items in pairs.items() for c in items],
        "seed_pairs": sections.seed_rows(results.seeds),
        "gain": sections.gain_rows(results.gains),
        "runs": [{"arm": a.name, "path": str(run.path), "seed": run.seed} for a in subject.arms for run in a.runs],
        "unfinished": list(subject.unfinished),
        "notes": list(subject.notes),
    }
