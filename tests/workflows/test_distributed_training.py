"""Replicas of one network, on logical devices of this machine or in processes that talk through it."""

import json
import signal
import time

import keras
import numpy as np
import pytest
from distributed_command import finish, plain_network, start, start_workers

from radtransfer.runs.folder import read_rows
from radtransfer.training.checkpoint import load_checkpoint
from radtransfer.training.distributed import LOGICAL_CPUS

CLOSE = 1e-6
"""Of losses, between one process and several: they add the same numbers in another order."""


@pytest.fixture(scope="session")
def plain(table_options):
    return (
        "finetune",
        *table_options,
        "--backbone",
        "plain_small",
        "--set",
        "model.dropout=0",
        "--folds",
        2,
        "--fold",
        1,
    )


def losses(run, fold="fold_1"):
    rows = list(read_rows(run / fold / "history.csv"))
    return np.array([[float(row["loss"]), float(row["val_loss"])] for row in rows])


def saved_weights(run):
    return keras.models.load_model(run / "fold_1" / "model.keras").get_weights()


@pytest.fixture(scope="session")
def one_process(plain, radtransfer, tmp_path_factory):
    out = tmp_path_factory.mktemp("one") / "run"
    with plain_network():
        outcome = radtransfer(*plain, "--epochs", 3, "--out", out)
    assert outcome.code == 0, outcome.err
    return out


def check_close(run, other):
    np.testing.assert_allclose(losses(run), losses(other), atol=CLOSE, rtol=0)
    for mine, theirs in zip(saved_weights(run), saved_weights(other), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)


def test_two_devices_train_as_one(plain, one_process, tmp_path):
    out = tmp_path / "run"
    process = start(*plain, "--epochs", 3, "--distribute", "mirrored", "--out", out, **{LOGICAL_CPUS: "2"})
    (code,), (text,) = finish([process])
    assert code == 0, text
    assert "replicas  2 on this machine" in text
    check_close(out, one_process)


@pytest.mark.slow
@pytest.mark.parametrize("by_environment", [False, True])
def test_two_workers_train_as_one(plain, one_process, tmp_path, by_environment):
    outs = (tmp_path / "run", tmp_path / "nothing")
    codes, texts = finish(start_workers(*plain, "--epochs", 3, outs=outs, by_environment=by_environment))
    assert codes == [0, 0], texts
    check_close(outs[0], one_process)
    assert not outs[1].exists()


@pytest.fixture(scope="module")
def cbr(table_options):
    """Batch norm, dropout and augmentation."""
    return ("finetune", *table_options, "--folds", 2, "--fold", 1, "--epochs", 5)


@pytest.fixture(scope="module")
def undisturbed(cbr, tmp_path_factory):
    outs = [tmp_path_factory.mktemp("workers") / name for name in ("run", "nothing")]
    codes, texts = finish(start_workers(*cbr, outs=outs))
    assert codes == [0, 0], texts
    return outs[0]


@pytest.mark.slow
def test_batch_norm_sees_a_replica_wherever_that_is(cbr, undisturbed, radtransfer, tmp_path):
    mirrored, single = tmp_path / "mirrored", tmp_path / "single"
    codes, texts = finish([start(*cbr, "--distribute", "mirrored", "--out", mirrored, **{LOGICAL_CPUS: "2"})])
    assert codes == [0], texts
    check_close(undisturbed, mirrored)
    assert radtransfer(*cbr, "--out", single).code == 0
    assert np.abs(losses(undisturbed) - losses(single))[0].max() > 100 * CLOSE


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_worker_ends_the_others_and_the_run_resumes(cbr, undisturbed, tmp_path, victim):
    outs = [tmp_path / "run", tmp_path / "nothing"]
    processes = start_workers(*cbr, outs=outs)
    kill_after_epoch(2, processes[victim], outs[0] / "fold_1" / "checkpoint.npz")
    codes, texts = finish(processes)
    survivor = 1 - victim
    assert codes[victim] == -signal.SIGKILL
    assert codes[survivor] == 5
    assert f"worker {victim} (127.0.0.1:" in texts[survivor]
    assert "--resume" in texts[survivor]
    status = json.loads((outs[0] / "run.json").read_text())["status"]
    assert status == ("failed" if victim else "running")
    codes, texts = finish(start_workers(*cbr, "--resume", outs=outs))
    assert codes == [0, 0], texts
    for name in ("fold_1/history.csv", "predictions.csv", "metrics.json"):
        assert (outs[0] / name).read_bytes() == (undisturbed / name).read_bytes()
    assert not outs[1].exists()


def kill_after_epoch(epoch, process, checkpoint):
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if checkpoint.exists() and load_checkpoint(checkpoint)[1]["epoch"] >= epoch:
            break
        time.sleep(0.01)
    process.kill()
