"""`radtransfer weights check`: which preprocessing the weights in a file expect."""

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from radtransfer.cli.data_options import TABLE_OPTIONS
from radtransfer.cli.options import given_settings, setting_options
from radtransfer.cli.terminal import TerminalProgress, show, show_json
from radtransfer.config import load_config
from radtransfer.run_names import check_value

if TYPE_CHECKING:
    from radtransfer.input_scale.file_check import FileCheck
    from radtransfer.input_scale.verdict import ModeEvidence

OPTIONS = TABLE_OPTIONS | {
    "data": "data.source",
    "image_size": "model.image_size",
    "aspect": "images.aspect",
    "fundus_crop": "images.fundus_crop",
    "window": "images.window",
    "seed": "seed",
}

MODES_SHOWN = 4
"""Columns of the table of layers."""


@click.command(short_help="Find the preprocessing that a file's weights expect.")
@click.argument("file")
@setting_options(**OPTIONS)
@click.option("--backbone", metavar="NAME", help="The network in FILE; recognized without.")
@click.option("--images", type=click.IntRange(8, 1000), default=48, show_default=True, help="Most images to look at.")
@click.option(
    "--layers", type=click.IntRange(1, 1000), default=12, show_default=True, help="Batch-norm layers, from the stem on."
)
@click.option("--ignore-lambda", is_flag=True, help="Take the weights of a file with Lambda layers too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(
    file: str, backbone: str | None, images: int, layers: int, ignore_lambda: bool, as_json: bool, **given: Any
) -> None:
    """Compare what the batch-norm layers in FILE remember of their training with what each mode makes of your images.

    No labels are needed. The first layer tells how bright and how contrasted the training images must have been
    under each mode; a mode fits if these could have been images, and those of the others could not.

    \b
    Example: radtransfer weights check RadImageNet-ResNet50_notop.h5 --data images/
    """
    settings = load_config(options=given_settings(given, OPTIONS), check=check_value)
    from radtransfer.input_scale.file_check import check_weights

    progress = TerminalProgress()
    found = check_weights(
        file,
        settings,
        backbone=backbone,
        images=images,
        layers=layers,
        ignore_lambda=ignore_lambda,
        progress=progress,
    )
    progress.clear()
    show_json(_as_dict(found)) if as_json else show(*_lines(found, settings.data.source))


def _as_dict(found: "FileCheck") -> dict[str, Any]:
    content = dataclasses.asdict(found)
    for mode in content["check"]["modes"]:
        training = mode["training"]
        training["colour"] = list(map(float, training["colour"]))
        del training["colour_error"]
    return content


def _lines(found: "FileCheck", data: str) -> Iterator[str]:
    checked = found.check
    yield f"file      {found.file}"
    yield f"backbone  {found.backbone}, the first {checked.layers} of {checked.all_layers} batch-norm layers"
    yield (
        f"images    {checked.images} of {data}, {found.image_size} px, {'grey' if checked.grey else 'colour'}, "
        f"brightness {checked.brightness:.2f}, contrast {checked.contrast:.2f}"
    )
    if checked.modes:
        yield ""
        yield f"{'mode':<18}{'probability':<22}{'its training images would have':<56}fits best at"
        yield from map(_mode_line, checked.modes)
        yield ""
        yield from _layer_lines(checked.modes[:MODES_SHOWN])
        yield ""
    yield f"verdict   {_verdict_text(found)}"
    yield f"          {checked.verdict.reason}"
    if checked.verdict.certainty == "fits" and found.used not in checked.verdict.modes:
        how = {"card": "from the manifest", "run": "from the run", "assumed": "assumed"}[found.used_sure]
        mode = checked.verdict.modes[0]
        yield f"          radtransfer would use {found.used} ({how}); --preprocessing {mode} overrides it."


def _mode_line(mode: "ModeEvidence") -> str:
    images = mode.training
    colours = ", ".join(f"{letter} {value:.2f}" for letter, value in zip("RGB", images.colour, strict=True))
    text = f"brightness {images.brightness:.2f} ({colours}), contrast {images.contrast:.2f}"
    if not mode.possible:
        text = f"impossible: brightness {images.brightness:.3g}, contrast {images.contrast:.2g}"
    probability = f"{mode.probability:.3f} ({mode.low:.3f}–{mode.high:.3f})"
    return f"{', '.join((mode.mode, *mode.same_as)):<18}{probability:<22}{text:<56}{mode.best_at} of {len(mode.layers)}"


def _layer_lines(modes) -> Iterator[str]:
    """Of each layer and mode, how far the mean is off and how much wider the spread is than remembered."""
    width = max(len(layer.layer) for layer in modes[0].layers) + 2
    yield f"{'layer':<{width}}" + "".join(f"{mode.mode:>20}" for mode in modes)
    yield f"{'':<{width}}" + f"{'mean off, spread':>20}" * len(modes)
    for place, first in enumerate(modes[0].layers):
        fits = [mode.layers[place] for mode in modes]
        yield f"{first.layer:<{width}}" + "".join(f"{f'{fit.shift:.2f} sd, ×{fit.spread:.2f}':>20}" for fit in fits)


def _verdict_text(found: "FileCheck") -> str:
    verdict = found.check.verdict
    if verdict.certainty == "fits":
        same = f" (on these grey images the same as {', '.join(verdict.modes[1:])})" if verdict.modes[1:] else ""
        probability = found.check.modes[0].probability
        return f"{verdict.modes[0]} fits{same}, probability {probability:.3f} among the modes known here."
    if verdict.certainty == "none":
        return "none of the modes fits."
    among = f": {' or '.join(verdict.modes)}" if verdict.modes else ""
    return f"cannot tell{among}."
