import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from radtransfer.config.load import load_config
from radtransfer.process import onednn_in_use
from radtransfer.runs.folder import read_rows


def test_the_folder_holds_what_it_promises(finished_run):
    top = {"config.yaml", "run.json", "folds.csv", "predictions.csv", "metrics.json", "fold_1", "fold_2", ".lock"}
    assert {item.name for item in finished_run.path.iterdir()} == top
    fold = {"initial.weights.h5", "model.keras", "history.csv", "predictions.csv", "metrics.json"}
    assert {item.name for item in (finished_run.path / "fold_1").iterdir()} == fold


def test_the_record_says_how_the_run_was_made(finished_run):
    record = json.loads((finished_run.path / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["seed"] == 0
    assert record["precision"] == "float32"
    assert record["jit"] is False
    assert record["onednn"] is onednn_in_use()
    assert record["preprocessing"] == "torch"
    assert record["weights"]["source"] == "random"
    assert {"radtransfer", "tensorflow", "keras", "numpy"} <= set(record["versions"])
    assert set(record["timings"]["seconds_per_fold"]) == {"1", "2"}
    assert record["timings"]["seconds"] == pytest.approx(sum(record["timings"]["seconds_per_fold"].values()))


def test_the_plan_says_whether_onednn_computes(finished_run):
    assert f"XLA off, oneDNN {'on' if onednn_in_use() else 'off'}, " in finished_run.outcome.err


def test_every_image_is_tested_once_and_no_patient_is_split(finished_run, tiny_images):
    lines = read_rows(finished_run.path / "folds.csv")
    assert list(lines[0]) == ["path", "label", "patient", "fold", "split"]
    tested = [line["path"] for line in lines if line["split"] == "test"]
    assert sorted(tested) == sorted(line["path"] for line in read_rows(tiny_images / "images.csv"))
    for fold in "12":
        of_patient = {}
        for line in lines:
            if line["fold"] == fold:
                of_patient.setdefault(line["patient"], set()).add(line["split"])
        assert all(len(splits) == 1 for splits in of_patient.values())


def test_metrics_follow_from_the_predictions(finished_run):
    lines = read_rows(finished_run.path / "predictions.csv")
    assert list(lines[0])[:6] == ["path", "patient", "label", "split", "p_sick", "p_well"]
    auc = finished_run.metrics["auc"]
    for fold, value in zip(("1", "2"), auc["per_fold"], strict=True):
        truth = [line["label"] == "well" for line in lines if line["fold"] == fold]
        score = [float(line["p_well"]) for line in lines if line["fold"] == fold]
        assert value == pytest.approx(roc_auc_score(truth, score))
    assert auc["mean"] == pytest.approx(np.mean(auc["per_fold"]))
    assert auc["sd"] == pytest.approx(np.std(auc["per_fold"], ddof=1))
    assert auc["ci95"][0] <= auc["pooled"] <= auc["ci95"][1]
    assert finished_run.metrics["n_images"] == 48
    assert finished_run.metrics["n_patients"] == 24
    assert finished_run.metrics == json.loads((finished_run.path / "metrics.json").read_text())


def test_probabilities_sum_to_one(finished_run):
    for line in read_rows(finished_run.path / "fold_1" / "predictions.csv"):
        assert float(line["p_sick"]) + float(line["p_well"]) == pytest.approx(1, abs=1e-6)


def test_the_config_runs_again_as_it_is(finished_run):
    config = load_config(str(finished_run.path / "config.yaml"))
    assert config.out == str(finished_run.path)
    assert config.training.epochs == 2


def test_the_config_of_a_run_with_relative_paths_runs_from_any_folder(
    radtransfer, tiny_images, table_options, finished_run, tmp_path, monkeypatch
):
    monkeypatch.chdir(tiny_images)
    weights = os.path.relpath(finished_run.path / "fold_1")
    arguments = ("--data", "images.csv", "--image-root", "images", "--weights", weights, *table_options[4:])
    outcome = radtransfer("finetune", *arguments, "--folds", 1, "--epochs", 1, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    monkeypatch.chdir(tmp_path)
    exported = radtransfer("export", "run", "--format", "keras", "--out", "m.keras")
    assert "on 8 of the run's images" in exported.out
    again = radtransfer("finetune", "run/config.yaml", "--out", "again", "--json")
    assert json.loads(again.out) == json.loads((tmp_path / "run" / "metrics.json").read_text())


PLAIN_KERAS = """
import sys
sys.modules["radtransfer"] = None  # importing it raises
import keras, numpy as np
model = keras.models.load_model(sys.argv[1], safe_mode=True)
image = np.load(sys.argv[2])
print(*model.predict(image, verbose=0)[0])
assert not any(isinstance(layer, keras.Model) for layer in model.layers), "nested"
"""


def test_the_saved_model_is_plain_keras_and_takes_plain_images(finished_run, tiny_images, tmp_path):
    line = next(line for line in read_rows(finished_run.path / "fold_1" / "predictions.csv") if line["split"] == "test")
    image = np.asarray(Image.open(tiny_images / "images" / line["path"]).convert("RGB"), np.float32)
    np.save(tmp_path / "image.npy", image[None])
    arguments = [finished_run.path / "fold_1" / "model.keras", tmp_path / "image.npy"]
    process = subprocess.run([sys.executable, "-c", PLAIN_KERAS, *arguments], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    found = [float(word) for word in process.stdout.split()]
    assert found == pytest.approx([float(line["p_sick"]), float(line["p_well"])], abs=1e-6)


def test_initial_weights_load_and_differ_from_the_trained_ones(finished_run):
    model = keras.models.load_model(finished_run.path / "fold_1" / "model.keras")
    trained = model.get_weights()
    model.load_weights(finished_run.path / "fold_1" / "initial.weights.h5")
    assert any((before != after).any() for before, after in zip(model.get_weights(), trained, strict=True))


def test_folds_start_from_different_weights(finished_run):
    model = keras.models.load_model(finished_run.path / "fold_1" / "model.keras")
    starts = []
    for fold in ("fold_1", "fold_2"):
        model.load_weights(finished_run.path / fold / "initial.weights.h5")
        starts.append(model.get_layer("conv1").get_weights()[0])
    assert (starts[0] != starts[1]).all()


def test_the_result_is_on_stdout_and_the_rest_on_stderr(finished_run):
    json.loads(finished_run.outcome.out)
    for word in ("data", "folds", "network", "weights", "input", "train", "system", "epoch 2/2"):
        assert word in finished_run.outcome.err
