"""Predict images without labels, as they come."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from radtransfer.metrics.calibration import mean_with_temperatures
from radtransfer.metrics.operating_point import OperatingPoint, decisions
from radtransfer.metrics.scoring import Scoring
from radtransfer.predictions.forward import Forward
from radtransfer.predictions.image_stream import ImageStream
from radtransfer.predictions.trained_model import TrainedModel


@dataclass(frozen=True)
class Prediction:
    """What is said about one image.

    Attributes:
        path: Of the image.
        probabilities: float64 (classes,).
        predicted: The class; with several labels those that are present.
        positive: Whether the score of two classes or ordered grades reaches the operating point; None without one.
    """

    path: str
    probabilities: np.ndarray
    predicted: tuple[str, ...]
    positive: bool | None = None


@dataclass
class Predictor:
    """Predicts with one network, or with the mean of several.

    Attributes:
        model: Which.
        forward: Its networks.
        temperatures: Of each network; None where its probabilities stay as they are.
        point: Decides instead of the largest output, or of 0.5.
    """

    model: TrainedModel
    forward: Forward
    temperatures: Sequence[float | None] = field(default=())
    point: OperatingPoint | None = None

    def __call__(self, stream: ImageStream) -> Iterator[Prediction]:
        """A prediction for every image that can be read, in order; errors as of `Forward` and `ImageStream`."""
        for paths, images in stream:
            probabilities, decided = self.probabilities(self.forward(images))
            says = predicted_names(decided, self.model.scoring, self.point)
            positive = positives(decided, self.model.scoring, self.point)
            for row, path in enumerate(paths):
                yield Prediction(path, probabilities[row], says[row], None if positive is None else bool(positive[row]))

    def probabilities(self, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The means over networks, (images, classes): as they are shown, and those that are decided by."""
        plain = members.astype(np.float64).mean(axis=0)
        if not any(self.temperatures):
            return plain, plain
        return mean_with_temperatures(members, self.temperatures, activation=self.model.activation), plain


def predicted_names(probabilities: np.ndarray, scoring: Scoring, point: OperatingPoint | None) -> list[tuple[str, ...]]:
    """The class of each image, or its labels: by the operating point, else the largest output, or those above 0.5."""
    if scoring.task == "multilabel":
        present = decisions(probabilities, scoring, point) if _decides(scoring, point) else probabilities > 0.5
        return [tuple(np.array(scoring.classes, object)[row]) for row in present]
    if _decides(scoring, point):
        negative_and_positive = scoring.in_order
        return [(negative_and_positive[int(yes)],) for yes in decisions(probabilities, scoring, point)[:, 0]]
    return [(scoring.classes[column],) for column in probabilities.argmax(axis=1)]


def decision_text(scoring: Scoring, point: OperatingPoint | None) -> str:
    """How `predicted_names` decides, to stand behind what was decided."""
    if _decides(scoring, point):
        return f"at the operating point {point.rule}"
    return "by probabilities above 0.5" if scoring.task == "multilabel" else "by the largest probability"


def positives(probabilities: np.ndarray, scoring: Scoring, point: OperatingPoint | None) -> np.ndarray | None:
    """Whether each image reaches the operating point, bool (images,); None without one or with several labels."""
    if point is None or scoring.task == "multilabel":
        return None
    return decisions(probabilities, scoring, point)[:, 0]


def _decides(scoring: Scoring, point: OperatingPoint | None) -> bool:
    """Whether there is an operating point that tells the classes, or which labels there are; not a grade from K on."""
    if point is None or scoring.positive_from is not None:
        return False
    return scoring.task == "multilabel" or len(scoring.classes) == 2
