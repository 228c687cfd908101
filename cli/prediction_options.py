"""What predict, extract and evaluate share: their options, and how unreadable images are told of."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from radtransfer.cli.terminal import TerminalProgress, show
from radtransfer.errors import ConfigError, DataError, RunError
from radtransfer.near_path import no_model
from radtransfer.system_errors import writing

if TYPE_CHECKING:
    from radtransfer.examination.image_check import BadImage
    from radtransfer.predictions.image_stream import ImageStream
    from radtransfer.predictions.trained_model import TrainedModel
    from radtransfer.settings import DataSettings

LIST_OPTIONS = {
    "image_root": "data.image_root",
    "outside_root": "data.outside_root",
    "path_column": "data.path_column",
    "frames": "data.frames",
    "workers": "system.workers",
}

_SHOWN = 20


def fold_option(command: Callable) -> Callable:
    """`--fold K`, which may be repeated."""
    return click.option("--fold", multiple=True, type=int, metavar="K", help="Only these folds of a run.")(command)


def batch_option(command: Callable) -> Callable:
    """`--batch-size N`."""
    text = "Images at a time, at most; halved where memory runs out."
    return click.option("--batch-size", default=32, show_default=True, type=click.IntRange(1), help=text)(command)


def skip_option(command: Callable) -> Callable:
    """`--on-bad-image error|skip`."""
    text = "Images that cannot be read are left out and listed; with error the exit code is 3 then."
    choices = click.Choice(["error", "skip"])
    return click.option("--on-bad-image", type=choices, default="error", show_default=True, help=text)(command)


def tell_bad_images(bad: Sequence["BadImage"], total: int, on_bad_image: str, *, kept: str) -> None:
    """List on stderr what could not be read.

    Args:
        bad: What.
        total: How many images there were.
        on_bad_image: As the option has it.
        kept: What became of the others, for the message.

    Raises:
        DataError: Something could not, and is not to be skipped; or nothing could.
    """
    for image in bad[:_SHOWN]:
        show(f"unreadable  {image.path}: {image.reason}", err=True)
    if len(bad) > _SHOWN:
        show(f"unreadable  … and {len(bad) - _SHOWN} more", err=True)
    if bad and (on_bad_image == "error" or len(bad) == total):
        raise DataError(
            f"{len(bad)} of {total} images cannot be read (listed above). {kept} Repair them, or accept it with "
            "--on-bad-image skip."
        )
    if bad:
        show(f"{len(bad)} of {total} images cannot be read and are left out", err=True)


def check_file(out: str | None, *, overwrite: bool) -> None:
    """See that a file can be written, before anything is computed.

    Raises:
        ConfigError: It stands there already, or cannot be made there.
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


def check_point(rule: str | None) -> None:
    """Raises ConfigError if `--operating-point` is not a valid rule."""
    from radtransfer.metrics.operating_point import check_rule

    if rule is not None and rule.strip().lower() != "none":
        check_rule(rule)


def check_model(given: str) -> None:
    """Raises WeightsNotFoundError if nothing lies at `given`, before what opens a model is imported."""
    if not Path(given).expanduser().exists():
        raise no_model(given)


def open_images(
    model: str, images: Sequence[str], fold: Sequence[int], batch_size: int, given: dict[str, Any]
) -> tuple["TrainedModel", "ImageStream", TerminalProgress]:
    """The model, the images as its training read them, and who is told how many of them are done."""
    from radtransfer.datasets.image_list import list_images
    from radtransfer.predictions.image_stream import ImageStream
    from radtransfer.predictions.trained_model import find_model, is_export

    data, workers = _list_settings(given)
    # A model that is a file has to be opened, which takes seconds.
    found = None if is_export(model) else find_model(model, folds=fold)
    listed = list_images(images, data)
    progress, found = TerminalProgress(), found or find_model(model, folds=fold)
    for note in (*found.notes, *listed.notes):
        progress.note(note)
    stream = ImageStream(
        listed,
        found.image_size,
        found.reading,
        batch_size=batch_size,
        workers=workers,
        count=lambda done, total: progress.count("images", done, total),
    )
    return found, stream, progress


def _list_settings(given: dict[str, Any]) -> tuple["DataSettings", int]:
    """How the images of a list are found, and how many are decoded at a time."""
    from radtransfer.cli.options import given_settings
    from radtransfer.config import load_config
    from radtransfer.device import usable_cores

    config = load_config(options=given_settings(given, LIST_OPTIONS))
    return config.data, usable_cores() if config.system.workers == "auto" else config.system.workers
