"""`radtransfer report`: results as one page, with its figures and tables as files."""

from pathlib import Path

import click

from radtransfer.cli.terminal import TerminalProgress, show


@click.command(short_help="Make a page of figures, tables and advice from runs.")
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--published", metavar="DIR", type=click.Path(path_type=Path), help="Results as Juodelyte et al. publish theirs."
)
@click.option("--out", required=True, metavar="DIR", type=click.Path(path_type=Path), help="Folder of the report.")
@click.option(
    "--threshold", type=click.FloatRange(0, 1), help="AUC to count steps to.  [default: one that every arm reaches]"
)
@click.option(
    "--cca/--no-cca", default=True, show_default=True, help="Compare the layers of each arm before and after training."
)
def report(runs: tuple[Path, ...], published: Path | None, out: Path, threshold: float | None, cca: bool) -> None:
    """Write report.html, report.json, figures/ (PNG and SVG) and tables/ (CSV and Markdown) to --out.

    RUNS are run folders, a study, or folders of runs; those that differ in their seed alone are one arm. An earlier
    report in --out is replaced.
    --published reads AUC.csv, CCA_<target>.csv and similarity.csv of a folder, whatever targets, sources, layers and
    folds they hold.

    \b
    Example: radtransfer report runs/imagenet runs/scratch --out report
             radtransfer report --published results/ --out report
    """
    if bool(runs) == (published is not None):
        raise click.UsageError("Expected RUNS or --published DIR, and not both.")
    from radtransfer.reports.report_folder import report_time
    from radtransfer.result_folder import check_out

    check_out(out)
    progress, before = TerminalProgress(), report_time(out)
    if published is not None:
        from radtransfer.reports.published.report import report_published

        written = report_published(published, out)
    else:
        from radtransfer.reports.run_report import report_runs

        written = report_runs(runs, out, threshold=threshold, cca=cca, progress=progress)
        progress.clear()
    if before:
        progress.note(f"replaced the report of {before} in {out}")
    for path in written[:2]:
        show(f"wrote {path}", err=True)
