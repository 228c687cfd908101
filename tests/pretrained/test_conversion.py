"""From SavedModel folders and Keras files to one that every command takes."""

from pathlib import Path

import keras
import numpy as np
import pytest
from torch_files import write_torch_file

from radtransfer.errors import ConfigError, WeightsError, WeightsMismatchError
from radtransfer.models.architecture import build_architecture
from radtransfer.pretrained.convert import convert_weights
from radtransfer.pretrained.match import build_backbone


@pytest.fixture(scope="module")
def network() -> keras.Model:
    model = build_architecture("cbr_tiny", image_size=32)
    rng = np.random.default_rng(0)
    model.set_weights([array + rng.normal(0, 0.1, array.shape) for array in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def exported(network, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "model"
    image = keras.Input((32, 32, 3))
    head = keras.Model(image, keras.layers.Dense(2, name="head")(network(image)))
    head.export(path, format="tf_saved_model", verbose=False)
    return path


def same(network: keras.Model, path: Path) -> bool:
    loaded = build_backbone("cbr_tiny", str(path), image_size=32)
    return all(map(np.array_equal, loaded.get_weights(), network.get_weights()))


def test_a_saved_model_gives_its_backbone_without_its_head(network, exported, tmp_path):
    done = convert_weights(exported, tmp_path / "out.weights.h5")
    assert (done["backbone"], done["layers"], done["left_out"]) == ("cbr_tiny", 8, ("head",))
    assert same(network, tmp_path / "out.weights.h5")


def test_a_keras_archive_is_converted(network, tmp_path):
    network.save(tmp_path / "x.keras")
    convert_weights(tmp_path / "x.keras", tmp_path / "out.weights.h5", backbone="cbr_tiny")
    assert same(network, tmp_path / "out.weights.h5")


def test_a_damaged_saved_model_is_a_weights_error(exported, tmp_path):
    copy = tmp_path / "model"
    (copy / "variables").mkdir(parents=True)
    (copy / "saved_model.pb").touch()
    (copy / "variables" / "variables.index").write_bytes((exported / "variables" / "variables.index").read_bytes()[:99])
    with pytest.raises(WeightsError, match="damaged"):
        convert_weights(copy, tmp_path / "out.weights.h5")
    assert not (tmp_path / "out.weights.h5").exists()


def test_a_saved_model_whose_numbers_are_cut_off_is_a_weights_error(exported, tmp_path):
    copy = tmp_path / "model"
    (copy / "variables").mkdir(parents=True)
    (copy / "saved_model.pb").touch()
    for item in (exported / "variables").iterdir():
        content = item.read_bytes()
        (copy / "variables" / item.name).write_bytes(content if item.suffix == ".index" else content[:5000])
    with pytest.raises(WeightsError, match=r"damaged|cannot be"):
        convert_weights(copy, tmp_path / "out.weights.h5")


def test_another_network_is_refused(exported, tmp_path):
    with pytest.raises(WeightsMismatchError, match="Use --backbone cbr_tiny"):
        convert_weights(exported, tmp_path / "out.weights.h5", backbone="cbr_small")


def test_an_unknown_pytorch_network_is_refused(tmp_path):
    path = write_torch_file(tmp_path / "x.pt", {"layer.weight": np.ones((2, 2), np.float32)})
    with pytest.raises(WeightsMismatchError, match="Only these can be converted"):
        convert_weights(path, tmp_path / "out.weights.h5")


def test_nothing_is_replaced_unasked(exported, tmp_path):
    (tmp_path / "out.weights.h5").write_bytes(b"mine")
    with pytest.raises(ConfigError, match="--overwrite"):
        convert_weights(exported, tmp_path / "out.weights.h5")
    assert (tmp_path / "out.weights.h5").read_bytes() == b"mine"


def test_the_result_is_named_as_keras_wants_it(exported, tmp_path):
    with pytest.raises(ConfigError, match=r"ends in .weights.h5"):
        convert_weights(exported, tmp_path / "out.h5")
