"""Real breast ultrasound, with the folds that were published for it."""

import csv
import json
import shutil

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from radtransfer.runs.folder import read_rows


@pytest.fixture(scope="module")
def run(busi, radtransfer, tmp_path_factory):
    """One fold, briefly trained."""
    out = tmp_path_factory.mktemp("busi") / "run"
    data = ("--data", busi / "folds", "--image-root", busi / "images", "--fold", 1)
    network = ("--backbone", "cbr_tiny", "--image-size", 32, "--epochs", 2, "--learning-rate", 1e-3)
    outcome = radtransfer("finetune", *data, *network, "--augmentation", "none", "--out", out)
    assert outcome.code == 0, outcome.err
    return out


def test_a_table_of_another_machine_is_predicted_as_in_training(busi, radtransfer, run):
    outcome = radtransfer("predict", run, busi / "folds" / "test_fold1.csv", "--image-root", busi / "images")
    assert outcome.code == 0, outcome.err
    found = {row["path"]: row for row in csv.DictReader(outcome.out.splitlines())}
    tested = [line for line in read_rows(run / "fold_1" / "predictions.csv") if line["split"] == "test"]
    assert len(found) == len(tested) == 125
    for line in tested:
        assert float(found[line["path"]]["p_malignant"]) == pytest.approx(float(line["p_malignant"]), abs=1e-5)


def test_its_test_images_give_its_figures_and_no_warning(busi, radtransfer, run, tmp_path):
    data = ("--data", busi / "folds" / "test_fold1.csv", "--image-root", busi / "images")
    options = ("--operating-point", "sensitivity=0.9", "--draws", 300, "--out", tmp_path / "out", "--json")
    outcome = radtransfer("evaluate", run, *data, *options)
    assert outcome.code == 0, outcome.err
    assert "leak" not in outcome.err
    result = json.loads(outcome.out)
    lines = read_rows(tmp_path / "out" / "predictions.csv")
    truth = [line["label"] == "malignant" for line in lines]
    scores = np.array([float(line["p_malignant"]) for line in lines])
    metrics = json.loads((run / "fold_1" / "metrics.json").read_text())
    assert result["auc"] == pytest.approx(roc_auc_score(truth, scores))
    assert result["auc"] == pytest.approx(metrics["auc"], abs=1e-3)
    assert (result["n_images"], result["n_patients"]) == (125, None)
    assert result["operating_point"]["chosen_on_images"] == 31


def test_the_whole_set_has_a_class_more_and_most_of_it_was_seen(busi, radtransfer, run):
    outcome = radtransfer("evaluate", run, "--data", busi / "images")
    assert outcome.code == 3
    assert "normal (133 images)" in outcome.err
    options = ("--class-map", "normal=benign", "--draws", 100, "--json")
    outcome = radtransfer("evaluate", run, "--data", busi / "images", *options)
    assert outcome.code == 0, outcome.err
    result = json.loads(outcome.out)
    seen = {"images": 655, "patients": 0, "of": 780, "of_patients": None, "in_weights": 0, "compared": True}
    assert result["seen"] == seen
    assert "warning   655 of 780 test images were in the run's training or validation" in outcome.err
    assert result["n_images"] == 780


def test_pydicoms_own_files_are_predicted(radtransfer, run, tmp_path):
    data = pytest.importorskip("pydicom.data")
    names = ("CT_small.dcm", "MR_small.dcm", "examples_palette.dcm")
    files = [data.get_testdata_file(name, download=False) for name in names]
    shutil.copy(data.get_testdata_file("rtplan.dcm", download=False), tmp_path)
    outcome = radtransfer("predict", run, *(file for file in files if file), tmp_path / "rtplan.dcm")
    assert outcome.code == 3
    rows = list(csv.DictReader(outcome.out.splitlines()))
    assert [row["path"] for row in rows] == [file for file in files if file]
    assert len({row["p_malignant"] for row in rows}) == len(rows) >= 2
    assert "rtplan.dcm: " in outcome.err
