"""A report as a small tree of sections, and the tree as one HTML page: no scripts, no files beside it, no network.

A `Report` holds `Section`s, which hold `Prose`, `Points`, `Table`s and `Picture`s. Text is plain: everything is
escaped when the page is written.

How a report looks: on a wide screen, in a narrow window, and in print.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from radtransfer.files import html_text as _e
from radtransfer.files import markdown_text as _markdown

STYLE = """
:root { --ink: #1b1f24; --soft: #57606a; --line: #d5dae0; --tint: #f5f7f9; --accent: #0b5c93; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body { margin: 0 auto; max-width: 58rem; padding: 3rem 1.5rem 4rem; color: var(--ink); background: #fff;
  font: 1.0625rem/1.6 Charter, "Bitstream Charter", "Sitka Text", Cambria, Georgia, serif; }
h1 { font-size: 2.1rem; line-height: 1.2; margin: 0; letter-spacing: -0.01em; overflow-wrap: anywhere; }
h2 { font-size: 1.4rem; line-height: 1.3; margin: 0 0 .9rem; padding-top: 1.4rem; border-top: 2px solid var(--ink); }
header p { color: var(--soft); margin: .4rem 0 0; overflow-wrap: anywhere; }
p { margin: 0 0 1rem; max-width: 44rem; overflow-wrap: break-word; }
.kept { white-space: pre-wrap; font-size: .94rem; line-height: 1.5; }
a { color: var(--accent); text-decoration-thickness: 1px; text-underline-offset: .15em; }
.facts { display: flex; flex-wrap: wrap; gap: .6rem 2.4rem; margin: 1.4rem 0 0; }
.facts div { min-width: 0; }

  facts dt, figcaption, table, nav, .verdict, .evidence, footer { font-family: system-ui, "Segoe UI", Roboto, Helvetica,
  Arial, sans-serif; }
.facts dt { font-size: .78rem; color: var(--soft); }
.facts dd { margin: 0; font-size: 1.15rem; font-weight: 600; overflow-wrap: anywhere; }
nav { margin: 1.8rem 0 2.6rem; font-size: .9rem; border-block: 1px solid var(--line); padding: .6rem 0; }
nav ol { display: flex; flex-wrap: wrap; gap: .3rem 1.5rem; list-style: none; margin: 0; padding: 0; }
section { margin: 0 0 2.8rem; }
.points { list-style: none; margin: 0 0 1.2rem; padding: 0; }
.points li { padding: .65rem 0 .65rem 1rem; border-left: 3px solid var(--accent); margin: 0 0 .7rem;
  background: var(--tint);
  padding-right: 1rem; overflow-wrap: anywhere; }
.verdict { display: inline-block; font-size: .75rem; font-weight: 700; letter-spacing: .02em;
  border: 1.5px solid var(--ink);
  border-radius: 3px; padding: 0 .45em; margin-right: .35em; line-height: 1.5; background: #fff; }
.evidence { display: block; font-size: .84rem; line-height: 1.45; color: var(--soft); margin-top: .2rem; }
figure { margin: 1.6rem 0 2rem; }
figure img { display: block; width: 100%; height: auto; }
figure.narrow img { max-width: 30rem; }
.scroll { overflow-x: auto; }
.scroll:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
figcaption { font-size: .86rem; line-height: 1.5; color: var(--soft); max-width: 50rem; margin: .5rem 0;
  overflow-wrap: anywhere; }
figcaption b { color: var(--ink); }
table { border-collapse: collapse; font-size: .86rem; line-height: 1.4; font-variant-numeric: tabular-nums;
  width: 100%;
  border-block: 2px solid var(--ink); }
th, td { text-align: right; padding: .32rem .7rem; vertical-align: top; white-space: nowrap; }
th { font-weight: 600; box-shadow: inset 0 -1px var(--ink); vertical-align: bottom; white-space: normal;
  position: sticky; top: 0; background: #fff; }
td { border-bottom: 1px solid var(--line); }
th.name, td.name { text-align: left; white-space: normal; overflow-wrap: break-word; max-width: 24rem; }
.long { max-height: 34rem; overflow-y: auto; border-block: 1px solid var(--line); } .long table { border-block: 0; }
.dense table { font-size: .78rem; } .dense th, .dense td { padding-inline: .35rem; }
td.again { color: #a3abb3; }
tbody tr:last-child td { border-bottom: 0; }
tbody tr:hover td { background: var(--tint); }
footer { font-size: .8rem; color: var(--soft); border-top: 1px solid var(--line); padding-top: .8rem; }
@media (max-width: 40rem) {
  body { padding: 1.4rem 1rem 2.5rem; font-size: 1rem; } h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; }
  figure.wide img { min-width: 32rem; } th, td { padding: .3rem .5rem; }
}
@media print {
  @page { margin: 18mm 15mm; }
  body { max-width: none; padding: 0; font-size: 10.5pt; } nav { display: none; } a { color: inherit; }
  h2 { break-after: avoid; } figure.wide, figure.narrow, .points li, tr { break-inside: avoid; }
  .scroll { overflow: visible; max-height: none; } th { position: static; }
  table { font-size: 8pt; } th, td { padding: 2pt 4pt; }
}
"""


if TYPE_CHECKING:
    from matplotlib.figure import Figure

LONG = 20
"""Rows from which a table scrolls on the screen; on paper it is whole."""

_MANY = 8
"""Columns from which they stand closer together."""


@dataclass(frozen=True)
class Prose:
    """A paragraph; one that is `kept` has its lines as they are, as in a small table of text."""

    text: str
    kept: bool = False


@dataclass(frozen=True)
class Point:
    """A sentence with the evidence for it; `verdict` is a word or two that stands before it."""

    verdict: str
    text: str
    evidence: str = ""


@dataclass(frozen=True)
class Points:
    """A list of sentences."""

    points: Sequence[Point]


@dataclass(frozen=True)
class Table:
    """Rows, as they are read and as they are computed with.

    Attributes:
        name: Of its files.
        caption: What the figures are, of how many, and what an interval covers.
        header: Titles of the columns that are shown.
        cells: Text of each row under them.
        records: The same with every digit, as written to CSV; all with the same keys, one at least.
        text_columns: How many columns, from the left, hold names rather than figures.
    """

    name: str
    caption: str
    header: Sequence[str]
    cells: Sequence[Sequence[str]]
    records: Sequence[Mapping[str, Any]]
    text_columns: int = 1


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure.

    Attributes:
        name: Of its files.
        alt: What it shows, for who cannot see it.
        caption: What is drawn, of how many, and what bars and bands are.
        figure: The drawing.
    """

    name: str
    alt: str
    caption: str
    figure: "Figure"


@dataclass(frozen=True)
class Section:
    """A part of the page; `name` is its anchor."""

    name: str
    title: str
    parts: Sequence[Prose | Points | Table | Picture]


@dataclass(frozen=True)
class Report:
    """The page: a title, what it is made from, facts as (name, value), and sections; those without parts are left."""

    title: str
    subtitle: str
    facts: Sequence[tuple[str, str]]
    sections: Sequence[Section]

    @property
    def tables(self) -> list[Table]:
        return [part for section in self.sections for part in section.parts if isinstance(part, Table)]

    @property
    def pictures(self) -> list[Picture]:
        return [part for section in self.sections for part in section.parts if isinstance(part, Picture)]


def html_page(report: Report, images: Mapping[str, bytes]) -> str:
    """The page as text.

    Args:
        report: What it says.
        images: SVG of every picture, by name.
    """
    sections = [section for section in report.sections if section.parts]
    contents = "".join(f'<li><a href="#{_e(s.name)}">{_e(s.title)}</a></li>' for s in sections)
    facts = "".join(f"<div><dt>{_e(name)}</dt><dd>{_e(value)}</dd></div>" for name, value in report.facts)
    numbers = {id(part): number for parts in (report.pictures, report.tables) for number, part in enumerate(parts, 1)}
    body = "\n".join(_section(section, images, numbers) for section in sections)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">\n"
        f"<title>{_e(report.title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<header><h1>{_e(report.title)}</h1><p>{_e(report.subtitle)}</p>"
        f'<dl class="facts">{facts}</dl></header>\n'
        f'<nav aria-label="Contents"><ol>{contents}</ol></nav>\n<main>\n{body}\n</main>\n'
        "<footer><p>Written by radtransfer. Research software, not a medical device.</p></footer>\n</body>\n</html>\n"
    )


def markdown_table(table: Table) -> str:
    """The table in GitHub's Markdown, its caption below it."""

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(map(_markdown, cells))} |"

    rule = ["---" if column < table.text_columns else "---:" for column in range(len(table.header))]
    rows = [line(table.header), f"| {' | '.join(rule)} |", *map(line, table.cells)]
    return "\n".join(rows) + f"\n\n{_markdown(table.caption)}\n"


def _section(section: Section, images: Mapping[str, bytes], numbers: Mapping[int, int]) -> str:
    parts = "\n".join(_part(part, images, numbers) for part in section.parts)
    return f'<section id="{_e(section.name)}"><h2>{_e(section.title)}</h2>\n{parts}\n</section>'


def _part(part: Any, images: Mapping[str, bytes], numbers: Mapping[int, int]) -> str:
    if isinstance(part, Prose):
        return f'<p class="kept">{_e(part.text)}</p>' if part.kept else f"<p>{_e(part.text)}</p>"
    if isinstance(part, Points):
        return f'<ul class="points">{"".join(map(_point, part.points))}</ul>'
    if isinstance(part, Table):
        return _table(part, numbers[id(part)])
    picture = base64.b64encode(images[part.name]).decode("ascii")
    number, size = numbers[id(part)], "wide" if part.figure.get_size_inches()[0] > 5 else "narrow"
    return (
        f'<figure class="{size}"><div class="scroll" tabindex="0" role="group" aria-label="Figure {number}">'
        f'<img src="data:image/svg+xml;base64,{picture}" alt="{_e(part.alt)}"></div>'
        f"<figcaption><b>Figure {number}.</b> {_e(part.caption)}</figcaption></figure>"
    )


def _point(point: Point) -> str:
    evidence = f' <span class="evidence">{_e(point.evidence)}</span>' if point.evidence else ""
    return f'<li><span class="verdict">{_e(point.verdict)}</span> {_e(point.text)}{evidence}</li>'


def _table(table: Table, number: int) -> str:
    columns = range(len(table.header))
    head = "".join(f'<th scope="col"{_kind(table, column)}>{_e(table.header[column])}</th>' for column in columns)
    rows, above = [], ""
    for cells in table.cells:
        # A name that stands in the row above is kept for screen readers and copies, not shown.
        again = table.text_columns > 1 and cells[0] == above
        shown = (f"<td{_kind(table, column, again and column == 0)}>{_e(cells[column])}</td>" for column in columns)
        rows.append(f"<tr>{''.join(shown)}</tr>")
        above = cells[0]
    size = "scroll" + " long" * (len(table.cells) > LONG) + " dense" * (len(table.header) >= _MANY)
    return (
        f'<figure class="table"><figcaption><b>Table {number}.</b> {_e(table.caption)}</figcaption>'
        f'<div class="{size}" tabindex="0" role="group" aria-label="Table {number}"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div></figure>"
    )


def _kind(table: Table, column: int, again: bool = False) -> str:
    if column >= table.text_columns:
        return ""
    return ' class="name again"' if again else ' class="name"'
