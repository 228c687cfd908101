import json
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from radtransfer.initializers import Gabor, gabor_planes

GOLDEN = Path(__file__).parents[1] / "golden" / "gabor_filters.json"


def filters(shape, scale=None):
    return np.asarray(Gabor(scale=scale)(shape, dtype="float64"))


def restated(angles=16, side=10, crop=7, sigma=2.0, frequencies=(0.08, 0.16, 0.25, 0.32)):
    """Appendix F.3 once more, by complex exponentials in rotated coordinates and SciPy's zoom with smoothing."""
    pictures = []
    for frequency in frequencies:
        for theta in np.arange(angles) / angles * np.pi:
            reach = int(np.ceil(3 * sigma * max(abs(np.cos(theta)), abs(np.sin(theta)))))
            y, x = np.meshgrid(np.arange(-reach, reach + 1), np.arange(-reach, reach + 1), indexing="ij")
            along, across = x * np.cos(theta) + y * np.sin(theta), -x * np.sin(theta) + y * np.cos(theta)
            wave = np.exp(-0.5 * (along**2 + across**2) / sigma**2 + 2j * np.pi * frequency * along).real
            factor = len(wave) / side
            smooth = ndimage.gaussian_filter(wave, (factor - 1) / 2, mode="mirror")
            small = ndimage.zoom(smooth, 1 / factor, order=1, mode="mirror", grid_mode=True)
            start = (side - crop) // 2
            pictures.append(small[start : start + crop, start : start + crop])
    return np.stack(pictures, axis=-1)


def test_the_papers_kernel_equals_an_independent_restatement():
    expected = restated()
    kernel = filters((7, 7, 3, 64), scale=1.0)
    assert expected.shape == (7, 7, 64)
    for channel in range(3):
        np.testing.assert_allclose(kernel[:, :, channel], expected / expected.std(), atol=1e-7)


def test_the_papers_kernel_equals_scikit_image():
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    kernel = filters((7, 7, 3, 64), scale=golden["standard_deviation_of_all_64"])
    for position, expected in golden["filters"].items():
        np.testing.assert_allclose(kernel[:, :, 1, int(position)], expected, atol=1e-9)


def test_a_kernel_of_cbr_tiny_is_the_centre_of_the_larger_one_at_every_other_angle():
    small, large = gabor_planes(5, 5, 32), gabor_planes(7, 7, 64)
    np.testing.assert_array_equal(small, large[1:6, 1:6, ::2])


@pytest.mark.parametrize(
    "shape",
    [
        (1, 1, 3, 8),
        (2, 2, 1, 4),
        (3, 3, 3, 32),
        (3, 7, 3, 16),
        (5, 5, 3, 64),
        (7, 7, 1, 30),
        (11, 11, 4, 96),
        (8, 8, 3, 1),
    ],
)
@pytest.mark.parametrize("scale", [None, 0.17])
def test_any_kernel_has_the_standard_deviation_asked_for(shape, scale):
    kernel = filters(shape, scale)
    height, width, channels, _ = shape
    assert kernel.shape == shape
    assert kernel.std() == pytest.approx(scale or np.sqrt(2 / (height * width * channels)))
    assert (kernel == kernel[:, :, :1]).all()


@pytest.mark.parametrize("count", [1, 3, 4, 6, 30, 32, 48, 64, 96, 130])
def test_any_number_of_filters_are_all_different(count):
    planes = gabor_planes(7, 7, count).reshape(49, count).T
    apart = np.linalg.norm(planes[:, None] - planes[None], axis=-1) + 100 * np.eye(count)
    assert planes.shape == (count, 49)
    assert apart.min() > 0.01


def test_filters_respond_to_their_own_orientation():
    y, x = np.mgrid[-3:4, -3:4]
    planes = gabor_planes(7, 7, 64)
    stripes = {"vertical": np.cos(2 * np.pi * 0.3 * x), "horizontal": np.cos(2 * np.pi * 0.3 * y)}
    across = {name: np.tensordot(wave, planes[:, :, 32:48], 2) for name, wave in stripes.items()}
    assert across["vertical"].argmax() in (0, 1, 15)
    assert across["horizontal"].argmax() in (7, 8, 9)


@pytest.mark.parametrize("size", [9, 11, 14, 21])
def test_a_larger_kernel_shows_the_same_pictures_in_more_pixels(size):
    small, large = gabor_planes(7, 7, 64), gabor_planes(size, size, 64)
    side = round(size * 10 / 7)
    # Where the centre of each of the 7 pixels, cut from 10, lies among the `size` pixels, cut from `side`.
    places = (np.arange(7) + 1.5) / 10 * side - 0.5 - (side - size) // 2
    grid = np.meshgrid(places, places, indexing="ij")
    seen = [ndimage.map_coordinates(large[..., i], grid, order=1, mode="nearest") for i in range(64)]
    correlation = [np.corrcoef(small[..., i].ravel(), seen[i].ravel())[0, 1] for i in range(64)]
    assert np.mean(correlation) > 0.97


@pytest.mark.parametrize("shape", [(64,), (7, 3, 64), (7, 7, 7, 3, 64), (7, 7, 0, 64)])
def test_what_is_no_image_kernel_is_refused(shape):
    with pytest.raises(ValueError, match=r"Expected the shape of a 2-D convolution kernel"):
        Gabor()(shape)


def test_a_single_value_cannot_have_a_scale():
    with pytest.raises(ValueError, match=r"at least two values per channel. Received: \(1, 1, 3, 1\)"):
        Gabor()((1, 1, 3, 1))


@pytest.mark.parametrize("scale", [0, -1.0, np.nan, np.inf])
def test_a_scale_that_is_no_standard_deviation_is_refused(scale):
    with pytest.raises(ValueError, match="Expected a standard deviation above 0 as scale"):
        Gabor(scale=scale)
