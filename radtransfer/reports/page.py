"""Pages, Markdown and sentences from templates.

*.html.j2   pages; all values are escaped
*.md.j2     Markdown; all values are escaped for Markdown
*.txt.j2    sentences in plain text, one macro each, for pages, captions and JSON

A report: sections of paragraphs, points, tables and figures, written as one folder.

report.html   the page, in one file                    report.json   all results on it
figures/      each figure as .png and .svg             tables/       each table as .csv and .md
"""

import base64
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radtransfer.files import atomic_folder, html_text, markdown_code, markdown_text
from radtransfer.reports import statistics
from radtransfer.reports.figures import save_figure
from radtransfer.runs.folder import write_json, write_rows, write_text

if TYPE_CHECKING:
    from jinja2 import Environment
    from matplotlib.figure import Figure

_FOLDER = Path(__file__).with_name("templates")


def render(template: str, **values: Any) -> str:
    """A page or Markdown document; `values` may contain any text and are shown literally."""
    return _environment(template.split(".")[-2]).get_template(template).render(values)


def say(name: str, *values: Any, **named: Any) -> str:
    """A sentence in plain text: `name` is FILE.MACRO, as in "captions.auc_table"."""
    file, _, macro = name.partition(".")
    return getattr(_environment("txt").get_template(f"{file}.txt.j2").module, macro)(*values, **named).strip()


@cache
def _environment(kind: str) -> "Environment":
    from jinja2 import Environment, FunctionLoader, StrictUndefined
    from markupsafe import Markup

    escape = {"html": html_text, "md": markdown_text}.get(kind)

    def read(name: str) -> str:
        text = (_FOLDER / name).read_text(encoding="utf-8")
        if kind != "txt":
            return text
        # A line break next to a Jinja tag is removed; any other is a space.
        text = re.sub(r"\{#.*?#\}", "", text, flags=re.DOTALL)
        return re.sub(r"\s*\n\s*", " ", re.sub(r"\s*\n\s*(?=\{%)|(?<=%\})\s*\n\s*", "", text))

    environment = Environment(
        loader=FunctionLoader(read),
        autoescape=escape is not None,
        finalize=(lambda value: value if hasattr(value, "__html__") else Markup(escape(value))) if escape else None,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    names = ("number", "signed", "mean_sd", "interval", "plain_interval", "count", "listed")
    shown = {name: getattr(statistics, name) for name in names}
    known = ("SAME", "MOST", "more_patients", "more_trainings")
    environment.globals |= shown | {name: getattr(statistics, name) for name in known}
    environment.filters |= shown | {"code": lambda text: Markup(markdown_code(text))}
    return environment


_OURS = re.compile(r"(figures|tables)/[\w-]+\.(png|svg|csv|md)")


@dataclass(frozen=True)
class Point:
    """A sentence with its evidence; `verdict` is a label of a few words before it."""

    verdict: str
    text: str
    evidence: str = ""


@dataclass(frozen=True)
class Table:
    """A table with at least one row.

    Attributes:
        name: Of its files.
        caption: What the values are, their number, and what an interval covers.
        columns: Title of each shown column; its value, as key, attribute or function of a row; optionally a function
            that formats the value, and further arguments for it.
        records: The rows for the CSV file, unrounded, with the same keys; None if `rows` are these.
        text_columns: Number of columns, from the left, with names instead of numbers.
    """

    name: str
    caption: str
    columns: Sequence[tuple]
    rows: Sequence[Any]
    records: Sequence[Mapping[str, Any]] | None = None
    text_columns: int = 1

    @property
    def header(self) -> list[str]:
        return [title for title, *_ in self.columns]

    @property
    def cells(self) -> list[list[str]]:
        def cell(row: Any, value: str | Callable[[Any], Any], form: Callable[..., str] = str, *more: Any) -> str:
            if callable(value):
                return form(value(row), *more)
            return form(row[value] if isinstance(row, Mapping) else getattr(row, value), *more)

        return [[cell(row, *text) for _, *text in self.columns] for row in self.rows]


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure."""

    name: str  # of its files
    alt: str  # alternative text
    caption: str  # what is shown, and of how many
    figure: "Figure"


@dataclass(frozen=True)
class Report:
    """The content of the page, in plain text."""

    title: str
    subtitle: str  # the source of the results
    facts: Sequence[tuple[str, str]]  # names and values
    sections: Sequence[tuple[str, str, Sequence[Any]]]
    """Name, title and parts (paragraph, list of `Point`, `Table` or `Picture`); without parts, a section is omitted."""

    def of(self, kind: type) -> list[Any]:
        """The parts of a kind."""
        return [part for *_, parts in self.sections for part in parts if isinstance(part, kind)]


def html_page(report: Report, images: Mapping[str, bytes]) -> str:
    """The HTML of the page; `images` is the SVG of every picture, by name."""
    data = {name: f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}" for name, svg in images.items()}
    return render("report.html.j2", **vars(report), images=data)


def write_report(report: Report, values: Mapping[str, Any], out: Path) -> list[Path]:
    """Write the folder, with `values` in report.json, and give its files, the page first; other files in it stay."""
    with atomic_folder(out, ("report.html", "report.json", *_earlier(out)), last="report.html") as folder:
        names, images = [], {}
        for picture in report.of(Picture):
            for suffix in (".png", ".svg"):
                names.append(f"figures/{picture.name}{suffix}")
                save_figure(picture.figure, folder / names[-1])
            images[picture.name] = _svg_of_shapes(picture.figure)
        (folder / "tables").mkdir()
        for table in report.of(Table):
            names += [f"tables/{table.name}.csv", f"tables/{table.name}.md"]
            records = table.records or [row if isinstance(row, Mapping) else asdict(row) for row in table.rows]
            rows = ([_csv_value(value) for value in record.values()] for record in records)
            write_rows(folder / names[-2], list(records[0]), rows, for_people=True)
            write_text(folder / names[-1], render("table.md.j2", part=table))
        write_text(folder / "report.html", html_page(report, images))
        write_json(folder / "report.json", dict(values) | {"files": names})
    return [out / name for name in ("report.html", "report.json", *names)]


def report_time(out: Path) -> str | None:
    """When the existing report in a folder was made, as "2026-01-31 12:00"; None without one."""
    page = out / "report.html"
    made = datetime.fromtimestamp(page.stat().st_mtime) if page.is_file() else None
    return made and made.strftime("%Y-%m-%d %H:%M")


def _csv_value(value: Any) -> Any:
    """A value for a CSV file: empty for None, JSON for lists and dicts."""
    if value is None:
        return ""
    return json.dumps(value) if isinstance(value, (list, tuple, dict)) else value


def _svg_of_shapes(figure: "Figure") -> bytes:
    """The SVG with letters as paths, so that it looks the same without the font."""
    import matplotlib

    page = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "radtransfer"}):
        figure.savefig(page, format="svg", metadata={"Date": None})
    return page.getvalue()


def _earlier(out: Path) -> list[str]:
    """The figures and tables of the existing report."""
    try:
        before = json.loads((out / "report.json").read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    names = before if isinstance(before, list) else []
    return [name for name in names if isinstance(name, str) and _OURS.fullmatch(name)]
