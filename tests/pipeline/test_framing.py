"""Framing: what is seen of an image, at which scale a JPEG is decoded, and what becomes of its sides."""

import numpy as np
import pytest
import tensorflow as tf

from radtransfer.images.decode import frame


class Framed:
    """The framing of one image, as NumPy has it; TensorFlow, asked beside it, has the same."""

    def __init__(self, height, width, *, size=100, aspect="stretch", decoder="jpeg", disc=None):
        box = np.array(disc or (0, 0, height, width), np.float64)
        settings = {"size": size, "aspect": aspect, "jpeg": decoder == "jpeg"}
        framing, in_graph = (frame(ops, list(box), **settings) for ops in (np, tf))
        for mine, its in zip(framing, in_graph, strict=True):
            np.testing.assert_array_equal(mine, its)
        self.top, self.left, self.height, self.width = framing.window
        self.rows, self.columns = framing.size
        self.seen, self.ratio, self.by_area = tuple(framing.seen), framing.ratio, framing.by_area


framed = Framed


def test_stretching_sees_the_whole_image():
    framing = framed(300, 400, decoder="png8")
    assert (framing.top, framing.left, framing.height, framing.width) == (0, 0, 300, 400)
    assert (framing.rows, framing.columns) == (100, 100)


def test_a_crop_sees_the_central_square():
    framing = framed(300, 400, aspect="crop", decoder="png8")
    assert (framing.top, framing.left, framing.height, framing.width) == (0, 50, 300, 300)


def test_padding_keeps_the_ratio_of_the_sides():
    assert (framed(300, 400, aspect="pad").rows, framed(300, 400, aspect="pad").columns) == (75, 100)
    assert (framed(400, 1, aspect="pad").rows, framed(400, 1, aspect="pad").columns) == (100, 1)


def test_only_the_disc_is_seen_and_cropped():
    framing = framed(300, 400, disc=(10, 40, 200, 260), aspect="crop", decoder="png8")
    assert (framing.top, framing.left, framing.height, framing.width) == (10, 70, 200, 200)


@pytest.mark.parametrize(
    ("height", "width", "size", "ratio"),
    [
        (1958, 2196, 587, 2),
        (3000, 4000, 587, 4),
        (3000, 4000, 224, 8),
        (1174, 1174, 587, 2),
        (1173, 1174, 587, 1),
        (900, 900, 224, 2),  # below a megapixel two pixels are left for each
        (900, 900, 226, 1),
        (64, 64, 224, 1),
    ],
)
def test_a_jpeg_is_decoded_at_the_smallest_scale_that_has_a_pixel_for_each_of_the_result(height, width, size, ratio):
    framing = framed(height, width, size=size)
    assert framing.ratio == ratio
    assert framing.height >= size or framing.ratio == 1


def test_other_formats_are_decoded_whole():
    assert framed(3000, 4000, decoder="png8").ratio == 1


def test_the_last_part_of_a_pixel_is_seen():
    framing = framed(1957, 2195, size=587)
    assert (framing.height, framing.width) == (979, 1098)


def test_a_window_stays_within_the_decoding():
    for left in range(50):
        framing = framed(2000, 2000, size=200, disc=(left, left, 2000 - left, 1999 - left))
        assert framing.top + framing.height <= 2000 / framing.ratio
        assert framing.left + framing.width <= 2000 / framing.ratio


def test_large_images_are_averaged_by_area_where_both_sides_shrink_a_little():
    assert framed(2000, 2000, size=200).by_area
    assert framed(1200, 1200, size=400, decoder="png8").by_area
    assert not framed(1201, 1201, size=400, decoder="png8").by_area
    assert not framed(999, 1000, size=400, decoder="png8").by_area
    assert not framed(20, 60_000, size=30_000, decoder="png8").by_area


def test_what_is_seen_may_begin_and_end_within_a_pixel():
    framing = framed(2001, 2003, size=200, disc=(4, 10, 1997, 1985))
    assert framing.ratio == 8
    assert framing.seen == (0.5, 0.25, 1997 / 8, 1985 / 8)
    assert (framing.top, framing.left) == (0, 1)


def test_averaging_by_area_displaces_no_edge_by_a_thousandth():
    assert framed(4003, 4003, size=587).by_area
    assert not framed(1003, 1003, size=100).by_area  # five eighths of the last of 126 pixels lie outside
