import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from radtransfer.errors import WeightsError
from radtransfer.evaluation.trained_model import find_model, keras_member
from radtransfer.exports.formats import add_to_zip
from radtransfer.images.preprocessing import preprocess
from radtransfer.models.architecture import build_architecture


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A SavedModel of a small network, without a description."""
    path = tmp_path_factory.mktemp("saved") / "model"
    layers = [keras.Input((8, 8, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2, "softmax")]
    keras.Sequential(layers).export(path, verbose=False)
    return path


def test_a_saved_model_that_writes_files_is_refused_before_it_is_loaded(tmp_path, monkeypatch):
    model = tf.Module()
    model.scale = tf.Variable(1.0)
    written = str(tmp_path / "written.txt")

    @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 3))])
    def serve(images):
        tf.io.write_file(written, "x")
        return model.scale * tf.reduce_mean(images, axis=(1, 2))

    model.serve = serve
    tf.saved_model.save(model, str(tmp_path / "model"), signatures=serve)
    monkeypatch.setattr(tf.saved_model, "load", lambda _: pytest.fail("loaded"))
    with pytest.raises(WeightsError, match=r"reads or writes files \(WriteFile"):
        find_model(str(tmp_path / "model"))
    assert not Path(written).exists()


def test_a_classifier_without_scaling_is_given_that_of_its_backbone_and_it_is_said(tmp_path):
    body = build_architecture("cbr_tiny", image_size=16)
    outputs = keras.layers.Dense(2, "softmax")(body.output)
    keras.Model(body.input, outputs, name="cbr_tiny").save(tmp_path / "bare.keras")
    (network,) = (model := find_model(str(tmp_path / "bare.keras"))).load()
    images = np.random.default_rng(0).uniform(0, 255, (3, 16, 16, 3)).astype(np.float32)
    bare = keras.models.load_model(tmp_path / "bare.keras")
    np.testing.assert_allclose(network(images), bare(preprocess(images, "torch")), atol=1e-5)
    assert model.backbone == "cbr_tiny"
    assert any("contains no preprocessing; it gets preprocessing torch" in note for note in model.notes)
    add_to_zip(tmp_path / "bare.keras", {"classes": ["well", "sick"]})
    (network,) = (model := find_model(str(tmp_path / "bare.keras"))).load()
    np.testing.assert_allclose(network(images), bare(images), atol=1e-5)
    assert model.notes == ()


def test_a_damaged_graph_or_description_is_told_in_one_line(saved, tmp_path):
    path = shutil.copytree(saved, tmp_path / "model")
    assert find_model(str(path)).scoring.classes == ("0", "1")
    (path / "assets.extra").mkdir()
    (path / "assets.extra" / "radtransfer.json").write_text('{"classes": ["a", "b"], "operating_point": {"x": 1}}')
    with pytest.raises(WeightsError, match="its metadata are damaged"):
        find_model(str(path))
    graph = path / "saved_model.pb"
    graph.write_bytes(graph.read_bytes().replace(b"ReadVariableOp", b"ReadVariableOq"))
    with pytest.raises(WeightsError, match="not a SavedModel that TensorFlow can load: [^\n]*$"):
        find_model(str(path))


def test_networks_predict_by_fast_operations():
    image = keras.Input((8, 8, 4))
    model = keras.Model(image, keras.layers.Conv2D(4, 3, groups=4)(image))
    graph = keras_member(model).get_concrete_function().graph
    assert "DepthwiseConv2dNative" in {operation.type for operation in graph.get_operations()}
