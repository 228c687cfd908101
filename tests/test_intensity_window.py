"""Which values become black and white."""

import numpy as np
import pytest

from radtransfer.errors import ConfigError
from radtransfer.images.refs import IntensityWindow, parse_window, scaled


def test_auto_is_what_the_format_says():
    assert parse_window("auto").levels(10, 20) == (0, 65535)
    assert parse_window("auto").levels(10, 20, auto=(0, 255)) == (0, 255)


def test_minmax_is_what_the_image_holds():
    assert parse_window("minmax").levels(10, 20) == (10, 20)


def test_centre_and_width_reach_half_the_width_to_both_sides():
    assert parse_window("40,400") == IntensityWindow("fixed", 40, 400)
    assert parse_window("40,400").levels(0, 65535) == (-160, 240)
    assert parse_window(" -600 , 1500 ").levels(0, 1) == (-1350, 150)


@pytest.mark.parametrize("text", ["", "tag", "40", "40,", "40,0", "40,-1", "nan,5", "5,inf", "1,2,3", "40;400", "a,b"])
def test_anything_else_is_refused_with_an_example(text):
    with pytest.raises(ConfigError, match=f"expected auto, minmax, or CENTRE,WIDTH.*40,400.*Received: {text!r}"):
        parse_window(text)


def test_values_are_scaled_and_clipped():
    image = scaled(np.array([-5, 0, 5, 10, 15]), (0, 10))
    assert image.dtype == np.float32
    assert image.tolist() == [0, 0, 127.5, 255, 255]


def test_an_image_of_one_value_is_black():
    assert not scaled(np.full(4, 7), parse_window("minmax").levels(7, 7)).any()
