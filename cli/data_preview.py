"""`radtransfer data preview`: a sheet of images, as the network sees them and augmented."""

from pathlib import Path
from typing import Any

import click

from radtransfer.cli.data_options import TABLE_OPTIONS
from radtransfer.cli.options import given_settings, setting_options
from radtransfer.cli.terminal import TerminalProgress, show
from radtransfer.config import load_config
from radtransfer.errors import ConfigError
from radtransfer.run_names import check_value
from radtransfer.system_errors import writing

OPTIONS = TABLE_OPTIONS | {
    "image_size": "model.image_size",
    "aspect": "images.aspect",
    "fundus_crop": "images.fundus_crop",
    "window": "images.window",
    "augmentation": "training.augmentation",
    "seed": "seed",
}


@click.command(short_help="Draw a sheet of images, raw and augmented.")
@click.argument("data")
@setting_options(**OPTIONS)
@click.option("--images", type=click.IntRange(1, 100), default=8, show_default=True, help="Rows; classes take turns.")
@click.option("--copies", type=click.IntRange(1, 20), default=5, show_default=True, help="Variations of each image.")
@click.option("--out", metavar="PNG", default="preview.png", show_default=True, help="Where the sheet goes.")
@click.option("--overwrite", is_flag=True, help="Replace the file in --out.")
def preview(data: str, images: int, copies: int, out: str, overwrite: bool, **given: Any) -> None:
    """Draw images of DATA as the network would see them, and how the augmentation varies them in training.

    \b
    Example: radtransfer data preview images.csv --augmentation light --image-size 224 --out preview.png
    """
    options = {**given_settings(given, OPTIONS), "data.source": data}
    settings, path = load_config(options=options, check=check_value), Path(out)
    from radtransfer.figures.style import check_figure_path, save_figure

    check_figure_path(path)
    if path.exists() and not overwrite:
        raise ConfigError(f"{out} exists. Use --overwrite to replace it, or another --out.")
    from radtransfer.data.preview import preview_data

    figure = preview_data(settings, images=images, copies=copies, progress=TerminalProgress())
    with writing(path):
        save_figure(figure, path)
    show(f"wrote     {path}", err=True)
