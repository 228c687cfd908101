"""What each measure must ignore, and what it must notice."""

import numpy as np
import pytest

from radtransfer import similarity

ALL = ["cca", "svcca", "pwcca", "cka", "procrustes", "linear_regression", "rbf_cka", "rsa"]


def rotation(rng, x):
    return x @ np.linalg.qr(rng.normal(size=(x.shape[1],) * 2))[0]


def invertible(rng, x):
    return x @ (rng.normal(size=(x.shape[1],) * 2) + 3 * np.eye(x.shape[1]))


def one_scale(rng, x):
    return 37.5 * x


def channel_scales(rng, x):
    return x * rng.uniform(0.1, 10, x.shape[1])


def shift(rng, x):
    return x + rng.normal(size=x.shape[1])


def permutation(rng, x):
    return rng.permutation(x, axis=1)


IGNORED_IN_X = {
    "cca": [rotation, invertible, one_scale, channel_scales, shift, permutation],
    "svcca": [rotation, one_scale, shift, permutation],
    "pwcca": [one_scale, shift, permutation],
    "cka": [rotation, one_scale, shift, permutation],
    "procrustes": [rotation, one_scale, shift, permutation],
    "linear_regression": [rotation, invertible, one_scale, channel_scales, shift, permutation],
    "rbf_cka": [rotation, one_scale, shift, permutation],
    "rsa": [one_scale, permutation],
}
IGNORED_IN_Y = IGNORED_IN_X | {
    "pwcca": [rotation, invertible, one_scale, channel_scales, shift, permutation],
    "linear_regression": [rotation, one_scale, shift, permutation],
}
EVERY_MAP = [rotation, invertible, one_scale, channel_scales, shift, permutation]


def cases(table, *, ignored):
    return [
        pytest.param(name, change, id=f"{name}-{change.__name__}")
        for name, maps in table.items()
        for change in EVERY_MAP
        if (change in maps) == ignored
    ]


def change_in(name, x, y, new_x, new_y):
    measure = getattr(similarity, name)
    return abs(measure(new_x, new_y).value - measure(x, y).value)


@pytest.mark.parametrize(("name", "change"), cases(IGNORED_IN_X, ignored=True))
def test_a_map_of_x_that_the_measure_ignores_changes_nothing(layers, name, change):
    x, y = layers
    assert change_in(name, x, y, change(np.random.default_rng(0), x), y) < 1e-10


@pytest.mark.parametrize(("name", "change"), cases(IGNORED_IN_Y, ignored=True))
def test_a_map_of_y_that_the_measure_ignores_changes_nothing(layers, name, change):
    x, y = layers
    assert change_in(name, x, y, x, change(np.random.default_rng(0), y)) < 1e-10


@pytest.mark.parametrize(("name", "change"), cases(IGNORED_IN_X, ignored=False))
def test_a_map_of_x_that_the_measure_should_notice_changes_it(layers, name, change):
    x, y = layers
    assert change_in(name, x, y, change(np.random.default_rng(0), x), y) > 1e-5


@pytest.mark.parametrize(("name", "change"), cases(IGNORED_IN_Y, ignored=False))
def test_a_map_of_y_that_the_measure_should_notice_changes_it(layers, name, change):
    x, y = layers
    assert change_in(name, x, y, x, change(np.random.default_rng(0), y)) > 1e-5


@pytest.mark.parametrize("name", ALL)
def test_a_layer_is_identical_to_itself(layers, name):
    for rows in layers:
        assert getattr(similarity, name)(rows, rows).value == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("name", ALL)
def test_the_order_of_the_rows_does_not_matter_if_it_is_the_same_in_both(layers, name):
    x, y = layers
    order = np.random.default_rng(0).permutation(len(x))
    assert change_in(name, x, y, x[order], y[order]) < 1e-10


@pytest.mark.parametrize("name", ALL)
def test_rows_that_do_not_belong_together_are_noticed(layers, name):
    x, y = layers
    measure = getattr(similarity, name)
    assert measure(x, np.roll(y, 1, axis=0)).value < measure(x, y).value - 0.05


@pytest.mark.parametrize("name", ["cca", "svcca", "cka", "procrustes", "rbf_cka", "rsa"])
def test_a_symmetric_measure_does_not_care_which_layer_comes_first(layers, name):
    x, y = layers
    measure = getattr(similarity, name)
    assert measure(x, y).value == pytest.approx(measure(y, x).value, abs=1e-11)
