"""Networks receive the weights they are asked for, completely or not at all."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest

import radtransfer
from radtransfer.errors import UnknownNameError, WeightsError, WeightsMismatchError
from radtransfer.models.architecture import build_architecture
from radtransfer.pretrained.match import PretrainedWeights, assign, build_backbone, load_pretrained
from radtransfer.pretrained.source import resolve_weights

SIZE = 32


def tiny() -> keras.Model:
    return build_architecture("cbr_tiny", image_size=SIZE)


def load(weights: str | Path, model: keras.Model, *, backbone: str = "cbr_tiny", **options) -> PretrainedWeights:
    return load_pretrained(resolve_weights(str(weights), backbone=backbone), backbone=backbone, model=model, **options)


def classifier(backbone: keras.Model) -> keras.Model:
    x = keras.layers.Dropout(0.5, name="dropout")(backbone.output)
    return keras.Model(backbone.input, keras.layers.Dense(2, name="probabilities")(x))


def values(model: keras.Model) -> list[np.ndarray]:
    return [weight.numpy() for weight in model.weights]


def same(one: keras.Model, other: keras.Model) -> bool:
    return all(map(np.array_equal, values(one), values(other)))


@pytest.fixture
def weights_file(tmp_path) -> Path:
    tiny().save_weights(tmp_path / "cbr.weights.h5")
    return tmp_path / "cbr.weights.h5"


@pytest.mark.parametrize("weights", [None, "random"])
def test_random_weights_are_nothing_to_load(weights):
    assert resolve_weights(weights, backbone="cbr_tiny") is None


def test_the_public_function_gives_the_weights_of_the_file(weights_file):
    saved = tiny()
    saved.save_weights(weights_file)
    assert same(radtransfer.build_backbone("cbr_tiny", str(weights_file), image_size=SIZE), saved)


def test_without_pooling_the_output_is_the_feature_map(weights_file):
    model = build_backbone("cbr_tiny", str(weights_file), 64, None)
    assert len(model.output.shape) == 4


def test_an_unknown_backbone_is_an_unknown_name():
    with pytest.raises(UnknownNameError, match="resnet50"):
        build_backbone("resnet5")


@pytest.mark.parametrize("suffix", ["weights.h5", "keras"])
def test_a_classifiers_head_is_extra_and_reported(suffix, tmp_path):
    saved = tiny()
    whole = classifier(saved)
    path = tmp_path / f"classifier.{suffix}"
    (whole.save if suffix == "keras" else whole.save_weights)(path)
    model = tiny()
    pretrained = load(path, model)
    assign(model, pretrained.layers)
    assert same(model, saved)
    assert pretrained.extra == ("probabilities",)
    assert len(pretrained.layers) == 8


def test_arrays_stand_in_the_order_of_the_layers_weights(weights_file):
    model = tiny()
    pretrained = load(weights_file, model)
    for name, arrays in pretrained.layers.items():
        weights = model.get_layer(name).weights
        assert [array.shape for array in arrays] == [tuple(weight.shape) for weight in weights]


def test_weights_are_assigned_inside_a_classifier_and_its_head_is_left(weights_file):
    whole = classifier(tiny())
    head = whole.get_layer("probabilities").get_weights()
    pretrained = load(weights_file, tiny())
    assign(whole, pretrained.layers)
    np.testing.assert_array_equal(whole.get_layer("conv1").kernel, pretrained.layers["conv1"][0])
    assert all(map(np.array_equal, head, whole.get_layer("probabilities").get_weights()))


def test_a_frozen_network_receives_its_weights_too(weights_file):
    model = tiny()
    model.trainable = False
    pretrained = load(weights_file, model)
    assign(model, pretrained.layers)
    np.testing.assert_array_equal(model.get_layer("bn2").gamma, pretrained.layers["bn2"][0])


def test_the_hash_and_the_source_are_recorded(weights_file):
    pretrained = load(weights_file, tiny())
    assert len(pretrained.sha256) == 64
    assert (pretrained.source.given, pretrained.source.file) == (str(weights_file), weights_file)
    assert (pretrained.preprocessing, pretrained.preprocessing_origin) == ("torch", "assumed")


def test_changed_counts_the_layers_that_had_other_values(weights_file):
    model = tiny()
    before = load(weights_file, model)
    assign(model, before.layers)
    after = load(weights_file, model)
    # Fresh batch-norm layers are alike in every network.
    assert (before.changed, after.changed) == (4, 0)


def test_another_architecture_is_named(tmp_path):
    build_architecture("cbr_small", image_size=SIZE).save_weights(tmp_path / "x.weights.h5")
    model = tiny()
    before = values(model)
    with pytest.raises(WeightsMismatchError) as caught:
        load(tmp_path / "x.weights.h5", model)
    assert str(caught.value) == (
        "x.weights.h5 holds 8 layers with weights (looks like cbr_small); "
        "--backbone is cbr_tiny (8 layers with weights). Use --backbone cbr_small."
    )
    assert all(map(np.array_equal, before, values(model)))


def test_a_part_of_a_network_is_refused_with_the_first_layer_that_is_missing(tmp_path):
    whole = tiny()
    part = keras.Model(whole.input, whole.get_layer("relu3").output)
    part.save_weights(tmp_path / "part.weights.h5")
    with pytest.raises(
        WeightsMismatchError, match=r"matching name and shape for 2 layers, first conv4 \(kernel 5×5×128×256\)"
    ):
        load(tmp_path / "part.weights.h5", tiny())


def test_weights_for_another_number_of_channels_say_so(tmp_path):
    build_architecture("cbr_tiny", image_size=SIZE, channels=1).save_weights(tmp_path / "x.weights.h5")
    with pytest.raises(WeightsMismatchError, match="images of 1 channels; the network takes 3"):
        build_backbone("cbr_tiny", str(tmp_path / "x.weights.h5"), SIZE)
    assert build_backbone("cbr_tiny", str(tmp_path / "x.weights.h5"), SIZE, channels=1)


def test_values_that_are_not_finite_are_refused(tmp_path):
    model = tiny()
    model.get_layer("conv2").kernel.assign(model.get_layer("conv2").kernel * np.nan)
    model.save_weights(tmp_path / "x.weights.h5")
    with pytest.raises(WeightsError, match=r"NaN or infinite values in 1 layers \(first: conv2\)"):
        build_backbone("cbr_tiny", str(tmp_path / "x.weights.h5"), SIZE)


def test_a_finished_run_is_a_source(tmp_path):
    saved = tiny()
    fold = tmp_path / "run" / "fold_1"
    fold.mkdir(parents=True)
    record = {"status": "finished", "backbone": "cbr_tiny", "preprocessing": "caffe_unit"}
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    (fold / "metrics.json").write_text("{}")
    classifier(saved).save(fold / "model.keras")
    model = tiny()
    pretrained = load(tmp_path / "run", model)
    assign(model, pretrained.layers)
    assert same(model, saved)
    assert (pretrained.preprocessing, pretrained.preprocessing_origin) == ("caffe_unit", "run")


def test_imagenet_weights_of_a_network_without_any_are_refused():
    with pytest.raises(WeightsError, match="no ImageNet weights for cbr_tiny"):
        build_backbone("cbr_tiny", "imagenet", SIZE)


def test_keras_downloads_its_own_weights_once_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    downloads, notes = [], []

    model = build_architecture("densenet121", image_size=SIZE)

    def application(*, weights, include_top):
        downloads.append(weights)
        (tmp_path / "models").mkdir()
        model.save_weights(tmp_path / "x.weights.h5")
        name = "densenet121_weights_tf_dim_ordering_tf_kernels_notop.h5"
        (tmp_path / "x.weights.h5").rename(tmp_path / "models" / name)

    monkeypatch.setattr(keras.applications, "DenseNet121", application)
    for _ in range(2):
        pretrained = load("imagenet", model, backbone="densenet121", notify=notes.append)
    assert downloads == ["imagenet"]
    assert len(notes) == 1
    assert "downloading densenet121_weights" in notes[0]
    assert (pretrained.preprocessing, pretrained.preprocessing_origin) == ("torch", "card")
    assert pretrained.source.terms


def test_a_machine_without_network_is_told_what_to_fetch(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    model = build_architecture("resnet50", image_size=SIZE)

    def application(*, weights, include_top):
        print("progress bar")
        raise Exception("URL fetch failure: Name or service not known")

    monkeypatch.setattr(keras.applications, "ResNet50", application)
    with pytest.raises(WeightsError, match="get https://storage.*resnet50_weights.*--weights random"):
        load("imagenet", model, backbone="resnet50")
    assert capsys.readouterr().out == ""


def test_a_real_imagenet_file_of_keras_2_gives_the_features_that_keras_gives(shared_data):
    path = shared_data / "weights" / "inception_v3_imagenet_8bit_notop.h5"
    image = np.random.default_rng(0).uniform(-1, 1, (1, 96, 96, 3)).astype("float32")
    ours = build_backbone("inception_v3", str(path), 96)
    build = keras.applications.InceptionV3
    theirs = build(weights=str(path), include_top=False, input_shape=(96, 96, 3), pooling="avg")
    np.testing.assert_allclose(ours(image, training=False), theirs(image, training=False), atol=1e-5)
