"""`radtransfer explain`: where in an image a network finds what it says."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from radtransfer.cli.data_options import TABLE_OPTIONS
from radtransfer.cli.options import given_settings, overwrite_option, setting_options
from radtransfer.cli.prediction_options import check_model
from radtransfer.cli.terminal import TerminalProgress, show, show_json
from radtransfer.config import load_config
from radtransfer.datasets import check_source

if TYPE_CHECKING:
    from collections.abc import Iterator

    from radtransfer.explanations.explained import Explained


_AGREES = 0.2
"""Median rank correlation below which two kinds of maps show different things."""


_LISTED = 10
"""Images that are named on the terminal."""


@click.command(short_help="Draw where in images a network finds what it says.")
@click.argument("model")
@click.argument("images", nargs=-1, type=click.Path(path_type=Path))
@click.option("--data", metavar="SOURCE", help="Images, with labels or not.  [default: the run's own test images]")
@setting_options(**TABLE_OPTIONS)
@click.option("--fold", type=int, metavar="K", help="Which fold of a run; needed where there are several.")
@click.option("--layer", metavar="STAGE", help="Stage or layer whose map is drawn.  [default: the last stage]")
@click.option("--class", "target", metavar="NAME", help="Explain this class.  [default: what was predicted]")
@click.option("--limit", type=click.IntRange(1, 1000), default=24, show_default=True, help="Images to explain.")
@click.option(
    "--occlusion", type=click.IntRange(0, 64), default=8, show_default=True, help="Squares a side to cover; 0: none."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the weights the test draws.")
@click.option("--out", metavar="DIR", default="explanations", show_default=True, help="Folder of sheet and overlays.")
@overwrite_option
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def explain(model: str, images: tuple[Path, ...], out: str, overwrite: bool, as_json: bool, **given: object) -> None:
    """Explain what MODEL (a run, RUN/fold_K, a .keras file) says about IMAGES, --data, or the run's test images.

    Grad-CAM maps, confident mistakes first, on a sheet (HTML) and as PNG. Two checks are printed: the rank correlation
    with what covering parts of the image does, and with the maps of the same network with random weights, which has to
    be low.

    \b
    Example: radtransfer explain runs/first --fold 1 --limit 12 --out explanations
             radtransfer explain model.keras scan_1.png scan_2.png --layer stage3
    """
    if images and given["data"]:
        raise click.UsageError("Expected IMAGES or --data, and not both.")
    from radtransfer.result_folder import check_new, check_out

    check_out(Path(out))
    check_model(model)
    from radtransfer.explanations.explain import explain as explain_images
    from radtransfer.explanations.explained import ExplainSettings
    from radtransfer.explanations.explanation_files import FILES, explained_record, write_explanations

    check_new(Path(out), FILES, overwrite=overwrite)
    data = load_config(options={**given_settings(given, TABLE_OPTIONS), "data.source": given["data"]}).data
    check_source(data.source)
    settings = ExplainSettings(
        files=images,
        data=data,
        fold=given["fold"],
        layer=given["layer"],
        target=given["target"],
        limit=given["limit"],
        cells=given["occlusion"],
        seed=given["seed"],
    )
    progress = TerminalProgress()
    explained = explain_images(model, settings, progress=progress)
    written = write_explanations(explained, Path(out))
    progress.clear()
    record = explained_record(explained)
    show_json(record) if as_json else show(*_lines(explained, written[2]))
    overlays = len(explained.explanations)
    others = f"{overlays} overlay{'s' * (overlays != 1)}, {written[1].name}, {written[2].name}"
    show(f"wrote {written[0]}, {others}", err=True)


def _lines(explained: "Explained", table: Path) -> "Iterator[str]":
    from radtransfer.explanations.coarse_maps import coarse_map_note
    from radtransfer.explanations.randomization import depend_on_weights

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
        yield f"occlusion rank correlation with Grad-CAM {_number(explained.agreement)}, median of {count} images"
        if explained.agreement is not None and explained.agreement < _AGREES:
            yield f"{'':<10}the two hardly agree: trust neither"
    steps = ", ".join(f"{step.what} {_number(step.correlation)}" for step in explained.randomized)
    yield f"sanity    rank correlation with the maps of random weights: {steps}"
    depends = depend_on_weights(explained.randomized, images=len(explained.explanations))
    said = {True: "depend", False: "hardly depend", None: "are too few to tell whether they depend"}
    yield f"{'':<10}the maps {said[depends]} on the weights"
    for item in explained.explanations[:_LISTED]:
        state = {True: "wrong", False: "right", None: ""}[item.verdict.wrong]
        yield f"{state:<10}{item.verdict.name} {item.verdict.probability:.3f}  {item.path}"
    if len(explained.explanations) > _LISTED:
        yield f"{'':<10}… and {len(explained.explanations) - _LISTED} more in {table}"


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.2f}"
