"""`radtransfer compare-weights`: how far the weights of each layer have moved."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from radtransfer.cli.completions import complete_backbone
from radtransfer.cli.options import overwrite_option
from radtransfer.cli.terminal import TerminalProgress, show, show_json

if TYPE_CHECKING:
    from radtransfer.comparisons.weights import WeightComparison


@click.command("compare-weights", short_help="Compare the weights of two networks layer by layer.")
@click.argument("a")
@click.argument("b")
@click.option("--fold", multiple=True, type=int, metavar="K", help="Only these folds of the runs.")
@click.option(
    "--backbone", metavar="NAME", shell_complete=complete_backbone, help="Network that a weights file is for."
)
@click.option("--image-size", type=click.IntRange(16), help="For networks that are built for any size.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of random networks.")
@click.option("--out", metavar="DIR", help="Write CSV, JSON and figures here.")
@overwrite_option
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def compare_weights(
    a: str,
    b: str,
    fold: tuple[int, ...],
    backbone: str | None,
    image_size: int | None,
    seed: int,
    out: str | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Compare the weights of the networks A and B, layer by layer, and the filters of their first convolution.

    A and B are as in compare-cca. "change" is the length of the difference over the length of A's weights.

    \b
    Example: radtransfer compare-weights runs/first@initial runs/first@final --out comparison
    """
    from radtransfer.comparisons.comparison_files import WEIGHT_FILES, write_weights
    from radtransfer.comparisons.weights import compare_weights as compare
    from radtransfer.result_folder import check_new

    if out:
        check_new(Path(out), WEIGHT_FILES, overwrite=overwrite)
    comparison = compare(
        a, b, backbone=backbone, image_size=image_size, folds=fold, seed=seed, progress=TerminalProgress()
    )
    written = write_weights(comparison, Path(out)) if out else []
    show_json(comparison.to_dict()) if as_json else show(*_lines(comparison))
    for path in written:
        show(f"wrote {path}", err=True)


def _lines(comparison: "WeightComparison"):
    width = max(len(name) for name in ("layer", *(layer.layer for layer in comparison.layers))) + 2
    yield f"{'layer':<{width}}{'parameters':>12}{'change':>9}{'cosine':>9}{'length A':>11}{'length B':>11}"
    for layer in comparison.layers:
        yield (
            f"{layer.layer:<{width}}{layer.parameters:>12,}{_number(layer.relative_change):>9}"
            f"{_number(layer.cosine):>9}{layer.norm_a:>11.3f}{layer.norm_b:>11.3f}"
        )
    if comparison.left_out:
        shown = ", ".join(comparison.left_out[:6]) + (", …" if len(comparison.left_out) > 6 else "")
        yield f"of other shape or in one network only: {shown}"


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"
