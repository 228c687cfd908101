import keras
import numpy as np
import pytest

from radtransfer.errors import UnknownNameError
from radtransfer.initializers import batch_norm_initializers

RNG = np.random.default_rng(0)
PRETRAINED = {
    "gamma": RNG.normal(1.0, 0.2, 512).astype(np.float32),
    "beta": RNG.normal(-0.1, 0.3, 512).astype(np.float32),
    "moving_mean": RNG.normal(0.5, 2.0, 512).astype(np.float32),
    "moving_variance": RNG.gamma(1.0, 3.0, 512).astype(np.float32),
}


def layer(policy, vectors=PRETRAINED, seed=1):
    built = keras.layers.BatchNormalization(**batch_norm_initializers(policy, vectors, seed=seed))
    built.build((None, 512))
    return {variable.name: np.asarray(variable) for variable in built.weights}


def test_identity_ignores_the_pretrained_layer():
    expected = {"gamma": 1.0, "beta": 0.0, "moving_mean": 0.0, "moving_variance": 1.0}
    for name, vector in layer("identity").items():
        np.testing.assert_array_equal(vector, np.full(512, expected[name]))


def test_transfer_copies_it():
    for name, vector in layer("transfer").items():
        np.testing.assert_array_equal(vector, PRETRAINED[name])


def test_mean_var_redraws_each_vector_at_its_own_scale():
    drawn = layer("mean_var")
    for name, vector in drawn.items():
        error = PRETRAINED[name].std() / np.sqrt(512)
        assert vector.mean() == pytest.approx(PRETRAINED[name].mean(), abs=5 * error)
        assert vector.std() == pytest.approx(PRETRAINED[name].std(), rel=0.35)
        assert abs(np.corrcoef(vector, PRETRAINED[name])[0, 1]) < 0.2
    assert drawn["moving_variance"].min() > 0


def test_the_vectors_of_one_layer_are_independent():
    drawn = layer("mean_var")
    assert np.abs(np.corrcoef([drawn["gamma"], drawn["beta"], drawn["moving_mean"]]) - np.eye(3)).max() < 0.2


def test_a_layer_without_scale_gets_no_gamma():
    without = {name: vector for name, vector in PRETRAINED.items() if name != "gamma"}
    assert "gamma_initializer" not in batch_norm_initializers("mean_var", without, seed=1)


def test_an_unknown_policy_is_named_with_the_closest_one():
    with pytest.raises(UnknownNameError, match="Unknown batch-norm policy 'identty'. Did you mean 'identity'"):
        batch_norm_initializers("identty", PRETRAINED, seed=1)


def test_an_unknown_vector_is_named_with_the_closest_one():
    with pytest.raises(UnknownNameError, match="Unknown batch-norm vector 'moving_std'"):
        batch_norm_initializers("transfer", {"moving_std": np.ones(3)}, seed=1)
