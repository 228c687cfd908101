import csv
import json

import keras
import numpy as np
import pytest


@pytest.fixture(scope="module")
def compared(radtransfer, finished_run, tmp_path_factory):
    out = tmp_path_factory.mktemp("compared") / "out"
    names = (f"{finished_run.path}@initial", finished_run.path)
    outcome = radtransfer("compare-weights", *names, "--out", out, "--json")
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out), out


def test_each_layer_says_how_far_training_moved_it_on_average_over_folds(compared, finished_run):
    result, _ = compared
    layers = {layer["layer"]: layer for layer in result["layers"]}
    assert list(layers) == ["conv1", "bn1", "conv2", "bn2", "conv3", "bn3", "conv4", "bn4", "head"]
    changes = []
    for fold in ("fold_1", "fold_2"):
        model = keras.models.load_model(finished_run.path / fold / "model.keras")
        after = np.array(model.get_layer("conv2").kernel)
        model.load_weights(finished_run.path / fold / "initial.weights.h5")
        before = np.array(model.get_layer("conv2").kernel)
        changes.append(np.linalg.norm(after - before) / np.linalg.norm(before))
    assert layers["conv2"]["relative_change"] == pytest.approx(np.mean(changes), rel=1e-6)
    assert 0 < layers["conv2"]["cosine"] < 1
    assert layers["bn2"]["parameters"] == 128
    assert (result["left_out"], result["settings"]["folds"]) == ([], [1, 2])


def test_the_folder_holds_table_json_and_figures(compared):
    result, out = compared
    assert {path.name for path in out.iterdir()} == {"weights.csv", "weights.json", "weights.png", "filters.png"}
    assert json.loads((out / "weights.json").read_text()) == result
    with (out / "weights.csv").open(newline="") as handle:
        lines = list(csv.DictReader(handle))
    assert [float(line["cosine"]) for line in lines] == [layer["cosine"] for layer in result["layers"]]


def test_layers_of_other_shapes_are_named(radtransfer, finished_run):
    outcome = radtransfer("compare-weights", finished_run.path / "fold_1", "random:cbr_tiny_wide", "--image-size", 32)
    assert outcome.code == 4
    assert "no layer of the same name and shape" in outcome.err
    outcome = radtransfer("compare-weights", finished_run.path / "fold_1", "random:cbr_tiny", "--image-size", 32)
    assert outcome.code == 0, outcome.err
    assert "in one network only: head" in outcome.out


def test_what_is_not_there_exits_with_its_code(radtransfer, finished_run):
    outcome = radtransfer("compare-weights", finished_run.path, "nowhere.keras")
    assert (outcome.code, outcome.out) == (4, "")
    assert "No file nowhere.keras" in outcome.err
