"""`radtransfer data prepare`: write a data set once, at working resolution."""

import dataclasses
import shlex
from pathlib import Path
from typing import Any

import click

from radtransfer.cli.data_options import TABLE_OPTIONS
from radtransfer.cli.options import break_lock_option, given_settings, setting_options
from radtransfer.cli.terminal import TerminalProgress, show, show_json
from radtransfer.config import load_config
from radtransfer.run_names import check_value

OPTIONS = TABLE_OPTIONS | {
    "on_bad_image": "data.on_bad_image",
    "image_size": "model.image_size",
    "aspect": "images.aspect",
    "fundus_crop": "images.fundus_crop",
    "window": "images.window",
    "workers": "system.workers",
}


@click.command(short_help="Decode and resize every image once, for later runs.")
@click.argument("data")
@click.option("--out", required=True, metavar="FOLDER", help="Folder of the prepared data set.")
@click.option(
    "--encoding",
    type=click.Choice(("raw", "jpeg")),
    default="raw",
    show_default=True,
    help="raw: uint8 pixels, the fastest to read; jpeg: quality 95, about a quarter of the space.",
)
@setting_options(**OPTIONS)
@click.option("--overwrite", is_flag=True, help="Replace what was prepared in --out.")
@break_lock_option
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def prepare(data: str, out: str, encoding: str, overwrite: bool, as_json: bool, **given: Any) -> None:
    """Write DATA once at working resolution, as a TFDS data set that trains many times faster.

    DATA is what `finetune --data` takes; afterwards give it `--data tfds:FOLDER`. The same command goes on where it
    was stopped.

    \b
    Example: radtransfer data prepare images.csv --image-root images/ --image-size 224 --out prepared
             radtransfer finetune --data tfds:prepared --backbone resnet50 --weights imagenet
    """
    options = {**given_settings(given, OPTIONS), "data.source": data}
    config = load_config(options=options, check=check_value)
    from radtransfer.prepared.prepared_set import prepare_set

    result = prepare_set(
        config, out=Path(out).expanduser(), encoding=encoding, overwrite=overwrite, progress=TerminalProgress()
    )
    if as_json:
        show_json(dataclasses.asdict(result) | {"path": str(result.path)})
        return
    splits = ", ".join(f"{name} {count}" for name, count in result.splits.items())
    shards = "1 shard" if result.shards == 1 else f"{result.shards} shards"
    skipped = f", {result.skipped} left out" if result.skipped else ""
    positive = config.data.positive_class
    named = f" --positive-class {shlex.quote(positive)}" if positive else ""
    show(
        f"prepared  {result.images} images ({splits}){skipped}",
        f"stored    {result.bytes / 1e6:,.0f} MB in {shards}, {encoding}",
        f"use it    radtransfer finetune --data tfds:{result.path}{named}",
    )
