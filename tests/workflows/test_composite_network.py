"""A run of a network whose layers are made of layers, by the command line."""

import json

import keras
import numpy as np
import pytest
from composite_network import COMPOSITE, add_to_backbones

from radtransfer.models.architecture import build_architecture
from radtransfer.process import derive_seed
from radtransfer.runs.folder import read_rows
from radtransfer.transfer.initialize import draw_random


@pytest.fixture(scope="module", autouse=True)
def composite_backbone():
    with pytest.MonkeyPatch.context() as patch:
        add_to_backbones(patch)
        yield


@pytest.fixture(scope="module")
def options(tiny_images):
    folder = ("--data", tiny_images / "images.csv", "--image-root", tiny_images / "images")
    return (*folder, "--backbone", "composite", "--image-size", "24", "--batch-size", "8", "--learning-rate", "1e-2")


@pytest.fixture(scope="module")
def run(radtransfer, options, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "composite"
    outcome = radtransfer("finetune", *options, "--folds", 2, "--epochs", 1, "--out", out)
    assert outcome.code == 0, outcome.err
    return out


def initial_and_final(fold):
    initial, final = (keras.models.load_model(fold / "model.keras", compile=False) for _ in range(2))
    initial.load_weights(fold / "initial.weights.h5")
    return initial, final


def test_no_fold_starts_from_what_another_one_learned(run):
    for fold in (1, 2):
        initial, _ = initial_and_final(run / f"fold_{fold}")
        alone = build_architecture(COMPOSITE, image_size=24)
        draw_random(alone, seed=derive_seed(0, "fold", fold))
        for layer in alone.layers:
            for value, expected in zip(initial.get_layer(layer.name).get_weights(), layer.get_weights(), strict=True):
                np.testing.assert_array_equal(value, expected, err_msg=layer.name)


@pytest.mark.parametrize("scheme", ["scratch", "mean_var"])
def test_the_plan_counts_every_parameter(radtransfer, run, scheme):
    options = ("composite", "--image-size", 24, "--scheme", scheme, "--weights", run / "fold_1")
    outcome = radtransfer("plan", *options)
    assert outcome.code == 0, outcome.err
    assert "5,520 of 5,680 backbone parameters train" in outcome.out


def test_compare_weights_lists_every_variable_that_trains(radtransfer, run):
    outcome = radtransfer("compare-weights", f"{run}@initial", run, "--json")
    assert outcome.code == 0, outcome.err
    layers = {layer["layer"]: layer for layer in json.loads(outcome.out)["layers"]}
    assert sum(layer["parameters"] for layer in layers.values()) == 5_520 + 2 * 17
    assert layers["block1_attention/query"]["kind"] == "EinsumDense"
    assert layers["block2_mlp/mlp/wide"]["parameters"] == 16 * 32 + 32
    assert all(layer["relative_change"] > 0 for layer in layers.values())


def test_a_run_starts_from_one_and_freezes_all_within_its_frozen_layers(radtransfer, options, run, tmp_path):
    start = ("--weights", run / "fold_1", "--freeze-to", "stage1", "--folds", 1, "--epochs", 1)
    outcome = radtransfer("finetune", *options, *start, "--out", tmp_path / "frozen")
    assert outcome.code == 0, outcome.err
    initial, final = initial_and_final(tmp_path / "frozen" / "fold_1")
    _, source = initial_and_final(run / "fold_1")
    frozen = [layer.name for layer in final.layers if layer.name.startswith(("patches", "skip", "block1"))]
    for layer in final.layers:
        before, after = initial.get_layer(layer.name).get_weights(), layer.get_weights()
        if layer.name != "head":
            assert all(map(np.array_equal, before, source.get_layer(layer.name).get_weights())), layer.name
        if before:
            assert all(map(np.array_equal, before, after)) == (layer.name in frozen), layer.name
    assert len(read_rows(tmp_path / "frozen" / "predictions.csv")) > 0


def test_inspect_and_convert_find_every_layer(radtransfer, run, tmp_path):
    outcome = radtransfer("weights", "inspect", run / "fold_1" / "model.keras")
    assert "composite: all 10 layers found by name" in outcome.out, outcome.err
    out = tmp_path / "converted.weights.h5"
    outcome = radtransfer("weights", "convert", run / "fold_1" / "model.keras", out)
    assert "composite: 10 layers, 5,680 parameters, read back equal" in outcome.out, outcome.err
