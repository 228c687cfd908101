"""A report as a folder, written whole: everything is drawn before the first file is put in place.

report.html   the page, which needs no other file      report.json   every figure on it
figures/      each figure as .png and .svg             tables/       each table as .csv and .md
"""

import json
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from radtransfer.errors import RunError
from radtransfer.figures.style import save_figure
from radtransfer.reports.page import Report, Table, html_page, markdown_table
from radtransfer.runs import write_json, write_rows, write_text
from radtransfer.whole_file import part_folder

_OURS = re.compile(r"(figures|tables)/[\w-]+\.(png|svg|csv|md)")


def write_report(report: Report, values: Mapping[str, Any], out: Path) -> list[Path]:
    """Write the folder; an older report in it is replaced, other files stay.

    Args:
        report: What the page says.
        values: What `report.json` says besides "files".
        out: The folder, made if needed.

    Returns:
        The files, the page first.

    Raises:
        RunError: The folder cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with part_folder(out) as staging:
            names = _stage(report, values, staging)
            _delete_older(out, names)
            # The page comes last: where it stands, the files that belong to it do too.
            for name in reversed(names):
                (out / name).parent.mkdir(exist_ok=True)
                (staging / name).replace(out / name)
    except OSError as error:
        raise RunError(
            f"--out {out}: the report cannot be written ({error.strerror}). Choose another folder."
        ) from None
    return [out / name for name in names]


def report_time(out: Path) -> str | None:
    """When the report that stands in a folder was made, as "2026-01-31 12:00"; None without one."""
    page = out / "report.html"
    if not page.is_file():
        return None
    return datetime.fromtimestamp(page.stat().st_mtime).strftime("%Y-%m-%d %H:%M")


def csv_value(value: Any) -> Any:
    """A value as a field of a CSV file: empty for None, JSON for what has parts."""
    if value is None:
        return ""
    return json.dumps(value) if isinstance(value, (list, tuple, dict)) else value


def _stage(report: Report, values: Mapping[str, Any], folder: Path) -> list[str]:
    """Writes everything below `folder` and gives the names, the page first."""
    names, images = [], {}
    for picture in report.pictures:
        for suffix in (".png", ".svg"):
            names.append(f"figures/{picture.name}{suffix}")
            save_figure(picture.figure, folder / names[-1])
        images[picture.name] = _drawn_text(picture.figure, folder / "page.svg")
    (folder / "tables").mkdir()
    for table in report.tables:
        names += [f"tables/{table.name}.csv", f"tables/{table.name}.md"]
        _write_csv(table, folder / names[-2])
        write_text(folder / names[-1], markdown_table(table))
    write_text(folder / "report.html", html_page(report, images))
    write_json(folder / "report.json", dict(values) | {"files": names})
    return ["report.html", "report.json", *names]


def _drawn_text(figure: Any, path: Path) -> bytes:
    """The SVG with its letters drawn, so that it looks the same where the font is missing."""
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "radtransfer"}):
        figure.savefig(path, format="svg", metadata={"Date": None})
    return path.read_bytes()


def _write_csv(table: Table, path: Path) -> None:
    header = list(table.records[0])
    write_rows(path, header, ([csv_value(record[name]) for name in header] for record in table.records))


def _delete_older(out: Path, names: list[str]) -> None:
    """Delete what the report that stands there wrote and this one does not."""
    try:
        before = json.loads((out / "report.json").read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    for name in before if isinstance(before, list) else []:
        if isinstance(name, str) and _OURS.fullmatch(name) and name not in names:
            (out / name).unlink(missing_ok=True)
