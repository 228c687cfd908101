import json
import re

import pytest
from page_checks import check_page

from radtransfer.files import html_text, json_text, markdown_code, markdown_text, spreadsheet_cell
from radtransfer.reports.page import Report, html_page

MARKUP = [
    *["<script>alert(1)</script>", '" onerror="alert(1)', "' onload='x", "</style><script>", "javascript:alert(1)"],
    *[
        "<a href=javascript:alert(1)>x</a>",
        "</td></tr></table>",
        "&lt;b&gt;",
        "<!-- ",
        "]]>",
        "\x00\x1b[31m\u202egpj.exe",
    ],
]


@pytest.mark.parametrize("text", MARKUP)
def test_no_name_is_markup_in_a_page(text):
    page = check_page(html_page(Report(text, text, [(text, text)], [("a", text, [text])]), {}))
    shown = text.replace("\x00", r"\x00").replace("\x1b", r"\x1b").replace("\u202e", r"\u202e")
    assert page.text.count(" ".join(shown.split())) >= 5
    assert not re.search("[<>\"']", html_text(text))


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("![x](javascript:alert(1))", r"!\[x\](javascript:alert(1))"),
        ("[a]: http://x", r"\[a\]: http://x"),
        ("a|b\n<img src=x onerror=1>", r"a\|b &lt;img src=x onerror=1&gt;"),
        ("# head\n\n* list", r"\# head \* list"),
        ("_a_ __b__ cbr_tiny ~~c~~ `d`", r"\_a\_ \_\_b\_\_ cbr_tiny \~\~c\~\~ \`d\`"),
        ("- item", r"\- item"),
        ("1. item", r"1\. item"),
        ("=== ", r"\==="),
        ("-0.5", "-0.5"),
        ("\\", r"\\"),
        ("\x1b[31m\u202e", r"\\x1b\[31m\\u202e"),
    ],
)
def test_no_name_is_markup_in_markdown(text, written):
    assert markdown_text(text) == written


def test_code_in_markdown_ends_where_it_ends():
    assert markdown_code("load(path)") == "`load(path)`"
    assert markdown_code("a`b``c\n# d") == "``` a`b``c # d ```"


@pytest.mark.parametrize(
    "text", ['=HYPERLINK("http://x")', "+1+2", "-x", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "-2+3", "＝1", "-", "+1_0"]
)
def test_a_text_that_begins_like_a_formula_is_none_in_a_spreadsheet(text):
    assert spreadsheet_cell(text) == f"'{text}"


@pytest.mark.parametrize("value", [-0.5, "-0.5", "+1e-3", "-inf", "−x", "a=b", "", None, -3, "1.2.840", "–", "'=1"])
def test_numbers_and_other_texts_stay_as_they_are_in_a_spreadsheet(value):
    assert spreadsheet_cell(value) == value


@pytest.mark.parametrize("options", [{}, {"ensure_ascii": False}, {"indent": 2}])
def test_json_holds_no_character_that_steers_a_terminal(options):
    value = {"a\x1b\x7f\x9b\u202e\U000e0041": ["ß\n日本", "\udcff"]}
    text = json_text(value, **options)
    assert json.loads(text) == value
    assert text.replace("\n", "").isprintable()
    assert json_text({"ß": "日本"}, ensure_ascii=False) == '{"ß": "日本"}'
