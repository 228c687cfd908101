"""`radtransfer evaluate`: what a trained model is worth on test images."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from radtransfer.cli.data_options import TABLE_OPTIONS
from radtransfer.cli.evaluation_text import evaluation_lines
from radtransfer.cli.options import given_settings, overwrite_option, setting_options
from radtransfer.cli.prediction_options import batch_option, check_model, check_point, fold_option
from radtransfer.cli.terminal import TerminalProgress, show, show_json
from radtransfer.config import load_config
from radtransfer.datasets import check_source
from radtransfer.errors import ConfigError

if TYPE_CHECKING:
    from radtransfer.predictions.evaluate import Evaluation

OPTIONS = {
    "data": "data.source",
    **TABLE_OPTIONS,
    "on_bad_image": "data.on_bad_image",
    "workers": "system.workers",
}


@click.command(short_help="Evaluate a trained model on test images.")
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
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def evaluate(
    run: str,
    split: str,
    class_map: tuple[str, ...],
    fold: tuple[int, ...],
    operating_point: str | None,
    bins: int,
    draws: int,
    seed: int,
    batch_size: int,
    out: str | None,
    overwrite: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Evaluate RUN on an external test set: each fold's network, and the mean of their probabilities.

    RUN is a run, RUN/fold_K, an exported .keras file or a SavedModel folder. Without --data a run is evaluated on its
    own test images, by the predictions that it kept. Classes are matched by name. Intervals are over patients, images
    where patients are not known. Temperatures and operating points come from the run's validation images alone. The
    positive class is that of the run, unless --positive-class names the other.

    \b
    Example: radtransfer evaluate runs/first --data hospital_b.csv --image-root hospital_b/ --out evaluated
    """
    settings = load_config(options=given_settings(given, OPTIONS))
    mapped = _class_map(class_map)
    _check_options(given, split, mapped)
    if out:
        from radtransfer.result_folder import check_out

        check_out(Path(out))
    check_model(run)
    from radtransfer.device import usable_cores
    from radtransfer.predictions.evaluate import Judging, check_has_images, evaluate_on, evaluate_run
    from radtransfer.predictions.leak_warnings import SEEN, leak_summary
    from radtransfer.predictions.trained_model import find_model

    _check_new(out, overwrite=overwrite)
    check_point(operating_point)
    check_source(settings.data.source)
    if settings.data.source is None:
        check_has_images(run)
    progress = TerminalProgress()
    model, judging = find_model(run, folds=fold), Judging(operating_point, bins, draws, seed)
    if settings.data.source is None:
        model = model.with_positive_class(settings.data.positive_class)
        evaluation = evaluate_run(model, judging=judging, progress=progress)
    else:
        evaluation = evaluate_on(
            model,
            settings.data,
            split=split,
            class_map=mapped,
            judging=judging,
            batch_size=batch_size,
            workers=usable_cores() if settings.system.workers == "auto" else settings.system.workers,
            report_file=Path(out) / "bad_images.txt" if out else None,
            progress=progress,
        )
    progress.clear()
    written = _write(evaluation, out)
    show_json(evaluation.figures) if as_json else show(*evaluation_lines(evaluation))
    for path in written:
        show(f"wrote     {path}", err=True)
    listed = next((path for path in written if path.name == SEEN), None)
    leaked = leak_summary(evaluation.figures.get("seen"), listed)
    if leaked:
        progress.warning(leaked)


def _check_new(out: str | None, *, overwrite: bool) -> None:
    if out is not None:
        from radtransfer.predictions.evaluation_files import FILES
        from radtransfer.result_folder import check_new

        check_new(Path(out), FILES, overwrite=overwrite)


def _write(evaluation: "Evaluation", out: str | None) -> list[Path]:
    if out is None:
        return []
    from radtransfer.predictions.evaluation_files import write_evaluation

    return write_evaluation(evaluation, Path(out))


def _class_map(given: tuple[str, ...]) -> dict[str, str]:
    pairs = [item.rpartition("=") for item in given]
    wrong = [item for item, (name, equals, _) in zip(given, pairs, strict=True) if not equals or not name.strip()]
    if wrong:
        raise ConfigError(f"--class-map expects NAME=CLASS, such as normal=benign. Received: {wrong[0]!r}.")
    return {name.strip(): other.strip() for name, _, other in pairs}


def _check_options(given: dict[str, Any], split: str, mapped: dict[str, str]) -> None:
    """Options about data need data; the positive class is one of the model's."""
    if given["data"] is not None:
        return
    of_data = [name for name in TABLE_OPTIONS if name != "positive_class"]
    named = [f"--{name.replace('_', '-')}" for name in of_data if given[name] not in (None, ())]
    named += ["--split"] * (split != "all") + ["--class-map"] * bool(mapped)
    if named:
        raise ConfigError(f"{named[0]} is about the images in --data, which is not given.")
