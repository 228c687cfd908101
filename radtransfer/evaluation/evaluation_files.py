"""What an evaluation leaves in a folder: predictions, figures as JSON, and pictures.

predictions.csv         a line per image, of the whole; predictions_members.csv of each network
seen.csv                test images that were in training and how, if there are any
metrics.json            all figures, and the curves
roc.png  pr.png         with 95 % bands over patients
calibration.png         before and after temperature scaling, with 95 % intervals over images
confusion.png           says above how classes were decided: by the operating point, if there is one
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from radtransfer.evaluation.calibration import judged_confidences, reliability
from radtransfer.evaluation.evaluate import SEEN, Evaluation, Judged
from radtransfer.evaluation.metrics import GRID, Curve, both_curves
from radtransfer.evaluation.predict import Prediction, csv_header, csv_line, positives, predicted_names
from radtransfer.evaluation.scoring import Scoring, class_questions, main_questions
from radtransfer.files import whole_folder
from radtransfer.reports.figures import (
    Bins,
    draw_confusion,
    draw_precision_recall,
    draw_reliability,
    draw_roc,
    save_figure,
    shortened,
)
from radtransfer.runs.folder import write_json, write_rows

FILES = (
    *("predictions.csv", "metrics.json", "predictions_members.csv", SEEN),
    *("roc.png", "pr.png", "calibration.png", "confusion.png"),
)
"""All that an evaluation may leave."""

_MOST = 8
"""Classes whose curves are drawn; with more the figures show the mean questions only by number."""


def write_evaluation(evaluation: Evaluation, out: Path) -> list[Path]:
    """Write the files that the module names, all or none; those of an earlier evaluation are replaced or deleted.

    Raises:
        DiskError, RunError: As `whole_folder`.
    """
    pairs = evaluation_curves(evaluation)
    curves = {kind: {pair[place].question: pair[place] for pair in pairs} for place, kind in enumerate(("roc", "pr"))}
    with whole_folder(out, FILES, last="metrics.json") as folder:
        names = ["predictions.csv", "metrics.json"]
        write_rows(folder / names[0], _header(evaluation), _rows(evaluation, evaluation.judged[0]))
        write_json(
            folder / names[1],
            evaluation.figures
            | {"curves": {kind: [asdict(curve) for curve in found.values()] for kind, found in curves.items()}},
        )
        if len(evaluation.judged) > 1:
            names.append("predictions_members.csv")
            rows = ([item.name, *row] for item in evaluation.judged[1:] for row in _rows(evaluation, item))
            write_rows(folder / names[-1], ["network", *_header(evaluation)], rows)
        if evaluation.seen:
            names.append(SEEN)
            write_rows(folder / SEEN, ["path", "how"], evaluation.seen.items(), for_people=True)
        for name, figure in _figures(evaluation, curves):
            save_figure(figure, folder / name)
            names.append(name)
    return [out / name for name in names]


def evaluation_curves(evaluation: Evaluation) -> list[tuple[Curve, Curve]]:
    """The ROC and the precision-recall curve of each class or label, or of the one main question; those that exist."""
    whole, scoring, judging = evaluation.judged[0].whole, evaluation.model.scoring, evaluation.judging
    main = main_questions(whole.targets, whole.probabilities, scoring)
    questions = main if len(main) == 1 else class_questions(whole.targets, whole.probabilities, scoring)
    found = [
        both_curves(
            question.name,
            question.truth,
            question.scores,
            [whole.clusters[row] for row in question.images],
            draws=judging.draws,
            seed=judging.seed,
        )
        for question in questions
    ]
    return [pair for pair in found if pair is not None]


def _header(evaluation: Evaluation) -> list[str]:
    path, *rest = csv_header(evaluation.model.scoring, pointed=evaluation.point is not None)
    return [path, "patient", "label", *rest]


def _rows(evaluation: Evaluation, judged: Judged) -> Iterator[list[Any]]:
    whole, scoring, point = judged.whole, evaluation.model.scoring, evaluation.point
    labels = dict(zip(evaluation.judged[0].whole.images, evaluation.labels, strict=True))
    says = predicted_names(whole.probabilities, scoring, point)
    positive = positives(whole.probabilities, scoring, point)
    patients = whole.patients or [""] * len(whole.images)
    for row, path in enumerate(whole.images):
        yes = None if positive is None else bool(positive[row])
        cells = csv_line(Prediction(path, whole.probabilities[row], says[row], yes))
        yield [path, patients[row], labels[path], *cells[1:]]


def _figures(evaluation: Evaluation, curves: Mapping[str, Mapping[str, Curve]]) -> Iterator[tuple[str, Any]]:
    scoring = evaluation.model.scoring
    subject = scoring.subject
    roc = dict(list(curves["roc"].items())[:_MOST])
    if roc:
        lines = {name: (c.x, c.y, c.low, c.high, c.area, _interval(evaluation, name)) for name, c in roc.items()}
        yield "roc.png", draw_roc(lines, GRID, points=_points(evaluation), subject=subject)
        pr = {name: curves["pr"][name] for name in roc}
        lines = {name: (c.x, c.y, c.low, c.high, c.area, c.prevalence) for name, c in pr.items()}
        yield "pr.png", draw_precision_recall(lines, GRID, subject=subject)
    diagrams = _diagrams(evaluation)
    if diagrams:
        yield "calibration.png", draw_reliability(diagrams, **calibration_axes(scoring), subject=subject)
    found = evaluation.figures["confusion"]
    if "counts" in found:
        title = "" if scoring.positive_class is None else shortened(subject, 48)
        yield "confusion.png", draw_confusion({title: found["counts"]}, {title: found["classes"]}, found["decided"])
    else:
        names = dict.fromkeys(found["labels"], ("absent", "present"))
        yield "confusion.png", draw_confusion(found["labels"], names, found["decided"])


def _interval(evaluation: Evaluation, question: str) -> list[float] | None:
    """Of the AUC of a class or label, or of the main question where that is neither."""
    return evaluation.figures["per_class"].get(question, evaluation.figures)["ci95"]


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


def _points(evaluation: Evaluation) -> dict[str, tuple[float, float]]:
    """Where the operating point lies on each ROC curve."""
    questions = evaluation.figures.get("operating_point", {}).get("questions", {})
    return {
        name: (1 - item["specificity"], item["sensitivity"])
        for name, item in questions.items()
        if item["specificity"] is not None and item["sensitivity"] is not None
    }


def _diagrams(evaluation: Evaluation) -> dict[str, Bins]:
    """All answers of the whole in one diagram, before and, where temperatures are known, after scaling."""
    judged, scoring = evaluation.judged[0], evaluation.model.scoring
    found = {}
    for name, probabilities in (("as trained", judged.whole.probabilities), ("temperature-scaled", judged.calibrated)):
        if probabilities is None:
            continue
        answers = judged_confidences(judged.whole.targets, probabilities, scoring)
        confidences, right = (np.concatenate([item[place] for item in answers]) for place in (1, 2))
        item = reliability(confidences, right, bins=evaluation.judging.bins)
        if item is not None:
            columns = (item.confidence, item.frequency, item.ci95, item.count, item.start)
            found[name] = Bins(*columns, width=1 / item.bins, error=item.ece)
    return found
