import numpy as np
import pytest

from radtransfer.evaluation.explanations import SIDE, color_stops, overlay, picture, side_by_side


@pytest.fixture
def grey():
    return picture(np.full((32, 32, 3), 100, np.float32))


def test_where_the_map_is_nothing_the_picture_is_as_it_was(grey):
    heat = np.zeros((8, 8))
    heat[6, 6] = 2
    drawn = overlay(grey, heat)
    assert drawn.shape == (SIDE, SIDE, 3)
    np.testing.assert_array_equal(drawn[: SIDE // 2, : SIDE // 2], 100)
    peak = drawn[int(6.5 * SIDE / 8), int(6.5 * SIDE / 8)].astype(int)
    assert peak[0] > peak[2] + 50


def test_a_map_of_nothing_draws_nothing(grey):
    np.testing.assert_array_equal(overlay(grey, np.zeros((4, 4))), grey)
    np.testing.assert_array_equal(overlay(grey, np.full((4, 4), -1.0)), grey)


def test_the_lightness_of_the_colours_rises():
    light = [sum(weight * int(color[i : i + 2], 16) for weight, i in ((0.3, 1), (0.59, 3), (0.11, 5)))
             for color in color_stops()]  # fmt: skip
    assert light == sorted(light)


def test_pictures_stand_side_by_side(grey):
    assert side_by_side([grey, grey, grey]).size == (3 * SIDE + 16, SIDE)
