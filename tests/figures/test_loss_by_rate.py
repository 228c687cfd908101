import numpy as np
import pytest

from radtransfer.reports.figures import draw_loss_by_rate


@pytest.mark.parametrize("steepest", [1e-3, None])
def test_the_names_stand_above_the_axes_where_no_line_runs(steepest):
    losses = np.linspace(1, 0.5, 60)
    figure = draw_loss_by_rate(np.geomspace(1e-6, 1, 60), losses, steepest=steepest, upper=2e-3)
    figure.draw_without_rendering()
    (legend,) = figure.legends
    place, page = legend.get_window_extent(), figure.bbox
    assert place.y0 >= figure.axes[0].get_window_extent().y1
    assert place.x0 >= 0 and place.x1 <= page.x1 and place.y1 <= page.y1
    assert figure.axes[0].get_legend() is None


def test_both_rates_are_named_in_words():
    rates = np.geomspace(1e-6, 1, 60)
    figure = draw_loss_by_rate(rates, np.linspace(1, 0.5, 60), steepest=0.00123, upper=0.0021)
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "steepest fall of the loss: 0.0012" in names
    assert "a tenth of the rate of the lowest loss: 0.0021" in names
