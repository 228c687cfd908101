import numpy as np
import pytest

from radtransfer.reports.figures import save_figure
from radtransfer.reports.result_figures import Bins, draw_confusion, draw_precision_recall, draw_reliability, draw_roc

GRID = np.linspace(0, 1, 5)
BAND = ([0.1] * 5, [0.9] * 5)


def texts(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_roc_curves_have_a_line_a_band_and_a_point(tmp_path):
    curves = {"sick": ([0, 0.5, 1], [0, 0.8, 1], *BAND, 0.65, (0.5, 0.8)), "odd": ([0, 1], [0, 1], [], [], 0.5, None)}
    figure = draw_roc(curves, GRID, points={"sick": (0.5, 0.8)})
    (axes,) = figure.axes
    assert texts(figure) == ["sick, AUC 0.650 (0.500 to 0.800)", "odd, AUC 0.500"]
    assert len(axes.collections) == 1
    assert [0.5, 0.8] in [[line.get_xdata()[0], line.get_ydata()[0]] for line in axes.lines if line.get_marker() == "o"]
    save_figure(figure, tmp_path / "roc.png")
    assert (tmp_path / "roc.png").stat().st_size > 5000


def test_precision_is_drawn_against_the_prevalence():
    figure = draw_precision_recall({"sick": ([0.5, 1], [1, 0.4], *BAND, 0.7, 0.25)}, GRID)
    assert texts(figure) == ["sick, AP 0.700"]
    assert any(list(line.get_ydata()) == [0.25, 0.25] for line in figure.axes[0].lines)


def test_figures_say_above_what_they_are_of():
    bins = Bins([0.5], [0.5], [[0.4, 0.6]], [3], [0.5], width=0.1, error=0)
    line, subject = ([0, 1], [0, 1], [], []), "positive class a_b$"
    drawn = [
        draw_roc({"a": (*line, 0.5, None)}, GRID, subject=subject),
        draw_precision_recall({"a": (*line, 0.5, 0.5)}, GRID, subject=subject),
        draw_reliability({"as trained": bins}, subject=subject),
    ]
    assert [figure.axes[0].get_title() for figure in drawn] == ["positive class a_b\\$"] * 3


def test_a_long_name_is_cut_and_its_area_is_not():
    figure = draw_roc({"w" * 60: ([0, 1], [0, 1], [], [], 0.5, (0.4, 0.6))}, GRID)
    (text,) = texts(figure)
    assert text.endswith("w…, AUC 0.500 (0.400 to 0.600)") and len(text) < 50


def test_reliability_shows_frequencies_with_intervals_and_counts_as_bars():
    bins = Bins([0.05, 0.95], [0.2, 0.7], [[0.1, 0.4], [0.4, 0.9]], [30, 10], [0, 0.9], width=0.1, error=0.123)
    figure = draw_reliability({"as trained": bins, "scaled": bins}, confidence="probability of x", frequency="share")
    above, below = figure.axes
    assert texts(figure) == ["as trained, ECE 0.123", "scaled, ECE 0.123"]
    assert list(above.lines[0].get_ydata()) == [0.2, 0.7]
    assert [path.vertices[:, 1].tolist() for path in above.collections[0].get_paths()] == [[0.1, 0.4], [0.4, 0.9]]
    assert [bar.get_height() for bar in below.patches] == [30, 10, 30, 10]
    first, second, third, _ = (bar.get_x() for bar in below.patches)
    assert (first, second) == pytest.approx((0.005, 0.905))
    assert third == pytest.approx(first + below.patches[0].get_width())
    assert (below.get_xlabel(), below.get_ylabel()) == ("probability of x", "images")
    assert above.get_ylabel() == "share (95 % interval)"


@pytest.mark.parametrize(("classes", "written"), [(3, 9), (26, 0)])
def test_counts_are_written_where_there_is_room(classes, written):
    figure = draw_confusion({"": np.eye(classes, dtype=int)}, {"": [f"class {k}" for k in range(classes)]})
    assert len(figure.axes[0].texts) == written


def test_a_confusion_matrix_says_what_its_numbers_and_its_shade_are():
    figure = draw_confusion({"": [[7, 1, 0], [2, 2, 0], [0, 0, 0]]}, {"": ["benign", "malignant", "odd"]})
    matrix, bar = figure.axes
    assert [text.get_text() for text in matrix.texts] == [
        *("7\n88 %", "1\n12 %", "0\n0 %"),
        *("2\n50 %", "2\n50 %", "0\n0 %"),
        *("0", "0", "0"),
    ]
    assert matrix.images[0].get_array().tolist() == [[0.875, 0.125, 0], [0.5, 0.5, 0], [0, 0, 0]]
    assert matrix.images[0].get_clim() == (0, 1)
    assert bar.get_ylabel() == "percent of the true class"


def test_a_confusion_matrix_says_how_classes_were_decided():
    matrix, names = {"": [[7, 1], [2, 2]]}, {"": ["benign", "malignant"]}
    assert draw_confusion(matrix, names, "at the operating point youden").get_suptitle() == (
        "predicted at the operating point youden"
    )
    assert draw_confusion(matrix, names).get_suptitle() == ""


@pytest.mark.parametrize("classes", [2, 5, 8, 12, 30])
def test_nothing_of_a_confusion_matrix_is_cut_off(classes):
    for tables, names in (({""}, [f"c{k}" for k in range(classes)]), (map(str, range(classes)), ("absent", "present"))):
        counts = {table: np.ones((len(names), len(names)), int) for table in tables}
        figure = draw_confusion(counts, dict.fromkeys(counts, names), "at the operating point sensitivity=0.9")
        figure.draw_without_rendering()
        drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
        assert drawn.x0 >= 0 and drawn.y0 >= 0 and drawn.x1 <= width and drawn.y1 <= height


def test_each_label_has_its_own_matrix():
    names = [f"label {k}" for k in range(5)]
    figure = draw_confusion({name: [[3, 1], [0, 2]] for name in names}, dict.fromkeys(names, ("absent", "present")))
    assert [axes.get_title() for axes in figure.axes][:5] == names
    assert [axes.get_ylabel() for axes in figure.axes].count("percent of the true class") == 1
