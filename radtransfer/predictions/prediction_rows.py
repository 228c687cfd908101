"""Predictions as text, a line each: CSV, or JSON lines."""

import csv
import io
from collections.abc import Callable

from radtransfer.metrics.scoring import Scoring
from radtransfer.predictions.predict import Prediction
from radtransfer.safe_text import json_text

FORMATS = ("csv", "jsonl")

Line = Callable[[Prediction], str]
"""Gives the line of a prediction, its end included."""


def csv_header(scoring: Scoring, *, pointed: bool) -> list[str]:
    """The columns: path, predicted, `positive` where there is an operating point, and a probability per class."""
    decided = ["positive"] if pointed and scoring.task != "multilabel" else []
    return ["path", "predicted", *decided, *(f"p_{name}" for name in scoring.classes)]


def csv_line(prediction: Prediction) -> list[str]:
    """The cells of a prediction; several labels are joined by ";", nine digits bring a float32 back exactly."""
    decided = [] if prediction.positive is None else [str(int(prediction.positive))]
    numbers = [f"{value:.9g}" for value in prediction.probabilities]
    return [prediction.path, ";".join(prediction.predicted), *decided, *numbers]


def line_writer(format: str, scoring: Scoring, *, pointed: bool) -> tuple[str, Line]:
    """What stands before the first prediction, and what makes a line of each.

    Args:
        format: One of `FORMATS`.
        scoring: What the outputs mean.
        pointed: Whether an operating point decides.
    """
    if format == "csv":
        return _csv_text(csv_header(scoring, pointed=pointed)), lambda prediction: _csv_text(csv_line(prediction))
    return "", lambda prediction: _json_line(prediction, scoring)


def _csv_text(cells: list[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _json_line(prediction: Prediction, scoring: Scoring) -> str:
    names = list(prediction.predicted)
    record = {
        "path": prediction.path,
        "predicted": names if scoring.task == "multilabel" else names[0],
        "probabilities": dict(zip(scoring.classes, prediction.probabilities.tolist(), strict=True)),
    }
    if prediction.positive is not None:
        record["positive"] = prediction.positive
        if scoring.positive_class is not None:
            record["positive_class"] = scoring.positive_class
    return json_text(record, ensure_ascii=False) + "\n"
