"""`radtransfer extract`: features of a layer of a trained network."""

from pathlib import Path
from typing import Any

import click

from radtransfer.cli.options import setting_options
from radtransfer.cli.prediction_options import (
    LIST_OPTIONS,
    batch_option,
    check_file,
    check_model,
    fold_option,
    open_images,
    skip_option,
    tell_bad_images,
)
from radtransfer.cli.tensorflow import import_tensorflow
from radtransfer.cli.terminal import show
from radtransfer.system_errors import writing


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
    **given: Any,
) -> None:
    """Write what a layer of MODEL makes of IMAGES: their paths and a row of features each.

    MODEL is RUN/fold_K, a run with --fold, an exported .keras file or a SavedModel folder. IMAGES are files, folders
    that are searched, and CSV files with a column of paths. `radtransfer backbones NAME` lists stages and layers.

    \b
    Example: radtransfer extract runs/first/fold_1 images/ --layer stage3 --out features.npz
    """
    check_model(model)
    from radtransfer.predictions.feature_files import check_feature_file, feature_file
    from radtransfer.predictions.trained_model import check_layer, check_one

    check_file(out, overwrite=overwrite)
    check_feature_file(Path(out))
    found, stream, progress = open_images(model, images, fold, batch_size, given)
    check_one(found)
    check_layer(found, layer)
    import_tensorflow()
    from radtransfer.predictions.extract import make_extractor

    extractor = make_extractor(found, layer, pool=pool)
    with writing(Path(out)), feature_file(Path(out), layer=extractor.layer, shape=extractor.shape) as write:
        for paths, features in extractor(stream, batch_size=batch_size, notify=progress.note):
            write(paths, features)
    progress.clear()
    done = len(stream.images) - len(stream.bad)
    shape = " × ".join(map(str, extractor.shape))
    show(f"{out}  {done} images  layer {extractor.layer}  {shape} features  {Path(out).stat().st_size / 1e6:.1f} MB")
    tell_bad_images(stream.bad, len(stream.images), on_bad_image, kept="The others are in the file.")
