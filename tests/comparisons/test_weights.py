import numpy as np
import pytest

from radtransfer.errors import WeightsError
from radtransfer.similarity.compare_weights import mean_change, weight_change


def test_the_change_is_relative_to_the_first_and_the_cosine_is_of_the_angle():
    found = weight_change("conv", "Conv2D", [np.array([[3.0, 4.0]])], [np.array([[3.0, -4.0]])])
    assert found.relative_change == pytest.approx(8 / 5)
    assert found.cosine == pytest.approx((9 - 16) / 25)
    assert (found.parameters, found.norm_a, found.norm_b) == (2, 5, 5)


def test_all_arrays_of_a_layer_are_one_vector():
    found = weight_change("conv", "Conv2D", [np.zeros((2, 2)), np.array([1.0])], [np.eye(2), np.array([1.0])])
    assert found.relative_change == pytest.approx(np.sqrt(2))
    assert found.cosine == pytest.approx(1 / np.sqrt(3))


def test_a_layer_that_starts_at_zero_has_no_relative_change():
    found = weight_change("bias", "Dense", [np.zeros(3)], [np.ones(3)])
    assert (found.relative_change, found.cosine) == (None, None)
    assert mean_change([found, found]).relative_change is None


def test_folds_are_averaged():
    changes = [weight_change("conv", "Conv2D", [np.ones(1)], [np.full(1, end)]) for end in (2.0, 4.0)]
    assert mean_change(changes).relative_change == pytest.approx(2)


def test_weights_that_are_not_finite_name_the_layer():
    with pytest.raises(WeightsError, match="conv3 has weights that are not finite"):
        weight_change("conv3", "Conv2D", [np.ones(2)], [np.array([1, np.nan])])
