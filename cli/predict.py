"""`radtransfer predict`: what a trained model says about images."""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click

from radtransfer.cli.options import setting_options
from radtransfer.cli.prediction_options import (
    LIST_OPTIONS,
    batch_option,
    check_file,
    check_model,
    check_point,
    fold_option,
    open_images,
    skip_option,
    tell_bad_images,
)
from radtransfer.cli.terminal import show_file
from radtransfer.system_errors import writing


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
@click.option("--format", "format_", type=click.Choice(["csv", "jsonl"]), help="Default: as --out ends, else csv.")
@click.option("--out", metavar="FILE", help="Write here, whole or not at all, instead of to standard output.")
@click.option("--overwrite", is_flag=True, help="Replace the file in --out.")
def predict(
    model: str,
    images: tuple[str, ...],
    fold: tuple[int, ...],
    operating_point: str | None,
    calibration: str,
    batch_size: int,
    on_bad_image: str,
    format_: str | None,
    out: str | None,
    overwrite: bool,
    **given: Any,
) -> None:
    """Predict IMAGES with MODEL: a line per image with its class and the probability of each.

    MODEL is a run (the mean over its folds), RUN/fold_K, an exported .keras file or a SavedModel folder. IMAGES are
    files, folders that are searched, and CSV files with a column of paths. They are read as the model's training read
    them. Lines appear as they are ready.

    \b
    Example: radtransfer predict runs/first new_images/ --out predictions.csv
    """
    check_file(out, overwrite=overwrite)
    check_point(operating_point)
    check_model(model)
    from radtransfer.metrics.calibration import edge_note
    from radtransfer.predictions.forward import Forward
    from radtransfer.predictions.predict import Predictor
    from radtransfer.predictions.prediction_rows import line_writer
    from radtransfer.predictions.validation import known_temperatures, point_of

    found, stream, progress = open_images(model, images, fold, batch_size, given)
    point = point_of(found, operating_point)
    if point is not None and found.scoring.positive_class is not None:
        named = found.scoring.positive_class
        progress.note(f"positive class {named}: probability of at least {point.thresholds[named]:.4g} ({point.rule})")
    temperatures = known_temperatures(found) if calibration == "temperature" else ()
    note = edge_note(temperatures)
    if note:
        progress.note(note)
    predictor = Predictor(
        found,
        Forward(found.load(), batch_size=batch_size, notify=progress.note),
        temperatures=temperatures,
        point=point,
    )
    header, line = line_writer(format_ or _format_of(out), found.scoring, pointed=point is not None)
    with _writer(out) as write:
        write(header)
        for prediction in predictor(stream):
            write(line(prediction))
    progress.clear()
    kept = "The others are predicted."
    tell_bad_images(stream.bad, len(stream.images), on_bad_image, kept=kept)


def _format_of(out: str | None) -> str:
    return "jsonl" if out is not None and Path(out).suffix.lower() in (".jsonl", ".ndjson") else "csv"


@contextlib.contextmanager
def _writer(out: str | None) -> Iterator[Callable[[str], Any]]:
    """Writes text to the file that appears when the block succeeds, or at once to standard output."""
    from radtransfer.runs import whole_file

    if out is None:
        yield partial(show_file, is_row=True)
        return
    with writing(Path(out)), whole_file(Path(out)) as part, part.open("w", encoding="utf-8", newline="") as handle:
        yield handle.write
