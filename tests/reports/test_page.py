import pytest
from page_checks import check_page

from radtransfer.reports.figures import new_figure
from radtransfer.reports.page import (
    LONG,
    Picture,
    Point,
    Points,
    Prose,
    Report,
    Section,
    Table,
    html_page,
    markdown_table,
)

EVIL = "<script>alert(\"x\")</script> & 'co'"


def table(rows=2, name="auc", first=EVIL):
    cells = [[first, f"{row}", "0.9"] for row in range(rows)]
    return Table(name, f"n = {rows}", ["target", EVIL, "AUC"], cells, [{"target": first, "auc": 0.9}] * rows)


def report(*parts, name="results"):
    return Report(EVIL, EVIL, [(EVIL, EVIL)], [Section(name, EVIL, parts), Section("nothing", "Nothing here", [])])


def picture(width=3.5):
    return Picture("drawing", f"a drawing of {EVIL}", f"caption of {EVIL}", new_figure(width=width)[0])


def test_every_name_is_escaped_and_the_page_is_whole():
    parts = [Prose(EVIL), Points([Point(EVIL, EVIL, EVIL)]), table(), picture()]
    text = html_page(report(*parts), {"drawing": b"<svg/>"})
    page = check_page(text)
    assert page.text.count(EVIL) == 15
    assert "<script" not in text


def test_a_section_without_parts_is_left_out():
    text = html_page(report(Prose("words")), {})
    assert "Nothing here" not in text
    assert check_page(text).anchors == ["#results"]


def test_tables_and_figures_are_numbered_each_for_themselves():
    page = check_page(html_page(report(table(), picture(), table(name="other")), {"drawing": b"<svg/>"}))
    for title in ("Table 1.", "Figure 1.", "Table 2."):
        assert title in page.text


def test_a_long_table_scrolls_and_a_wide_figure_may():
    assert 'class="scroll long"' in html_page(report(table(LONG + 1)), {})
    assert 'class="scroll long"' not in html_page(report(table(LONG)), {})
    assert '<figure class="wide">' in html_page(report(picture(7)), {"drawing": b""})


def test_the_columns_of_a_wide_table_stand_closer():
    wide = Table("t", "caption", list("abcdefgh"), [list("12345678")], [{}])
    assert 'class="scroll dense"' in html_page(report(wide), {})
    assert 'class="scroll dense"' not in html_page(report(table()), {})


def test_a_markdown_table_keeps_its_columns():
    lines = markdown_table(table(first="a|b\n<b>")).splitlines()
    assert lines[1] == "| --- | ---: | ---: |"
    assert lines[2] == r"| a\|b &lt;b&gt; | 0 | 0.9 |"
    assert lines[-1] == "n = 2"


@pytest.mark.parametrize("wrong", ["<p>open", "<p></div>", '<img src="a.png" alt="a long description">'])
def test_the_check_of_pages_finds_what_is_wrong(wrong):
    with pytest.raises(AssertionError):
        check_page(html_page(report(Prose("words")), {}).replace("</main>", f"{wrong}</main>"))
