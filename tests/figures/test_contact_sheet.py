"""The sheet of pictures."""

import numpy as np
import pytest

from radtransfer.reports.figures import COLORS, SheetRow, draw_contact_sheet, save_figure, shortened_middle


def test_there_is_a_cell_for_each_picture_and_names_are_plain_text(tmp_path):
    picture = np.zeros((8, 8, 3), np.uint8)
    rows = [SheetRow("$x_1$.png", "b", (picture, picture)), SheetRow("y" * 90 + ".png", "", (picture, picture))]
    figure = draw_contact_sheet(rows, heads=["raw", "variation 1"], classes=("a", "b"), title="$ a title")
    assert len(figure.axes) == 4
    texts = {text.get_text(): text for text in figure.texts}
    assert "$x_1$.png" in texts and "no label" in texts
    assert texts["b"].get_color() == COLORS[1]
    save_figure(figure, tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").stat().st_size > 0


@pytest.mark.parametrize("letters", [3, 4, 9, 10])
def test_long_names_keep_both_ends(letters):
    short = shortened_middle("abcdefghijkl", letters)
    assert len(short) == letters
    assert short[0] == "a" and short[-1] == "l" and "…" in short
    assert shortened_middle("abc", letters) == "abc"
