"""The paper out of published results: its AUC table, CCA figures, prediction similarity, and similarity against gain.

References:
    Juodelyte, Jiménez-Sánchez and Cheplygina 2023, Revisiting Hidden Representations in Transfer Learning for Medical
    Imaging (arXiv 2302.08272).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from radtransfer.reports.page import Point, Points, Prose, Report, Section
from radtransfer.reports.published import advice, sections
from radtransfer.reports.published.results import Published, read_published
from radtransfer.reports.published.tables import (
    FROZEN,
    UNFROZEN,
    Row,
    auc_rows,
    cca_rows,
    difference_rows,
    gain_rows,
    prediction_rows,
)
from radtransfer.reports.report_folder import write_report

CHOICES = (
    Point(
        "rand",
        "The published “rand”, the agreement expected of independent networks, is computed from one network's accuracy "
        "twice, a² + (1 − a)². For two networks of accuracies a and b it is a·b + (1 − a)(1 − b).",
        "What is observed above “rand” is therefore somewhat off wherever the two accuracies differ; "
        "`radtransfer compare-predictions` takes both.",
    ),
    Point(
        "AUC",
        "The published AUC is Keras' over all outputs flattened into one question (micro), at 200 thresholds.",
        "With several classes that is higher than the mean of one-versus-rest AUCs, and it rewards classes that are "
        "common: on a simulated set of seven classes 0.92 against 0.75. AUCs of targets with different numbers of "
        "classes do not compare, and the relative gain inherits it.",
    ),
    Point(
        "folds",
        "The test sets of the five published folds together cover only part of the images: 75 to 80 %.",
        "Mean ± sd over folds says how much training sets and test sets vary, it is no confidence interval.",
    ),
    Point(
        "inputs",
        "The published code fed RadImageNet networks images scaled for ImageNet's (caffe, 0–255); the weights were "
        "trained on a scale 255 times smaller.",
        "Part of the distance between the two sources may be that.",
    ),
    Point(
        "baseline",
        "The randomly initialized network of the published code had another head than the pretrained ones.",
        "Gain over random initialization contains that difference.",
    ),
)
"""Where the published code's choices matter for the figures on the page."""


def report_published(folder: Path, out: Path) -> list[Path]:
    """Read `folder` and write its report to `out`; gives the files, the page first.

    `report.json` holds `gain` (a row per source and layer: slope and r of relative gain on CCA, `ci95` of the slope
    by Student's t on n - 2 degrees of freedom, `r_ci95`, the same within targets, and the slope without each target),
    `auc`, `differences`, `cca`, `predictions`, `findings`, and what was `read`, `ignored` and left out (`notes`).
    What is not defined is null.

    Raises:
        DataError: As `read_published`.
        RunError: As `write_report`.
    """
    found = read_published(folder)
    auc, differences, cca = auc_rows(found), difference_rows(found), cca_rows(found)
    predictions, (gain, notes) = prediction_rows(found), gain_rows(found)
    notes = found.notes + notes
    findings = _findings(differences, gain, predictions)
    report = Report(
        title="Transfer learning, from published results",
        subtitle=f"AUC, similarity of representations and of predictions, read from {', '.join(found.files)}",
        facts=_facts(found),
        sections=[
            Section("findings", "In short", [Points(findings)] if findings else []),
            Section("auc", "AUC", sections.auc_parts(found, auc, differences)),
            Section("cca", "Representations", sections.cca_parts(found, cca)),
            Section("predictions", "Predictions", sections.prediction_parts(found, predictions)),
            Section("gain", "Similarity against gain", sections.gain_parts(found, gain)),
            Section("choices", "Where the published code's choices matter", [Points(CHOICES)]),
            Section("sources", "What was read, and what was left out", _source_parts(found, notes)),
        ],
    )
    values = {
        "kind": "published",
        "gain": gain,
        "auc": auc,
        "differences": differences,
        "cca": cca,
        "predictions": predictions,
        "findings": [{"verdict": f.verdict, "text": f.text, "evidence": f.evidence} for f in findings],
        "read": found.files,
        "ignored": found.ignored,
        "notes": notes,
    }
    return write_report(report, values, out)


def _findings(differences: Sequence[Row], gain: Sequence[Row], predictions: Sequence[Row]) -> list[Point]:
    return [
        *advice.sources_compared(differences),
        *advice.pretraining_against_random(differences),
        *advice.lost_when_frozen(differences),
        *advice.predictions_alike(predictions),
        *advice.similarity_and_gain(gain),
    ]


def _facts(found: Published) -> list[tuple[str, str]]:
    facts = [("targets", str(len(found.targets)))]
    if found.auc:
        facts += [
            ("sources", ", ".join(dict.fromkeys(item.source for item in found.auc))),
            ("folds", str(len({item.fold for item in found.auc}))),
        ]
    if found.layers:
        facts.append(("layers", ", ".join(found.layers)))
    return facts


def _source_parts(found: Published, notes: Sequence[str]) -> list[Any]:
    parts: list[Any] = [Prose(f"Read from {found.folder.name}: {', '.join(found.files)}.")]
    if found.ignored:
        parts.append(Prose(f"Not known by name, and ignored: {', '.join(found.ignored)}."))
    if notes:
        parts.append(Points([Point("left out", note) for note in notes]))
    return [*parts, Prose(f"{UNFROZEN}: all layers trained from the start; {FROZEN}: the head alone first.")]
