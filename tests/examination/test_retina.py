"""The disc of the retina: found before a dark background, beside text and noise, and not where there is none."""

import numpy as np
import pytest

from radtransfer.data.image_check import retina_box


def photograph(height=400, width=600, centre=(200, 300), radius=150, noise=3.0) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    disc = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2
    grey = np.where(disc, 150.0, 5.0) + np.random.default_rng(0).normal(0, noise, (height, width))
    return np.clip(grey[..., None] * np.array([1.0, 0.6, 0.3]), 0, 255).astype(np.uint8)


def assert_close(box, expected, *, within=6):
    np.testing.assert_allclose(box, expected, atol=within)


@pytest.mark.parametrize("scale", [1, 4])
def test_the_box_is_around_the_disc(scale):
    pixels = photograph(400 * scale, 600 * scale, (200 * scale, 300 * scale), 150 * scale)
    assert_close(retina_box(pixels), np.array([50, 150, 301, 301]) * scale, within=6 * scale)


def test_a_disc_that_is_cut_off_above_and_below_keeps_its_sides():
    assert_close(retina_box(photograph(radius=260)), [0, 40, 400, 521])


def test_text_beside_the_disc_does_not_count():
    pixels = photograph()
    pixels[10:30, 10:90] = 255
    assert_close(retina_box(pixels), [50, 150, 301, 301])


def test_an_image_without_background_has_no_disc():
    assert retina_box(np.full((300, 300, 3), 120, np.uint8)) is None
    bright = np.random.default_rng(0).integers(100, 200, (300, 300, 3)).astype(np.uint8)
    assert retina_box(bright) is None


def test_a_small_bright_spot_is_no_disc():
    assert retina_box(photograph(radius=40)) is None
