"""Commands that use a trained model: evaluate, predict, explain and extract.

Commands that hand a trained model on: export and card.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import click

from radtransfer.api import trained as api
from radtransfer.cli.options import (
    LIST_OPTIONS,
    TABLE_OPTIONS,
    Command,
    SettingOption,
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
    interval,
    number,
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

if TYPE_CHECKING:
    from radtransfer.evaluation.explanations import Explained
    from radtransfer.evaluation.results import Evaluation


def evaluation_lines(evaluation: "Evaluation") -> Iterator[str]:
    """Model, data, a table of its networks, and what the whole is worth, line by line."""
    found, model = evaluation.figures, evaluation.model
    kind = {"keras": " (Keras file)", "savedmodel": " (SavedModel)"}.get(model.kind)
    folds = f", fold{'s' * (len(model.folds) > 1)} {', '.join(map(str, model.folds))}"
    yield f"model     {model.given}{kind or folds}"
    patients = "patients not known" if found["n_patients"] is None else f"{found['n_patients']} patients"
    source = found["data"] or "the run's own test images"
    counts = ", ".join(f"{name} {item['n_positive']}" for name, item in found["per_class"].items())
    seen, in_training = found.get("seen"), ""
    if seen is not None and seen["images"]:  # here too, for where only the table is kept
        those = "all" if seen["images"] == seen["of"] else seen["images"]
        in_training = f"; {those} of them in the run's training or validation"
    yield f"data      {source}: {found['n_images']} images, {patients} ({counts}){in_training}"
    grade = found["positive_from"]
    if grade is not None:
        yield f"AUC       of grade {grade} or worse"
    if found["positive_class"] is not None:
        yield f"positive class {found['positive_class']}: sensitivity, specificity, Brier and calibration are of it"
    yield ""
    yield from _table(found)
    yield ""
    classes = list(found["per_class"].items())
    if found["task"] == "multiclass" and len(classes) == 2:
        classes.sort(key=lambda item: item[0] == found["positive_class"])
        if model.activation == "softmax":  # both have one AUC
            classes = classes[1:]
    for name, item in classes:
        reason = found["undefined"].get(name)
        yield f"{name:<24}AUC {number(item['auc'])}  {interval(item['ci95'])}{f'  ({reason})' if reason else ''}"
    yield ""
    yield from _calibration_lines(found)
    yield from _point_lines(found)
    yield from _confusion_lines(found["confusion"])


def _table(found: dict[str, Any]) -> Iterator[str]:
    from radtransfer.evaluation.metrics import shown_metrics

    widths = {metric: max(8, len(metric.heading) + 2) for metric in shown_metrics(found)}
    headings = "".join(f"{metric.heading:>{width}}" for metric, width in widths.items())
    yield f"{'':<14}{'AUC':>6}  {'95 % interval':<16}{headings}{'ECE':>8}"
    for name, item in [*found["members"].items(), (found["judged"], found)]:
        numbers = "".join(f"{number(item[metric.name]):>{width}}" for metric, width in widths.items())
        yield (
            f"{name:<14}{number(item['auc']):>6}  {interval(item['ci95']):<16}{numbers}"
            f"{number(item['calibration']['ece']):>8}"
        )


def _calibration_lines(found: dict[str, Any]) -> Iterator[str]:
    from radtransfer.evaluation.calibration import edge_note

    item = found["calibration"]
    yield f"calibration    ECE {number(item['ece'])} in {item['bins']} bins of equal width"
    if "ece_after" in item:
        temperatures = ", ".join(f"{value:.2f}" for value in found["temperatures"])
        count = found["validation_images"]
        images = "validation images" if count is None else f"{count} validation images"
        yield (
            f"               temperature {temperatures}, fitted on {images}: ECE {number(item['ece'])} to "
            f"{number(item['ece_after'])}, Brier {number(item['brier_before'])} to {number(item['brier_after'])}"
        )
        note = edge_note(found["temperatures"])
        if note:
            yield f"               {note}"


def _point_lines(found: dict[str, Any]) -> Iterator[str]:
    point = found.get("operating_point")
    if point is None:
        return
    yield f"operating point {point['rule']}, chosen on {point['chosen_on_images']} validation images"
    for name, item in point["questions"].items():
        there, ci95 = item["validation"], item["ci95"]
        named = f"positive class {name}" if name == found["positive_class"] else name
        yield (
            f"  {named}: threshold {item['threshold']:.4g}, accuracy {number(item['accuracy'])}, "
            f"sensitivity {number(item['sensitivity'])} "
            f"({interval(ci95['sensitivity'])}), specificity {number(item['specificity'])} "
            f"({interval(ci95['specificity'])}); on validation {number(there['sensitivity'])} and "
            f"{number(there['specificity'])}"
        )


def _confusion_lines(found: dict[str, Any]) -> Iterator[str]:
    yield f"confusion matrix {found['decided']}"
    if "labels" in found:
        yield f"{'label':<24}{'tn':>7}{'fp':>7}{'fn':>7}{'tp':>7}"
        for name, ((tn, fp), (fn, tp)) in found["labels"].items():
            yield f"{name:<24}{tn:>7}{fp:>7}{fn:>7}{tp:>7}"
        return
    names = found["classes"]
    width = max(8, *(len(name) + 2 for name in names))
    yield f"{'true, predicted':<20}" + "".join(f"{name:>{width}}" for name in names)
    for name, row in zip(names, found["counts"], strict=True):
        yield f"{name:<20}" + "".join(f"{count:>{width}}" for count in row)


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
    help="Of data that brings splits: evaluate these images.",
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
    help="Judge the threshold that this rule chooses on the run's validation images: youden, sensitivity=X or "
    "specificity=X. An export brings its own.",
)
@click.option("--bins", default=10, show_default=True, type=click.IntRange(2, 1000), help="Of the calibration error.")
@click.option("--draws", default=2000, show_default=True, type=click.IntRange(100), help="Of the curves' bands.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of the curves' bands.")
@batch_option
@click.option("--out", metavar="DIR", help="Write predictions, metrics and figures here.")
@overwrite_option
@output_options
def evaluate(run: str, class_map: tuple[str, ...], as_json: bool, **given: Any) -> None:
    """Evaluate RUN on an external test set: each fold's network, and the mean of their probabilities.

    RUN is a run, RUN/fold_K, an exported .keras file or a SavedModel folder. Without --data a run is evaluated on its
    own test images, by the predictions that it kept. Classes are matched by name. Intervals are over patients, images
    where patients are not known. Temperatures and operating points come from the run's validation images alone. The
    positive class is that of the run, unless --positive-class names the other.

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
    show_json(found.figures) if as_json else show(*evaluation_lines(found))
    show_written(found.files)
    from radtransfer.evaluation.results import SEEN, leak_summary

    listed = next((path for path in found.files if path.name == SEEN), None)
    leaked = leak_summary(found.figures.get("seen"), listed)
    if leaked:
        progress.warning(leaked)
    if found.model.kind == "savedmodel":
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
    "none takes the largest output. An export brings its own.",
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
@click.option("--format", type=click.Choice(["csv", "jsonl"]), help="Default: as --out ends, else csv.")
@click.option("--out", metavar="FILE", help="Write here, whole or not at all, instead of to standard output.")
@click.option("--overwrite", is_flag=True, help="Replace the file in --out.")
@quiet_option
def predict(model: str, images: tuple[str, ...], out: str | None, **given: Any) -> None:
    """Predict IMAGES with MODEL: a line per image with its class and the probability of each.

    MODEL is a run (the mean over its folds), RUN/fold_K, an exported .keras file or a SavedModel folder. IMAGES are
    files, folders that are searched, and CSV files with a column of paths. They are read as the model's training read
    them. Lines appear as they are ready.

    \b
    Example:
      radtransfer predict runs/first new_images/ --out predictions.csv
    """
    settings, others = settings_and_others(given, LIST_OPTIONS)
    place = out or SimpleNamespace(write=partial(show_file, is_row=True))
    api.predict(model, images, config=settings, out=place, progress=TerminalProgress(), **others)
    show_next(["evaluate", model, "--data", "LABELLED_IMAGES", *typed_words("fold")])


_AGREES = 0.2
"""Median rank correlation below which two kinds of maps show different things."""

_LISTED = 10
"""Images that are named on the terminal."""


@click.command(
    cls=Command,
    first=("data", "image_root", "label_column", "fold", "layer", "class_", "limit", "occlusion", "out", "as_json"),
    short_help="Draw where in images a network finds what it says.",
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
@click.option("--fold", type=int, metavar="K", help="Which fold of a run; needed where there are several.")
@click.option("--layer", metavar="STAGE", help="Stage or layer whose map is drawn.  [default: the last stage]")
@click.option("--class", "class_", metavar="NAME", help="Explain this class.  [default: what was predicted]")
@click.option("--limit", type=click.IntRange(1, 1000), default=24, show_default=True, help="Images to explain.")
@click.option(
    "--occlusion", type=click.IntRange(0, 64), default=8, show_default=True, help="Squares a side to cover; 0: none."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the weights the test draws.")
@click.option("--out", metavar="DIR", default="explanations", show_default=True, help="Folder of sheet and overlays.")
@overwrite_option
@output_options
def explain(model: str, images: tuple[Path, ...], data: str | None, as_json: bool, **given: Any) -> None:
    """Explain what MODEL (a run, RUN/fold_K, a .keras file) says about IMAGES, --data, or the run's test images.

    Grad-CAM maps, confident mistakes first, on a sheet (HTML) and as PNG. Two checks are printed: the rank correlation
    with what covering parts of the image does, and with the maps of the same network with random weights, which has to
    be low.

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

    written = explained.files
    show_json(explained_record(explained)) if as_json else show(*_explained_lines(explained, written[2]))
    show_written(written[:3])
    if Path(model).suffix == ".keras":
        show_next(["predict", model, "IMAGES"])
    else:
        show_next(["export", model, *typed_words("fold"), "--format", "keras", "--out", "model.keras"])


def _explained_lines(explained: "Explained", table: Path) -> Iterator[str]:
    from radtransfer.evaluation.heat_maps import coarse_map_note, depend_on_weights

    network = explained.network
    stage = f" ({network.stage})" if network.stage else ""
    yield f"layer     {network.layer}{stage}, a map of {network.grid[0]}×{network.grid[1]}"
    coarse = coarse_map_note(network)
    if coarse:
        yield f"note      {coarse}"
    wrong = "" if explained.mistakes is None else f", {explained.mistakes} mistakes"
    yield f"images    {explained.images} {explained.what}{wrong}; {len(explained.explanations)} explained"
    if explained.explanations[0].occlusion is not None:
        count = sum(item.agreement is not None for item in explained.explanations)
        yield f"occlusion rank correlation with Grad-CAM {number(explained.agreement, '.2f')}, median of {count} images"
        if explained.agreement is not None and explained.agreement < _AGREES:
            yield f"{'':<10}the two hardly agree: trust neither"
    steps = ", ".join(f"{step.what} {number(step.correlation, '.2f')}" for step in explained.randomized)
    yield f"sanity    rank correlation with the maps of random weights: {steps}"
    depends = depend_on_weights(explained.randomized, images=len(explained.explanations))
    said = {True: "depend", False: "hardly depend", None: "are too few to tell whether they depend"}
    yield f"{'':<10}the maps {said[depends]} on the weights"
    for item in explained.explanations[:_LISTED]:
        state = {True: "wrong", False: "right", None: ""}[item.verdict.wrong]
        yield f"{state:<10}{item.verdict.name} {item.verdict.probability:.3f}  {item.path}"
    if len(explained.explanations) > _LISTED:
        yield f"{'':<10}… and {len(explained.explanations) - _LISTED} more in {table}"


@click.command(short_help="Write the features that a layer makes of images.")
@click.argument("model")
@click.argument("images", nargs=-1, required=True)
@click.option("--layer", required=True, metavar="STAGE|LAYER", help="A stage (its last layer), or a layer by name.")
@click.option(
    "--pool",
    type=click.Choice(["avg", "none"]),
    default="avg",
    show_default=True,
    help="avg is the mean over positions, none the whole feature map.",
)
@fold_option
@setting_options(**LIST_OPTIONS)
@batch_option
@skip_option
@click.option("--out", required=True, metavar="FILE", help="A .npz or .parquet file, written whole or not at all.")
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
    """Write what a layer of MODEL makes of IMAGES: their paths and a row of features each.

    MODEL is RUN/fold_K, a run with --fold, an exported .keras file or a SavedModel folder. IMAGES are files, folders
    that are searched, and CSV files with a column of paths. `radtransfer backbones NAME` lists stages and layers.

    \b
    Example:
      radtransfer extract runs/first/fold_1 images/ --layer stage3 \\
        --out features.npz
    """
    from radtransfer.evaluation.extract import check_feature_file, feature_file, layer_features
    from radtransfer.evaluation.predictions import Forward, open_images, tell_bad_images
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
    tell_bad_images(stream, on_bad_image, progress, kept="The others are in the file. ")
    reader = "pandas; print(pandas.read_parquet" if Path(out).suffix == ".parquet" else "numpy; print(numpy.load"
    show_next(["-c", f"import {reader}({out!r}))"], program="python")


@click.command(short_help="Write a trained model in another format, and check it.")
@click.argument("run")
@click.option("--format", type=click.Choice(list(EXPORT_FORMATS)), required=True, help="What to write.")
@click.option("--out", required=True, metavar="PATH", help="File or folder to write; never overwritten.")
@click.option("--fold", metavar="K|all", help="Which fold; needed where there are several.")
@click.option(
    "--operating-point",
    metavar="RULE",
    help="Put a threshold into the export, chosen on the fold's validation images: youden, sensitivity=X or "
    "specificity=X. predict then decides by it.",
)
@output_options
def export(run: str, out: str, as_json: bool, **given: Any) -> None:
    """Export the model of RUN (or RUN/fold_K) with a model card; it takes RGB images 0-255, its scaling is inside.

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
@click.option("--fold", type=int, metavar="K", help="Which fold; needed where there are several.")
@click.option("--out", metavar="FILE", type=click.Path(path_type=Path), help="Write it here instead of printing it.")
@output_options
def card(run: str, fold: int | None, out: Path | None, as_json: bool) -> None:
    """Print the model card of RUN (or RUN/fold_K): data, results, weights and their terms, limits; in Markdown.

    `radtransfer export` writes the same beside each export, with the result of its check.

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
