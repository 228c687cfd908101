import csv
import json

import keras
import numpy as np
import pytest

from radtransfer.runs.folder import read_rows

ONE_FOLD = ("--folds", 1, "--epochs", 2)
FROZEN = ("conv1", "bn1", "conv2", "bn2")


@pytest.fixture(scope="module")
def source(finished_run):
    """A finished run to start from."""
    return finished_run.path / "fold_1"


def run(radtransfer, table_options, out, *more):
    outcome = radtransfer("finetune", *table_options, *ONE_FOLD, "--out", out, "--json", *more)
    assert outcome.code == 0, outcome.err
    return outcome


def initial_and_final(out):
    final = keras.models.load_model(out / "fold_1" / "model.keras", compile=False)
    initial = keras.models.clone_model(final)
    initial.load_weights(out / "fold_1" / "initial.weights.h5")
    return initial, final


def record(out):
    return json.loads((out / "run.json").read_text())


def predictions(out):
    rows = read_rows(out / "predictions.csv")
    return np.array([[float(row[name]) for name in row if name.startswith("p_")] for row in rows])


def test_frozen_stages_keep_weights_and_statistics_and_the_rest_trains(radtransfer, table_options, source, tmp_path):
    outcome = run(radtransfer, table_options, tmp_path / "run", "--weights", source, "--freeze-to", "stage1")
    initial, final = initial_and_final(tmp_path / "run")
    for layer in final.layers:
        for old, new in zip(initial.get_layer(layer.name).get_weights(), layer.get_weights(), strict=True):
            assert np.array_equal(old, new) == (layer.name in FROZEN), layer.name
    pretrained = keras.models.load_model(source / "model.keras", compile=False)
    np.testing.assert_array_equal(final.get_layer("conv2").kernel, pretrained.get_layer("conv2").kernel)
    plan = record(tmp_path / "run")["plan"]
    assert plan["scheme"] == "fixed_features"
    assert [(part["stage"], part["trains"]) for part in plan["stages"]][1:3] == [("stage1", False), ("stage2", True)]
    assert "stem, stage1 frozen; " in outcome.err


def test_cached_features_give_the_result_of_uncached_ones(radtransfer, table_options, source, tmp_path, monkeypatch):
    monkeypatch.setenv("RADTRANSFER_CACHE", str(tmp_path / "cache"))
    options = ("--weights", source, "--freeze-to", "stage1", "--augmentation", "none", "--optimizer", "sgd")
    run(radtransfer, table_options, tmp_path / "cached", *options)
    run(radtransfer, table_options, tmp_path / "plain", *options, "--no-cache-features")
    assert record(tmp_path / "cached")["features_cached"]
    assert not record(tmp_path / "plain")["features_cached"]
    np.testing.assert_allclose(predictions(tmp_path / "cached"), predictions(tmp_path / "plain"), atol=1e-4)
    assert len(list((tmp_path / "cache" / "features").iterdir())) == 1


def test_schemes_that_freeze_the_same_part_share_its_features(
    radtransfer, table_options, source, tmp_path, monkeypatch
):
    monkeypatch.setenv("RADTRANSFER_CACHE", str(tmp_path / "cache"))
    for scheme in ("fixed_features", "fixed_features_reinit"):
        options = ("--weights", source, "--scheme", scheme, "--through", "stage1", "--augmentation", "none")
        run(radtransfer, table_options, tmp_path / scheme, *options)
    assert len(list((tmp_path / "cache" / "features").iterdir())) == 1


def test_the_head_trains_alone_before_everything_does(radtransfer, table_options, source, tmp_path):
    out = tmp_path / "run"
    outcome = run(radtransfer, table_options, out, "--weights", source, "--scheme", "freeze_then_unfreeze")
    assert "the head trains alone first" in outcome.err
    with (out / "fold_1" / "head_phase" / "history.csv").open() as handle:
        assert {row["learning_rate"] for row in csv.DictReader(handle)} == {"0.001"}
    assert len(read_rows(out / "fold_1" / "history.csv")) == 2
    assert not list(out.rglob("*.npz"))
    initial, final = initial_and_final(out)
    assert not np.array_equal(initial.get_layer("conv1").kernel, final.get_layer("conv1").kernel)


def test_watching_a_network_changes_nothing(radtransfer, table_options, tmp_path):
    run(radtransfer, table_options, tmp_path / "watched", "--eval-every", 2)
    run(radtransfer, table_options, tmp_path / "plain")
    np.testing.assert_array_equal(predictions(tmp_path / "watched"), predictions(tmp_path / "plain"))
    curve = read_rows(tmp_path / "watched" / "fold_1" / "curve.csv")
    assert list(curve[0]) == ["step", "epoch", "split", "loss", "auc", "auc_sick", "auc_well"]
    assert {row["split"] for row in curve} == {"val", "test"}
    last = int(read_rows(tmp_path / "watched" / "fold_1" / "history.csv")[-1]["step"])
    assert [int(row["step"]) for row in curve if row["split"] == "test"] == list(range(2, last + 1, 2))
    assert not (tmp_path / "plain" / "fold_1" / "curve.csv").exists()


def test_the_last_point_of_a_curve_is_the_last_epoch(radtransfer, table_options, tmp_path):
    run(radtransfer, table_options, tmp_path / "run", "--eval-every", 1)
    curve = [row for row in read_rows(tmp_path / "run" / "fold_1" / "curve.csv") if row["split"] == "val"]
    history = read_rows(tmp_path / "run" / "fold_1" / "history.csv")
    ends = {row["step"]: row["val_loss"] for row in history}
    assert {row["step"]: row["loss"] for row in curve if row["step"] in ends} == ends


def test_a_slim_network_trains_and_opens_in_plain_keras(radtransfer, table_options, source, tmp_path):
    run(radtransfer, table_options, tmp_path / "run", "--weights", source, "--slim", "stage1:0.5")
    _, final = initial_and_final(tmp_path / "run")
    assert final.get_layer("conv4").kernel.shape == (5, 5, 64, 128)
    assert record(tmp_path / "run")["plan"]["scheme"] == "hybrid"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--scheme", "transfusion", "--through", "stage1"), "starts from pretrained: expected pretrained weights"),
        (("--bn-init", "transfer"), "--bn-init transfer: expected pretrained weights"),
        (("--scheme", "gabber"), "Did you mean 'gabor'"),
        (("--freeze-to", "stage9"), "Unknown stage or layer of cbr_tiny 'stage9'"),
        (("--cache-features",), "expected a plan that freezes"),
        (("--slim", "stage1:0.5", "--bn-init", "mean_var"), "expected pretrained weights"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_before_training(radtransfer, table_options, tmp_path, options, message):
    outcome = radtransfer("finetune", *table_options, *options, "--out", tmp_path / "run")
    assert outcome.code == 2, outcome.err
    assert message in outcome.err
    assert not (tmp_path / "run" / "run.json").exists()
