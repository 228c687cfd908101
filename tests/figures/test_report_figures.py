import pytest

from radtransfer.reports.figures import (
    draw_auc_by_size,
    draw_by_group,
    draw_convergence,
    draw_forest,
    draw_gain,
    plain,
    save_figure,
)
from radtransfer.reports.layer_figures import draw_layer_panels

NAN = float("nan")


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_groups_show_mean_and_single_values_and_survive_what_is_missing(tmp_path):
    figure = draw_by_group(["x", "y"], {"a": [[0.5, 0.7], []], "b": [[0.9], [0.4]]}, label="AUC", reference=0.5)
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["x", "y"]
    strokes = [line.get_xdata().tolist() for line in axes.lines if line.get_marker() == "|" and line.get_alpha()]
    assert strokes == [[0.5, 0.7], [0.9], [0.4]]
    assert legend(figure) == ["a", "b"]
    save_figure(figure, tmp_path / "groups.svg")


def test_an_interval_about_the_reference_is_hollow():
    figure = draw_forest(
        ["a", "b", "c"], [(0.1, 0.05, 0.2), (0.1, -0.1, 0.3), (0.1, NAN, NAN)], label="", reference=0.0
    )
    faces = [line.get_markerfacecolor() for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert faces == ["#0072B2", "white", "white"]


def test_panels_leave_open_what_has_no_value(tmp_path):
    lines = {"a": {"conv1": (0.9, 0.1), "block2": (0.5, None)}, "b": {"block1": (0.4, 0.0)}}
    figure = draw_layer_panels(["conv1", "block1", "block2"], {f"t{i}": lines for i in range(6)}, label="CCA")
    assert [axes.get_title() for axes in figure.axes if axes.get_visible()] == [f"t{i}" for i in range(6)]
    assert legend(figure) == ["a", "b"]
    save_figure(figure, tmp_path / "panels.png")


def test_a_panel_per_source_and_layer_with_its_line():
    points = {("S", "conv1"): [("t", 0.1, 1.0), ("u", 0.3, 2.0)], ("S", "block1"): []}
    figure = draw_gain(["S"], ["conv1", "block1"], points, {("S", "conv1"): (5.0, 0.5), ("S", "block1"): None})
    first, second = figure.axes
    (line,) = [line for line in first.lines if line.get_color() == "black"]
    assert line.get_xdata().tolist() == [0.1, 0.3]
    assert line.get_ydata().tolist() == pytest.approx([1.0, 2.0])
    assert not [line for line in second.lines if line.get_color() == "black"]
    assert legend(figure) == ["t", "u"]


def test_sizes_are_named_on_a_logarithmic_axis(tmp_path):
    figure = draw_auc_by_size({"random": [("cbr", 1_000_000, 0.8, 0.7, 0.9), ("resnet", 20_000_000, 0.9, NAN, NAN)]})
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["cbr\n1.0 M", "resnet\n20.0 M"]
    save_figure(figure, tmp_path / "sizes.png")


@pytest.mark.parametrize("length", [10, 40, 80, 200])
def test_a_legend_stays_inside_its_figure(length):
    point = [("cbr", 1_000_000, 0.8, 0.7, 0.9)]
    figure = draw_auc_by_size({f"{number}{'n' * length}": point for number in range(4)})
    figure.draw_without_rendering()
    box, whole = figure.legends[0].get_window_extent(), figure.bbox
    assert whole.x0 <= box.x0 and box.x1 <= whole.x1


def test_names_are_drawn_as_they_are(tmp_path):
    assert [plain(text) for text in ("$x$", "_x", "a\nb\x07")] == [r"\$x\$", " _x", "a b "]
    figure = draw_convergence({"_hidden $a_b^": [[(0, 0.5), (10, 0.9)]], "x" * 200: [[(0, 0.5)]]}, threshold=0.7)
    assert legend(figure)[0] == r" _hidden \$a_b^"
    assert len(legend(figure)[1]) < 120
    save_figure(figure, tmp_path / "curve.png")
