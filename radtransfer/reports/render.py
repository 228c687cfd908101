"""Pages, Markdown and sentences from the templates beside this module.

*.html.j2   pages; everything that a template is handed is escaped
*.md.j2     Markdown; the same for Markdown
*.txt.j2    sentences in plain text, a macro each: said once, shown on a page, below a table and in JSON
"""

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radtransfer.files import html_text, markdown_code, markdown_text
from radtransfer.reports import statistics

if TYPE_CHECKING:
    from jinja2 import Environment

_FOLDER = Path(__file__).with_name("templates")
_ESCAPE: dict[str, Callable[[Any], str]] = {"html": html_text, "md": markdown_text}


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

    escape = _ESCAPE.get(kind)

    def escaped(value: Any) -> Any:
        return value if hasattr(value, "__html__") else Markup(escape(value))

    def read(name: str) -> str:
        text = (_FOLDER / name).read_text(encoding="utf-8")
        return _one_line(text) if kind == "txt" else text

    environment = Environment(
        loader=FunctionLoader(read),
        autoescape=escape is not None,
        finalize=escaped if escape else None,
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


def _one_line(source: str) -> str:
    """A line end beside a tag of Jinja vanishes; any other is a space."""
    source = re.sub(r"\{#.*?#\}", "", source, flags=re.DOTALL)
    return re.sub(r"\s*\n\s*", " ", re.sub(r"\s*\n\s*(?=\{%)|(?<=%\})\s*\n\s*", "", source))
