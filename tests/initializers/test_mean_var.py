import keras
import numpy as np
import pytest

from radtransfer.initializers import MeanVar, PositiveMeanVar
from radtransfer.process import derive_seed

SHAPE = (100, 1000)
SKEWED = np.random.default_rng(0).gamma(0.5, 2.0, 300)


@pytest.mark.parametrize("kind", [MeanVar, PositiveMeanVar])
def test_draws_have_the_mean_and_the_standard_deviation_asked_for(kind):
    drawn = np.asarray(kind(0.3, 0.2, 5)(SHAPE))
    assert drawn.mean() == pytest.approx(0.3, abs=4 * 0.2 / np.sqrt(drawn.size))
    assert drawn.std() == pytest.approx(0.2, rel=0.02)


@pytest.mark.parametrize("kind", [MeanVar, PositiveMeanVar])
def test_like_takes_the_population_statistics_of_the_array(kind):
    initializer = kind.like([1.0, 2.0, 6.0], 5)
    assert initializer.get_config() == {"mean": 3.0, "stddev": pytest.approx(np.sqrt(14 / 3)), "seed": 5}


def test_the_normal_is_not_truncated():
    beyond = np.abs(np.asarray(MeanVar(0.0, 1.0, 5)((1_000_000,)))) > 2
    assert beyond.mean() == pytest.approx(0.0455, abs=0.001)


def test_draws_follow_a_normal_distribution():
    drawn = np.sort(np.asarray(MeanVar(0.0, 1.0, 5)((50_000,)), np.float64))
    expected = 0.5 * (1 + np.asarray(keras.ops.erf(drawn / np.sqrt(2))))
    assert np.abs(expected - np.arange(drawn.size) / drawn.size).max() < 1.63 / np.sqrt(drawn.size)


def test_positive_draws_stay_positive_where_a_normal_would_not():
    assert np.asarray(MeanVar.like(SKEWED, 1)(SHAPE)).min() < 0
    drawn = np.asarray(PositiveMeanVar.like(SKEWED, 1)(SHAPE))
    assert drawn.min() > 0
    assert drawn.mean() == pytest.approx(SKEWED.mean(), rel=0.03)
    assert drawn.std() == pytest.approx(SKEWED.std(), rel=0.1)


def test_no_spread_gives_the_mean_itself():
    for kind in (MeanVar, PositiveMeanVar):
        np.testing.assert_array_equal(kind(0.25, 0.0, 1)((3,)), np.full(3, 0.25, np.float32))


def test_layers_draw_independent_streams_from_one_seed():
    names = ("conv1", "conv2", "conv1/bias")
    drawn = [np.asarray(MeanVar(0, 1, derive_seed(7, name))((20_000,))) for name in names]
    assert np.abs(np.corrcoef(drawn) - np.eye(3)).max() < 4 / np.sqrt(20_000)


def test_like_reads_tensors_and_variables():
    array = np.arange(6, dtype=np.float32)
    expected = MeanVar.like(array, 1).get_config()
    assert MeanVar.like(keras.ops.convert_to_tensor(array), 1).get_config() == expected
    assert MeanVar.like(keras.Variable(array), 1).get_config() == expected


@pytest.mark.parametrize(("mean", "stddev"), [(np.nan, 1.0), (0.0, np.inf), (0.0, -0.1)])
def test_statistics_that_no_tensor_has_are_refused(mean, stddev):
    with pytest.raises(ValueError, match="Expected a finite mean and a finite stddev of at least 0"):
        MeanVar(mean, stddev, 1)


def test_a_mean_below_zero_is_no_variance():
    with pytest.raises(ValueError, match="Expected a mean above 0. Received: -0.1"):
        PositiveMeanVar(-0.1, 1.0, 1)


def test_an_empty_tensor_has_no_statistics():
    with pytest.raises(ValueError, match=r"Received one of shape \(0, 3\)"):
        MeanVar.like(np.zeros((0, 3)), 1)
