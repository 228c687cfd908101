"""A public set from its download to a run: its own idea of what is positive, its options, its split."""

import json

import numpy as np
import pytest
from PIL import Image

from radtransfer.config.schema import DataSettings
from radtransfer.data.readers import read_table
from radtransfer.evaluation.predictions import read_predictions

TRAINING = ("--backbone", "cbr_tiny", "--image-size", 24, "--epochs", 1, "--folds", 1)


@pytest.fixture(scope="module")
def eyes(tmp_path_factory):
    """EyePACS' tree of 40 patients with two eyes each."""
    root = tmp_path_factory.mktemp("eyepacs")
    (root / "train").mkdir()
    rng, lines = np.random.default_rng(0), ["image,level"]
    for patient in range(40):
        for eye in ("left", "right"):
            Image.fromarray(rng.integers(0, 255, (24, 24), np.uint8)).save(root / "train" / f"{patient}_{eye}.jpeg")
            lines.append(f"{patient}_{eye},{patient % 5}")
    (root / "trainLabels.csv").write_text("\n".join(lines))
    return root


def finetune(radtransfer, root, out, *options):
    outcome = radtransfer("finetune", "--data", f"eyepacs:{root}", *TRAINING, *options, "--out", out, "--json")
    assert outcome.code == 0, outcome.err
    return outcome


def test_the_auc_is_of_referable_images_unless_the_user_says_otherwise(radtransfer, eyes, tmp_path):
    outcome = finetune(radtransfer, eyes, tmp_path / "run", "-v")
    assert "5 classes (0 16, 1 16, 2 16, 3 16, 4 16); AUC for grade ≥ 2" in outcome.err
    assert json.loads((tmp_path / "run" / "run.json").read_text())["positive_from"] == 2
    assert read_predictions(str(tmp_path / "run")).scoring.positive_from == 2
    outcome = finetune(radtransfer, eyes, tmp_path / "other", "--positive-from", 1)
    assert "AUC for grade ≥ 1" in outcome.err
    assert read_predictions(str(tmp_path / "other")).scoring.positive_from == 1


def test_a_run_that_did_not_record_it_has_it_from_its_settings(radtransfer, eyes, tmp_path):
    finetune(radtransfer, eyes, tmp_path / "run", "--positive-from", 3)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    del record["positive_from"]
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    assert read_predictions(str(tmp_path / "run")).scoring.positive_from == 3


def test_another_tree_ends_with_the_expected_one_and_exit_code_3(radtransfer, tmp_path):
    outcome = radtransfer("finetune", "--data", f"eyepacs:{tmp_path}", *TRAINING, "--out", tmp_path / "run")
    assert outcome.code == 3
    assert "has no trainLabels.csv and no train. Expected:\n  trainLabels.csv" in outcome.err


def test_a_prepared_set_keeps_what_is_positive(radtransfer, eyes, tmp_path):
    outcome = radtransfer("data", "prepare", f"eyepacs:{eyes}", "--image-size", 24, "--out", tmp_path / "prepared")
    assert outcome.code == 0, outcome.err
    table = read_table(DataSettings(source=str(tmp_path / "prepared")))
    assert table.positive_from == 2 and len(set(table.patients)) == 40
