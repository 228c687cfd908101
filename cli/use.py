"""Commands that use a trained model: evaluate, predict, explain and extract.

Commands that hand a trained model on: export and card.
"""

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click

from radtransfer.api import trained as api
from radtransfer.cli.options import (
    LIST_OPTIONS,
    TABLE_OPTIONS,
    Command,
    SettingOption,
    Whole,
    batch_option,
    fold_option,
    output_options,
    overwrite_option,
    quiet_option,
    setting_options,
    settings_and_others,
    skip_option,
    typed_words,
)
from radtransfer.cli.terminal import (
    TerminalProgress,
    show,
    show_file,
    show_json,
    show_next,
    show_written,
)
from radtransfer.errors import ConfigError, RunError
from radtransfer.exports.formats import EXPORT_FORMATS
from radtransfer.files import writing
from radtransfer.process import require_keras

OPTIONS = {"data": "data.source", **TABLE_OPTIONS, "on_bad_image": "data.on_bad_image", "workers": "system.workers"}


@click.command(
    cls=Command,
    first=(
        *("data", "image_root", "label_column", "patient_column", "split", "class_map", "fold", "operating_point"),
        *("out", "as_json"),
    ),
    short_help="Evaluate a trained model on test images.",
)
@click.argument("run")
@setting_options(**OPTIONS)
@click.option(
    "--split",
    type=click.Choice(["all", "train", "val", "test"]),
    default="all",
    show_default=True,
    help="Evaluate only this split, if the data has splits.",
)
@click.option(
    "--class-map",
    multiple=True,
    metavar="NAME=CLASS",
    help="Class NAME of the data counts as CLASS of the model; NAME= leaves its images out.",
)
@fold_option
@click.option(
    "--operating-point",
    metavar="RULE",
    help="Evaluate at a threshold chosen on the run's validation images: youden, sensitivity=X or specificity=X. "
    "An export has its own.",
)
@click.option(
    "--bins",
    default=10,
    show_default=True,
    type=Whole(2, 1000),
    help="Bins of the calibration error.",
)
@click.option(
    "--draws",
    default=2000,
    show_default=True,
    type=Whole(100),
    help="Bootstrap draws for the bands of the curves.",
)
@click.option("--seed", default=0, show_default=True, type=Whole(0), help="Seed of those draws.")
@batch_option
@click.option("--out", metavar="DIR", help="Write predictions, metrics and figures here.")
@overwrite_option
@output_options
def evaluate(run: str, class_map: tuple[str, ...], as_json: bool, **given: Any) -> None:
    """Evaluate RUN on an external test set: each fold's network, and the mean of their probabilities.

    RUN is a run, RUN/fold_K, an exported .keras file or a SavedModel folder. Without --data, a run is evaluated on its
    own test images, from its stored predictions. Classes are matched by name. Intervals are over patients,
    or over images if patients are not known. Temperatures and operating points come from the run's validation images
    alone. The positive class is that of the run, unless --positive-class names the other.

    \b
    Example:
      radtransfer evaluate runs/first --data hospital_b.csv \\
        --image-root hospital_b/ --out evaluated
    """
    settings, others = settings_and_others(given, OPTIONS)
    pairs = [item.rpartition("=") for item in class_map]
    wrong = [item for item, (name, equals, _) in zip(class_map, pairs, strict=True) if not equals or not name.strip()]
    if wrong:
        raise ConfigError(f"--class-map expects NAME=CLASS, such as normal=benign. Received: {wrong[0]!r}.")
    mapped = {name.strip(): other.strip() for name, _, other in pairs}
    progress = TerminalProgress()
    found = api.evaluate(run, config=settings, class_map=mapped, progress=progress, **others)
    from radtransfer.evaluation.results import SEEN, leak_summary
    from radtransfer.evaluation.summary import evaluation_lines

    show_json(found.figures) if as_json else show(*evaluation_lines(found))
    show_written(found.files)

    listed = next((path for path in found.files if path.name == SEEN), None)
    leaked = leak_summary(found.figures.get("seen"), listed)
    if leaked:
        progress.warning(leaked)
    elif found.model.kind == "savedmodel":
        show_next(["predict", run, "IMAGES"])
    else:
        fold = ["--fold", found.model.folds[0]] if found.model.folds else []
        show_next(["explain", run, *fold, *typed_words("data", *TABLE_OPTIONS)])


@click.command(short_help="Predict images with a trained model.")
@click.argument("model")
@click.argument("images", nargs=-1, required=True)
@fold_option
@click.option(
    "--operating-point",
    metavar="RULE",
    help="Decide by a threshold chosen on the run's validation images: youden, sensitivity=X or specificity=X; "
    "none takes the largest output. An export has its own.",
)
@click.option(
    "--calibration",
    type=click.Choice(["none", "temperature"]),
    default="none",
    show_default=True,
    help="Scale the probabilities by temperatures fitted on validation images.",
)
@setting_options(**LIST_OPTIONS)
@batch_option
@skip_option
@click.option(
    "--format",
    type=click.Choice(["csv", "jsonl"]),
    help="Format of the rows.  [default: from the ending of --out, else csv]",
)
@click.option("--out", metavar="FILE", help="Write here instead of to standard output.")
@click.option("--overwrite", is_flag=True, help="Replace the file in --out.")
@quiet_option
def predict(model: str, images: tuple[str, ...], out: str | None, **given: Any) -> None:
    """Predict IMAGES with MODEL: a line per image with its class and the probability of each.

    MODEL is a run (the mean over its folds), RUN/fold_K, an exported .keras file or a SavedModel folder. IMAGES are
    files, folders that are searched, and CSV files with a column of paths. They are read as in training. Rows
    appear as soon as they are ready.

    \b
    Example:
      radtransfer predict runs/first new_images/ --out predictions.csv
    """
    settings, others = settings_and_others(given, LIST_OPTIONS)
    place = out or SimpleNamespace(write=partial(show_file, is_row=True))
    api.predict(model, images, config=settings, out=place, progress=TerminalProgress(), **others)
    show_next(["evaluate", model, "--data", "LABELLED_IMAGES", *typed_words("fold")])


@click.command(
    cls=Command,
    first=("data", "image_root", "label_column", "fold", "layer", "class_", "limit", "occlusion", "out", "as_json"),
    short_help="Draw which parts of images a prediction depends on.",
)
@click.argument("model")
@click.argument("images", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--data",
    cls=SettingOption,
    setting="data.source",
    metavar="SOURCE",
    help="Images, with labels or not.  [default: the run's own test images]",
)
@setting_options(**TABLE_OPTIONS)
@click.option("--fold", type=int, metavar="K", help="Fold of the run; required if it has several.")
@click.option("--layer", metavar="STAGE", help="Stage or layer whose map is drawn.  [default: the last stage]")
@click.option("--class", "class_", metavar="NAME", help="Explain this class.  [default: what was predicted]")
@click.option("--limit", type=Whole(1, 1000), default=24, show_default=True, help="Images to explain.")
@click.option(
    "--occlusion",
    type=Whole(0, 64),
    default=8,
    show_default=True,
    help="Cover squares of a grid of N by N; 0 skips this check.",
)
@click.option(
    "--seed",
    type=Whole(0),
    default=0,
    show_default=True,
    help="Seed of the random weights of the second check.",
)
@click.option("--out", metavar="DIR", default="explanations", show_default=True, help="Folder of sheet and overlays.")
@overwrite_option
@output_options
def explain(model: str, images: tuple[Path, ...], data: str | None, as_json: bool, **given: Any) -> None:
    """Explain what MODEL (a run, RUN/fold_K, a .keras file) says about IMAGES, --data, or the run's test images.

    Grad-CAM maps, confident mistakes first, on a sheet (HTML) and as PNG. Two checks are printed: the rank correlation
    with maps from covering parts of the image, which should be high, and with maps of the same network with random
    weights, which should be low.

    \b
    Example:
      radtransfer explain runs/first --fold 1 --limit 12 --out explanations
      radtransfer explain model.keras scan_1.png scan_2.png --layer stage3
    """
    if images and data:
        raise click.UsageError("Expected IMAGES or --data, and not both.")
    settings, others = settings_and_others(given, TABLE_OPTIONS)
    explained = api.explain(model, images, data=data, config=settings, progress=TerminalProgress(), **others)
    from radtransfer.evaluation.explanations import explained_record
    from radtransfer.evaluation.summary import explained_lines

    written = explained.files
    show_json(explained_record(explained)) if as_json else show(*explained_lines(explained))
    show_written(written[:3])
    if Path(model).suffix == ".keras":
        show_next(["predict", model, "IMAGES"])
    else:
        show_next(["export", model, *typed_words("fold"), "--format", "keras", "--out", "model.keras"])


@click.command(short_help="Write the features that a layer computes for images.")
@click.argument("model")
@click.argument("images", nargs=-1, required=True)
@click.option("--layer", required=True, metavar="STAGE|LAYER", help="A stage (its last layer), or a layer by name.")
@click.option(
    "--pool",
    type=click.Choice(["avg", "none"]),
    default="avg",
    show_default=True,
    help="avg: mean over positions; none: the whole feature map.",
)
@fold_option
@setting_options(**LIST_OPTIONS)
@batch_option
@skip_option
@click.option("--out", required=True, metavar="FILE", help="A .npz or .parquet file.")
@click.option("--overwrite", is_flag=True, help="Replace the file in --out.")
@output_options
def extract(
    model: str,
    images: tuple[str, ...],
    layer: str,
    pool: str,
    fold: tuple[int, ...],
    batch_size: int,
    on_bad_image: str,
    out: str,
    overwrite: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Write the features that a layer of MODEL computes for IMAGES: a row per image, with its path.

    MODEL is RUN/fold_K, a run with --fold, an exported .keras file or a SavedModel folder. IMAGES are files, folders
    that are searched, and CSV files with a column of paths. `radtransfer backbones NAME` lists stages and layers.

    \b
    Example:
      radtransfer extract runs/first/fold_1 images/ --layer stage3 \\
        --out features.npz
    """
    from radtransfer.evaluation.extract import check_feature_file, feature_file, layer_features
    from radtransfer.evaluation.predictions import Forward, open_images, report_bad_images
    from radtransfer.evaluation.trained_model import check_layer, check_one, find_model

    api.check_file(out, overwrite=overwrite)
    check_feature_file(Path(out))
    settings, progress = settings_and_others(given, LIST_OPTIONS)[0], TerminalProgress()
    find = partial(find_model, model, folds=fold)
    found, stream = open_images(find, images, settings, batch_size=batch_size, progress=progress)
    check_one(found)
    check_layer(found, layer)
    require_keras()
    name, shape, features = layer_features(found, layer, pool=pool)
    forward = Forward([features], batch_size=batch_size, notify=progress.note)
    with writing(Path(out)), feature_file(Path(out), layer=name, shape=shape) as write:
        for paths, batch in stream:
            write(paths, forward(batch)[0])
    progress.clear()
    done, size = len(stream.images) - len(stream.bad), Path(out).stat().st_size
    if as_json:
        show_json({"path": out, "images": done, "layer": name, "shape": list(shape), "bytes": size})
    else:
        show(f"{out}  {done} images  layer {name}  {' × '.join(map(str, shape))} features  {size / 1e6:.1f} MB")
    report_bad_images(stream, on_bad_image, progress, kept="The others are in the file. ")
    reader = "pandas; print(pandas.read_parquet" if Path(out).suffix == ".parquet" else "numpy; print(numpy.load"
    show_next(["-c", f"import {reader}({out!r}))"], program="python")


@click.command(short_help="Write a trained model in another format, and check it.")
@click.argument("run")
@click.option("--format", type=click.Choice(list(EXPORT_FORMATS)), required=True, help="What to write.")
@click.option("--out", required=True, metavar="PATH", help="File or folder to write; never overwritten.")
@click.option("--fold", metavar="K|all", help="Fold of the run; required if it has several.")
@click.option(
    "--operating-point",
    metavar="RULE",
    help="Store a threshold in the export, chosen on the fold's validation images: youden, sensitivity=X or "
    "specificity=X. predict then uses it.",
)
@output_options
def export(run: str, out: str, as_json: bool, **given: Any) -> None:
    """Export the model of RUN (or RUN/fold_K) with a model card.

    The exported model takes RGB images with values 0-255; the scaling is inside.

    What was written is reloaded in a fresh process and compared on images of the run: a probability that differs by
    more than 1e-5 is an error (exit code 7), and nothing is written. A savedmodel also takes encoded JPEGs and PNGs
    (serve_bytes), with everything inside. onnx needs pip install 'radtransfer[export]'.

    \b
    Example:
      radtransfer export runs/first --fold 1 --format savedmodel --out model
    """
    exported = api.export(run, out, progress=TerminalProgress(), **given)
    if as_json:
        plain = [{name: str(value) if isinstance(value, Path) else value for name, value in vars(item).items()}
                 for item in exported]  # fmt: skip
        show_json(plain)
        return
    for item in exported:
        images = f"{item.images} of the run's images" if item.images else "drawn images (the run's are not there)"
        files = "" if item.bytes_difference is None else f", {item.bytes_difference:.2g} from the files"
        show(f"{item.path}  {item.size / 1e6:.1f} MB  largest difference {item.difference:.2g}{files} on {images}")
    from radtransfer.exports.write import LARGEST_DIFFERENCE

    show(f"checked   in a fresh process; more than {LARGEST_DIFFERENCE:g} is refused")
    show(f"inside    {exported[0].inside}")
    inside = "" if exported[0].bytes_difference is None else " (serve_bytes does all of it)"
    show(f"to do     {exported[0].caller}{inside}")
    if exported[0].positive_class is not None:
        show(f"positive class {exported[0].positive_class}")
    show(f"use       {exported[0].usage}")
    show(f"card      {', '.join(str(item.card) for item in exported)}")
    if given["format"] in ("keras", "savedmodel"):
        show_next(["predict", exported[0].path, "IMAGES"])


@click.command(short_help="Write the model card of a run.")
@click.argument("run")
@click.option("--fold", type=int, metavar="K", help="Fold of the run; required if it has several.")
@click.option("--out", metavar="FILE", type=click.Path(path_type=Path), help="Write it here instead of printing it.")
@output_options
def card(run: str, fold: int | None, out: Path | None, as_json: bool) -> None:
    """Print the model card of RUN (or RUN/fold_K) in Markdown: data, results, weights, terms and limits.

    `radtransfer export` writes the same card beside each export, with the result of its check.

    \b
    Example:
      radtransfer card runs/first --fold 1 --out MODEL_CARD.md
    """
    from radtransfer.exports.metadata import export_metadata, model_card, read_facts
    from radtransfer.runs.folder import find_fold, write_text

    path, number = find_fold(run, fold=fold)
    facts = read_facts(path, number)
    text = model_card(facts, size=facts.record["image_size"])
    if out is not None:
        if out.exists():
            raise RunError(f"{out} exists; nothing was written. Choose another --out.")
        with writing(out):
            out.parent.mkdir(parents=True, exist_ok=True)
            write_text(out, text)
        show_written([out])
    if as_json:
        show_json(export_metadata(facts, size=facts.record["image_size"]))
    elif out is None:
        show_file(text)
    show_next(["export", path, "--fold", number, "--format", "keras", "--out", "model.keras"])
