"""`radtransfer report`: results as one page, with its figures and tables as files."""

from pathlib import Path

import click


@click.command(short_help="Make a page of figures and tables from results.")
@click.option(
    "--published", metavar="DIR", type=click.Path(path_type=Path), help="Results as Juodelyte et al. publish theirs."
)
@click.option("--out", required=True, metavar="DIR", type=click.Path(path_type=Path), help="Folder of the report.")
def report(published: Path, out: Path) -> None:
    """Write report.html, report.json, figures/ (PNG and SVG) and tables/ (CSV and Markdown) to --out.

    --published reads AUC.csv, CCA_<target>.csv and similarity.csv of a folder, whatever targets, sources, layers and
    folds they hold.

    \b
    Example: radtransfer report --published results/ --out report
    """
    from radtransfer.comparison_files import check_out
    from radtransfer.published_report import report_published

    check_out(out)
    written = report_published(published, out)
    for path in written[:2]:
        click.echo(f"wrote {path}", err=True)
