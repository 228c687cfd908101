import numpy as np
import pytest

from radtransfer.reports.figures import save_figure
from radtransfer.reports.layer_figures import (
    SimilarityCurve,
    filter_change,
    layer_change,
    similarity_curve,
    similarity_heat_map,
)
from radtransfer.reports.result_figures import prediction_agreement

NAN = float("nan")


def test_a_curve_shows_values_interval_and_chance_and_survives_what_is_missing(tmp_path):
    curve = SimilarityCurve([0.9, 0.5], [0.85, NAN], [0.95, NAN], [0.2, NAN])
    figure = similarity_curve(["stem", "stage1"], {"cca": curve, "cka": curve}, measure="similarity")
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["stem", "stage1"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["chance, cca", "chance, cka", "cca", "cka"]
    save_figure(figure, tmp_path / "curve.png")


def test_the_band_of_chance_is_the_same_of_one_curve_and_of_all_together():
    nothing = [NAN, NAN]
    own = similarity_curve(
        ["a", "b"], {"x": SimilarityCurve([0.9, 0.5], nothing, nothing, [0.2, 0.1])}, measure="mean CCA"
    )
    joint = similarity_curve(
        ["a", "b"], {"x": SimilarityCurve([0.9, 0.5], nothing, nothing, nothing)}, measure="mean CCA", chance=[0.2, 0.1]
    )
    bands = [figure.axes[0].collections[0].get_paths()[0].vertices for figure in (own, joint)]
    assert (bands[0] == bands[1]).all()
    assert (bands[0][:, 1].min(), bands[0][:, 1].max()) == (0, 0.2)
    assert own.axes[0].get_ylabel() == "mean CCA"


def test_a_network_of_many_layers_gets_fewer_labels(tmp_path):
    names = [f"layer_{i}" for i in range(100)]
    ones = [0.5] * 100
    axes = similarity_curve(names, {"cca": SimilarityCurve(ones, ones, ones, ones)}, measure="similarity").axes[0]
    assert 10 <= len(axes.get_xticks()) <= 24


def test_a_heat_map_names_rows_and_columns_and_prints_few_values(tmp_path):
    titles = {"row_title": "a", "column_title": "b", "title": "cca"}
    figure = similarity_heat_map(np.eye(2), rows=["r1", "r2"], columns=["c1", "c2"], **titles)
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == ["1.00", "0.00", "0.00", "1.00"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("b", "a")
    large = similarity_heat_map(np.eye(50), rows=["r"] * 50, columns=["c"] * 50, **titles)
    assert not large.axes[0].texts


@pytest.mark.parametrize(("channels", "filters"), [(3, 10), (1, 70), (6, 4)])
def test_filters_of_any_number_and_depth_are_drawn(tmp_path, channels, filters):
    kernels = np.random.default_rng(0).normal(size=(5, 5, channels, filters))
    figure = filter_change(kernels, 0 * kernels, title_a="before", title_b="after")
    grids = [axes.images[0].get_array() for axes in figure.axes[:2]]
    assert grids[0].shape == grids[1].shape
    assert grids[0].min() >= 0 and grids[0].max() <= 1
    assert set(np.unique(grids[1])) == {0.5, 1.0}
    save_figure(figure, tmp_path / "filters.png")


def test_layers_of_one_kind_share_a_line():
    figure = layer_change(["a", "b", "c"], ["Conv2D", "Dense", "Conv2D"], [0.1, None, 0.3])
    first, second = figure.axes[0].lines
    assert (first.get_xdata().tolist(), second.get_xdata().tolist()) == ([0, 2], [])


def test_images_are_grouped_by_who_is_right():
    figure = prediction_agreement(
        [0.9, 0.8, 0.1, 0.2],
        [0.9, 0.3, 0.7, 0.1],
        right_a=[1, 1, 0, 0],
        right_b=[1, 0, 1, 0],
        independent=[0.25] * 4,
        title_a="a",
        title_b="b",
    )
    heights = [bar.get_height() for bar in figure.axes[1].patches]
    assert heights == [0.25] * 8
