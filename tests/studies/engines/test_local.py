import os
import signal
import time
from pathlib import Path

from radtransfer.config.load import load_config
from radtransfer.studies.engines import Workers, with_decoders


def outcome_of(runner, key, when=lambda: None):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        when()
        for ended, outcome in runner.wait(lambda *_: None, 0.05):
            assert ended == key
            return outcome
    raise TimeoutError


def test_a_worker_that_dies_takes_only_its_run_with_it(tmp_path):
    sets = ("data.source=synthetic_fundus:images=60,size=32", "model.backbone=cbr_tiny", "model.image_size=16")
    config = load_config(sets=(*sets, "splits.folds=1", "training.epochs=1000", "training.patience=null"))
    runner, died = Workers(1), []

    def kill():
        (child,) = [worker.process for worker in runner._busy.values()]
        if not died and (tmp_path / "endless" / "fold_1" / "checkpoint.npz").exists():
            died.append(child.pid)
            os.kill(child.pid, signal.SIGKILL)

    try:
        runner.submit("endless", config, tmp_path / "endless")
        outcome = outcome_of(runner, "endless", kill)
        assert (outcome.status, outcome.exit_code) == ("failed", 5)
        assert "ended by SIGKILL" in outcome.error
        runner.submit("bad", load_config(sets=("data.source=nowhere",)), tmp_path / "bad")
        outcome = outcome_of(runner, "bad")
        assert (outcome.status, outcome.exit_code) == ("failed", 3)
        assert "No data at 'nowhere'" in outcome.error
    finally:
        runner.close()


def test_a_worker_that_has_done_enough_is_replaced(tmp_path):
    runner, workers = Workers(1, runs=1), []
    try:
        for name in ("one", "two"):
            runner.submit(name, load_config(sets=("data.source=nowhere",)), tmp_path / name)
            workers.append(runner._busy[name].process)
            assert outcome_of(runner, name).status == "failed"
        assert workers[0].pid != workers[1].pid
        assert [worker.exitcode for worker in workers] == [0, 0]
    finally:
        runner.close()


def test_a_worker_computes_what_it_would_without_a_keras_json(tmp_path, monkeypatch):
    (tmp_path / "keras.json").write_text('{"floatx": "float8"}')
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    sets = ("data.source=synthetic_fundus:images=60,size=32", "model.backbone=cbr_tiny", "model.image_size=16")
    runner = Workers(1)
    try:
        runner.submit("run", load_config(sets=(*sets, "splits.folds=1", "training.epochs=1")), tmp_path / "run")
        assert outcome_of(runner, "run").error is None
    finally:
        runner.close()


def tell_threads():
    """In a worker: that it starts with so many threads is written down."""
    Path(os.environ["TOLD"]).write_text(os.environ["TF_NUM_INTRAOP_THREADS"] + os.environ["OMP_NUM_THREADS"])


def test_a_worker_computes_with_the_threads_it_is_given(tmp_path, monkeypatch):
    monkeypatch.setenv("TOLD", str(tmp_path / "told"))
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    runner = Workers(1, prepare=tell_threads, threads=3)
    try:
        runner.submit("bad", load_config(sets=("data.source=nowhere",)), tmp_path / "bad")
        outcome_of(runner, "bad")
        assert (tmp_path / "told").read_text() == "33"
        assert "TF_NUM_INTRAOP_THREADS" not in os.environ
        assert os.environ["OMP_NUM_THREADS"] == "7"
    finally:
        runner.close()


def test_threads_also_decode_unless_the_settings_say_otherwise():
    assert with_decoders(load_config(), 3).system.workers == 3
    assert with_decoders(load_config(), None).system.workers == "auto"
    assert with_decoders(load_config(sets=("system.workers=5",)), 3).system.workers == 5
