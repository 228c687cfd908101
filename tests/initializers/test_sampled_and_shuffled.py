import keras
import numpy as np
import pytest

from radtransfer.initializers import Copied, Sampled, Shuffled

ARRAY = np.random.default_rng(0).laplace(0.01, 0.05, (3, 3, 8, 16)).astype(np.float32)


def cumulative_distance(a, b):
    """The largest distance between two empirical distribution functions (Kolmogorov–Smirnov)."""
    a, b, points = np.sort(a, axis=None), np.sort(b, axis=None), np.concatenate([a.ravel(), b.ravel()])
    return np.abs(np.searchsorted(a, points, "right") / a.size - np.searchsorted(b, points, "right") / b.size).max()


def test_shuffled_weights_are_a_permutation():
    shuffled = np.asarray(Shuffled(ARRAY, 1)(ARRAY.shape))
    np.testing.assert_array_equal(np.sort(shuffled, axis=None), np.sort(ARRAY, axis=None))
    assert np.mean(shuffled == ARRAY) < 0.01


def test_shuffling_leaves_no_order():
    shuffled = np.asarray(Shuffled(np.arange(10_000.0), 1)((10_000,)))
    assert abs(np.corrcoef(shuffled, np.arange(10_000))[0, 1]) < 0.04
    assert abs(np.corrcoef(shuffled[1:], shuffled[:-1])[0, 1]) < 0.04


def test_shuffled_fits_any_shape_of_as_many_values():
    assert Shuffled(ARRAY, 1)((9, 128)).shape == (9, 128)


def test_shuffled_refuses_another_number_of_values():
    with pytest.raises(ValueError, match=r"Expected a tensor of 1152 values.*Received: shape \(3, 3\), 9 values"):
        Shuffled(ARRAY, 1)((3, 3))


def test_sampled_weights_follow_the_empirical_distribution():
    drawn = np.asarray(Sampled(ARRAY, 1)((200, 200)))
    assert set(drawn.ravel()) <= set(ARRAY.ravel())
    assert cumulative_distance(drawn, ARRAY) < 1.63 / np.sqrt(drawn.size)  # the 1 % point of the test


def test_sampling_is_with_replacement():
    drawn = np.asarray(Sampled(ARRAY, 1)(ARRAY.shape))
    unique = np.unique(drawn).size / np.unique(ARRAY).size
    assert unique == pytest.approx(1 - 1 / np.e, abs=0.04)


@pytest.mark.parametrize("kind", [Sampled, Shuffled])
def test_only_the_values_count_and_not_their_order(kind):
    a, b = kind(ARRAY, 1), kind(ARRAY[..., ::-1], 1)
    np.testing.assert_array_equal(a(ARRAY.shape), b(ARRAY.shape))


@pytest.mark.parametrize("kind", [Sampled, Shuffled, Copied])
def test_changing_the_array_afterwards_changes_nothing(kind):
    array = ARRAY.copy()
    initializer = kind(array) if kind is Copied else kind(array, 1)
    before = np.array(initializer(ARRAY.shape))
    array[:] = 0
    np.testing.assert_array_equal(initializer(ARRAY.shape), before)


@pytest.mark.parametrize("kind", [Sampled, Shuffled])
def test_arrays_may_be_tensors_variables_and_lists(kind):
    expected = kind([1.0, 2.0, 4.0], 1)((3,))
    for array in (keras.ops.convert_to_tensor([1.0, 2.0, 4.0]), keras.Variable([1.0, 2.0, 4.0])):
        np.testing.assert_array_equal(kind(array, 1)((3,)), expected)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 1e300])
def test_values_that_float32_cannot_hold_are_refused(wrong):
    with pytest.raises(ValueError, match="Received: 1 of 3 that are NaN or infinite"):
        Sampled(np.array([0.0, wrong, 1.0]), 1)


def test_an_empty_array_is_refused():
    with pytest.raises(ValueError, match=r"Received: 0 in shape \[3, 0\]"):
        Shuffled(np.zeros((3, 0)), 1)


def test_copied_weights_are_those_given():
    np.testing.assert_array_equal(Copied(ARRAY)(ARRAY.shape), ARRAY)


def test_copied_refuses_another_shape_even_of_as_many_values():
    with pytest.raises(ValueError, match=r"Expected a tensor of shape \(3, 3, 8, 16\).*Received: \(9, 128\)"):
        Copied(ARRAY)((9, 128))
