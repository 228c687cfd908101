"""Pages, Markdown and sentences from the templates beside this module.

*.html.j2   pages; everything that a template is handed is escaped
*.md.j2     Markdown; the same for Markdown
*.txt.j2    sentences in plain text, a macro each: said once, shown on a page, below a table and in JSON

A report: sections of paragraphs, points, tables and figures, written as one folder.

report.html   the page, which needs no other file      report.json   every figure on it
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
    """A page or Markdown document; names in `values` may hold anything and are shown letter by letter."""
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
        # A line end beside a tag of Jinja vanishes; any other is a space.
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
    """A sentence with the evidence for it; `verdict` is a word or two that stands before it."""

    verdict: str
    text: str
    evidence: str = ""


@dataclass(frozen=True)
class Table:
    """Rows, one at least, as they are read and as they are computed with.

    Attributes:
        name: Of its files.
        caption: What the figures are, of how many, and what an interval covers.
        columns: Title of each column that is shown; its value, a key or attribute of a row or a function of it; and
            maybe a function that prints the value, and its further arguments.
        records: The rows with every digit, as written to CSV, all with the same keys; None where `rows` are that.
        text_columns: How many columns, from the left, hold names rather than figures.
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
    alt: str  # what it shows for who cannot see it
    caption: str  # what is drawn, and of how many
    figure: "Figure"


@dataclass(frozen=True)
class Report:
    """The page; all of it is plain text."""

    title: str
    subtitle: str  # what it is made from
    facts: Sequence[tuple[str, str]]  # name and value of each
    sections: Sequence[tuple[str, str, Sequence[Any]]]
    """Name, title and parts of each; one without parts is left out.

    A part is a paragraph (one of several lines keeps them), a list of `Point`, a `Table` or a `Picture`.
    """

    def of(self, kind: type) -> list[Any]:
        """The parts of a kind."""
        return [part for *_, parts in self.sections for part in parts if isinstance(part, kind)]


def html_page(report: Report, images: Mapping[str, bytes]) -> str:
    """The page as text; `images` is the SVG of every picture, by name."""
    data = {name: f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}" for name, svg in images.items()}
    return render("report.html.j2", **vars(report), images=data)


def markdown_table(table: Table) -> str:
    """The table in GitHub's Markdown, its caption below it."""
    return render("table.md.j2", part=table)


def write_report(report: Report, values: Mapping[str, Any], out: Path) -> list[Path]:
    """Write the folder, with `values` in report.json; gives the files, the page first.

    An older report in it is replaced, other files stay. Errors as of `atomic_folder`.
    """
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
            write_text(folder / names[-1], markdown_table(table))
        write_text(folder / "report.html", html_page(report, images))
        write_json(folder / "report.json", dict(values) | {"files": names})
    return [out / name for name in ("report.html", "report.json", *names)]


def report_time(out: Path) -> str | None:
    """When the report that stands in a folder was made, as "2026-01-31 12:00"; None without one."""
    page = out / "report.html"
    made = datetime.fromtimestamp(page.stat().st_mtime) if page.is_file() else None
    return made and made.strftime("%Y-%m-%d %H:%M")


def _csv_value(value: Any) -> Any:
    """A value as a field of a CSV file: empty for None, JSON for what has parts."""
    if value is None:
        return ""
    return json.dumps(value) if isinstance(value, (list, tuple, dict)) else value


def _svg_of_shapes(figure: "Figure") -> bytes:
    """The SVG with its letters drawn, so that it looks the same where the font is missing."""
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
