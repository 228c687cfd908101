import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import warm_process
from kill_harness import weights_of

from radtransfer.process import ONEDNN, pin_variables
from radtransfer.training.checkpoint import load_checkpoint

EPOCHS = 4


def command(table_options, out, *more):
    return ("finetune", *table_options, "--folds", 2, "--epochs", EPOCHS, "--out", out, *more)


def stop_after_epoch(process, folder, epoch, how):
    """Send a signal once the checkpoint of `epoch` is there, a moment into the next one."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if (folder / "checkpoint.npz").exists() and load_checkpoint(folder / "checkpoint.npz")[1]["epoch"] >= epoch:
            time.sleep(0.05)
            process.send_signal(how)
            break
        time.sleep(0.005)
    return process.wait(timeout=60)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, table_options):
    out = tmp_path_factory.mktemp("runs") / "whole"
    warm_process.run(*command(table_options, out), check=True)
    return out


@pytest.fixture(scope="module")
def begun_once(tmp_path_factory, table_options, tiny_images):
    """A run that was killed in its second fold, on a table of its own, and the options that it was given."""
    folder = tmp_path_factory.mktemp("begun")
    options = list(table_options)
    options[1] = shutil.copy(tiny_images / "images.csv", folder / "images.csv")
    with warm_process.start(*command(options, folder / "run")) as process:
        stop_after_epoch(process, folder / "run" / "fold_2", 1, signal.SIGKILL)
    return folder / "run", options


@pytest.fixture
def begun(begun_once, tmp_path):
    """A copy of it to go on with."""
    return shutil.copytree(begun_once[0], tmp_path / "run"), begun_once[1]


def check_equal(resumed, whole):
    for name in ("folds.csv", "predictions.csv", "metrics.json"):
        assert (resumed / name).read_bytes() == (whole / name).read_bytes(), name
    for fold in ("fold_1", "fold_2"):
        assert (resumed / fold / "history.csv").read_bytes() == (whole / fold / "history.csv").read_bytes()
        weights = (weights_of(run / fold / "model.keras") for run in (resumed, whole))
        for (name, one), (its, other) in zip(*weights, strict=True):
            assert name == its
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("how", "fold", "epoch"), [("SIGKILL", 1, 2), ("SIGINT", 1, 1), ("SIGTERM", 2, 3)])
def test_a_killed_run_resumes_to_the_identical_result(table_options, uninterrupted, tmp_path, how, fold, epoch):
    out = tmp_path / "run"
    with warm_process.start(*command(table_options, out)) as process:
        code = stop_after_epoch(process, out / f"fold_{fold}", epoch, getattr(signal, how))
        error = process.stderr.read()
    status = json.loads((out / "run.json").read_text())["status"]
    if how == "SIGKILL":
        assert (code, status) == (-signal.SIGKILL, "running")
    else:
        assert (code, status) == (130, "interrupted")
        assert f"radtransfer finetune {out / 'config.yaml'} --out {out} --resume" in error
        assert "Traceback" not in error
    assert not (out / "metrics.json").exists()
    printed = ("finetune", out / "config.yaml", "--out", out, "--resume")
    resumed = warm_process.run(*(printed if how == "SIGTERM" else command(table_options, out, "--resume")))
    assert resumed.returncode == 0, resumed.stderr
    check_equal(out, uninterrupted)


DEAF = """
import hashlib
import threading
from radtransfer.process import pin_variables

pin_variables()
from radtransfer.cli.main import main
from radtransfer.training.step import Learner

steps, reset = [], Learner.reset

def wrapped(self, weights):
    train = self.train

    def step(*batch):
        steps.append(batch)
        if len(steps) == {step}:
            threading.Timer(1, lambda: print("busy", flush=True)).start()
            # As TensorFlow is in a long step: Python answers nothing.
            hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
        return train(*batch)

    self.train = step
    reset(self, weights)

Learner.reset = wrapped
main()
"""


@pytest.mark.parametrize(("how", "step"), [("SIGINT", 1), ("SIGTERM", 7)])
def test_a_run_stopped_within_a_step_that_answers_nothing_resumes_to_the_identical_result(
    table_options, uninterrupted, tmp_path, how, step
):
    out = tmp_path / "run"
    with warm_process.start(*command(table_options, out), program=DEAF.format(step=step)) as process:
        assert process.stdout.readline() == "busy\n"
        process.send_signal(getattr(signal, how))
        assert process.wait(timeout=120) == 130
        error = process.stderr.read()
    assert f"resume with: radtransfer finetune {out / 'config.yaml'} --out {out} --resume" in error
    assert error.endswith("Error: Interrupted.\n") and "Traceback" not in error
    assert json.loads((out / "run.json").read_text())["status"] == "interrupted"
    assert not list(out.rglob(".part-*"))
    warm_process.run(*command(table_options, out, "--resume"), check=True)
    check_equal(out, uninterrupted)


def test_kept_features_the_head_phase_averages_and_the_curve_survive_a_kill(
    table_options, finished_run, tmp_path, monkeypatch
):
    monkeypatch.setenv("RADTRANSFER_CACHE", str(tmp_path / "cache"))
    options = ("--weights", finished_run.path / "fold_1", "--scheme", "freeze_then_unfreeze", "--augmentation", "none")
    options, whole, out = (*options, "--eval-every", 2, "--ema", 0.9), tmp_path / "whole", tmp_path / "run"
    warm_process.run(*command(table_options, whole, *options), check=True)
    with warm_process.start(*command(table_options, out, *options)) as process:
        stop_after_epoch(process, out / "fold_1" / "head_phase", 2, signal.SIGKILL)
    with warm_process.start(*command(table_options, out, *options, "--resume")) as process:
        stop_after_epoch(process, out / "fold_1", 2, signal.SIGKILL)
    assert not (out / "metrics.json").exists()
    warm_process.run(*command(table_options, out, *options, "--resume"), check=True)
    check_equal(out, whole)
    for name in ("fold_1/curve.csv", "fold_2/curve.csv", "fold_1/head_phase/history.csv"):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name


def test_a_second_process_on_the_same_folder_is_refused(radtransfer, table_options, tmp_path):
    out = tmp_path / "run"
    with warm_process.start(*command(table_options, out)) as process:
        while not (out / "run.json").exists() and process.poll() is None:
            time.sleep(0.01)
        second = radtransfer(*command(table_options, out, "--resume"))
    assert second.code == 2
    assert f"in use by another process (process {process.pid}" in second.err


def test_a_run_is_resumed_only_with_the_arithmetic_it_was_started_with(begun, uninterrupted, monkeypatch):
    out, options = begun
    # In a Python that has not imported TensorFlow yet.
    program = [sys.executable, "-c", warm_process.COMMAND, *map(str, command(options, out, "--resume"))]
    used = json.loads((out / "run.json").read_text())["onednn"]
    monkeypatch.setenv(ONEDNN, "0" if used else "1")
    refused = subprocess.run(program, capture_output=True, text=True)
    assert refused.returncode == 2
    asked = f"set {ONEDNN}={int(used)} before radtransfer starts"
    assert f"onednn was {used}, is {not used} ({asked})" in refused.stderr
    monkeypatch.setenv(ONEDNN, str(int(used)))
    assert warm_process.run(*command(options, out, "--resume")).returncode == 0
    check_equal(out, uninterrupted)


def test_a_changed_table_is_noticed_on_resume(radtransfer, begun):
    out, options = begun
    text = options[1].read_text()
    options[1].write_text("\n".join(text.splitlines()[:-2]) + "\n")
    resumed = radtransfer(*command(options, out, "--resume"))
    options[1].write_text(text)
    assert resumed.code == 2
    assert "table_sha256 was" in resumed.err


@pytest.mark.parametrize(("flags", "by_default"), [("avx2 fma", False), ("avx2 fma avx512_vnni", True)])
def test_a_run_without_a_record_of_onednn_goes_on_with_what_tensorflow_used(
    radtransfer, finished_run, table_options, tmp_path, monkeypatch, flags, by_default
):
    """As earlier versions left it, on a processor where oneDNN is now chosen."""
    out = shutil.copytree(finished_run.path, tmp_path / "run")
    record = json.loads((out / "run.json").read_text())
    used = record.pop("onednn")
    (out / "run.json").write_text(json.dumps(record | {"status": "interrupted"}))
    (tmp_path / "cpuinfo").write_text(f"flags : {flags}\n")
    monkeypatch.setattr("radtransfer.process.CPUINFO", tmp_path / "cpuinfo")
    arguments = ("finetune", *table_options, "--folds", 2, "--epochs", 2, "--out", out, "--resume")
    monkeypatch.setenv(ONEDNN, "")
    pin_variables()
    outcome = radtransfer(*arguments)
    assert outcome.code == (0 if used == by_default else 2), outcome.err
    assert (f"onednn was {by_default}, is {used}" in outcome.err) is (used != by_default)
    if used != by_default:
        monkeypatch.setenv(ONEDNN, str(int(used)))  # as the user says that it was
        monkeypatch.setenv("RADTRANSFER_CHOSE_ONEDNN", "")
        outcome = radtransfer(*arguments)
        assert outcome.code == 0, outcome.err


def test_a_damaged_checkpoint_is_named(radtransfer, begun):
    out, options = begun
    checkpoint = out / "fold_2" / "checkpoint.npz"
    os.truncate(checkpoint, checkpoint.stat().st_size // 2)
    resumed = radtransfer(*command(options, out, "--resume"))
    assert resumed.code == 2
    assert "checkpoint.npz is damaged" in resumed.err
