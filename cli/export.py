"""`radtransfer export`: take a trained model home."""

import json
from pathlib import Path

import click

from radtransfer.cli.tensorflow import import_tensorflow
from radtransfer.export_formats import EXPORT_FORMATS


@click.command()
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
    """Export the model of RUN (or RUN/fold_K); it takes RGB images 0-255, its preprocessing is inside.

    What was written is reloaded in a fresh process and compared on images of the run.

    \b
    Example: radtransfer export runs/first --fold 1 --format savedmodel --out model
    """
    import_tensorflow()
    from radtransfer.export import export_run

    exported = export_run(run, format=format_, out=Path(out), fold=fold, operating_point=operating_point)
    if as_json:
        click.echo(json.dumps([{**vars(item), "path": str(item.path)} for item in exported], indent=2))
        return
    for item in exported:
        images = f"{item.images} of the run's images" if item.images else "noise (the run's images are not there)"
        click.echo(f"{item.path}  {item.size / 1e6:.1f} MB  largest difference {item.difference:.2g} on {images}")
