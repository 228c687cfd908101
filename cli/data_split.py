"""`radtransfer data split`: the folds of a data set as a table."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from radtransfer.cli.data_options import TABLE_OPTIONS, images_text, split_lines
from radtransfer.cli.options import given_settings, setting_options
from radtransfer.cli.terminal import TerminalProgress, show, show_json
from radtransfer.config import load_config
from radtransfer.errors import ConfigError
from radtransfer.settings import DataSettings

if TYPE_CHECKING:
    from radtransfer.data.split import DataSplit

OPTIONS = TABLE_OPTIONS | {
    "allow_leakage": "data.allow_leakage",
    "folds": "splits.folds",
    "val_fraction": "splits.val_fraction",
    "train_size": "splits.train_size",
    "repeats": "splits.repeats",
    "seed": "seed",
}


@click.command(short_help="Draw the folds and write them as a CSV.")
@click.argument("data")
@setting_options(**OPTIONS)
@click.option("--out", metavar="FILE.csv", default="folds.csv", show_default=True, help="Where the table goes.")
@click.option("--overwrite", is_flag=True, help="Replace the file in --out.")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
def split(data: str, out: str, overwrite: bool, as_json: bool, **given: Any) -> None:
    """Draw the folds of DATA by patient and stratified, and write them: path, label, patient, fold, split.

    They are those that finetune draws with the same options, and `finetune --data folds.csv` has exactly these. Splits
    that DATA brings stay as they are. Images are not decoded.

    \b
    Example: radtransfer data split images.csv --folds 5 --seed 1 --out folds.csv
    """
    settings, path = load_config(options={**given_settings(given, OPTIONS), "data.source": data}), Path(out)
    if path.suffix.lower() != ".csv":
        raise ConfigError(f"--out takes a file that ends in .csv. Received: {out}.")
    if path.exists() and not overwrite:
        raise ConfigError(f"{out} exists. Use --overwrite to replace it, or another --out.")
    from radtransfer.data.split import split_data, write_split

    found = split_data(settings, progress=TerminalProgress())
    write_split(found, path)
    counts = found.to_dict()
    if as_json:
        show_json(counts)
    else:
        names = ("images", "patients", "classes", "positive_class")
        show(f"images    {images_text(*(counts[name] for name in names))}")
        show(*split_lines(counts["folds"]))
    show(f"wrote     {path}", err=True)
    show(f"train     {_next_line(found, path, settings.data)}", err=True)


def _next_line(found: "DataSplit", path: Path, data: DataSettings) -> str:
    """The command that trains on these folds."""
    from radtransfer.datasets.labels import is_missing

    root = data.image_root or found.image_root
    words = ["radtransfer", "finetune", "--data", str(path)]
    words += ["--image-root", str(root)] if root else []
    words += ["--outside-root"] if root and data.outside_root else []
    words += ["--image-root", "FOLDER"] if not root and found.in_records else []
    words += ["--positive-class", found.positive_class] if data.positive_class else []
    if found.table.task == "multilabel":
        words += ["--task", "multilabel"]
    elif any(map(is_missing, found.table.classes)):
        words += ["--missing-values", "class"]
    words += ["--allow-alike-patients"] if found.table.alike_patients else []
    return f"{shlex.join(words)} …"
