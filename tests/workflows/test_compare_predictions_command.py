import csv
import json
from shutil import copytree

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from radtransfer.runs.folder import read_rows, write_rows


@pytest.fixture(scope="module")
def runs(finished_run, tmp_path_factory):
    """Two copies of a run that are wrong about some images: tiny networks are not."""
    folder = tmp_path_factory.mktemp("noisy")
    for seed, name in enumerate("ab"):
        rng = np.random.default_rng(seed)
        copytree(finished_run.path, folder / name)
        for path in sorted((folder / name).glob("fold_*/predictions.csv")):
            lines = read_rows(path)
            for line in lines:
                well = float(np.clip((line["label"] == "well") * 0.3 + rng.normal(0.35, 0.3), 0.01, 0.99))
                line.update(p_well=well, p_sick=1 - well)
            write_rows(path, list(lines[0]), [line.values() for line in lines])
    return folder / "a", folder / "b"


@pytest.fixture(scope="module")
def compared(radtransfer, runs, tmp_path_factory):
    out = tmp_path_factory.mktemp("compared") / "out"
    outcome = radtransfer("compare-predictions", *runs, "--draws", 200, "--out", out, "--json")
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out), out


def test_the_figures_follow_from_the_predictions_of_both_runs(compared, runs):
    result, _ = compared
    tested = [
        {
            line["path"]: line
            for k in (1, 2)
            for line in read_rows(run / f"fold_{k}" / "predictions.csv")
            if line["split"] == "test"
        }
        for run in runs
    ]
    keys = list(tested[0])
    scores = [np.array([float(of_run[key]["p_well"]) for key in keys]) for of_run in tested]
    truth = np.array([tested[0][key]["label"] == "well" for key in keys])
    right = [(score > 0.5) == truth for score in scores]
    a, b = right[0].mean(), right[1].mean()
    assert 0.5 < min(a, b) < max(a, b) < 1
    assert (result["accuracy_a"], result["accuracy_b"]) == pytest.approx((a, b))
    assert result["errors"]["observed"] == pytest.approx(np.mean(right[0] == right[1]))
    assert result["errors"]["independent"] == pytest.approx(a * b + (1 - a) * (1 - b))
    areas = [roc_auc_score(truth, score) for score in scores]
    assert [result["auc"]["a"], result["auc"]["b"]] == pytest.approx(areas)
    assert result["auc"]["difference"] == pytest.approx(areas[0] - areas[1])
    assert result["auc"]["ci95"][0] < result["auc"]["difference"] < result["auc"]["ci95"][1]
    assert result["delong"][0]["question"] == "well"
    assert 0 < result["delong"][0]["p"] < 1
    assert (result["n_images"], result["n_patients"]) == (48, 24)


def test_the_folder_holds_table_json_and_figure(compared):
    result, out = compared
    assert {path.name for path in out.iterdir()} == {"predictions.csv", "predictions.json", "predictions.png"}
    assert json.loads((out / "predictions.json").read_text()) == result
    with (out / "predictions.csv").open(newline="") as handle:
        lines = list(csv.DictReader(handle))
    assert len(lines) == 48
    assert np.mean([float(line["right_a"]) for line in lines]) == pytest.approx(result["accuracy_a"])


def test_a_run_agrees_with_itself(radtransfer, finished_run):
    outcome = radtransfer("compare-predictions", finished_run.path / "fold_1", finished_run.path, "--draws", 100)
    assert outcome.code == 0, outcome.err
    assert "errors         agree on 1.000" in outcome.out
    assert "24 test images in common" in outcome.err


def test_what_is_no_run_exits_with_2(radtransfer, finished_run, tmp_path):
    outcome = radtransfer("compare-predictions", finished_run.path, tmp_path)
    assert (outcome.code, outcome.out) == (2, "")
    assert "expected a run.json" in outcome.err


def test_a_run_without_its_predictions_exits_with_2(radtransfer, finished_run, tmp_path):
    part = copytree(finished_run.path, tmp_path / "part")
    (part / "fold_1" / "predictions.csv").unlink()
    outcome = radtransfer("compare-predictions", finished_run.path, part)
    assert (outcome.code, outcome.out) == (2, "")
    assert "lacks fold_1/predictions.csv" in outcome.err


def test_images_under_other_paths_are_told(radtransfer, finished_run, tmp_path):
    other = copytree(finished_run.path, tmp_path / "other")
    for path in other.rglob("predictions.csv"):
        header, *rows = path.read_text().splitlines()
        path.write_text("\n".join([header, *(f"elsewhere/{row}" for row in rows)]) + "\n")
    outcome = radtransfer("compare-predictions", finished_run.path, other)
    assert outcome.code == 3
    assert "file names are in both, under different paths: train both on one table." in outcome.err


def test_runs_of_other_images_or_classes_exit_with_3(radtransfer, finished_run, tmp_path):
    other = copytree(finished_run.path, tmp_path / "other")
    for path in other.rglob("predictions.csv"):
        path.write_text(path.read_text().replace("/p", "/q"))
    outcome = radtransfer("compare-predictions", finished_run.path, other)
    assert outcome.code == 3
    assert "no test image in common" in outcome.err
    record = json.loads((other / "run.json").read_text())
    (other / "run.json").write_text(json.dumps(record | {"classes": ["well", "sick"]}))
    outcome = radtransfer("compare-predictions", finished_run.path, other)
    assert outcome.code == 3
    assert "Expected runs of one task" in outcome.err
