"""Commands that hand a trained model on: export and card."""

from pathlib import Path

import click

from radtransfer.cli.terminal import show, show_file, show_json, show_written
from radtransfer.errors import RunError
from radtransfer.exports.formats import EXPORT_FORMATS
from radtransfer.files import writing


@click.command(short_help="Write a trained model in another format, and check it.")
@click.argument("run")
@click.option("--format", "format_", type=click.Choice(list(EXPORT_FORMATS)), required=True, help="What to write.")
@click.option("--out", required=True, metavar="PATH", help="File or folder to write; never overwritten.")
@click.option("--fold", metavar="K|all", help="Which fold; needed where there are several.")
@click.option(
    "--operating-point",
    metavar="RULE",
    help="Put a threshold into the export, chosen on the fold's validation images: youden, sensitivity=X or "
    "specificity=X. predict then decides by it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def export(run: str, format_: str, out: str, fold: str | None, operating_point: str | None, as_json: bool) -> None:
    """Export the model of RUN (or RUN/fold_K) with a model card; it takes RGB images 0-255, its scaling is inside.

    What was written is reloaded in a fresh process and compared on images of the run: a probability that differs by
    more than 1e-5 is an error (exit code 7), and nothing is written. A savedmodel also takes encoded JPEGs and PNGs
    (serve_bytes), with everything inside. onnx needs pip install 'radtransfer[export]'.

    \b
    Example: radtransfer export runs/first --fold 1 --format savedmodel --out model
    """
    from radtransfer.exports.export import LARGEST_DIFFERENCE, export_run

    exported = export_run(run, format=format_, out=Path(out), fold=fold, operating_point=operating_point)
    if as_json:
        plain = [{name: str(value) if isinstance(value, Path) else value for name, value in vars(item).items()}
                 for item in exported]  # fmt: skip
        show_json(plain)
        return
    for item in exported:
        images = f"{item.images} of the run's images" if item.images else "drawn images (the run's are not there)"
        files = "" if item.bytes_difference is None else f", {item.bytes_difference:.2g} from the files"
        show(f"{item.path}  {item.size / 1e6:.1f} MB  largest difference {item.difference:.2g}{files} on {images}")
    show(f"checked   in a fresh process; more than {LARGEST_DIFFERENCE:g} is refused")
    show(f"inside    {exported[0].inside}")
    inside = "" if exported[0].bytes_difference is None else " (serve_bytes does all of it)"
    show(f"to do     {exported[0].caller}{inside}")
    if exported[0].positive_class is not None:
        show(f"positive class {exported[0].positive_class}")
    show(f"use       {exported[0].usage}")
    show(f"card      {', '.join(str(item.card) for item in exported)}")


@click.command(short_help="Write the model card of a run.")
@click.argument("run")
@click.option("--fold", type=int, metavar="K", help="Which fold; needed where there are several.")
@click.option("--out", metavar="FILE", type=click.Path(path_type=Path), help="Write it here instead of printing it.")
def card(run: str, fold: int | None, out: Path | None) -> None:
    """Print the model card of RUN (or RUN/fold_K): data, results, weights and their terms, limits; in Markdown.

    `radtransfer export` writes the same beside each export, with the result of its check.

    \b
    Example: radtransfer card runs/first --fold 1 --out MODEL_CARD.md
    """
    from radtransfer.exports.metadata import model_card, read_facts
    from radtransfer.runs.folder import find_fold, write_text

    path, number = find_fold(run, fold=fold)
    facts = read_facts(path, number)
    text = model_card(facts, size=facts.record["image_size"])
    if out is None:
        show_file(text)
        return
    if out.exists():
        raise RunError(f"{out} exists; nothing was written. Choose another --out.")
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, text)
    show_written([out])
