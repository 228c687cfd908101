import numpy as np

from radtransfer.reports.figures import mean_curve
from radtransfer.reports.layer_figures import GAP, filter_grid


def test_every_filter_stands_in_the_grid_scaled_to_its_own_range():
    kernel = np.random.default_rng(0).normal(size=(5, 5, 3, 20)) * np.logspace(-3, 3, 20)
    grid = filter_grid(kernel, columns=8)
    assert grid.shape == (3 * (5 + GAP) - GAP, 8 * (5 + GAP) - GAP, 3)
    picture = grid[5 + GAP : 10 + GAP, :5]
    expected = (kernel[..., 8] - kernel[..., 8].min()) / np.ptp(kernel[..., 8])
    np.testing.assert_allclose(picture, expected)


def test_one_channel_is_grey_and_a_constant_filter_is_no_error():
    grid = filter_grid(np.zeros((3, 3, 1, 2)))
    np.testing.assert_array_equal(grid[:3, :3], 0)


def test_the_mean_curve_stands_where_every_fold_has_a_point():
    steps, mean, sd = mean_curve([[(10, 0.5), (20, 0.7)], [(10, 0.7), (20, 0.9), (30, 1.0)]])
    np.testing.assert_array_equal(steps, [10, 20])
    np.testing.assert_allclose(mean, [0.6, 0.8])
    np.testing.assert_allclose(sd, np.sqrt(0.02))
