"""`radtransfer data check`: everything that is wrong with a data set."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from radtransfer.cli.data_options import TABLE_OPTIONS, images_text, split_lines
from radtransfer.cli.options import given_settings, setting_options
from radtransfer.cli.terminal import TerminalProgress, line, painted, show, show_json
from radtransfer.config import load_config
from radtransfer.errors import DataError
from radtransfer.run_names import check_value

if TYPE_CHECKING:
    from radtransfer.checks.evidence import Finding
    from radtransfer.data.check import DataReport

OPTIONS = TABLE_OPTIONS | {
    "positive_from": "data.positive_from",
    "on_bad_image": "data.on_bad_image",
    "window": "images.window",
    "folds": "splits.folds",
    "val_fraction": "splits.val_fraction",
    "image_size": "model.image_size",
    "workers": "system.workers",
    "seed": "seed",
}

FINDINGS_SHOWN = 3
"""Of each kind, in the terminal; what is said of the table is said once and shown whole."""

_COLORS = {"error": "red", "warning": "yellow", "note": "cyan"}


@click.command(short_help="Find what would make results wrong.")
@click.argument("data")
@setting_options(**OPTIONS)
@click.option("--out", metavar="DIR", help="Write check.json and check.html, a page with pictures, here.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def check(data: str, out: str | None, as_json: bool, **given: Any) -> None:
    """Decode every image of DATA and find what would make results wrong: exit code 3 if there is such a thing.

    Looks for files that cannot be read, images without content, one image with two labels or in two splits, images
    that look alike, patients in two splits, and unusual sizes, colour modes and ranges. Splits are those that DATA
    brings, or those that finetune would draw with these --folds, --val-fraction and --seed.

    \b
    Example: radtransfer data check images.csv --image-root images/ --out checked
    """
    options = {**given_settings(given, OPTIONS), "data.source": data}
    settings = load_config(options=options, check=check_value)
    if out:
        from radtransfer.result_folder import check_out

        check_out(Path(out))
    from radtransfer.data.check import check_data

    progress = TerminalProgress()
    report = check_data(settings, progress=progress)
    written = _write(report, Path(out), progress) if out else []
    progress.clear()
    show_json(report.to_dict()) if as_json else show(*_lines(report))
    for path in written:
        show(f"wrote     {path}", err=True)
    if report.evidence is None:
        raise DataError(f"{data}: nothing could be checked. Name the data as the message above says, and check again.")
    if not report.valid:
        kinds = [f"{len(found)} × {kind}" for (severity, kind), found in report.kinds.items() if severity == "error"]
        raise DataError(f"{data}: results would be invalid ({', '.join(kinds)}). Correct the data and check again.")


def _write(report: "DataReport", out: Path, progress: TerminalProgress) -> list[Path]:
    from radtransfer.data.check_page import check_page
    from radtransfer.result_folder import whole_folder
    from radtransfer.runs import write_json, write_text

    page = check_page(report, count=lambda done, total: progress.count("pictures", done, total))
    names = ("check.json", "check.html")
    with whole_folder(out, names) as folder:
        write_json(folder / names[0], report.to_dict())
        write_text(folder / names[1], page)
    return [out / name for name in names]


def _lines(report: "DataReport") -> Iterator[str]:
    yield f"data      {report.data}"
    if report.images:
        yield f"images    {images_text(report.images, report.patients, report.classes, report.positive_class)}"
        yield f"stored    {_stored(report)}"
        if len(report.modes) > 1:
            yield from (f"          {text}" for text in _mode_table(report))
    folds = report.splits["folds"]
    if folds:
        source = "given with the data" if report.splits["given"] else "as finetune would draw them"
        yield f"folds     {len(folds)}, {source}"
        yield from (f"          {text}" for text in split_lines(folds))
    for (severity, kind), findings in report.kinds.items():
        yield ""
        yield line(painted(f"{severity:<10}", fg=_COLORS[severity], bold=True), f"{kind}, {len(findings)}")
        shown = len(findings) if kind == "table" else FINDINGS_SHOWN
        yield from (f"          {_text(finding)}" for finding in findings[:shown])
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


def _mode_table(report: "DataReport") -> Iterator[str]:
    """How many images of each class are stored in which mode."""
    wide = max(map(len, ("class", *report.class_modes)))
    yield "  ".join(["class".ljust(wide), *report.modes])
    for name, modes in report.class_modes.items():
        yield "  ".join([name.ljust(wide), *(f"{count:>{len(mode)}}" for mode, count in modes.items())])


def _text(finding: "Finding") -> str:
    if not finding.files:
        return finding.message
    more = f" and {len(finding.files) - 3} more" if len(finding.files) > 3 else ""
    return f"{', '.join(finding.files[:3])}{more}: {finding.message}"
