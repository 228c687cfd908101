"""`radtransfer data`: check, prepare, preview and split a data set."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from radtransfer.api.data import check_data
from radtransfer.cli.main import Group
from radtransfer.cli.options import (
    TABLE_OPTIONS,
    Command,
    Whole,
    break_lock_option,
    given_settings,
    images_text,
    options_of,
    output_options,
    setting_options,
    split_lines,
    typed_words,
)
from radtransfer.cli.terminal import TerminalProgress, line, painted, show, show_json, show_next, show_written
from radtransfer.config.load import load_config
from radtransfer.config.schema import DataSettings
from radtransfer.errors import ConfigError, DataError
from radtransfer.files import writing
from radtransfer.training.names import check_value

if TYPE_CHECKING:
    from radtransfer.data.check import DataReport, DataSplit

COLUMNS = ("image_root", "path_column", "label_column", "patient_column", "positive_class")
"""The options about a table that the help of a command shows first."""

CHECK_OPTIONS = {
    **TABLE_OPTIONS,
    **options_of("data", "positive_from", "on_bad_image"),
    **options_of("images", "window"),
    **options_of("splits", "folds", "val_fraction"),
    "image_size": "model.image_size",
    "workers": "system.workers",
    "seed": "seed",
}

FINDINGS_SHOWN = 3
"""Of each kind, in the terminal; what is said of the table is said once and shown whole."""

_COLORS = {"error": "red", "warning": "yellow", "note": "cyan"}


@click.command(
    cls=Command,
    first=(*COLUMNS, "folds", "image_size", "seed", "out", "as_json"),
    short_help="Find errors in a data set.",
)
@click.argument("data")
@setting_options(**CHECK_OPTIONS)
@click.option("--out", metavar="DIR", help="Write check.json and check.html, a page with pictures, here.")
@output_options
def check(data: str, out: str | None, as_json: bool, **given: Any) -> None:
    """Decode every image of DATA and find what would make results wrong; exit code 3 if there is an error.

    Looks for files that cannot be read, images without content, one image with two labels or in two splits, images
    that look alike, patients in two splits, and unusual sizes, colour modes and ranges. Splits are those in
    DATA, or those that finetune would draw with these --folds, --val-fraction and --seed.

    \b
    Example:
      radtransfer data check images.csv --image-root images/ --out checked
    """
    options = {**given_settings(given, CHECK_OPTIONS), "data.source": data}
    settings = load_config(options=options, check=check_value)
    found = check_data(config=settings, out=out, progress=TerminalProgress())
    report = found.record
    show_json(report.to_dict()) if as_json else show(*_lines(report))
    show_written(found.files)
    if report.evidence is None:
        raise DataError(f"{data}: nothing could be checked. Name the data as the message above says, and check again.")
    if report.valid:
        show_next(["finetune", "--data", data, *typed_words(*CHECK_OPTIONS)])
    else:
        kinds = [f"{len(found)} × {kind}" for (severity, kind), found in report.kinds.items() if severity == "error"]
        raise DataError(f"{data}: results would be invalid ({', '.join(kinds)}). Correct the data and check again.")


def _lines(report: "DataReport") -> Iterator[str]:
    yield f"data      {report.data}"
    if report.images:
        yield f"images    {images_text(report.images, report.patients, report.classes, report.positive_class)}"
        yield f"stored    {_stored(report)}"
        if len(report.modes) > 1:  # how many images of each class are stored in which mode
            wide = max(map(len, ("class", *report.class_modes)))
            yield f"          {'  '.join(['class'.ljust(wide), *report.modes])}"
            for name, modes in report.class_modes.items():
                counts = (f"{count:>{len(mode)}}" for mode, count in modes.items())
                yield f"          {'  '.join([name.ljust(wide), *counts])}"
    folds = report.splits["folds"]
    if folds:
        source = "given with the data" if report.splits["given"] else "as finetune would draw them"
        yield f"folds     {len(folds)}, {source}"
        yield from (f"          {text}" for text in split_lines(folds))
    for (severity, kind), findings in report.kinds.items():
        yield ""
        yield line(painted(f"{severity:<10}", fg=_COLORS[severity], bold=True), f"{kind}, {len(findings)}")
        shown = len(findings) if kind == "table" else FINDINGS_SHOWN
        for finding in findings[:shown]:
            more = f" and {len(finding.files) - 3} more" if len(finding.files) > 3 else ""
            files = f"{', '.join(finding.files[:3])}{more}: " if finding.files else ""
            yield f"          {files}{finding.message}"
        if len(findings) > shown:
            yield f"          … and {len(findings) - shown} more (--out or --json lists all)"
    yield ""
    yield f"valid     {'yes' if report.valid else 'no'}"


def _stored(report: "DataReport") -> str:
    if not report.sizes:
        return "none can be read"
    height, width = report.sizes["height"], report.sizes["width"]
    sizes = f"{width['median']:g}×{height['median']:g} px"
    if report.sizes["distinct"] > 1:
        sizes = (
            f"{width['min']} to {width['max']} px wide, {height['min']} to {height['max']} high, median {sizes}, "
            f"{report.sizes['distinct']} sizes"
        )
    return f"{sizes}; {', '.join(f'{mode} {count}' for mode, count in report.modes.items())}"


PREPARE_OPTIONS = {
    **TABLE_OPTIONS,
    "on_bad_image": "data.on_bad_image",
    "image_size": "model.image_size",
    **options_of("images", "aspect", "fundus_crop", "window"),
    "workers": "system.workers",
}


@click.command(
    cls=Command,
    first=(*COLUMNS, "image_size", "aspect", "out", "encoding", "overwrite"),
    short_help="Decode and resize every image once, for faster runs.",
)
@click.argument("data")
@click.option("--out", required=True, metavar="FOLDER", help="Folder of the prepared data set.")
@click.option(
    "--encoding",
    type=click.Choice(("raw", "jpeg")),
    default="raw",
    show_default=True,
    help="raw: uint8 pixels, the fastest to read; jpeg: quality 95, about a quarter of the space.",
)
@setting_options(**PREPARE_OPTIONS)
@click.option("--overwrite", is_flag=True, help="Replace what was prepared in --out.")
@break_lock_option
@output_options
def prepare(data: str, out: str, encoding: str, overwrite: bool, as_json: bool, **given: Any) -> None:
    """Write DATA once at working resolution, as a TFDS data set that trains many times faster.

    DATA is what `finetune --data` takes; afterwards give it `--data tfds:FOLDER`. Repeat the command to continue after
    an interruption.

    \b
    Example:
      radtransfer data prepare images.csv --image-root images/ \\
        --image-size 224 --out prepared
      radtransfer finetune --data tfds:prepared --backbone resnet50 \\
        --weights imagenet
    """
    options = {**given_settings(given, PREPARE_OPTIONS), "data.source": data}
    config = load_config(options=options, check=check_value)
    from radtransfer.data.prepared import prepare_set

    result = prepare_set(
        config, out=Path(out).expanduser(), encoding=encoding, overwrite=overwrite, progress=TerminalProgress()
    )
    if as_json:
        show_json(dataclasses.asdict(result) | {"path": str(result.path)})
        return
    splits = ", ".join(f"{name} {count}" for name, count in result.splits.items())
    shards = "1 shard" if result.shards == 1 else f"{result.shards} shards"
    skipped = f", {result.skipped} left out" if result.skipped else ""
    show(
        f"prepared  {result.images} images ({splits}){skipped}",
        f"stored    {result.bytes / 1e6:,.0f} MB in {shards}, {encoding}",
    )
    show_next(["finetune", "--data", f"tfds:{result.path}", *typed_words("positive_class")])


PREVIEW_OPTIONS = {
    **TABLE_OPTIONS,
    "image_size": "model.image_size",
    **options_of("images", "aspect", "fundus_crop", "window"),
    "augmentation": "training.augmentation",
    "seed": "seed",
}


@click.command(
    cls=Command,
    first=(*COLUMNS, "image_size", "augmentation", "images", "copies", "out", "overwrite"),
    short_help="Draw a sheet of images, raw and augmented.",
)
@click.argument("data")
@setting_options(**PREVIEW_OPTIONS)
@click.option(
    "--images",
    type=Whole(1, 100),
    default=8,
    show_default=True,
    help="Images (rows), from each class in turn.",
)
@click.option(
    "--copies",
    type=Whole(1, 20),
    default=5,
    show_default=True,
    help="Augmented copies of each image.",
)
@click.option("--out", metavar="PNG", default="preview.png", show_default=True, help="File of the sheet.")
@click.option("--overwrite", is_flag=True, help="Replace the file in --out.")
@output_options
def preview(data: str, images: int, copies: int, out: str, overwrite: bool, as_json: bool, **given: Any) -> None:
    """Draw images of DATA as the network sees them, and augmented copies as in training.

    \b
    Example:
      radtransfer data preview images.csv --augmentation light \\
        --image-size 224 --out preview.png
    """
    options = {**given_settings(given, PREVIEW_OPTIONS), "data.source": data}
    settings, path = load_config(options=options, check=check_value), Path(out)
    from radtransfer.reports.figures import check_figure_path, save_figure

    check_figure_path(path)
    if path.exists() and not overwrite:
        raise ConfigError(f"{out} exists. Use --overwrite to replace it, or another --out.")
    from radtransfer.data.pictures import preview_data

    figure = preview_data(settings, images=images, copies=copies, progress=TerminalProgress())
    with writing(path):
        save_figure(figure, path)
    show_json({"path": out}) if as_json else show_written([path])
    show_next(["finetune", "--data", data, *typed_words(*PREVIEW_OPTIONS)])


SPLIT_OPTIONS = {
    **TABLE_OPTIONS,
    "allow_leakage": "data.allow_leakage",
    **options_of("splits", "folds", "val_fraction", "train_size", "repeats"),
    "seed": "seed",
}


@click.command(
    cls=Command,
    first=(*COLUMNS, "folds", "val_fraction", "seed", "out", "overwrite", "as_json"),
    short_help="Draw the folds and write them as a CSV.",
)
@click.argument("data")
@setting_options(**SPLIT_OPTIONS)
@click.option("--out", metavar="FILE.csv", default="folds.csv", show_default=True, help="File of the table.")
@click.option("--overwrite", is_flag=True, help="Replace the file in --out.")
@output_options
def split(data: str, out: str, overwrite: bool, as_json: bool, **given: Any) -> None:
    """Draw the folds of DATA by patient and stratified, and write them: path, label, patient, fold, split.

    finetune draws the same folds with the same options; `finetune --data folds.csv` uses exactly these. Splits in DATA
    are kept. Images are not decoded.

    \b
    Example:
      radtransfer data split images.csv --folds 5 --seed 1 --out folds.csv
    """
    settings, path = load_config(options={**given_settings(given, SPLIT_OPTIONS), "data.source": data}), Path(out)
    if path.suffix.lower() != ".csv":
        raise ConfigError(f"--out takes a file that ends in .csv. Received: {out}.")
    if path.exists() and not overwrite:
        raise ConfigError(f"{out} exists. Use --overwrite to replace it, or another --out.")
    from radtransfer.data.check import split_data, write_split

    found = split_data(settings, progress=TerminalProgress())
    write_split(found, path)
    counts = found.to_dict()
    if as_json:
        show_json(counts)
    else:
        names = ("images", "patients", "classes", "positive_class")
        show(f"images    {images_text(*(counts[name] for name in names))}")
        show(*split_lines(counts["folds"]))
    show_written([path])
    show_next(_next_words(found, path, settings.data))


def _next_words(found: "DataSplit", path: Path, data: DataSettings) -> list[str]:
    """The command that trains on these folds."""
    from radtransfer.data.labels import is_missing

    root = data.image_root or found.image_root
    words = ["finetune", "--data", str(path)]
    words += ["--image-root", str(root)] if root else []
    words += ["--outside-root"] if root and data.outside_root else []
    words += ["--image-root", "FOLDER"] if not root and found.in_records else []
    words += ["--positive-class", found.positive_class] if data.positive_class else []
    if found.table.task == "multilabel":
        words += ["--task", "multilabel"]
    elif any(map(is_missing, found.table.classes)):
        words += ["--missing-values", "class"]
    return [*words, "--allow-alike-patients"] if found.table.exact_patient_ids else words


@click.group(cls=Group)
def data() -> None:
    """Check, split, preview and prepare data sets.

    DATA is anything that `radtransfer finetune --data` takes; the options are the same.

    \b
    Example:
      radtransfer data check images.csv --image-root images/
    """


for command in (check, split, preview, prepare):
    data.add_command(command)
