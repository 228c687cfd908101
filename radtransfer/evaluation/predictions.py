"""Predictions: the stored ones of a run for its test or validation images, and new ones for images without labels."""

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from radtransfer.config.schema import Config, ImageSettings
from radtransfer.data.image_check import BadImage, examine_image
from radtransfer.data.image_list import list_images
from radtransfer.data.readers import read_table
from radtransfer.data.run_data import LocatedImages, run_images
from radtransfer.data.table import ImageTable
from radtransfer.errors import BadImageError, DataError, RunError, TrainingError
from radtransfer.evaluation.calibration import OperatingPoint, decisions, mean_with_temperatures
from radtransfer.evaluation.scoring import Scoring, recorded_scoring
from radtransfer.evaluation.trained_model import TrainedModel
from radtransfer.files import json_text
from radtransfer.images.formats import ImageFacts
from radtransfer.images.refs import ImageRef
from radtransfer.process import Progress, all_in_parallel, keras_defaults, require_keras, workers_of
from radtransfer.runs.folder import read_run, run_and_folds
from radtransfer.runs.read import read_record, read_rows, reading, run_file

if TYPE_CHECKING:
    import tensorflow as tf

    from radtransfer.evaluation.trained_model import Member


@dataclass(frozen=True, eq=False)
class RunPredictions:
    """The predictions of a run for the images of one split, fold after fold."""

    given: str  # what the user called the run
    scoring: Scoring
    paths: tuple[str, ...]  # of the images, as all below
    labels: tuple[str, ...]  # as text
    patients: tuple[str, ...] | None  # None where not known
    folds: tuple[int, ...]
    repeats: tuple[int, ...]
    probabilities: np.ndarray  # float32 (images, classes)
    targets: np.ndarray  # float32 (images, classes), 0 or 1, NaN where not known

    @property
    def repeated(self) -> bool:
        """Whether an image was tested more than once."""
        return len(set(self.paths)) < len(self.paths)

    @property
    def clusters(self) -> tuple[str, ...]:
        """The units of resampling: patients, or images if patients are not known."""
        return self.paths if self.patients is None else self.patients

    def keys(self, *, by_fold: bool) -> list[tuple]:
        """The identity of each prediction: the image, or image and fold."""
        return list(zip(self.paths, self.folds, strict=True)) if by_fold else [(path,) for path in self.paths]

    def select(self, rows: Sequence[int]) -> "RunPredictions":
        """The predictions in these rows, in their order."""
        columns = ["paths", "labels", "folds", "repeats"] + ["patients"] * (self.patients is not None)
        chosen = {name: tuple(getattr(self, name)[row] for row in rows) for name in columns}
        return replace(self, **chosen, probabilities=self.probabilities[rows], targets=self.targets[rows])

    @property
    def right(self) -> np.ndarray:
        """1 if correct, 0 if wrong, NaN if unknown: float64 (images, 1), or (images, labels)."""
        if self.scoring.task == "multilabel":
            return np.where(np.isnan(self.targets), np.nan, (self.probabilities > 0.5) == (self.targets > 0.5))
        return (self.probabilities.argmax(axis=1) == self.targets.argmax(axis=1)).astype(np.float64)[:, None]

    @property
    def p_truth(self) -> np.ndarray:
        """The predicted probability of the true class or label state, in the shape of `right`."""
        probabilities = self.probabilities.astype(np.float64)
        if self.scoring.task == "multilabel":
            known = np.where(self.targets > 0.5, probabilities, 1 - probabilities)
            return np.where(np.isnan(self.targets), np.nan, known)
        return (probabilities * self.targets).sum(axis=1, keepdims=True)


def read_predictions(
    given: str, *, split: Literal["test", "val"] = "test", folds: Sequence[int] = ()
) -> RunPredictions:
    """The predictions of a run's finished folds (or only `folds`), or of RUN/fold_K.

    Raises RunError without a finished fold or its predictions, and DataError if the data set of a run with several
    labels is not available: only there the unknown labels are recorded.
    """
    run, finished = run_and_folds(given)
    with reading(run):
        record = read_run(run)
        classes = tuple(record["classes"])
        grade = None if "positive_from" in record else run_images(run).data.positive_from
        scoring = recorded_scoring(record, positive_from=grade)
        lines: list[dict[str, Any]] = []
        for fold in folds or finished:
            rows = read_rows(run_file(run, f"fold_{fold}/predictions.csv"))
            metrics = read_record(run / f"fold_{fold}" / "metrics.json")
            counts = Counter(row["split"] for row in rows)
            for found, scored in ((counts["test"], metrics), (counts["val"], metrics.get("val", {}))):
                if found != scored.get("n_images", found):
                    raise RunError(
                        f"Run {run}: fold_{fold}/predictions.csv has {found} images, but metrics.json expects "
                        f"{scored['n_images']}. Restore the files."
                    )
            lines += [row | {"fold": fold, "repeat": metrics["repeat"]} for row in rows if row["split"] == split]
        probabilities = np.array([[line[f"p_{name}"] for name in classes] for line in lines], np.float32)
        if not ((probabilities >= 0) & (probabilities <= 1)).all():
            raise RunError(f"Run {run}: expected probabilities from 0 to 1. Its files were changed; restore them.")
        names = ["path", "label", "patient", "fold", "repeat"]
        paths, labels, patients, in_folds, repeats = (tuple(line[name] for line in lines) for name in names)
        return RunPredictions(
            given=given,
            scoring=scoring,
            paths=paths,
            labels=labels,
            patients=patients if lines and patients[0] else None,
            folds=in_folds,
            repeats=repeats,
            probabilities=probabilities,
            targets=_targets(run, paths, labels, scoring),
        )


def _targets(run: Path, paths: Sequence[str], labels: Sequence[str], scoring: Scoring) -> np.ndarray:
    """The targets from the stored label; with several labels per image, from the data set."""
    if scoring.task != "multilabel":
        unknown = set(labels) - set(scoring.classes)
        if unknown:
            raise ValueError(f"label {min(unknown)!r} is not one of its classes")
        return np.array([[label == name for name in scoring.classes] for label in labels], np.float32)
    table = read_table(run_images(run).data)
    rows = {path: row for row, path in enumerate(table.paths)}
    missing = [path for path in paths if path not in rows]
    if missing:
        raise DataError(f"The data of run {run} has changed: {missing[0]!r} is missing. Restore it.")
    return table.targets[[rows[path] for path in paths]]


_CHUNK = 512  # images that are examined together, so that memory does not grow with their number
_LISTED = 20  # most images named in a warning


@dataclass
class ImageStream:
    """The images of a list in order, preprocessed as in training; unreadable ones are collected in `bad`."""

    images: ImageTable
    image_size: int  # side of the square that every image becomes, pixels
    reading: ImageSettings  # how it is read
    batch_size: int  # at most
    workers: int  # images decoded in parallel
    count: Callable[[int, int], None] = lambda done, total: None
    bad: list[BadImage] = field(default_factory=list)  # could not be read so far

    def __iter__(self) -> Iterator[tuple[list[str], "tf.Tensor"]]:
        """Paths and images, float32 (batch, image_size, image_size, 3), RGB, 0–255."""
        require_keras()  # images are decoded by TensorFlow, in threads
        total = len(self.images)
        for start in range(0, total, _CHUNK):
            paths = self.images.paths[start : start + _CHUNK]
            refs = self.images.files[start : start + _CHUNK]
            examined = all_in_parallel(self._examine, refs, workers=self.workers)
            readable = [row for row, result in enumerate(examined) if isinstance(result, ImageFacts)]
            pairs = zip(paths, examined, strict=True)
            self.bad += [BadImage(path, result) for path, result in pairs if not isinstance(result, ImageFacts)]
            if readable:
                columns = [tuple(values[row] for row in readable) for values in (paths, refs, examined)]
                located, kept, done = LocatedImages(*columns, self.reading, columns[0]), columns[0], 0
                sizes = {"image_size": self.image_size, "batch_size": self.batch_size, "workers": self.workers}
                for images, _, weights in located.batches(**sizes).in_order():
                    size = int(weights.numpy().sum())
                    yield list(kept[done : done + size]), images[:size]
                    done += size
                    self.count(start + readable[done - 1] + 1, total)
            self.count(start + len(paths), total)

    def _examine(self, ref: ImageRef | None) -> ImageFacts | str:
        """The format of an image, or why it cannot be read."""
        if ref is None:
            return "not found"
        try:
            return examine_image(ref, self.reading)[0]
        except BadImageError as error:
            return error.reason


def open_images(
    find: Callable[[], TrainedModel], images: Sequence[str], config: Config, *, batch_size: int, progress: Progress
) -> tuple[TrainedModel, ImageStream]:
    """The model from `find`, and a stream of `images` (files, folders, CSV files of paths)."""
    listed, model = list_images(images, config.data), find()  # last, because a model file takes seconds to open
    for note in (*model.notes, *listed.notes):
        progress.note(note)
    return model, ImageStream(
        listed,
        model.image_size,
        model.reading,
        batch_size=batch_size,
        workers=workers_of(config.system),
        count=lambda done, total: progress.count("images", done, total),
    )


def report_bad_images(stream: ImageStream, on_bad_image: str, progress: Progress, *, kept: str = "") -> None:
    """List unreadable images; DataError if they are not to be skipped, or all are unreadable.

    `kept` says in the message what happened to the other images.
    """
    bad, total = stream.bad, len(stream.images)
    for image in bad[:_LISTED]:
        progress.warning(f"unreadable: {image.path}: {image.reason}")
    if len(bad) > _LISTED:
        progress.warning(f"unreadable: … and {len(bad) - _LISTED} more")
    if bad and (on_bad_image == "error" or len(bad) == total):
        raise DataError(
            f"{len(bad)} of {total} images cannot be read (listed above), the first is {bad[0].path}. {kept}"
            "Repair them, or accept it with --on-bad-image skip."
        )
    if bad:
        progress.warning(f"{len(bad)} of {total} images cannot be read and are left out")


class Forward:
    """Runs every network on a batch; when memory runs out, with half the batch size from then on."""

    def __init__(self, members: Sequence["Member"], *, batch_size: int, notify: Callable[[str], None] = lambda _: None):
        self.members, self.batch_size, self._notify = members, batch_size, notify

    @keras_defaults()
    def __call__(self, images: "tf.Tensor") -> np.ndarray:
        """Outputs, float32 (networks, images, …); TrainingError if one image does not fit or outputs are not finite."""
        import tensorflow as tf

        parts, start = [], 0
        while start < len(images):
            piece = images[start : start + self.batch_size]
            try:
                parts.append(np.stack([np.asarray(member(piece), np.float32) for member in self.members]))
            except (tf.errors.ResourceExhaustedError, MemoryError):
                if len(piece) == 1:
                    raise TrainingError(
                        "Out of memory with a single image. Close other programs, or choose one fold with --fold."
                    ) from None
                self.batch_size = len(piece) // 2
                self._notify(f"out of memory with {len(piece)} images at a time; continuing with {self.batch_size}")
                continue
            start += len(piece)
        outputs = np.concatenate(parts, axis=1)
        if not np.isfinite(outputs).all():
            raise TrainingError("Outputs of the network are not finite: its training diverged. Use another network.")
        return outputs


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image."""

    path: str
    probabilities: np.ndarray  # float64 (classes,)
    predicted: tuple[str, ...]  # the class, or all labels predicted as present
    positive: bool | None = None  # with two classes or grades: whether the score reaches the operating point


def predict_stream(
    model: TrainedModel,
    forward: Forward,
    stream: ImageStream,
    *,
    temperatures: Sequence[float | None] = (),
    point: OperatingPoint | None = None,
) -> Iterator[Prediction]:
    """A prediction (mean of all networks) for every readable image, in order.

    The operating point, which replaces the largest output or 0.5, applies to probabilities before temperature scaling.
    """
    for paths, images in stream:
        members = forward(images)
        plain = shown = members.astype(np.float64).mean(axis=0)
        if any(temperatures):
            shown = mean_with_temperatures(members, temperatures, activation=model.activation)
        yield from predictions(paths, shown, model.scoring, point, decided_by=plain)


def predictions(
    paths: Sequence[str],
    probabilities: np.ndarray,
    scoring: Scoring,
    point: OperatingPoint | None,
    *,
    decided_by: np.ndarray | None = None,
) -> Iterator[Prediction]:
    """The prediction for each image; `decided_by`: probabilities for the decision, if not those shown."""
    decided_by = probabilities if decided_by is None else decided_by
    names, positive = predicted_names(decided_by, scoring, point), positives(decided_by, scoring, point)
    for row, path in enumerate(paths):
        yield Prediction(path, probabilities[row], names[row], None if positive is None else bool(positive[row]))


def predicted_names(probabilities: np.ndarray, scoring: Scoring, point: OperatingPoint | None) -> list[tuple[str, ...]]:
    """The class or labels of each image: at the operating point, else largest output, or labels above 0.5."""
    if scoring.task == "multilabel":
        present = decisions(probabilities, scoring, point) if _decides(scoring, point) else probabilities > 0.5
        return [tuple(np.array(scoring.classes, object)[row]) for row in present]
    if _decides(scoring, point):
        negative_and_positive = scoring.in_order
        return [(negative_and_positive[int(yes)],) for yes in decisions(probabilities, scoring, point)[:, 0]]
    return [(scoring.classes[column],) for column in probabilities.argmax(axis=1)]


def decision_text(scoring: Scoring, point: OperatingPoint | None) -> str:
    """How `predicted_names` decides, to follow "predicted" or "confusion matrix"."""
    if _decides(scoring, point):
        return f"at the operating point {point.rule}"
    return "by probabilities above 0.5" if scoring.task == "multilabel" else "by the largest probability"


def positives(probabilities: np.ndarray, scoring: Scoring, point: OperatingPoint | None) -> np.ndarray | None:
    """Whether the score of each image reaches the operating point, bool (images,); None without one, or for labels."""
    if point is None or scoring.task == "multilabel":
        return None
    return decisions(probabilities, scoring, point)[:, 0]


def _decides(scoring: Scoring, point: OperatingPoint | None) -> bool:
    """Whether the operating point determines the predicted class or labels; with ordered grades it does not."""
    if point is None or scoring.positive_from is not None:
        return False
    return scoring.task == "multilabel" or len(scoring.classes) == 2


def csv_header(scoring: Scoring, *, pointed: bool) -> list[str]:
    """The columns: path, predicted, `positive` if there is an operating point, and a probability per class."""
    decided = ["positive"] if pointed and scoring.task != "multilabel" else []
    return ["path", "predicted", *decided, *(f"p_{name}" for name in scoring.classes)]


def csv_line(prediction: Prediction) -> list[str]:
    """The cells of a prediction; labels are joined by ";", and nine digits are enough for an exact float32."""
    decided = [] if prediction.positive is None else [str(int(prediction.positive))]
    numbers = [f"{value:.9g}" for value in prediction.probabilities]
    return [prediction.path, ";".join(prediction.predicted), *decided, *numbers]


def line_writer(format: str, scoring: Scoring, *, pointed: bool) -> tuple[str, Callable[[Prediction], str]]:
    """The header of a "csv" or "jsonl" file, and a function from a prediction to its line; both with line ends."""

    def csv_text(cells: list[str]) -> str:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(cells)
        return text.getvalue()

    def json_line(prediction: Prediction) -> str:
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

    if format == "csv":
        return csv_text(csv_header(scoring, pointed=pointed)), lambda prediction: csv_text(csv_line(prediction))
    return "", json_line
