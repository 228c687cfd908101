import re
from pathlib import Path

import pytest
from page_checks import check_page

from radtransfer.reports import page as render_module
from radtransfer.reports.figures import new_figure
from radtransfer.reports.page import Picture, Point, Report, Table, html_page, render, say
from radtransfer.reports.published_report import CHOICES

EVIL = "<script>alert(\"x\")</script> & 'co'"


def table(rows=2, name="auc", first=EVIL):
    columns = [("target", "target"), (EVIL, "row"), ("AUC", lambda row: f"{row['auc']:.1f}")]
    return Table(name, f"n = {rows}", columns, [{"target": first, "row": row, "auc": 0.9} for row in range(rows)])


def report(*parts, name="results"):
    return Report(EVIL, EVIL, [(EVIL, EVIL)], [(name, EVIL, parts), ("nothing", "Nothing here", [])])


def picture(width=3.5):
    return Picture("drawing", f"a drawing of {EVIL}", f"caption of {EVIL}", new_figure(width=width)[0])


def test_every_name_is_escaped_and_the_page_is_whole():
    parts = [EVIL, [Point(EVIL, EVIL, EVIL)], table(), picture()]
    text = html_page(report(*parts), {"drawing": b"<svg/>"})
    page = check_page(text)
    assert page.text.count(EVIL) == 15
    assert "<script" not in text


def test_a_section_without_parts_is_left_out():
    text = html_page(report("words"), {})
    assert "Nothing here" not in text
    assert check_page(text).anchors == ["#results"]


def test_a_paragraph_of_several_lines_keeps_them():
    assert '<p class="kept">a  b\nc</p>' in html_page(report("a  b\nc"), {})
    assert "<p>words</p>" in html_page(report("words"), {})


def test_tables_and_figures_are_numbered_each_for_themselves():
    page = check_page(html_page(report(table(), picture(), table(name="other")), {"drawing": b"<svg/>"}))
    for title in ("Table 1.", "Figure 1.", "Table 2."):
        assert title in page.text


def test_a_long_table_scrolls_and_a_wide_figure_may():
    assert 'class="scroll long"' in html_page(report(table(21)), {})
    assert 'class="scroll long"' not in html_page(report(table(20)), {})
    assert '<figure class="wide">' in html_page(report(picture(7)), {"drawing": b""})


def test_the_columns_of_a_wide_table_stand_closer():
    wide = Table("t", "caption", [(name, name) for name in "abcdefgh"], [dict.fromkeys("abcdefgh", 1)])
    assert 'class="scroll dense"' in html_page(report(wide), {})
    assert 'class="scroll dense"' not in html_page(report(table()), {})


def test_a_markdown_table_keeps_its_columns():
    lines = render("table.md.j2", part=table(first="a|b\n<b>")).splitlines()
    assert lines[1] == "| --- | ---: | ---: |"
    assert lines[2] == r"| a\|b &lt;b&gt; | 0 | 0.9 |"
    assert lines[-1] == "n = 2"


@pytest.mark.parametrize("wrong", ["<p>open", "<p></div>", '<img src="a.png" alt="a long description">'])
def test_the_check_of_pages_finds_what_is_wrong(wrong):
    with pytest.raises(AssertionError):
        check_page(html_page(report("words"), {}).replace("</main>", f"{wrong}</main>"))


def test_a_sentence_stands_on_one_line_and_names_in_it_stay_as_they_are():
    text = say("captions.size_alt", ["a  b\nc", EVIL])
    assert text == f"AUC against parameters of a  b\nc, {EVIL}; the figures are in the first table."


def test_every_sentence_is_a_template_that_is_used():
    """Macros of the templates of sentences, and the names under which Python and other macros call them."""
    folder = Path(render_module.__file__).parent
    code = "".join(path.read_text(encoding="utf-8") for path in folder.glob("*.py"))
    for file in (folder / "templates").glob("*.txt.j2"):
        text = file.read_text(encoding="utf-8")
        for name in re.findall(r"macro (\w+)\(", text):
            key = f'"{file.name.split(".")[0]}.{name}"'
            said = key in code or len(re.findall(rf"\b{name}\(", text)) > 1
            assert said or name.removesuffix("_why") in CHOICES, f"{file.name}: {name}"
