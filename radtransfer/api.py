"""The Python API: what the commands do, as functions.

Data comes first, everything else by keyword, named as the option of the command line (`--image-root` is
`image_root`). Functions that take settings take every setting of the YAML: by its own name (`momentum=0.9`), by its
section (`training={"momentum": 0.9}`), or with its dotted name in `**{"training.momentum": 0.9}`. Errors are those of
`radtransfer.errors`, with the messages of the commands. Progress goes to standard error, as a bar in a notebook or a
terminal and as lines elsewhere; `quiet=True` shows nothing but warnings.
"""

import hashlib
import html
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from radtransfer.config.load import load_config, setting_fields, setting_value
from radtransfer.config.schema import Config, ImageSettings, TransferSettings
from radtransfer.errors import ConfigError, RunError, UnknownNameError, WeightsMismatchError
from radtransfer.files import check_new, printable_lines, writing
from radtransfer.process import Progress, keras_defaults, require_keras, usable_cores

if TYPE_CHECKING:
    import keras
    import pandas as pd
    import tensorflow as tf

    from radtransfer.data.image_check import CheckedImages
    from radtransfer.data.table import ImageTable
    from radtransfer.evaluation.explanations import Explained
    from radtransfer.evaluation.results import Evaluation
    from radtransfer.evaluation.trained_model import TrainedModel
    from radtransfer.exports.write import Exported
    from radtransfer.similarity.compare_layers import Comparison
    from radtransfer.similarity.networks import NetworkSource
    from radtransfer.transfer.plan import TransferPlan

_OPTIONS = {"data": "data.source", "bn_init": "transfer.batch_norm", "ema": "training.ema_momentum"}
"""Options that are not called as their settings."""


class ShownProgress(Progress):
    """Shows notes and epochs as lines on standard error, counts as a bar where there is a terminal or a notebook."""

    def __init__(self, *, quiet: bool = False):
        self._quiet = quiet
        self._bar: Any = None
        self._what = ""

    def note(self, text: str) -> None:
        if not self._quiet:
            self._line(text)

    def warning(self, text: str) -> None:
        self._line(f"warning: {text}")

    def plan(self, rows: Mapping[str, str]) -> None:
        for title, text in rows.items():
            self.note(f"{title:<9} {text.replace(chr(10), chr(10) + ' ' * 10)}")

    def count(self, what: str, done: int, total: int) -> None:
        if self._quiet or not (sys.stderr.isatty() or "ipykernel" in sys.modules):
            return
        from tqdm.auto import tqdm

        if self._bar is None or self._what != what:
            self.close()
            self._bar, self._what = tqdm(total=total, desc=what, leave=False), what
        self._bar.update(done - self._bar.n)
        if done >= total:
            self.close()

    def epoch(self, fold: int, folds: int, epochs: int, row: Mapping[str, Any]) -> None:
        auc = "   -  " if row["val_auc"] is None else f"{row['val_auc']:.3f}"
        best = " *" if row["best"] else ""
        losses = f"loss {row['loss']:.4f}  val_loss {row['val_loss']:.4f}"
        self.note(f"fold {fold}/{folds} epoch {row['epoch']}/{epochs}  {losses}  val_auc {auc}{best}")

    def close(self) -> None:
        """Removes the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _line(self, text: str) -> None:
        from tqdm import tqdm

        self.close()
        tqdm.write(printable_lines(text), file=sys.stderr)


# Settings


def settings_of(
    data: Any = None, *, config: str | os.PathLike | None = None, settings: Mapping[str, Any] | None = None
) -> Config:
    """The checked settings of a call.

    Args:
        data: A path, NAME:FOLDER, a frame or a `Table`; None for that of `config`.
        config: A shipped name or a YAML file.
        settings: Names as in the module's docstring, and values; they win over `config`.

    Raises:
        ConfigError: A name or value cannot be used; all mistakes are listed.
    """
    given: dict[str, Any] = {}
    known = {name.rpartition(".")[2]: name for name in setting_fields()} | _OPTIONS
    sections = {name.partition(".")[0] for name in setting_fields() if "." in name}
    for name, value in (settings or {}).items():
        if name in sections and isinstance(value, Mapping):
            given |= {f"{name}.{key}": item for key, item in value.items()}
        else:
            given[known.get(name, name)] = value
    if given.get("model.weights", "") is None:
        given["model.weights"] = "random"
    if isinstance(data, Table):
        given, data = {**_given_values(data.config), **given}, data.config.data.source
    elif hasattr(data, "to_csv"):
        data = _frame_file(data)
        if "data.image_root" not in given:  # a frame has no folder that its paths could be relative to
            given = {"data.image_root": str(Path.cwd()), "data.outside_root": True} | given
    if data is not None:
        given["data.source"] = os.fspath(data)
    return load_config(
        None if config is None else os.fspath(config), options={name: _plain(value) for name, value in given.items()}
    )


def _plain(value: Any) -> Any:
    """`value` as YAML would give it."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _frame_file(frame: "pd.DataFrame") -> Path:
    """The frame as a CSV in the cache folder, named by the hash of its contents."""
    from radtransfer.runs.cache import cache_folder
    from radtransfer.runs.folder import atomic_write

    text = frame.to_csv(index=False)
    path = cache_folder() / "frames" / f"frame_{hashlib.sha256(text.encode()).hexdigest()[:32]}.csv"
    if not path.exists():
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as part:
                part.write_text(text, encoding="utf-8")
    return path


def _numbers(fold: int | Iterable[int] | None) -> tuple[int, ...]:
    return () if fold is None else (fold,) if isinstance(fold, int) else tuple(fold)


def _frame(rows: Any, **options: Any) -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame(rows, **options)


def _table_html(title: str, rows: Mapping[str, Any]) -> str:
    lines = "".join(
        f"<tr><th style='text-align:left'>{html.escape(str(name))}</th><td>{html.escape(str(value))}</td></tr>"
        for name, value in rows.items()
    )
    return f"<b>{html.escape(title)}</b><table>{lines}</table>"


# Fine-tuning


class Run:
    """A run folder: what fine-tuning left.

    Wherever a path of a run is taken, a `Run` is too.

    Attributes:
        path: The folder.
        folds: Numbers of the finished folds.
    """

    def __init__(self, path: str | os.PathLike):
        from radtransfer.runs.folder import finished_folds, read_run

        self.path = Path(path)
        self._record = read_run(self.path)
        self.folds = tuple(finished_folds(self.path))

    def __fspath__(self) -> str:
        return str(self.path)

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """What `metrics.json` holds: `accuracy` and others; `auc` with `mean`, `sd`, `pooled`, `ci95`, `per_class`."""
        from radtransfer.runs.read import read_record

        return read_record(self.path / "metrics.json")

    @cached_property
    def config(self) -> Config:
        """The settings, of which `config.training.epochs` is one."""
        return load_config(str(self.path / "config.yaml"))

    def predictions(self, *, fold: int | None = None, split: Literal["test", "val"] = "test") -> "pd.DataFrame":
        """A row per image: `path`, `patient`, `label`, `p_CLASS` (0 to 1), `fold`.

        Args:
            fold: Of one fold; None for all that are finished.
            split: Of which images.

        Raises:
            RunError: No such fold, or its predictions are gone.
        """
        rows = self._rows("predictions.csv", fold)
        frame = _frame([row for row in rows if row["split"] == split])
        numbers = [name for name in frame.columns if name.startswith("p_")]
        return frame.astype(dict.fromkeys(numbers, float)).drop(columns="split")

    def history(self, *, fold: int | None = None) -> "pd.DataFrame":
        """A row per epoch: `epoch`, `step`, `learning_rate`, `loss`, `val_loss`, `val_auc`, `val_accuracy`, `fold`."""
        import pandas as pd

        return _frame(self._rows("history.csv", fold)).apply(pd.to_numeric)

    def model(self, *, fold: int | None = None) -> "keras.Model":
        """The trained network of a fold, a plain Keras model of RGB images, 0–255; `fold` where there are several."""
        require_keras()
        from radtransfer.pretrained.saved_model import open_model
        from radtransfer.runs.folder import find_fold
        from radtransfer.runs.read import run_file

        run, number = find_fold(self.path, fold=fold)
        return open_model(run_file(run, f"fold_{number}/model.keras"))

    def _rows(self, name: str, fold: int | None) -> list[dict[str, Any]]:
        from radtransfer.runs.folder import find_fold
        from radtransfer.runs.read import read_rows, run_file

        chosen = self.folds if fold is None else (find_fold(self.path, fold=fold)[1],)
        return [
            row | {"fold": number}
            for number in chosen
            for row in read_rows(run_file(self.path, f"fold_{number}/{name}"))
        ]

    def _summary(self) -> dict[str, Any]:
        rows = {"network": self._record.get("backbone"), "status": self._record.get("status"), "folds": self.folds}
        if (self.path / "metrics.json").is_file():
            auc = self.metrics["auc"]
            low, high = auc["ci95"] or (None, None)
            rows["AUC"] = _figure(auc["pooled"]) + f"  (95 % interval {_figure(low)} to {_figure(high)})"
        return rows

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, {', '.join(f'{name}: {value}' for name, value in self._summary().items())})"

    def _repr_html_(self) -> str:
        return _table_html(str(self.path), self._summary())


def _figure(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def finetune(
    data: Any = None,
    *,
    config: str | os.PathLike | None = None,
    out: str | os.PathLike | None = None,
    resume: bool = False,
    overwrite: bool = False,
    callbacks: Sequence["keras.callbacks.Callback"] = (),
    quiet: bool = False,
    **settings: Any,
) -> Run:
    """Fine-tune a network on every fold, and leave a run folder; the command `radtransfer finetune`.

    Args:
        data: A path, NAME:FOLDER, a frame with the columns of a CSV, or a loaded table; None for that of `config`.
        config: A shipped name (`"quickstart"`) or a YAML file.
        out: The run folder; by default a new one below `runs/`.
        resume: Go on with the same run where it stopped, to the same result.
        overwrite: Replace the run in `out`.
        callbacks: Keras callbacks. Called for each fold: `set_model`, `set_params`, `on_train_begin`,
            `on_epoch_begin` (epochs from 0), `on_epoch_end` with `loss`, `val_loss`, `val_auc`, `val_accuracy` and
            `learning_rate`, `on_train_end`. `model.stop_training = True` ends the fold after the epoch. A resumed run
            calls them for what is left.
        quiet: Show warnings only.
        settings: See the module's docstring, such as `backbone="resnet50"`, `weights="imagenet"`, `fold=1`.

    Raises:
        ConfigError, DataError, WeightsError, RunError: Before training, for what cannot be used.
        TrainingError: Every fold failed; FoldsFailedError: some did.

    Example:
        >>> run = finetune(config="quickstart", folds=2, epochs=1, out="runs/first")  # doctest: +SKIP
        >>> run.metrics["auc"]["pooled"]  # doctest: +SKIP
    """
    require_keras()
    from radtransfer.data.readers import drop_unfit_settings
    from radtransfer.training.run import finetune as train

    progress = ShownProgress(quiet=quiet)
    place = {} if out is None else {"out": os.fspath(out)}
    checked = drop_unfit_settings(settings_of(data, config=config, settings=settings | place), progress)
    name = None if config is None else Path(config).stem
    result = train(checked, name=name, resume=resume, overwrite=overwrite, progress=progress, callbacks=callbacks)
    progress.close()
    return Run(result.path)


def load_run(path: str | os.PathLike) -> Run:
    """The run in a folder.

    Raises:
        RunError: It is not a run directory.
    """
    return Run(path)


# Trained networks


def evaluate(
    run: Any,
    *,
    data: Any = None,
    split: Literal["all", "train", "val", "test"] = "all",
    class_map: Mapping[str, str] | None = None,
    fold: int | Sequence[int] | None = None,
    operating_point: str | None = None,
    bins: int = 10,
    draws: int = 2000,
    seed: int = 0,
    batch_size: int = 32,
    out: str | os.PathLike | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    **settings: Any,
) -> "Evaluation":
    """Evaluate a run or an export on a test set, or a run on its own test images; the command `radtransfer evaluate`.

    Args:
        run: A `Run`, a path (RUN, RUN/fold_K, a `.keras` file, a SavedModel).
        data: The test set, as in `finetune`; None for the run's own test images.
        split: Of data that brings splits.
        class_map: Class of the data to class of the model; "" leaves its images out.
        fold: Only these folds.
        operating_point: "youden", "sensitivity=X" or "specificity=X", chosen on the run's validation images.
        bins: Of the calibration error.
        draws: Of the curves' bands, with `seed`.
        seed: See `draws`.
        batch_size: Images at a time, at most.
        out: Write predictions, metrics and figures here.
        overwrite: Replace an earlier evaluation in `out`.
        quiet: Show warnings only.
        settings: How the data are read, such as `image_root`, `label_column`.

    Returns:
        `metrics` holds every figure, as `radtransfer evaluate --json` prints them.
    """
    from radtransfer.evaluation import results as evaluation
    from radtransfer.evaluation.results import FILES, write_evaluation
    from radtransfer.evaluation.trained_model import find_model

    if out is not None:
        check_new(Path(out), FILES, overwrite=overwrite)
    progress, judging = ShownProgress(quiet=quiet), evaluation.Judging(operating_point, bins, draws, seed)
    model = find_model(os.fspath(run), folds=_numbers(fold))
    checked = settings_of(data, settings=settings)
    if data is None:
        model = model.with_positive_class(checked.data.positive_class)
        found = evaluation.evaluate_run(model, judging=judging, progress=progress)
    else:
        found = evaluation.evaluate_on(
            model,
            checked.data,
            split=split,
            class_map=class_map,
            judging=judging,
            batch_size=batch_size,
            workers=_workers(checked),
            report_file=None if out is None else Path(out) / "bad_images.txt",
            progress=progress,
        )
    progress.close()
    if out is not None:
        write_evaluation(found, Path(out))
    if leaked := evaluation.leak_summary(found.figures.get("seen"), None):
        progress.warning(leaked)
    return found


def _workers(config: Config) -> int:
    return usable_cores() if config.system.workers == "auto" else config.system.workers


def _is_array(images: Any) -> bool:
    return hasattr(images, "shape") and hasattr(images, "dtype")


def _checked_images(images: Any) -> np.ndarray:
    pixels = np.asarray(images, np.float32)
    if pixels.ndim != 4 or pixels.shape[3] != 3 or not len(pixels):
        raise ConfigError(f"Expected images of shape (n, height, width, 3), 0 to 255. Received: {pixels.shape}.")
    return pixels


def _trained(model: Any, fold: int | Sequence[int] | None) -> "TrainedModel":
    """What `model`, a run, a path or a Keras classifier, says and computes."""
    require_keras()
    from radtransfer.evaluation.scoring import Scoring
    from radtransfer.evaluation.trained_model import TrainedModel, find_model

    if isinstance(model, (str, os.PathLike)):
        return find_model(os.fspath(model), folds=_numbers(fold))
    if len(model.inputs) != 1 or len(model.inputs[0].shape) != 4 or len(model.outputs[0].shape) != 2:
        raise WeightsMismatchError(f"{model.name}: expected a model of one image that gives a probability per class.")
    activation = getattr(getattr(model.layers[-1], "activation", None), "__name__", "softmax")
    task = "multilabel" if activation == "sigmoid" else "multiclass"
    return TrainedModel(
        given=model.name,
        kind="keras",
        path=Path(model.name),
        folds=(),
        scoring=Scoring(task, tuple(map(str, range(model.outputs[0].shape[-1])))),
        activation="sigmoid" if activation == "sigmoid" else "softmax",
        image_size=model.inputs[0].shape[1] or 224,
        reading=ImageSettings(),
        named=False,
        held=(model,),
    )


def predict(
    model: Any,
    images: Any,
    *,
    fold: int | Sequence[int] | None = None,
    operating_point: str | None = None,
    calibration: Literal["none", "temperature"] = "none",
    batch_size: int = 32,
    on_bad_image: Literal["error", "skip"] = "error",
    quiet: bool = False,
    **settings: Any,
) -> "pd.DataFrame":
    """Predict images; the command `radtransfer predict`.

    Args:
        model: A `Run` or its path (the mean over its folds), RUN/fold_K, a `.keras` file, a SavedModel, or a Keras
            classifier of RGB images, 0–255.
        images: An array (n, height, width, 3), RGB, 0–255, of the model's image size; or a file, a folder, a CSV with
            a column of paths, or several of them.
        fold: Only these folds.
        operating_point: As in `evaluate`.
        calibration: "temperature" scales by temperatures fitted on validation images.
        batch_size: Images at a time, at most.
        on_bad_image: "error", or leave out what cannot be read.
        quiet: Show warnings only.
        settings: How images are found, such as `image_root`, `path_column`.

    Returns:
        A row per image: `path` (the row's number for arrays), `predicted` (several labels joined by ";"),
        `positive` where there is an operating point, and `p_CLASS` (0 to 1) for each class.
    """
    from radtransfer.data.image_list import list_images
    from radtransfer.errors import DataError
    from radtransfer.evaluation.predictions import Forward, ImageStream, csv_header, predict_stream
    from radtransfer.evaluation.results import known_temperatures, point_of

    found, progress, checked = _trained(model, fold), ShownProgress(quiet=quiet), settings_of(settings=settings)
    point = point_of(found, operating_point)
    temperatures = known_temperatures(found) if calibration == "temperature" else ()
    stream: Any
    if _is_array(images):
        import tensorflow as tf

        pixels = _checked_images(images)
        fixed = isinstance(model, (str, os.PathLike)) or model.inputs[0].shape[1] is not None
        if fixed and pixels.shape[1:3] != (found.image_size, found.image_size):
            raise ConfigError(
                f"Expected images of {found.image_size}×{found.image_size} pixels, as {found.given} takes them. "
                f"Received: {pixels.shape[1]}×{pixels.shape[2]}. Resize the array, or give files."
            )
        steps = range(0, len(pixels), batch_size)
        stream = [
            ([str(row) for row in range(start, min(start + batch_size, len(pixels)))],
             tf.constant(pixels[start : start + batch_size]))
            for start in steps
        ]  # fmt: skip
    else:
        listed = [os.fspath(images)] if isinstance(images, (str, os.PathLike)) else [os.fspath(item) for item in images]
        table = list_images(listed, checked.data)
        for note in (*found.notes, *table.notes):
            progress.note(note)
        stream = ImageStream(
            table,
            found.image_size,
            found.reading,
            batch_size=batch_size,
            workers=_workers(checked),
            count=lambda done, total: progress.count("images", done, total),
        )
    forward = Forward(found.load(), batch_size=batch_size, notify=progress.note)
    rows = []
    for item in predict_stream(found, forward, stream, temperatures=temperatures, point=point):
        decided = [] if point is None or item.positive is None else [item.positive]
        rows.append([item.path, ";".join(item.predicted), *decided, *item.probabilities])
    progress.close()
    bad = getattr(stream, "bad", [])
    if bad and (on_bad_image == "error" or not rows):
        raise DataError(
            f"{len(bad)} of {len(bad) + len(rows)} images cannot be read, first {bad[0].path}: {bad[0].reason}. "
            'Repair them, or accept it with on_bad_image="skip".'
        )
    for item in bad:
        progress.warning(f"left out: {item.path}: {item.reason}")
    pointed = point is not None and found.scoring.task != "multilabel"
    return _frame(rows, columns=csv_header(found.scoring, pointed=pointed))


def explain(
    run: Any,
    images: Any = (),
    *,
    data: Any = None,
    fold: int | None = None,
    layer: str | None = None,
    class_: str | None = None,
    limit: int = 24,
    occlusion: int = 8,
    seed: int = 0,
    out: str | os.PathLike | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    **settings: Any,
) -> "Explained":
    """Grad-CAM maps of a trained network with two checks; the command `radtransfer explain`.

    Args:
        run: A `Run`, RUN/fold_K, or a `.keras` file.
        images: Files without labels.
        data: A data set instead; without both, the run's own test images.
        fold: Of a run with several.
        layer: Stage or layer of the map; None for the last stage.
        class_: The class that is explained; None for what was predicted.
        limit: Images that are explained, at most.
        occlusion: Squares along a side that are covered; 0 for none.
        seed: Of the random weights of the check.
        out: Write the sheet and the overlays here.
        overwrite: Replace an earlier sheet in `out`.
        quiet: Show warnings only.
        settings: How the data are read.
    """
    require_keras()
    from radtransfer.evaluation.explanations import FILES, write_explanations
    from radtransfer.evaluation.explanations import explain as explain_images

    if out is not None:
        check_new(Path(out), FILES, overwrite=overwrite)
    progress = ShownProgress(quiet=quiet)
    files = [images] if isinstance(images, (str, os.PathLike)) else list(images)
    found = explain_images(
        os.fspath(run),
        files=tuple(map(Path, files)),
        data=settings_of(data, settings=settings).data,
        fold=fold,
        layer=layer,
        target=class_,
        limit=limit,
        cells=occlusion,
        seed=seed,
        progress=progress,
    )
    progress.close()
    if out is not None:
        write_explanations(found, Path(out))
    return found


def export(
    run: Any,
    out: str | os.PathLike,
    *,
    format: str | None = None,
    fold: int | Literal["all"] | None = None,
    operating_point: str | None = None,
) -> "list[Exported]":
    """Write a trained model in another format with a model card, and check it; the command `radtransfer export`.

    Args:
        run: A `Run`, or RUN/fold_K.
        out: File or folder to write; never overwritten.
        format: Of `radtransfer export --format`; by default what the ending of `out` says, a SavedModel without one.
        fold: A number, "all", or None where there is one.
        operating_point: As in `evaluate`.

    Raises:
        ExportError: What was written predicts something else by more than 1e-5.
    """
    require_keras()
    from radtransfer.exports.formats import EXPORT_FORMATS
    from radtransfer.exports.write import export_run

    suffixes = {EXPORT_FORMATS[name].suffix: name for name in EXPORT_FORMATS}
    ending = next((end for end in suffixes if end and str(out).endswith(end)), "")
    if format is None and Path(out).suffix and not ending:
        raise UnknownNameError("ending of an export", Path(out).suffix, [end for end in suffixes if end])
    number = None if fold is None else str(fold)
    return export_run(
        os.fspath(run), format=format or suffixes[ending], out=Path(out), fold=number, operating_point=operating_point
    )


# Data


class Table:
    """The images of a data set with their labels; from `load_data`.

    Attributes:
        images: Paths, files, targets, classes, patients and splits, one row per image.
        config: Of which `data` and `images` say how it was read.
    """

    def __init__(self, images: "ImageTable", config: Config):
        self.images, self.config = images, config

    def __len__(self) -> int:
        return len(self.images)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the columns of `targets`."""
        return self.images.classes

    @property
    def targets(self) -> np.ndarray:
        """float32 (images, classes): 0 or 1; NaN where not known."""
        return self.images.targets

    def to_frame(self) -> "pd.DataFrame":
        """A row per image: `path`, `patient` where known, and a column of 0 and 1 for each class."""
        patients = {} if self.images.patients is None else {"patient": self.images.patients}
        columns = {name: self.targets[:, column] for column, name in enumerate(self.classes)}
        return _frame({"path": self.images.paths, **patients, **columns})

    def to_dataset(
        self,
        *,
        image_size: int = 224,
        batch_size: int = 32,
        augmentation: str = "none",
        preprocessing: str | None = None,
        shuffle: bool | None = None,
        seed: int = 0,
        workers: int | None = None,
    ) -> "tf.data.Dataset":
        """Batches for `model.fit`: images, float32 (batch, size, size, 3), and targets, float32 (batch, classes).

        Every image is decoded once before, to find those that cannot be read.

        Args:
            image_size: Side of the square that every image becomes, pixels.
            batch_size: Images in a batch; the last may be smaller.
            augmentation: One of `radtransfer finetune --augmentation`.
            preprocessing: None leaves RGB, 0–255; a mode, such as "caffe", "torch" or "tf", scales to what a network
                trained with it takes.
            shuffle: A new order in every epoch; by default with augmentation only.
            seed: Of orders and augmentations.
            workers: Images decoded at the same time; by default as many as there are cores.

        Raises:
            DataError: An image cannot be read.
            UnknownNameError: No such augmentation or mode.
        """
        require_keras()
        from radtransfer.images.pipeline import make_batches
        from radtransfer.images.preprocessing import preprocess, preprocessing_mode

        if preprocessing is not None:
            preprocessing_mode(preprocessing)
        workers, checked = workers or usable_cores(), self._checked
        batches = make_batches(
            checked.table.paths,
            [place for place in checked.table.files if place is not None],
            checked.facts,
            checked.table.targets,
            image_size=image_size,
            reading=self.config.images,
            batch_size=batch_size,
            workers=workers,
            augmentation=augmentation,
        )
        dataset = batches.to_dataset(shuffle=augmentation != "none" if shuffle is None else shuffle, seed=seed)
        if preprocessing is None:
            return dataset
        return dataset.map(lambda images, targets: (preprocess(images, preprocessing), targets))

    @cached_property
    def _checked(self) -> "CheckedImages":
        from radtransfer.data.image_check import check_images

        return check_images(
            self.images,
            workers=usable_cores(),
            on_bad_image=self.config.data.on_bad_image,
            report_file=None,
            reading=self.config.images,
        )

    def _summary(self) -> dict[str, Any]:
        counts = (self.targets == 1).sum(axis=0)
        patients = "unknown" if self.images.patients is None else len(set(self.images.patients))
        classes = ", ".join(f"{name} {count}" for name, count in zip(self.classes, counts, strict=True))
        return {"images": len(self), "patients": patients, "task": self.images.task, "classes": classes}

    def __repr__(self) -> str:
        return f"Table({', '.join(f'{name}: {value}' for name, value in self._summary().items())})"

    def _repr_html_(self) -> str:
        return _table_html(str(self.config.data.source), self._summary())


def load_data(data: Any, *, quiet: bool = False, **settings: Any) -> Table:
    """The images and labels of a data set; no image is opened.

    Args:
        data: A path, NAME:FOLDER, or a frame with the columns of a CSV.
        quiet: Show warnings only.
        settings: How it is read, such as `image_root`, `label_column`, `patient_column`, `aspect`, `window`.

    Raises:
        ConfigError, DataError: Nothing usable is there; says what was expected and found.
    """
    from radtransfer.data.readers import read_table
    from radtransfer.data.table import show_notes

    checked, progress = settings_of(data, settings=settings), ShownProgress(quiet=quiet)
    table = read_table(checked.data, progress=progress)
    show_notes(table.notes, progress)
    progress.close()
    return Table(table, checked)


class DataReport:
    """What `check_data` found.

    Attributes:
        valid: Whether nothing would make results invalid.
        findings: A frame with a row per finding: `severity` ("error", "warning", "note"), `kind`, `message`, `files`,
            `patients`.
    """

    def __init__(self, report: Any):
        self._report = report
        self.valid: bool = report.valid

    @cached_property
    def findings(self) -> "pd.DataFrame":
        names = ("severity", "kind", "message", "files", "patients")
        return _frame([[getattr(item, name) for name in names] for item in self._report.findings], columns=names)

    def to_frame(self) -> "pd.DataFrame":
        """`findings`."""
        return self.findings

    def to_dict(self) -> dict[str, Any]:
        """The whole report, as `radtransfer data check --json` prints it."""
        return self._report.to_dict()

    def __repr__(self) -> str:
        counts = {f"{severity} {kind}": len(found) for (severity, kind), found in self._report.kinds.items()}
        found = ", ".join(f"{count} × {name}" for name, count in counts.items()) or "nothing"
        return f"DataReport({self._report.data!r}, images: {self._report.images}, valid: {self.valid}, found: {found})"

    def _repr_html_(self) -> str:
        rows = {"images": self._report.images, "valid": "yes" if self.valid else "no"}
        table = self.findings.drop(columns=["files", "patients"]).to_html(index=False) if len(self.findings) else ""
        return _table_html(str(self._report.data), rows) + table


def check_data(data: Any, *, quiet: bool = False, **settings: Any) -> DataReport:
    """Decode every image and find what would make results wrong; the command `radtransfer data check`.

    Args:
        data: As in `finetune`.
        quiet: Show warnings only.
        settings: How it is read and split, such as `image_root`, `label_column`, `folds`.

    Raises:
        ConfigError: A setting cannot be used. What is wrong with the data is a finding, not an error.
    """
    require_keras()
    from radtransfer.data.check import check_data as check

    progress = ShownProgress(quiet=quiet)
    report = check(settings_of(data, settings=settings), progress=progress)
    progress.close()
    return DataReport(report)


# Plans


@dataclass(frozen=True)
class ModelPlan:
    """What each stage of a Keras model starts from and whether it trains.

    Attributes:
        plan: Layer by layer.
        weights: Layer name to its pretrained arrays; None without.
    """

    plan: "TransferPlan"
    weights: Mapping[str, tuple[np.ndarray, ...]] | None = None

    @keras_defaults()
    def apply(self, model: "keras.Model", *, seed: int = 0) -> None:
        """Give every weight of `model` its first value, and freeze what the plan freezes.

        Args:
            model: The one that was planned for, or one with the same layers. Its head is drawn at random.
            seed: Everything drawn follows from it.
        """
        from radtransfer.transfer.initialize import initialize_weights

        initialize_weights(model, self.plan, self.weights, seed=seed)
        for group in self.plan.groups:
            for name in group.layers:
                model.get_layer(name).trainable = group.trains

    def to_frame(self) -> "pd.DataFrame":
        """A row per part: `stage`, `starts_from`, `trains`, `layers` and `parameters` (counts), `width`."""
        rows = [
            {
                "stage": group.stage,
                "starts_from": group.init,
                "trains": group.trains,
                "layers": len(group.layers),
                "parameters": group.parameters,
                "width": group.width,
            }
            for group in self.plan.groups
        ]
        return _frame(rows)

    def __repr__(self) -> str:
        groups = ", ".join(
            f"{group.stage}: {group.init}{'' if group.trains else ' (frozen)'}" for group in self.plan.groups
        )
        return f"ModelPlan({self.plan.scheme}, {groups})"

    def _repr_html_(self) -> str:
        return f"<b>{html.escape(self.plan.scheme)}</b>" + self.to_frame().to_html(index=False)


@keras_defaults()
def plan_transfer(
    model: "keras.Model",
    *,
    stages: Mapping[str, str],
    scheme: str = "auto",
    through: str | None = None,
    freeze_to: str | None = None,
    bn_init: Literal["identity", "mean_var", "transfer"] = "identity",
    weights: Any = None,
    ignore_lambda: bool = False,
) -> ModelPlan:
    """A transfer plan for any functional Keras model.

    Args:
        model: Functional; layers after the last stage are the head, which starts at random and trains.
        stages: Stage name to the name of its last layer, from the input on. Gabor filters need one called "stem".
        scheme: Of `radtransfer finetune --scheme`; "auto" is transfer with weights, else scratch.
        through: Stage or layer that the scheme is cut at.
        freeze_to: Stage or layer through which everything is frozen; "none" or "all".
        bn_init: "identity", "mean_var" or "transfer": what normalizations start from that do not start pretrained.
        weights: A Keras model with the same layer names, or what `--weights` takes: a file, a run, a name.
        ignore_lambda: Take the weights of a file with Lambda layers too.

    Raises:
        UnknownNameError: No such scheme, stage or layer.
        ConfigError: The arguments contradict each other.
        WeightsMismatchError: The weights lack a layer of the stages, or it has another shape.

    Example:
        >>> plan = plan_transfer(model, stages={"stem": "conv1"}, scheme="mean_var", weights=source)  # doctest: +SKIP
        >>> plan.apply(model, seed=0)  # doctest: +SKIP
    """
    from radtransfer.models.backbone import Backbone
    from radtransfer.transfer.plan import build_plan
    from radtransfer.transfer.spec import transfer_spec

    names = [layer.name for layer in model.layers]
    for stage, layer in stages.items():
        if layer not in names:
            raise UnknownNameError(f"layer of {model.name} (the end of {stage})", layer, names)
    spec = Backbone(
        name=model.name,
        build=lambda *_: model,
        stages=dict(stages),
        preprocessing="unit",
        parameters=model.count_params(),
        minimum_size=1,
        batch_norm_momentum=None,
        description="your own",
    )
    settings = TransferSettings(scheme=scheme, through=through, freeze_to=freeze_to, batch_norm=bn_init)
    plan = build_plan(transfer_spec(settings, spec, weights=weights is not None), model, spec)
    return ModelPlan(plan, None if weights is None else _plan_weights(model, plan, weights, ignore_lambda))


def _plan_weights(
    model: "keras.Model", plan: "TransferPlan", weights: Any, ignore_lambda: bool
) -> dict[str, tuple[np.ndarray, ...]]:
    """The arrays of every layer of the plan that holds weights."""
    from radtransfer.pretrained.match import match_layers, weighted_layers
    from radtransfer.pretrained.read import read_weight_file
    from radtransfer.pretrained.source import fetch, find_weights

    targets = [target for target in weighted_layers(model) if target.name in plan.layers]
    if isinstance(weights, (str, os.PathLike)):
        source = find_weights(os.fspath(weights))
        fetch(source, ShownProgress().note)
        match = match_layers(read_weight_file(source.file, ignore_lambda=ignore_lambda), targets)
        found, where = match.arrays, source.given
    else:
        found = {layer.name: tuple(layer.get_weights()) for layer in weights.layers if layer.weights}
        where = weights.name
    for target in targets:
        own = [tuple(weight.shape) for weight in model.get_layer(target.name).weights]
        theirs = [array.shape for array in found.get(target.name, ())]
        if own != theirs:
            has = f"has {theirs}" if theirs else "is not there"
            raise WeightsMismatchError(
                f"{where}: expected weights of layer {target.name} of shapes {own}; it {has}. "
                "Use a model or file with the same layers, or end the stages before this layer."
            )
    return {target.name: tuple(found[target.name]) for target in targets}


# Comparisons


@keras_defaults()
def compare(
    a: Any,
    b: Any,
    *,
    images: Any = None,
    data: Any = None,
    similarity: str | Sequence[str] = "cca",
    layers: str | Sequence[str] | None = None,
    rows: int = 10_000,
    dims: int = 64,
    repeats: int = 5,
    cross: bool = False,
    fold: int | Sequence[int] | None = None,
    backbone: str | None = None,
    image_size: int | None = None,
    seed: int = 0,
    out: str | os.PathLike | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    **settings: Any,
) -> "Comparison":
    """Compare every layer of two networks on the same images; the command `radtransfer compare-cca`.

    Args:
        a: A `Run`, a Keras model, or what the command takes: RUN@initial, a file, "random:resnet50".
        b: The other.
        images: An array (n, height, width, 3), 0–255, which Keras models get as it is; or a list of files.
        data: A data set instead; without both, the test images of the run.
        similarity: One or several of `radtransfer.similarity.SIMILARITIES`.
        layers: "stages", "all", or names. By default stages, and without stages every layer with weights.
        rows: Positions per layer.
        dims: Channels per layer.
        repeats: Draws of both, averaged.
        cross: Also every layer of A against every layer of B.
        fold: Only these folds of the runs.
        backbone: Network that a weights file is for.
        image_size: For networks that are built for any size.
        seed: Of everything drawn.
        out: Write CSV, JSON and figures here.
        overwrite: Replace an earlier comparison in `out`.
        quiet: Show warnings only.
        settings: How the data are read.

    Returns:
        `to_frame()` has a row per layer and kind, `plot()` draws them.

    Raises:
        SimilarityError: None of the layers can be compared.
    """
    require_keras()
    from radtransfer.data.run_data import ImageArrays
    from radtransfer.similarity import compare_layers
    from radtransfer.similarity.layer_rows import Sampling

    if out is not None:
        check_new(Path(out), compare_layers.COMPARISON_FILES, overwrite=overwrite)
    progress = ShownProgress(quiet=quiet)
    pixels = _checked_images(images) if _is_array(images) else None
    files = (
        () if images is None or pixels is not None else [images] if isinstance(images, (str, os.PathLike)) else images
    )
    size = image_size or (None if pixels is None else pixels.shape[1])
    sources = [
        os.fspath(side) if isinstance(side, (str, os.PathLike)) else _model_source(side, size) for side in (a, b)
    ]
    if layers is None:
        layers = "stages" if all(map(_has_stages, (a, b))) else _weighted_in_both(a, b)
    found = compare_layers.compare(
        sources[0],
        sources[1],
        compare_layers.ComparisonSettings(
            layers=(layers,) if isinstance(layers, str) else tuple(layers),
            similarity=(similarity,) if isinstance(similarity, str) else tuple(similarity),
            sampling=Sampling(rows=rows, dims=dims, repeats=repeats, seed=seed),
            cross=cross,
            data=settings_of(data, settings=settings).data,
            files=tuple(map(os.fspath, files)),
            backbone=backbone,
            image_size=size,
            folds=_numbers(fold),
        ),
        progress=progress,
        images=None if pixels is None else ImageArrays(pixels),
    )
    progress.close()
    if out is not None:
        compare_layers.write_comparison(found, Path(out))
    return found


def _model_source(model: "keras.Model", size: int | None) -> "NetworkSource":
    """A Keras model as one that can be compared: it gets the images as they are."""
    from radtransfer.models.activations import Network, flat_model
    from radtransfer.similarity.networks import NetworkSource

    if len(model.inputs) != 1 or len(model.inputs[0].shape) != 4:
        raise ConfigError(f"{model.name}: expected a functional model of one image.")
    network = Network(flat_model(model), _stages_of(model), None)
    own = model.inputs[0].shape[1]
    return NetworkSource(model.name, "file", lambda *_: network, network.spec, image_size=own or size)


def _stages_of(model: "keras.Model") -> Any:
    from radtransfer.models.activations import flat_model, known_backbone

    return known_backbone(flat_model(model))


def _has_stages(side: Any) -> bool:
    return isinstance(side, (str, os.PathLike)) or _stages_of(side) is not None


def _weighted_in_both(a: Any, b: Any) -> Sequence[str]:
    """Layers with weights that both have under one name; "all" where one is not a model in memory."""
    from radtransfer.models.activations import flat_model

    if any(isinstance(side, (str, os.PathLike)) for side in (a, b)):
        return ("all",)
    mine, its = ([layer.name for layer in flat_model(model).layers if layer.weights] for model in (a, b))
    shared = [name for name in mine if name in its]
    if not shared:
        raise ConfigError(f"{a.name} and {b.name} share no layer with weights by name. Give layers=[…].")
    return shared


# Studies and reports


class StudyResult:
    """The folder of a study.

    Attributes:
        path: The folder.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        if not (self.path / "table.json").is_file():
            raise RunError(f"{self.path}: not the folder of a study that was run; expected a table.json in it.")

    def __fspath__(self) -> str:
        return str(self.path)

    @cached_property
    def table(self) -> dict[str, Any]:
        """What `table.json` holds."""
        return json.loads((self.path / "table.json").read_text(encoding="utf-8"))

    def to_frame(self) -> "pd.DataFrame":
        """A row per run."""
        rows = [{**row["labels"], **{name: value for name, value in row.items() if name not in ("labels", "folds")}}
                for row in self.table["runs"]]  # fmt: skip
        return _frame(rows)

    @property
    def runs(self) -> list[Run]:
        """The runs that have a finished fold."""
        return [Run(row["path"]) for row in self.table["runs"] if row["folds"]]

    def __repr__(self) -> str:
        done = sum(row["status"] == "finished" for row in self.table["runs"])
        return f"StudyResult({str(self.path)!r}, {done} of {len(self.table['runs'])} runs finished)"

    def _repr_html_(self) -> str:
        shown = self.to_frame()[["arm", "status", "auc", "auc_sd", "auc_pooled", "ci95_low", "ci95_high"]]
        return f"<b>{html.escape(str(self.path))}</b>" + shown.to_html(index=False)


def run_study(
    config: str | os.PathLike,
    *,
    data: Any = None,
    out: str | os.PathLike | None = None,
    runs: str | os.PathLike | None = None,
    arms: Sequence[str] = (),
    limit: int | None = None,
    quiet: bool = False,
    **settings: Any,
) -> StudyResult:
    """Compute every run of a study that is not done yet, in this process; the command `radtransfer study --jobs 0`.

    Args:
        config: A shipped study or a YAML file.
        data: As in `finetune`; None for that of the study.
        out: Its folder; by default `studies/NAME`.
        runs: The folder of runs that all studies share; by default that of the command, `runs/studies`.
        arms: Only these.
        limit: Compute so many runs at most.
        quiet: Show warnings only.
        settings: Of all runs, as in `finetune`.

    Raises:
        ConfigError: The study cannot be read. TrainingError: Runs failed; the others are kept and tabulated.
    """
    require_keras()
    from radtransfer.studies.engines import InProcess
    from radtransfer.studies.file import load_study
    from radtransfer.studies.grid import plan_study
    from radtransfer.studies.runs import StudyListener, check_complete, open_study_folder
    from radtransfer.studies.runs import run_study as run_all
    from radtransfer.studies.study import STORE
    from radtransfer.studies.tables import write_study_table

    progress = ShownProgress(quiet=quiet)
    base = settings_of(data, settings=settings)
    asked = load_study(os.fspath(config), options=_given_values(base), arms=list(arms))
    plan = plan_study(asked, store=Path(STORE if runs is None else runs), progress=progress)
    path = Path("studies") / asked.name if out is None else Path(out)

    class Listener(StudyListener):
        def changed(self, state: Any) -> None:
            folder.write_progress(state)

        def started(self, run: Any) -> None:
            pass

        def ended(self, state: Any, run: Any, outcome: Any) -> None:
            pass

        def note(self, text: str) -> None:
            progress.note(text)

    with open_study_folder(path) as folder:
        for note in folder.begin(plan):
            progress.note(note)
        try:
            state = run_all(plan, InProcess(progress), Listener(), limit=limit)
            folder.write_progress(state, now=True)
        finally:
            write_study_table(plan, path)
    progress.close()
    check_complete(state)
    return StudyResult(path)


def _given_values(config: Config) -> dict[str, Any]:
    """The settings that a call named, by their dotted names."""
    return {name: _plain(setting_value(config, name)) for name in config.given}


class Report:
    """A written report.

    Attributes:
        path: Its folder.
        files: What was written, the page first.
    """

    def __init__(self, path: Path, files: Sequence[Path]):
        self.path, self.files = path, tuple(files)

    @cached_property
    def values(self) -> dict[str, Any]:
        """What `report.json` holds."""
        return json.loads((self.path / "report.json").read_text(encoding="utf-8"))

    def __repr__(self) -> str:
        return f"Report({str(self.files[0])!r})"

    def _repr_html_(self) -> str:
        return f"<a href='{html.escape(str(self.files[0]))}'>{html.escape(str(self.files[0]))}</a>"


def make_report(
    runs: Any,
    *,
    out: str | os.PathLike,
    threshold: float | None = None,
    cca: bool = True,
    quiet: bool = False,
) -> Report:
    """Write a report on a study or on runs; the command `radtransfer report`.

    Args:
        runs: What `run_study` gave, a study's folder, a run, or several runs.
        out: The folder of the report.
        threshold: AUC that training steps are counted to.
        cca: Also compare layers and filters.
        quiet: Show warnings only.

    Raises:
        RunError: Not runs, or runs that answer different questions.
    """
    if cca:
        require_keras()
    from radtransfer.reports.report import report_runs

    several = [runs] if isinstance(runs, (str, os.PathLike)) else list(runs)
    progress = ShownProgress(quiet=quiet)
    files = report_runs(
        [Path(os.fspath(run)) for run in several], Path(out), threshold=threshold, cca=cca, progress=progress
    )
    progress.close()
    return Report(Path(out), files)
