"""Reports: pages, figures, tables and advice, from runs or from published results.

A report on a study or on any runs: what each arm scores, how they differ, and what to do, with the evidence.

A report as a folder, written whole or not at all.

report.html   the page, which needs no other file      report.json   every figure on it
figures/      each figure as .png and .svg             tables/       each table as .csv and .md
"""

import dataclasses
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radtransfer.files import whole_folder
from radtransfer.process import Progress
from radtransfer.reports import sections
from radtransfer.reports import sections as changed
from radtransfer.reports import sections as provenance
from radtransfer.reports.advice import advice, leak_points, one_arm
from radtransfer.reports.arms import (
    PredictionShelf,
    check_one_question,
    compare_arms,
    question,
    seed_pairs,
    summarize_arms,
)
from radtransfer.reports.collect import ArmResults, step_differences, step_rows, usual_threshold, watched_curves
from radtransfer.reports.figures import save_figure, set_subject
from radtransfer.reports.names import (
    LayerChanges,
    Subject,
    change_differences,
    filter_changes,
    find_subject,
    gain_points,
    layer_changes,
)
from radtransfer.reports.page import Picture, Point, Points, Report, Section, Table, html_page, markdown_table
from radtransfer.reports.sections import (
    ImageCounts,
    convergence_parts,
    count_images,
    gain_parts,
    gain_rows,
    seed_parts,
    seed_rows,
    source_rows,
    source_table,
)
from radtransfer.runs.folder import write_json, write_rows, write_text

_OURS = re.compile(r"(figures|tables)/[\w-]+\.(png|svg|csv|md)")


def write_report(report: Report, values: Mapping[str, Any], out: Path) -> list[Path]:
    """Write the folder; an older report in it is replaced, other files stay.

    Args:
        report: What the page says.
        values: What `report.json` says besides "files".
        out: The folder, made if needed.

    Returns:
        The files, the page first.

    Raises:
        DiskError, RunError: As `whole_folder`.
    """
    with whole_folder(out, ("report.html", "report.json", *_earlier(out)), last="report.html") as folder:
        names = _stage(report, values, folder)
    return [out / name for name in names]


def report_time(out: Path) -> str | None:
    """When the report that stands in a folder was made, as "2026-01-31 12:00"; None without one."""
    page = out / "report.html"
    if not page.is_file():
        return None
    return datetime.fromtimestamp(page.stat().st_mtime).strftime("%Y-%m-%d %H:%M")


def csv_value(value: Any) -> Any:
    """A value as a field of a CSV file: empty for None, JSON for what has parts."""
    if value is None:
        return ""
    return json.dumps(value) if isinstance(value, (list, tuple, dict)) else value


def _stage(report: Report, values: Mapping[str, Any], folder: Path) -> list[str]:
    """Writes everything below `folder` and gives the names, the page first."""
    names, images = [], {}
    for picture in report.pictures:
        for suffix in (".png", ".svg"):
            names.append(f"figures/{picture.name}{suffix}")
            save_figure(picture.figure, folder / names[-1])
        images[picture.name] = _drawn_text(picture.figure)
    (folder / "tables").mkdir()
    for table in report.tables:
        names += [f"tables/{table.name}.csv", f"tables/{table.name}.md"]
        _write_csv(table, folder / names[-2])
        write_text(folder / names[-1], markdown_table(table))
    write_text(folder / "report.html", html_page(report, images))
    write_json(folder / "report.json", dict(values) | {"files": names})
    return ["report.html", "report.json", *names]


def _drawn_text(figure: Any) -> bytes:
    """The SVG with its letters drawn, so that it looks the same where the font is missing."""
    import matplotlib

    page = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "radtransfer"}):
        figure.savefig(page, format="svg", metadata={"Date": None})
    return page.getvalue()


def _write_csv(table: Table, path: Path) -> None:
    header = list(table.records[0])
    rows = ([csv_value(record[name]) for name in header] for record in table.records)
    write_rows(path, header, rows, for_people=True)


def _earlier(out: Path) -> list[str]:
    """The figures and tables of the report that stands there."""
    try:
        before = json.loads((out / "report.json").read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    names = before if isinstance(before, list) else []
    return [name for name in names if isinstance(name, str) and _OURS.fullmatch(name)]


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
