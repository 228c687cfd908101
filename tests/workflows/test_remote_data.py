"""Training on a prepared set that lies elsewhere; results are written here alone."""

import json

import pytest
import tensorflow as tf


def test_a_run_on_a_set_at_an_address(radtransfer, table_options, tmp_path, monkeypatch):
    monkeypatch.setenv("RADTRANSFER_CACHE", str(tmp_path / "cache"))
    data, network = table_options[1:4], table_options[4:]
    outcome = radtransfer("data", "prepare", *data, "--image-size", 24, "--out", tmp_path / "set")
    assert outcome.code == 0, outcome.err
    address = f"ram://{tmp_path.name}/set"
    tf.io.gfile.makedirs(address)
    for file in (tmp_path / "set").iterdir():
        tf.io.gfile.copy(str(file), f"{address}/{file.name}")
    metrics = []
    for source in (tmp_path / "set", address):
        out = tmp_path / f"run{len(metrics)}"
        outcome = radtransfer(
            "finetune", "--data", source, *network, "--folds", 1, "--epochs", 1, "--seed", 3, "--out", out, "--json"
        )
        assert outcome.code == 0, outcome.err
        metrics.append(json.loads(outcome.out)["auc"])
    assert f"{address}: copying" in outcome.err
    assert f"source: {address}" in (out / "config.yaml").read_text()
    assert metrics[0] == metrics[1]


@pytest.mark.parametrize(
    "arguments",
    [
        ("finetune", "quickstart", "--set", "out=gs://b/x"),
        ("report", "run", "--out", "gs://b/x"),
        ("study", "quick-advice", "--dry-run", "--runs=gs://b/x"),
    ],
)
def test_results_are_not_written_to_addresses(radtransfer, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = radtransfer(*arguments)
    assert outcome.code == 2 and "a local file or folder, received gs://b/x" in outcome.err
    assert not list(tmp_path.iterdir())
