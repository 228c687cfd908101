import keras
import numpy as np
import pytest

from radtransfer.errors import ConfigError, WeightsError, WeightsNotFoundError
from radtransfer.images.preprocessing import preprocess
from radtransfer.models.architecture import build_architecture
from radtransfer.similarity.networks import find_network, folds_of


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A backbone saved as other tools would: without preprocessing."""
    path = tmp_path_factory.mktemp("files") / "bare.keras"
    model = build_architecture("cbr_tiny", image_size=16)
    model.save(path)
    return path, model


def test_a_known_backbone_without_preprocessing_is_given_its_own_and_it_is_said(bare):
    path, model = bare
    notes = []
    network = find_network(str(path), backbone=None, seed=0, notify=notes.append).load(None, 16)
    images = np.random.default_rng(0).uniform(0, 255, (2, 16, 16, 3)).astype(np.float32)
    np.testing.assert_allclose(network.model(images), model(preprocess(images, "torch")), atol=1e-4)
    assert (network.spec.name, network.preprocessing) == ("cbr_tiny", "torch")
    assert "contains no preprocessing" in notes[0]


def test_a_model_that_scales_its_own_input_is_left_as_it_is(tmp_path):
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(2, 3, name="only")(keras.layers.Rescaling(1 / 255)(image))
    keras.Model(image, x).save(tmp_path / "own.keras")
    notes = []
    network = find_network(str(tmp_path / "own.keras"), backbone=None, seed=0, notify=notes.append).load(None, 8)
    assert (network.spec, network.preprocessing, notes) == (None, None, [])


def test_random_networks_follow_from_the_seed():
    def kernel(seed):
        network = find_network("random:cbr_tiny", backbone=None, seed=seed).load(None, 16)
        return np.array(network.model.get_layer("conv1").kernel)

    np.testing.assert_array_equal(kernel(1), kernel(1))
    assert (kernel(1) != kernel(2)).any()


def test_a_weights_file_needs_its_backbone(bare, tmp_path):
    bare[1].save_weights(tmp_path / "w.weights.h5")
    with pytest.raises(ConfigError, match="--backbone"):
        find_network(str(tmp_path / "w.weights.h5"), backbone=None, seed=0)
    network = find_network(str(tmp_path / "w.weights.h5"), backbone="cbr_tiny", seed=0).load(None, 16)
    np.testing.assert_array_equal(network.model.get_layer("conv2").kernel, bare[1].get_layer("conv2").kernel)


def test_a_file_that_is_no_model_is_an_error_in_one_line(tmp_path):
    (tmp_path / "page.keras").write_text("<html>")
    with pytest.raises(WeightsError, match="page.keras is not a model"):
        find_network(str(tmp_path / "page.keras"), backbone=None, seed=0)
    with pytest.raises(WeightsNotFoundError, match="No file"):
        find_network(str(tmp_path / "none.keras"), backbone=None, seed=0)


def test_imagenet_weights_that_do_not_exist_are_said():
    with pytest.raises(WeightsError, match="no ImageNet weights for cbr_tiny"):
        find_network("imagenet:cbr_tiny", backbone=None, seed=0).load(None, 16)


def source(*folds):
    from radtransfer.similarity.networks import NetworkSource

    return NetworkSource("run", "run", lambda fold, size: None, folds=folds)


def test_folds_are_compared_with_the_same_folds():
    assert folds_of((source(1, 2, 3), source(2, 3, 4))) == [(2, 2), (3, 3)]
    assert folds_of((source(1, 2), source())) == [(1, None), (2, None)]
    assert folds_of((source(), source())) == [(None, None)]
    assert folds_of((source(1), source(2))) == [(1, 2)]
    assert folds_of((source(1, 2, 3), source(1, 2, 3)), chosen=(3,)) == [(3, 3)]
    for wrong in ((source(1, 2), source(3)), (source(1, 2), source(3, 4))):
        with pytest.raises(ConfigError, match="Name one of each"):
            folds_of(wrong)
