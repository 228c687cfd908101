"""Trained networks in use: evaluate, predict, explain and export."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, overload

from radtransfer.api.progress import shown
from radtransfer.api.settings import ConfigLike, PathLike, checked_images, frame, is_array, numbers, paths, settings_of
from radtransfer.config.schema import ImageSettings
from radtransfer.errors import ConfigError, RunError, UnknownNameError, WeightsMismatchError, no_model
from radtransfer.files import check_new, check_out, writing
from radtransfer.process import Progress, require_keras, workers_of

if TYPE_CHECKING:
    import pandas as pd

    from radtransfer.evaluation.explanations import Explained
    from radtransfer.evaluation.results import Evaluation
    from radtransfer.evaluation.trained_model import TrainedModel
    from radtransfer.exports.write import Exported


class Writable(Protocol):
    """An open text file, or any object with its `write`."""

    def write(self, text: str, /) -> Any: ...


def _check_model(given: Any, operating_point: str | None = None) -> None:
    """Check the path of a model and the rule of an operating point, before heavy imports."""
    if isinstance(given, (str, os.PathLike)) and not Path(given).expanduser().exists():
        raise no_model(os.fspath(given))
    if operating_point is not None and operating_point.strip().lower() != "none":
        from radtransfer.evaluation.calibration import check_rule

        check_rule(operating_point)


def evaluate(
    run: Any,
    *,
    data: Any = None,
    config: ConfigLike | None = None,
    split: Literal["all", "train", "val", "test"] = "all",
    class_map: Mapping[str, str] | None = None,
    fold: int | Sequence[int] | None = None,
    operating_point: str | None = None,
    bins: int = 10,
    draws: int = 2000,
    seed: int = 0,
    batch_size: int = 32,
    out: PathLike | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> "Evaluation":
    """Evaluate a run or an export on a test set, or a run on its own test images; the command `radtransfer evaluate`.

    Other arguments are described in `radtransfer.api`; of the settings, those about reading data apply, such as
    `image_root`, `label_column`.

    Args:
        run: A `Run`, a path (RUN, RUN/fold_K, a `.keras` file, a SavedModel).
        data: The test set; None for the run's own test images.
        split: Which images, if the data have splits.
        class_map: Classes of the data to classes of the model; "" excludes the images of a class.
        operating_point: "youden", "sensitivity=X" or "specificity=X", chosen on the run's validation images.
        bins: Number of bins of the calibration error.
        draws: Bootstrap draws for the bands of the curves, with `seed`.
        batch_size: Images per batch, at most.
        out: Folder for predictions, metrics and figures.

    Returns:
        A result with `metrics`, as printed by `radtransfer evaluate --json`, and `files`, the written files.

    Example:
        >>> found = rt.evaluate("runs/first", data="images.csv", image_root="images", quiet=True)
        >>> found.metrics["n_images"], found.metrics["classes"]
        (48, ['sick', 'well'])
    """
    with shown(progress, quiet) as progress:
        checked = settings_of(data, config=config, settings=settings)
        source = checked.data.source
        if source is None:  # options about data need data; the positive class belongs to the model
            without = ("data.positive_class", "data.on_bad_image")
            named = [name[5:] for name in checked.given if name.startswith("data.") and name not in without]
            named = sorted(named) + ["split"] * (split != "all") + ["class_map"] * bool(class_map)
            if named:
                raise ConfigError(f"--{named[0].replace('_', '-')} is about the images in --data, which is not given.")
        if out is not None:
            check_out(Path(out))
        _check_model(run, operating_point)
        from radtransfer.data.readers import check_source
        from radtransfer.evaluation import results
        from radtransfer.evaluation.trained_model import find_model

        if out is not None:
            check_new(Path(out), results.FILES, overwrite=overwrite)
        check_source(source)
        if source is None:
            results.check_has_images(os.fspath(run))
        model = find_model(os.fspath(run), folds=numbers(fold))
        options = results.EvaluationSettings(operating_point, bins, draws, seed)
        if source is None:
            model = model.with_positive_class(checked.data.positive_class)
            found = results.evaluate_run(model, settings=options, progress=progress)
        else:
            found = results.evaluate_on(
                model,
                checked.data,
                split=split,
                class_map=class_map,
                settings=options,
                batch_size=batch_size,
                workers=workers_of(checked.system),
                report_file=None if out is None else Path(out) / "bad_images.txt",
                progress=progress,
            )
        return found if out is None else replace(found, files=tuple(results.write_evaluation(found, Path(out))))


@overload
def predict(model: Any, images: Any, *, out: None = None, **options: Any) -> "pd.DataFrame": ...
@overload
def predict(model: Any, images: Any, *, out: PathLike | Writable, **options: Any) -> None: ...
def predict(
    model: Any,
    images: Any,
    *,
    config: ConfigLike | None = None,
    fold: int | Sequence[int] | None = None,
    operating_point: str | None = None,
    calibration: Literal["none", "temperature"] = "none",
    batch_size: int = 32,
    on_bad_image: Literal["error", "skip"] = "error",
    out: PathLike | Writable | None = None,
    format: Literal["csv", "jsonl"] | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> "pd.DataFrame | None":
    """Predict images; the command `radtransfer predict`.

    Other arguments are described in `radtransfer.api`; of the settings, those about finding images apply, such as
    `image_root`, `path_column`.

    Args:
        model: A `Run` or its path (the mean over its folds), RUN/fold_K, a `.keras` file, a SavedModel, or a Keras
            classifier of RGB images, 0–255.
        images: An array (n, height, width, 3), RGB, 0–255, of the model's image size; or a file, a folder, a CSV with
            a column of paths, or several of them.
        operating_point: As in `evaluate`.
        calibration: "temperature" scales by temperatures fitted on validation images.
        batch_size: Images per batch, at most.
        on_bad_image: "error", or "skip" unreadable images.
        out: A path or open file for one line per image, written as soon as it is ready, instead of a frame.
        format: Format of these lines; by default from the suffix of `out`, else CSV.
        overwrite: Replace the file `out`.

    Returns:
        A row per image: `path` (the row's number for arrays), `predicted` (several labels joined by ";"),
        `positive` if there is an operating point, and `p_CLASS` (0 to 1) for each class. None with `out`.

    Raises:
        DataError: Images cannot be read; the others are in `out`.

    Example:
        >>> found = rt.predict("runs/first", "images", quiet=True)
        >>> list(found.columns)
        ['path', 'predicted', 'p_sick', 'p_well']
    """
    with shown(progress, quiet) as progress:
        file = out if isinstance(out, (str, os.PathLike)) else None
        check_file(file, overwrite=overwrite)
        _check_model(model, operating_point)
        from radtransfer.evaluation.calibration import edge_note
        from radtransfer.evaluation.predictions import (
            Forward,
            csv_header,
            line_writer,
            open_images,
            predict_stream,
            report_bad_images,
        )
        from radtransfer.evaluation.results import known_temperatures, point_of

        checked = settings_of(config=config, settings=settings)
        find = partial(_trained, model, numbers(fold))
        stream: Any
        if is_array(images):
            found = find()
            fixed = isinstance(model, (str, os.PathLike)) or model.inputs[0].shape[1] is not None
            stream = _array_batches(images, found, batch_size, fixed=fixed)
        else:
            found, stream = open_images(find, paths(images), checked, batch_size=batch_size, progress=progress)
        point = point_of(found, operating_point)
        if point is not None and found.scoring.positive_class is not None:
            name = found.scoring.positive_class
            progress.note(f"positive class {name}: probability of at least {point.thresholds[name]:.4g} ({point.rule})")
        temperatures = known_temperatures(found) if calibration == "temperature" else ()
        if note := edge_note(temperatures):
            progress.note(note)
        forward = Forward(found.load(), batch_size=batch_size, notify=progress.note)
        predictions = predict_stream(found, forward, stream, temperatures=temperatures, point=point)
        rows = []
        if out is None:
            for item in predictions:
                positive = [] if item.positive is None else [item.positive]
                rows.append([item.path, ";".join(item.predicted), *positive, *item.probabilities])
        else:
            if format is None:
                format = "jsonl" if file is not None and Path(file).suffix.lower() in (".jsonl", ".ndjson") else "csv"
            header, line = line_writer(format, found.scoring, pointed=point is not None)
            with _opened(out) as write:
                write(header)
                for item in predictions:
                    write(line(item))
        if not is_array(images):
            kept = "" if out is None else "The others are predicted. "
            report_bad_images(stream, on_bad_image, progress, kept=kept)
        return frame(rows, columns=csv_header(found.scoring, pointed=point is not None)) if out is None else None


def _trained(model: Any, folds: Sequence[int]) -> "TrainedModel":
    """The trained model of a run, a path or a Keras classifier."""
    from radtransfer.evaluation.scoring import Scoring
    from radtransfer.evaluation.trained_model import TrainedModel, find_model

    if isinstance(model, (str, os.PathLike)):
        return find_model(os.fspath(model), folds=folds)
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
        loaded=(model,),
    )


def _array_batches(
    images: Any, model: "TrainedModel", batch_size: int, *, fixed: bool
) -> Iterator[tuple[list[str], Any]]:
    """Row numbers and images, float32 (batch, height, width, 3), per batch."""
    pixels = checked_images(images)
    if fixed and pixels.shape[1:3] != (model.image_size, model.image_size):
        raise ConfigError(
            f"Expected images of {model.image_size}×{model.image_size} pixels, as {model.given} takes them. "
            f"Received: {pixels.shape[1]}×{pixels.shape[2]}. Resize the array, or give files."
        )
    require_keras()
    import tensorflow as tf

    for start in range(0, len(pixels), batch_size):
        part = pixels[start : start + batch_size]
        yield [str(start + row) for row in range(len(part))], tf.constant(part)


def check_file(out: PathLike | None, *, overwrite: bool) -> None:
    """Check that a file can be written, before anything is computed.

    Raises:
        ConfigError: It exists already, or its folder cannot be created.
    """
    if out is None:
        return
    path = Path(out)
    if path.is_dir() or (path.exists() and not overwrite):
        raise ConfigError(f"{out} exists. Use --overwrite to replace a file, or another --out.")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(path.parent, os.W_OK):
        raise RunError(f"--out {out}: its folder may not be written. Choose another.")


@contextmanager
def _opened(out: PathLike | Writable) -> Iterator[Callable[[str], Any]]:
    """A function that writes text to an open file, or to a path that appears when the block succeeds."""
    from radtransfer.runs.folder import atomic_write

    if not isinstance(out, (str, os.PathLike)):
        yield out.write
        return
    with writing(Path(out)), atomic_write(Path(out)) as part, part.open("w", encoding="utf-8", newline="") as handle:
        yield handle.write


def explain(
    run: Any,
    images: Any = (),
    *,
    data: Any = None,
    config: ConfigLike | None = None,
    fold: int | None = None,
    layer: str | None = None,
    class_: str | None = None,
    limit: int = 24,
    occlusion: int = 8,
    seed: int = 0,
    out: PathLike | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> "Explained":
    """Grad-CAM maps of a trained network with two checks; the command `radtransfer explain`.

    Other arguments are described in `radtransfer.api`; of the settings, those about reading data apply.

    Args:
        run: A `Run`, RUN/fold_K, or a `.keras` file.
        images: Files without labels.
        data: A data set instead; without both, the run's own test images.
        fold: One fold of a run with several.
        layer: Stage or layer of the map; None for the last stage.
        class_: The class to explain; None for the predicted class.
        limit: Number of images to explain, at most.
        occlusion: Number of occluded squares per side; 0 for no occlusion.
        seed: Seed of the random weights of the check.
        out: Folder for the sheet and the overlays, listed in `files` of the result.

    Example:
        >>> found = rt.explain("runs/first", fold=1, limit=2, occlusion=0, quiet=True)
        >>> [item.heat.shape for item in found.explanations]
        [(2, 2), (2, 2)]
    """
    with shown(progress, quiet) as progress:
        if out is not None:
            check_out(Path(out))
        _check_model(run)
        from radtransfer.data.readers import check_source
        from radtransfer.evaluation import explanations

        if out is not None:
            check_new(Path(out), explanations.FILES, overwrite=overwrite)
        source = settings_of(data, config=config, settings=settings).data
        check_source(source.source)
        found = explanations.explain(
            os.fspath(run),
            files=[Path(path) for path in paths(images)],
            data=source,
            fold=fold,
            layer=layer,
            target=class_,
            limit=limit,
            cells=occlusion,
            seed=seed,
            progress=progress,
        )
        return found if out is None else replace(found, files=tuple(explanations.write_explanations(found, Path(out))))


def export(
    run: Any,
    out: PathLike,
    *,
    format: str | None = None,
    fold: int | str | None = None,
    operating_point: str | None = None,
    progress: Progress | None = None,
) -> "list[Exported]":
    """Write a trained model in another format with a model card, and check it; the command `radtransfer export`.

    Args:
        run: A `Run`, or RUN/fold_K.
        out: File or folder to write; never overwritten.
        format: A format of `radtransfer export --format`; by default by the suffix of `out`, without one a SavedModel.
        fold: A number, "all", or None if there is only one.
        operating_point: As in `evaluate`.
        progress: See `radtransfer.api`; an export is quick and reports nothing.

    Raises:
        ExportError: The predictions of the export differ by more than 1e-5.

    Example:
        >>> exported, = rt.export("runs/first", "model.keras", fold=1)
        >>> exported.path.name, exported.difference <= 1e-5
        ('model.keras', True)
    """
    with shown(progress):
        from radtransfer.exports.formats import EXPORT_FORMATS
        from radtransfer.exports.write import export_run

        if format is None:
            suffixes = {EXPORT_FORMATS[name].suffix: name for name in EXPORT_FORMATS}
            ending = next((end for end in suffixes if end and str(out).endswith(end)), "")
            if Path(out).suffix and not ending:
                raise UnknownNameError("ending of an export", Path(out).suffix, [end for end in suffixes if end])
            format = suffixes[ending]
        number = None if fold is None else str(fold)
        return export_run(os.fspath(run), format=format, out=Path(out), fold=number, operating_point=operating_point)
