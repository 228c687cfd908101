"""Trained networks for prediction, by their names on the command line.

RUN                 all finished folds of a run, or the given ones; their probabilities are averaged
RUN/fold_K          one fold
FILE.keras          an exported model, or any functional Keras model of RGB images 0–255
FOLDER              an exported SavedModel (operations without layers), checked before TensorFlow loads it
"""

import contextlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from zipfile import BadZipFile

from radtransfer.config.schema import ImageSettings
from radtransfer.data.labels import find_positive_class
from radtransfer.data.run_data import run_images
from radtransfer.errors import ConfigError, RunError, WeightsError, no_model
from radtransfer.evaluation.calibration import OperatingPoint
from radtransfer.evaluation.scoring import Scoring, recorded_scoring
from radtransfer.exports.formats import EXPORT_FORMATS, read_from_zip, reading_of
from radtransfer.models.backbone import BACKBONES
from radtransfer.models.vit import CLASS_TOKEN
from radtransfer.pretrained.saved_model import check_graph, layer_names, open_model
from radtransfer.process import keras_defaults, require_keras
from radtransfer.runs.folder import finished_folds, read_run
from radtransfer.runs.read import run_file

if TYPE_CHECKING:
    import tensorflow as tf

Member = Callable[["tf.Tensor"], "tf.Tensor"]
"""float32 images (batch, height, width, 3), RGB, 0–255, to probabilities (batch, classes)."""


@dataclass(frozen=True)
class TrainedModel:
    """A network, or several of one run, and how to use them."""

    given: str  # as the user named it
    kind: Literal["run", "keras", "savedmodel"]
    path: Path  # the run, file or folder
    folds: tuple[int, ...]  # of the run; empty for an export
    scoring: Scoring
    activation: str  # "softmax" or "sigmoid"
    image_size: int  # pixels
    reading: ImageSettings
    backbone: str | None = None
    temperatures: tuple[float | None, ...] = ()  # stored in an export, one or none
    point: OperatingPoint | None = None  # stored in an export
    notes: tuple[str, ...] = ()  # for the user, one sentence each
    named: bool = True  # whether its classes have names; they are numbers if not
    loaded: tuple[Any, ...] = ()  # the networks, if they are already loaded

    @property
    def members(self) -> tuple[str, ...]:
        """The name of each network."""
        return tuple(f"fold_{fold}" for fold in self.folds) or ("model",)

    def with_positive_class(self, name: str | None) -> "TrainedModel":
        """The model with another positive class; ConfigError if it is not one of two, or a threshold was exported."""
        if name is None:
            return self
        scoring = self.scoring
        name = find_positive_class(name, scoring.classes, task=scoring.task, positive_from=scoring.positive_from)
        if self.point is not None and name != scoring.positive_class:
            raise ConfigError(
                f"--positive-class {name}: {self.given} was exported with an operating point for {scoring.subject}. "
                "Evaluate the run, or an export of it without an operating point."
            )
        return replace(self, scoring=replace(scoring, positive_class=name))

    def load(self) -> list[Member]:
        """Every network, ready to predict; RunError or WeightsError if a model is missing or cannot be loaded."""
        return (
            list(self.loaded) if self.kind == "savedmodel" else [keras_member(model) for model in self.keras_models()]
        )

    def keras_models(self) -> list[Any]:
        """Every network of a run or Keras file; errors as of `load`."""
        if self.loaded:
            return list(self.loaded)
        return [open_model(run_file(self.path, f"fold_{fold}/model.keras")) for fold in self.folds]


def find_model(given: str, *, folds: Sequence[int] = ()) -> TrainedModel:
    """The model that `given` (see the module) names, with all or only these folds.

    Raises RunError if the run or one of the folds is not finished, WeightsError if the model cannot be loaded.
    """
    path = Path(given).expanduser()
    fold = path.parent if path.name == "model.keras" and (path.parent.parent / "run.json").is_file() else path
    named = re.fullmatch(r"fold_(\d+)", fold.name)
    if named and (fold.parent / "run.json").is_file():
        if folds and set(folds) != {int(named[1])}:
            raise RunError(f"{given} is already a single fold. Omit --fold, or give the run: {fold.parent}.")
        return _of_run(given, fold.parent, (int(named[1]),))
    if (path / "run.json").is_file():
        return _of_run(given, path, tuple(dict.fromkeys(folds)))
    if folds:
        raise RunError(f"--fold expects a run. Received: {given}, which is not a run. Omit --fold.")
    if (path / "saved_model.pb").is_file():
        return _of_saved(given, path)
    if path.is_file():
        return _of_keras(given, path)
    raise no_model(given)


def is_export(given: str) -> bool:
    """Whether `given` is an exported file or folder, not a run or a fold; it is not opened."""
    path = Path(given).expanduser()
    of_run = path.name == "model.keras" and (path.parent.parent / "run.json").is_file()
    return (path.is_file() and path.suffix == ".keras" and not of_run) or (path / "saved_model.pb").is_file()


def check_one(model: TrainedModel) -> None:
    """Raise RunError for several networks, whose features are not comparable."""
    if len(model.folds) > 1:
        listed = ", ".join(map(str, model.folds))
        raise RunError(
            f"{model.given} has several networks (folds {listed}), whose features are not comparable. "
            "Choose one with --fold."
        )


def check_layer(model: TrainedModel, name: str) -> None:
    """Raise UnknownNameError if a run's networks have no stage or layer `name`, without loading them."""
    if model.kind != "run" or model.backbone not in BACKBONES:
        return
    spec, known = BACKBONES[model.backbone], layer_names(run_file(model.path, f"fold_{model.folds[0]}/model.keras"))
    if known and name not in (*spec.stages, *known, *([CLASS_TOKEN] if spec.patch else ())):
        raise spec.unknown_layer(name, known)


def keras_member(model: Any) -> Member:
    """A Keras model as a function of batches of any size, traced once, with fast operations."""
    import tensorflow as tf

    from radtransfer.models.architecture import use_fast_operations

    use_fast_operations(model)
    shape = tf.TensorSpec((None, *model.inputs[0].shape[1:]), tf.float32)
    return tf.function(lambda images: model(images, training=False), input_signature=[shape])


def _of_run(given: str, run: Path, folds: tuple[int, ...]) -> TrainedModel:
    record, finished = read_run(run), tuple(finished_folds(run))
    missing = [fold for fold in folds if fold not in finished]
    if missing or not finished:
        listed = ", ".join(map(str, finished)) or "none"
        which = f"fold {missing[0]} is not finished" if missing else "no fold is finished yet"
        raise RunError(f"Run {run}: {which}. Finished folds: {listed}.")
    settings = run_images(run)
    return TrainedModel(
        given=given,
        kind="run",
        path=run,
        folds=folds or finished,
        scoring=recorded_scoring(record, positive_from=settings.data.positive_from),
        activation=record["head"],
        image_size=record["image_size"],
        reading=settings.images,
        backbone=record["backbone"],
    )


def _of_keras(given: str, path: Path) -> TrainedModel:
    """The model in a file, which is opened to find its inputs and outputs."""
    if path.suffix != ".keras":
        raise WeightsError(
            f"Expected a run, an exported .keras file or a SavedModel folder. Received: {given}, not a .keras file."
        )
    require_keras()
    from radtransfer.models.activations import check_input, network_of

    model = open_model(path)
    inputs = getattr(model, "inputs", None) or []
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or len(model.outputs) != 1 or len(model.outputs[0].shape) != 2:
        raise WeightsError(f"{given}: expected a model with one image as input and a probability per class as output.")
    check_input(given, inputs[0].shape[1:])
    last = model.layers[-1].get_config().get("activation")
    found = _of_metadata(given, "keras", path, classes=model.outputs[0].shape[-1], image_size=inputs[0].shape[1])
    activation = last if last in ("softmax", "sigmoid") else found.activation
    if found.backbone is None:  # saved by another tool: add the input scale of its backbone if the file has none
        notes: list[str] = []
        with keras_defaults(), contextlib.suppress(ValueError):  # if layers share names, it is used unchanged
            scaled = bool(read_from_zip(path))
            network = network_of(model, given=given, path=path, scaled=scaled, notify=notes.append)
            model = network.model if network.preprocessing else model
            backbone = network.spec.name if network.spec else None
            found = replace(found, backbone=backbone, notes=(*found.notes, *notes))
    return replace(found, loaded=(model,), activation=activation)


def _of_saved(given: str, path: Path) -> TrainedModel:
    require_keras()
    loaded, function, name = image_signature(path)

    # The loaded object must outlive its functions, whose variables it holds.
    def member(images: "tf.Tensor", loaded: Any = loaded) -> "tf.Tensor":
        return next(iter(function(**{name: images}).values()))

    (output,) = function.structured_outputs.values()
    size = function.structured_input_signature[1][name].shape[1]
    found = _of_metadata(given, "savedmodel", path, classes=output.shape[-1], image_size=size)
    return replace(found, loaded=(member,))


def _of_metadata(given: str, kind: str, path: Path, *, classes: int, image_size: int | None) -> TrainedModel:
    """An export as its metadata describe it; without metadata its classes are numbers."""
    try:
        values, notes = EXPORT_FORMATS[kind].read_metadata(path), ()
        if not values:
            notes = (
                f"{given} does not say what its classes are or how its images were read: classes are numbers, images "
                "are stretched. Export it again with radtransfer export",
            )
        names = tuple(values.get("classes") or map(str, range(classes)))
        if len(names) != classes:
            raise WeightsError(f"{given}: expected {classes} class names, received {len(names)}. Export it again.")
        size = image_size or ((values.get("input") or {}).get("shape") or [None, None])[1]
        if size is None:
            raise WeightsError(f"{given}: expected an image size, received a model of any size. Export it from a run.")
        activation = values.get("activation", "softmax")
        task = values.get("task") or ("multilabel" if activation == "sigmoid" else "multiclass")
        point = values.get("operating_point")
        return TrainedModel(
            given=given,
            kind=kind,
            path=path,
            folds=(),
            scoring=Scoring(task, names, values.get("positive_from"), positive_class=values.get("positive_class")),
            activation=activation,
            image_size=size,
            reading=reading_of(values),
            backbone=(values.get("provenance") or {}).get("backbone"),
            temperatures=(values.get("temperature"),),
            point=None if point is None else OperatingPoint(**point),
            notes=notes,
            named=bool(values.get("classes")),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OSError, BadZipFile) as error:
        raise WeightsError(f"{given}: its metadata are damaged ({error}). Export it again.") from None


def image_signature(path: Path) -> tuple[Any, Any, str]:
    """A SavedModel, its function from float images to one output, and the name of the function's input."""
    import tensorflow as tf

    check_graph(path)
    try:
        loaded = tf.saved_model.load(str(path))
    except MemoryError:
        raise
    except Exception as error:  # for a damaged graph, TensorFlow raises errors of any type
        reason = str(error).strip().partition("\n")[0][:300] or type(error).__name__
        raise WeightsError(f"{path} is not a SavedModel that TensorFlow can load: {reason}") from error
    for function in loaded.signatures.values():
        inputs = function.structured_input_signature[1]
        specs, outputs = list(inputs.values()), function.structured_outputs
        if len(specs) == 1 and specs[0].dtype == tf.float32 and specs[0].shape.rank == 4 and len(outputs) == 1:
            return loaded, function, next(iter(inputs))
    raise WeightsError(
        f"{path}: expected a signature of float images (batch, height, width, 3), received none. Export it again."
    )
