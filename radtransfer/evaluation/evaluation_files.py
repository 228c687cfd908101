"""What an evaluation leaves in a folder: predictions, figures as JSON, and pictures.

predictions.csv         a line per image, of the whole; predictions_members.csv of each network
seen.csv                test images that were in training and how, if there are any
metrics.json            all figures, and the curves
roc.png  pr.png         with 95 % bands over patients
calibration.png         before and after temperature scaling, with 95 % intervals over images
confusion.png           says above how classes were decided: by the operating point, if there is one
"""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from radtransfer.evaluation.calibration import judged_confidences, reliability
from radtransfer.evaluation.evaluate import SEEN, Evaluation, Judged
from radtransfer.evaluation.intervals import GRID, Curve, both_curves
from radtransfer.evaluation.predict import csv_header, csv_line, predictions
from radtransfer.evaluation.scoring import Scoring, class_questions, main_questions
from radtransfer.files import whole_folder
from radtransfer.reports.figures import save_figure, shortened
from radtransfer.reports.result_figures import Bins, draw_confusion, draw_precision_recall, draw_reliability, draw_roc
from radtransfer.runs.folder import write_json, write_rows

FILES = (
    *("predictions.csv", "metrics.json", "predictions_members.csv", SEEN),
    *("roc.png", "pr.png", "calibration.png", "confusion.png"),
)
"""All that an evaluation may leave."""

_MOST = 8
"""Classes whose curves are drawn; with more the figures show the mean questions only by number."""


def write_evaluation(evaluation: Evaluation, out: Path) -> list[Path]:
    """Write the files that the module names, all or none; those of an earlier evaluation are replaced or deleted."""
    roc, pr = _curves(evaluation)
    path, *rest = csv_header(evaluation.model.scoring, pointed=evaluation.point is not None)
    header = [path, "patient", "label", *rest]
    with whole_folder(out, FILES, last="metrics.json") as folder:
        names = ["predictions.csv", "metrics.json"]
        write_rows(folder / names[0], header, _rows(evaluation, evaluation.judged[0]))
        curves = {kind: [asdict(curve) for curve in found] for kind, found in (("roc", roc), ("pr", pr))}
        write_json(folder / names[1], evaluation.figures | {"curves": curves})
        if len(evaluation.judged) > 1:
            names.append("predictions_members.csv")
            rows = ([item.name, *row] for item in evaluation.judged[1:] for row in _rows(evaluation, item))
            write_rows(folder / names[-1], ["network", *header], rows)
        if evaluation.seen:
            names.append(SEEN)
            write_rows(folder / SEEN, ["path", "how"], evaluation.seen.items(), for_people=True)
        for name, figure in _figures(evaluation, roc[:_MOST], pr[:_MOST]):
            save_figure(figure, folder / name)
            names.append(name)
    return [out / name for name in names]


def calibration_axes(scoring: Scoring) -> dict[str, str]:
    """What the axes of the reliability diagram show, as keywords of `draw_reliability`."""
    if scoring.task == "multilabel":
        return {"confidence": "probability of a label", "frequency": "share that has it", "unit": "images × labels"}
    if len(scoring.classes) > 2 and scoring.positive_from is None:
        return {"confidence": "largest probability", "frequency": "share that is right"}
    nothing = np.zeros((0, len(scoring.classes)))
    (question,) = main_questions(nothing, nothing, scoring)
    name = shortened(question.name, 28)
    return {"confidence": f"probability of {name}", "frequency": f"share that is {name}"}


def _curves(evaluation: Evaluation) -> tuple[list[Curve], list[Curve]]:
    """The ROC and precision-recall curves of each class or label, or of the one main question; those that exist."""
    whole, scoring, judging = evaluation.judged[0].whole, evaluation.model.scoring, evaluation.judging
    main = main_questions(whole.targets, whole.probabilities, scoring)
    questions = main if len(main) == 1 else class_questions(whole.targets, whole.probabilities, scoring)
    roc, pr = [], []
    for item in questions:
        clusters = [whole.clusters[row] for row in item.images]
        pair = both_curves(item.name, item.truth, item.scores, clusters, draws=judging.draws, seed=judging.seed)
        if pair is not None:
            roc.append(pair[0])
            pr.append(pair[1])
    return roc, pr


def _rows(evaluation: Evaluation, judged: Judged) -> Iterator[list[Any]]:
    whole = judged.whole
    labels = dict(zip(evaluation.judged[0].whole.images, evaluation.labels, strict=True))
    patients = whole.patients or [""] * len(whole.images)
    said = predictions(whole.images, whole.probabilities, evaluation.model.scoring, evaluation.point)
    for patient, prediction in zip(patients, said, strict=True):
        path, *cells = csv_line(prediction)
        yield [path, patient, labels[path], *cells]


def _figures(evaluation: Evaluation, roc: list[Curve], pr: list[Curve]) -> Iterator[tuple[str, Any]]:
    scoring, figures = evaluation.model.scoring, evaluation.figures
    subject = scoring.subject
    if roc:
        # The interval of a class or label, or of the main question where that is neither.
        ends = {c.question: figures["per_class"].get(c.question, figures)["ci95"] for c in roc}
        lines = {c.question: (c.x, c.y, c.low, c.high, c.area, ends[c.question]) for c in roc}
        at_point = {
            name: (1 - item["specificity"], item["sensitivity"])
            for name, item in figures.get("operating_point", {}).get("questions", {}).items()
            if item["specificity"] is not None and item["sensitivity"] is not None
        }
        yield "roc.png", draw_roc(lines, GRID, points=at_point, subject=subject)
        lines = {c.question: (c.x, c.y, c.low, c.high, c.area, c.prevalence) for c in pr}
        yield "pr.png", draw_precision_recall(lines, GRID, subject=subject)
    # All answers of the whole in one diagram, before and, where temperatures are known, after scaling.
    judged, diagrams = evaluation.judged[0], {}
    for name, probabilities in (("as trained", judged.whole.probabilities), ("temperature-scaled", judged.calibrated)):
        if probabilities is None:
            continue
        answers = judged_confidences(judged.whole.targets, probabilities, scoring)
        confidences, right = (np.concatenate([item[place] for item in answers]) for place in (1, 2))
        item = reliability(confidences, right, bins=evaluation.judging.bins)
        if item is not None:
            columns = (item.confidence, item.frequency, item.ci95, item.count, item.start)
            diagrams[name] = Bins(*columns, width=1 / item.bins, error=item.ece)
    if diagrams:
        yield "calibration.png", draw_reliability(diagrams, **calibration_axes(scoring), subject=subject)
    found = figures["confusion"]
    if "counts" in found:
        title = "" if scoring.positive_class is None else shortened(subject, 48)
        yield "confusion.png", draw_confusion({title: found["counts"]}, {title: found["classes"]}, found["decided"])
    else:
        names = dict.fromkeys(found["labels"], ("absent", "present"))
        yield "confusion.png", draw_confusion(found["labels"], names, found["decided"])
