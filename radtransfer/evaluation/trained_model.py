"""The trained networks that predict, by what they are called on the command line.

RUN                 all finished folds of a run, or those that are named; their probabilities are averaged
RUN/fold_K          one of them
FILE.keras          an exported model, or any functional Keras model of RGB images 0–255
FOLDER              an exported SavedModel, which holds operations and no layers; looked at before TensorFlow loads it
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
    """A network, or several of one run, and what has to be known to use them."""

    given: str  # what the user called it
    kind: Literal["run", "keras", "savedmodel"]
    path: Path  # the run, file or folder
    folds: tuple[int, ...]  # of the run; empty for an export
    scoring: Scoring
    activation: str  # "softmax" or "sigmoid"
    image_size: int  # pixels
    reading: ImageSettings
    backbone: str | None = None
    temperatures: tuple[float | None, ...] = ()  # that an export was given, one or none
    point: OperatingPoint | None = None  # that an export was given
    notes: tuple[str, ...] = ()  # what the user should know, one sentence each
    named: bool = True  # whether its classes have names; they are numbers where not
    held: tuple[Any, ...] = ()  # the networks, where they are loaded already

    @property
    def members(self) -> tuple[str, ...]:
        """What each network is called."""
        return tuple(f"fold_{fold}" for fold in self.folds) or ("model",)

    def with_positive_class(self, name: str | None) -> "TrainedModel":
        """The same with another positive class; ConfigError if it cannot be.

        It has not two classes, or none of this name, or it was exported with a threshold of the other.
        """
        if name is None:
            return self
        scoring = self.scoring
        name = find_positive_class(name, scoring.classes, task=scoring.task, positive_from=scoring.positive_from)
        if self.point is not None and name != scoring.positive_class:
            raise ConfigError(
                f"--positive-class {name}: {self.given} was exported with an operating point of {scoring.subject}. "
                "Evaluate the run, or an export of it without an operating point."
            )
        return replace(self, scoring=replace(scoring, positive_class=name))

    def load(self) -> list[Member]:
        """Every network, ready to predict; RunError or WeightsError if a model is gone or cannot be loaded."""
        return list(self.held) if self.kind == "savedmodel" else [keras_member(model) for model in self.keras_models()]

    def keras_models(self) -> list[Any]:
        """Every network of a run or Keras file; errors as of `load`."""
        if self.held:
            return list(self.held)
        return [open_model(run_file(self.path, f"fold_{fold}/model.keras")) for fold in self.folds]


def find_model(given: str, *, folds: Sequence[int] = ()) -> TrainedModel:
    """The model that `given` (see the module) means; of a run only these folds, if any are named.

    Raises:
        RunError: Not a finished run, or it has not these folds.
        WeightsError: Nothing that can be loaded.
    """
    path = Path(given).expanduser()
    fold = path.parent if path.name == "model.keras" and (path.parent.parent / "run.json").is_file() else path
    named = re.fullmatch(r"fold_(\d+)", fold.name)
    if named and (fold.parent / "run.json").is_file():
        if folds and set(folds) != {int(named[1])}:
            raise RunError(f"{given} is one fold already. Leave --fold out, or give the run: {fold.parent}.")
        return _of_run(given, fold.parent, (int(named[1]),))
    if (path / "run.json").is_file():
        return _of_run(given, path, tuple(dict.fromkeys(folds)))
    if folds:
        raise RunError(f"--fold names a fold of a run. Received: {given}, which is not a run.")
    if (path / "saved_model.pb").is_file():
        return _of_saved(given, path)
    if path.is_file():
        return _of_keras(given, path)
    raise no_model(given)


def is_export(given: str) -> bool:
    """Whether `given` is the file or folder of an export, and not a run or a part of one; it is not opened."""
    path = Path(given).expanduser()
    of_run = path.name == "model.keras" and (path.parent.parent / "run.json").is_file()
    return (path.is_file() and path.suffix == ".keras" and not of_run) or (path / "saved_model.pb").is_file()


def check_one(model: TrainedModel) -> None:
    """Raises RunError if these are several networks, whose features have nothing in common."""
    if len(model.folds) > 1:
        listed = ", ".join(map(str, model.folds))
        raise RunError(
            f"{model.given} has several networks (folds {listed}), whose features are not comparable. "
            "Name one with --fold."
        )


def check_layer(model: TrainedModel, name: str) -> None:
    """UnknownNameError if a run's networks have no stage or layer `name`, as far as their unopened files tell."""
    if model.kind != "run" or model.backbone not in BACKBONES:
        return
    spec, known = BACKBONES[model.backbone], layer_names(run_file(model.path, f"fold_{model.folds[0]}/model.keras"))
    if known and name not in (*spec.stages, *known):
        raise spec.unknown_layer(name, known)


def keras_member(model: Any) -> Member:
    """A Keras model as a function of batches of any size, traced once, and computed by fast operations from then on."""
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
    """The model in a file, which has to be opened to know what it takes and gives."""
    if path.suffix != ".keras":
        raise WeightsError(
            f"{given} is not a .keras file. Expected a run, an exported .keras file or a SavedModel folder."
        )
    from radtransfer.models.activations import check_input, network_of

    model = open_model(path)
    inputs = getattr(model, "inputs", None) or []
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or len(model.outputs) != 1 or len(model.outputs[0].shape) != 2:
        raise WeightsError(f"{given}: expected a model of one image that gives a probability per class.")
    check_input(given, inputs[0].shape[1:])
    last = model.layers[-1].get_config().get("activation")
    found = _described(given, "keras", path, classes=model.outputs[0].shape[-1], image_size=inputs[0].shape[1])
    activation = last if last in ("softmax", "sigmoid") else found.activation
    if found.backbone is None:  # what other tools saved; scaled as its backbone wants where nothing in the file does
        notes: list[str] = []
        with keras_defaults(), contextlib.suppress(ValueError):  # its layers share names: it is taken as it is
            scaled = bool(read_from_zip(path))
            network = network_of(model, given=given, path=path, scaled=scaled, notify=notes.append)
            model = network.model if network.preprocessing else model
            backbone = network.spec.name if network.spec else None
            found = replace(found, backbone=backbone, notes=(*found.notes, *notes))
    return replace(found, held=(model,), activation=activation)


def _of_saved(given: str, path: Path) -> TrainedModel:
    require_keras()
    loaded, function, name = image_signature(path)

    # The loaded object must outlive its functions, whose variables it holds.
    def member(images: "tf.Tensor", loaded: Any = loaded) -> "tf.Tensor":
        return next(iter(function(**{name: images}).values()))

    (output,) = function.structured_outputs.values()
    size = function.structured_input_signature[1][name].shape[1]
    found = _described(given, "savedmodel", path, classes=output.shape[-1], image_size=size)
    return replace(found, held=(member,))


def _described(given: str, kind: str, path: Path, *, classes: int, image_size: int | None) -> TrainedModel:
    """An export by what its metadata say; without them its classes are numbers."""
    try:
        return _by_metadata(given, kind, path, classes=classes, image_size=image_size)
    except (ValueError, KeyError, TypeError, AttributeError, OSError, BadZipFile) as error:
        raise WeightsError(f"{given}: the description that it carries is damaged ({error}). Export it again.") from None


def _by_metadata(given: str, kind: str, path: Path, *, classes: int, image_size: int | None) -> TrainedModel:
    values, notes = EXPORT_FORMATS[kind].read_metadata(path), ()
    if not values:
        notes = (
            f"{given} does not say what its classes are or how its images were read: classes are numbers, images are "
            "stretched. Export it again with radtransfer export",
        )
    names = tuple(values.get("classes") or map(str, range(classes)))
    if len(names) != classes:
        raise WeightsError(f"{given} has {classes} outputs, but names {len(names)} classes. Export it again.")
    size = image_size or ((values.get("input") or {}).get("shape") or [None, None])[1]
    if size is None:
        raise WeightsError(f"{given} takes images of any size and does not say which. Export it from a run.")
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


def image_signature(path: Path) -> tuple[Any, Any, str]:
    """A SavedModel, its function of float images that gives one output, and the name of that function's input.

    WeightsError if it cannot be loaded, does more than compute, or has no such function.
    """
    import tensorflow as tf

    check_graph(path)
    try:
        loaded = tf.saved_model.load(str(path))
    except MemoryError:
        raise
    except Exception as error:  # TensorFlow raises what it meets in a damaged graph
        reason = str(error).strip().partition("\n")[0][:300] or type(error).__name__
        raise WeightsError(f"{path} is not a SavedModel that TensorFlow can load: {reason}") from error
    for function in loaded.signatures.values():
        inputs = function.structured_input_signature[1]
        specs, outputs = list(inputs.values()), function.structured_outputs
        if len(specs) == 1 and specs[0].dtype == tf.float32 and specs[0].shape.rank == 4 and len(outputs) == 1:
            return loaded, function, next(iter(inputs))
    raise WeightsError(f"{path}: expected a signature that takes float images (batch, height, width, 3); it has none.")
