"""`--ema`: averages are validated and saved, and training does not notice."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest

OPTIONS = ("--folds", 2, "--fold", 2, "--epochs", 2)


def columns(fold):
    with (fold / "history.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    return {name: [float(row[name]) for row in rows] for name in rows[0]}


@pytest.fixture(scope="module")
def averaged(radtransfer, table_options, tmp_path_factory):
    out = tmp_path_factory.mktemp("averaged") / "run"
    outcome = radtransfer("finetune", *table_options, *OPTIONS, "--ema", 0.8, "--eval-every", 1, "--out", out, "-v")
    assert outcome.code == 0, outcome.err
    return SimpleNamespace(fold=out / "fold_2", err=outcome.err)


def test_an_average_of_the_last_step_alone_changes_nothing(radtransfer, table_options, finished_run, tmp_path):
    outcome = radtransfer("finetune", *table_options, *OPTIONS, "--ema", 0, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    for name in ("history.csv", "predictions.csv"):
        ours, plain = tmp_path / "run" / "fold_2" / name, finished_run.path / "fold_2" / name
        assert ours.read_bytes() == plain.read_bytes(), name


def test_training_goes_on_with_the_weights_themselves(averaged, finished_run):
    ours, plain = columns(averaged.fold), columns(finished_run.path / "fold_2")
    assert ours["loss"] == plain["loss"]
    assert all(one != other for one, other in zip(ours["val_loss"], plain["val_loss"], strict=True))
    assert "weights averaged (0.8)" in averaged.err


def test_what_predicts_is_the_average_that_was_validated(averaged):
    validated, best = columns(averaged.fold), json.loads((averaged.fold / "metrics.json").read_text())["best_epoch"]
    with (averaged.fold / "predictions.csv").open(newline="") as handle:
        rows = [row for row in csv.DictReader(handle) if row["split"] == "val"]
    loss = np.mean([-np.log1p(-float(row["p_well" if row["label"] == "sick" else "p_sick"])) for row in rows])
    assert loss == pytest.approx(validated["val_loss"][best - 1], rel=0.01)
    with (averaged.fold / "curve.csv").open(newline="") as handle:
        curve = {row["step"]: float(row["loss"]) for row in csv.DictReader(handle) if row["split"] == "val"}
    assert [curve[f"{step:g}"] for step in validated["step"]] == validated["val_loss"]
