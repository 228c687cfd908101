"""The settings of a run with defaults, ranges and help texts; field names are the YAML keys (`training.epochs`)."""

import dataclasses
import math
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from radtransfer.config.yaml_text import parse_scalar
from radtransfer.errors import closest_names


def setting(default: Any, help: str, *, low: float | None = None, high: float | None = None) -> Any:
    """A dataclass field with a help text and an inclusive range."""
    metadata = {"help": help, "low": low, "high": high}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class DataSettings:
    """Which images, which labels, which patients."""

    source: str | None = setting(
        None,
        "Images: a folder with one sub-folder per class, a CSV, a folder of train_fold1.csv …, tfds:NAME or "
        "tfds:FOLDER, gs://BUCKET/SET, or a data set by NAME:FOLDER, such as busi:FOLDER, or synthetic_fundus.",
    )
    image_root: str | None = setting(
        None, "Folder that the table's image paths are looked up in; default: the table's own folder."
    )
    outside_root: bool = setting(
        False, "Allow links that point outside the folder of the data set, and paths and links outside --image-root."
    )
    path_column: str | None = setting(None, "Column with the image path; found by its usual names.")
    label_column: tuple[str, ...] = setting(
        (), "Column with the class, or several 0/1 columns (comma-separated) for multi-label; found by its usual names."
    )
    patient_column: str | None = setting(None, "Column with the patient id; found by its usual names.")
    patient_regex: str | None = setting(
        None, "Regular expression whose first group, found in the path, is the patient id."
    )
    split_column: str | None = setting(
        None, "Column with train, val or test, or a true-or-false one such as is_test; found by its usual names."
    )
    fold_column: str | None = setting(
        None, "Column with the fold in which an image is tested (-1: in none); found by its usual names."
    )
    label_separator: str | None = setting(
        None, "Separator of several labels in one cell, such as | in Effusion|Mass; makes a multi-label table."
    )
    missing_values: Literal["error", "drop", "class"] = setting(
        "error", "What to do about images whose label is missing (empty, NA, nan, none, unknown, …)."
    )
    missing_patients: Literal["own", "error"] = setting(
        "own", "What to do about images whose patient is missing: each is its own patient, or an error."
    )
    allow_alike_patients: bool = setting(
        False,
        "Patient ids that differ only in case, spaces or leading zeros (0001, 1) are different people; otherwise two "
        "such spellings are an error.",
    )
    task: Literal["auto", "binary", "multiclass", "multilabel"] = setting("auto", "What the labels are.")
    positive_from: int | None = setting(
        None,
        "For ordered integer grades: the lowest grade that counts as positive (referable); "
        "its AUC is then the one reported.",
    )
    positive_class: str | None = setting(
        None,
        "Of two classes, the positive one for sensitivity, specificity, operating point, calibration and precision; "
        "default: the last class.",
    )
    uncertain: Literal["zeros", "ones", "ignore"] = setting("ignore", "Multi-label: meaning of a label of -1.")
    unmentioned: Literal["zeros", "ignore"] = setting("zeros", "Multi-label: meaning of an empty label.")
    frames: Literal["first", "all"] = setting(
        "first", "For a file with several frames: use the first, or each as an image."
    )
    on_bad_image: Literal["error", "skip"] = setting("error", "What to do about images that cannot be read.")
    allow_leakage: bool = setting(False, "Continue although an image or patient is in two splits.")


@dataclass(frozen=True)
class ImageSettings:
    """How a stored image becomes the square input of the model."""

    aspect: Literal["stretch", "pad", "crop"] = setting(
        "stretch", "An image that is not square is stretched, padded with black, or cropped to its central square."
    )
    fundus_crop: bool = setting(False, "Cut each fundus photograph down to the disc of the retina first.")
    window: str = setting(
        "auto",
        "Values of 16-bit images and DICOM that become 0-255: auto (the window in the header; else all the format's "
        "values), minmax (each image's own), or CENTRE,WIDTH.",
    )


@dataclass(frozen=True)
class SplitSettings:
    """How images are split into training, validation and test sets."""

    folds: int = setting(
        5, "Cross-validation folds, grouped by patient and stratified; 1 is one fixed split.", low=1, high=100
    )
    fold: tuple[int, ...] = setting((), "Run only these folds (comma-separated).")
    val_fraction: float = setting(
        0.1, "Fraction of the images outside the test set used for validation, by patient.", low=0.01, high=0.5
    )
    train_size: int | None = setting(
        None, "Use at most this many images of each training set: whole patients, stratified.", low=2, high=10**9
    )
    repeats: int = setting(1, "Repeat with this many seeds.", low=1, high=1000)


@dataclass(frozen=True)
class ModelSettings:
    """The network and its initialization."""

    backbone: str = setting("resnet50", "Network; see `radtransfer backbones`.")
    weights: str = setting(
        "random",
        "Initial weights: random, imagenet, a name from `radtransfer weights list`, a Keras file, or RUN[/fold_K].",
    )
    ignore_lambda: bool = setting(
        False, "Also read weights from a file with Lambda layers, whose effect on the images is unknown."
    )
    preprocessing: str = setting(
        "auto",
        "Input scale: auto (the one the weights were trained with), caffe, tf, torch, unit, caffe_unit, bgr_tf, raw.",
    )
    image_size: int = setting(224, "Height and width in pixels.", low=16, high=4096)
    head: Literal["auto", "softmax", "sigmoid"] = setting(
        "auto", "Output activation: auto is softmax for one label, sigmoid for several."
    )
    dropout: float = setting(0.5, "Dropout before the classifier, a fraction.", low=0.0, high=0.95)


@dataclass(frozen=True)
class StageSettings:
    """One stage of an explicit plan."""

    starts_from: Literal["random", "pretrained", "mean_var", "sampled", "shuffled", "gabor"] | None = setting(
        None, "Initialization; default: pretrained if there are weights, else random."
    )
    trains: bool = setting(True, "Whether it is trained.")
    width: float = setting(1.0, "Fraction of its channels.", low=0.0, high=1.0)


@dataclass(frozen=True)
class TransferSettings:
    """Initialization, training and width of each stage."""

    scheme: str = setting(
        "auto",
        "How weights are reused: transfer, transfusion, mean_var, … (`radtransfer plan` lists them); "
        "auto is transfer if there are weights, else scratch.",
    )
    through: str | None = setting(None, "Stage or layer up to which the scheme reuses or freezes.")
    freeze_to: str | None = setting(
        None, "Freeze everything up to and including this stage or layer; none, or all of the backbone."
    )
    slim: str | None = setting(
        None, "STAGE:WIDTH gives every stage after STAGE this fraction of its channels; stage2:0.5 for slim and hybrid."
    )
    batch_norm: Literal["identity", "mean_var", "transfer"] = setting(
        "identity", "Initialization of batch norm in stages that are not pretrained."
    )
    stages: dict[str, StageSettings] = setting(
        {}, "An explicit plan instead of a scheme: starts_from, trains and width for each stage."
    )


@dataclass(frozen=True)
class TrainingSettings:
    """Training settings."""

    epochs: int = setting(50, "Passes over the training images, at most.", low=1, high=100_000)
    batch_size: int = setting(32, "Images per step.", low=1, high=65_536)
    optimizer: Literal["adam", "adamw", "sgd", "rmsprop"] = setting("adam", "Optimizer.")
    learning_rate: float | None = setting(1e-4, "Peak learning rate.", low=0.0, high=100.0)
    momentum: float = setting(0.9, "Momentum, for sgd and rmsprop.", low=0.0, high=0.9999)
    weight_decay: float = setting(0.0, "Decoupled weight decay.", low=0.0, high=1.0)
    ema_momentum: float | None = setting(
        None,
        "Validate and save an exponential moving average of the weights with this decay (0.99 averages about the last "
        "100 steps); default: the weights themselves.",
        low=0.0,
        high=0.99999,
    )
    schedule: Literal["constant", "cosine", "step"] = setting("cosine", "Learning rate after the warm-up.")
    warmup_epochs: float = setting(0.0, "Epochs of linear warm-up from 0.", low=0.0, high=1000.0)
    step_epochs: tuple[int, ...] = setting((30, 60, 90), "Epochs at which the step schedule divides the rate by 10.")
    augmentation: str = setting(
        "light", "Preset: none, light, fundus, chest, juodelyte, juodelyte_no_flip, or the name of a KerasCV layer."
    )
    loss: Literal["auto", "categorical_crossentropy", "binary_crossentropy"] = setting(
        "auto", "Loss: auto is categorical for softmax, binary for sigmoids."
    )
    class_weights: str | dict[str, float] = setting(
        "none", "none, balanced, or a weight per class; for several labels, the weight of a positive."
    )
    monitor: Literal["auc", "accuracy", "loss"] = setting(
        "auc", "Validation metric for the best epoch and early stopping."
    )
    patience: int | None = setting(
        10, "Epochs without improvement before stopping; null never stops.", low=1, high=100_000
    )
    eval_every: int | None = setting(
        None, "Steps between evaluations of validation and test images for curve.csv; default: none.", low=1, high=10**9
    )


@dataclass(frozen=True)
class SystemSettings:
    """Use of the machine."""

    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = setting(
        "auto", "Arithmetic: auto is mixed precision on a GPU, float32 on a CPU."
    )
    jit: bool | Literal["auto"] = setting("auto", "Compile the step with XLA: auto is on on a GPU, off on a CPU.")
    workers: int | Literal["auto"] = setting(
        "auto", "Images decoded in parallel; auto is the number of cores.", low=1, high=1024
    )
    distribute: Literal["none", "mirrored", "multiworker"] = setting(
        "none",
        "Split every batch among replicas: mirrored (all GPUs of this machine) or multiworker (several machines; "
        "--workers HOST:PORT,… with --worker-index K, or TF_CONFIG). --batch-size is that of all together.",
    )
    hosts: tuple[str, ...] = setting(
        (), "HOST:PORT of every worker of --distribute multiworker, the same list for each; the first is the chief."
    )
    worker_index: int | None = setting(
        None, "Which of the workers of --distribute multiworker this process is, from 0.", low=0, high=100_000
    )
    cache: Literal["none", "ram", "disk"] = setting(
        "none", "Where to cache decoded and resized images: nowhere, in memory, or on disk."
    )
    cache_features: bool | Literal["auto"] = setting(
        "auto",
        "Run the frozen part once per image and reuse its output, without augmentation; "
        "auto does so if the plan freezes stages and augmentation is none.",
    )


@dataclass(frozen=True)
class Config:
    """A whole run."""

    recipe: str = setting("default", "Set of training defaults: default, raghu-retina, raghu-chexpert, juodelyte, mei.")
    seed: int = setting(0, "Seed of everything random.", low=0, high=2**31 - 1)
    out: str | None = setting(None, "Run folder; default: runs/<data>-<backbone>-<weights>.")
    track: tuple[str, ...] = setting(
        (), "Also log the training to (comma-separated): tensorboard, mlflow, wandb; extra `track`."
    )
    data: DataSettings = DataSettings()
    images: ImageSettings = ImageSettings()
    splits: SplitSettings = SplitSettings()
    model: ModelSettings = ModelSettings()
    transfer: TransferSettings = TransferSettings()
    training: TrainingSettings = TrainingSettings()
    system: SystemSettings = SystemSettings()
    given: frozenset[str] = field(default=frozenset(), compare=False, repr=False)
    """Dotted names of the settings given by the user; not a setting."""
    optional: frozenset[str] = field(default=frozenset(), compare=False, repr=False)
    """Dotted names of data settings that may be dropped if they do not fit the data; not a setting."""


def fields_of(kind: type, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field, Any]]:
    """The settings of a dataclass and its sections: dotted name, field, type."""
    hints = typing.get_type_hints(kind)
    for item in dataclasses.fields(kind):
        annotation = hints[item.name]
        if dataclasses.is_dataclass(annotation):
            yield from fields_of(annotation, f"{prefix}{item.name}.")
        elif item.metadata:
            yield prefix + item.name, item, annotation


def converted(value: Any, annotation: Any) -> Any:
    """`value` as the annotated type; errors say what was expected."""
    origin, members = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(value, members)
    if origin is typing.Literal:
        if value in members:
            return value
        raise ValueError(f"expected one of {', '.join(map(str, members))}")
    if origin is tuple:
        if isinstance(value, str):
            parts = [part.strip() for part in value.split(",") if part.strip()]
            value = [parse_scalar(part) for part in parts] if members[0] is not str else parts
        values = value if isinstance(value, list | tuple) else [] if value is None else [value]
        return tuple(converted(item, members[0]) for item in values)
    if origin is dict or (dataclasses.is_dataclass(annotation) and not isinstance(value, annotation)):
        if not isinstance(value, dict):
            raise TypeError("expected a mapping")
        return _convert_mapping(value, members[1]) if origin is dict else _convert_fields(value, annotation)
    if dataclasses.is_dataclass(annotation):
        return value
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if annotation is bool and isinstance(value, bool):
        return value
    if (annotation is float and is_number) or (annotation is str and (is_number or isinstance(value, str))):
        return annotation(value)
    if annotation is int and is_number and isinstance(value, int):
        return value
    names = {bool: "true or false", float: "a number", int: "a whole number", str: "text"}
    raise TypeError(f"expected {names[annotation]}")


def _convert_union(value: Any, members: tuple) -> Any:
    if value is None and type(None) in members:
        return None
    expected = []
    for member in members:
        if member is not type(None):
            try:
                return converted(value, member)
            except (TypeError, ValueError) as error:
                expected.append(str(error))
    raise ValueError(" or ".join(expected))


def _convert_mapping(value: dict, member: Any) -> dict[str, Any]:
    result = {}
    for key, item in value.items():
        try:
            result[str(key)] = converted(item, member)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{key}: {error}") from None
    return result


def _convert_fields(value: dict, kind: type) -> Any:
    """A mapping as the dataclass `kind`, whose fields are settings."""
    known, result = {name: (item, annotation) for name, item, annotation in fields_of(kind)}, {}
    for key, inner in value.items():
        if key not in known:
            raise ValueError(f"unknown key {key!r}. {closest_names(str(key), known)}")
        item, annotation = known[key]
        result[key] = converted(inner, annotation)
        check_range(result[key], item)
    return kind(**result)


def check_range(value: Any, item: dataclasses.Field) -> None:
    """Raise ValueError if a number is outside the range of its setting."""
    low, high = item.metadata["low"], item.metadata["high"]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("expected a finite number")
    if low is None or not isinstance(value, int | float) or isinstance(value, bool):
        return
    if not low <= value <= high:
        raise ValueError(f"expected a value from {low:g} to {high:g}")
