import importlib.util
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from ray_nodes import two_nodes

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs radtransfer[ray]"),
]

STUDY = """
study: {name: small, reference: scratch}
base:
  data: {source: "synthetic_fundus:images=60,size=32,seed=0", positive_from: 2}
  splits: {folds: 2}
  model: {backbone: cbr_tiny, image_size: 32}
  training: {batch_size: 8, learning_rate: 1.0e-3, epochs: 10, patience: null, augmentation: none}
sources:
  other:
    data: {source: "synthetic_fundus:images=60,size=32,seed=1", positive_from: 2}
    model: {image_size: 32}
    training: {batch_size: 8, learning_rate: 1.0e-3, epochs: 1, augmentation: none}
    seed: 7
arms:
  scratch: {}
  transfer: {model.weights: source:other}
grid: {seed: [0, 1, 2, 3]}
"""

CLI = "from radtransfer.cli.main import main; main()"
UNSEEN = "from radtransfer.studies.ray import RayEngine; RayEngine._write_probe = lambda self: None; " + CLI
RECORDS = ("config.yaml", "run.json")


def command(*arguments, program=CLI):
    return [sys.executable, "-c", program, *map(str, arguments)]


@pytest.fixture(scope="module")
def study_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("studies") / "small.yaml"
    path.write_text(STUDY)
    return path


@pytest.fixture
def nodes():
    with two_nodes() as nodes:
        yield nodes


@pytest.fixture(scope="module")
def finished(study_file, tmp_path_factory):
    """The store of the study as this machine computes it."""
    folder = tmp_path_factory.mktemp("finished")
    options = ("--out", folder / "out", "--runs", folder / "store", "--jobs", 2, "--cpus-per-run", 1)
    ran = subprocess.run(command("study", study_file, *options), capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return folder / "store"


def results(store):
    """Every file of the runs that holds numbers, by name; the records without times, and with the store's place left
    open."""
    files = {}
    for file in sorted(store.glob("*/**/*")):
        name = file.relative_to(store).as_posix()
        if file.suffix == ".csv" or file.name == "metrics.json":
            files[name] = file.read_bytes()
        elif file.name in RECORDS:
            files[name] = file.read_text().replace(str(store), "STORE").count("STORE")
    return files


def wait_for(condition, process, seconds=600):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    assert condition(), process.poll()


def finished_runs(store):
    return [file for file in store.glob("*/run.json") if json.loads(file.read_text())["status"] == "finished"]


def running(out):
    try:
        return json.loads((out / "progress.json").read_text())["running"]
    except OSError:
        return []


def test_a_study_outlives_a_machine(nodes, study_file, finished, tmp_path):
    store, out = tmp_path / "store", tmp_path / "out"
    options = ("--out", out, "--runs", store, "--ray", nodes.address)
    with subprocess.Popen(command("study", study_file, *options), stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: len(finished_runs(store)) >= 3 and sum("machine" in run for run in running(out)) == 2, process)
        nodes.kill_second()
        _, error = process.communicate(timeout=900)
    assert process.returncode == 0, error
    lines = error.splitlines()
    assert "on 2 machines: 2 runs at a time, one thread each" in lines[0]
    assert sum("its process or machine was lost; trying again" in line for line in lines) >= 1
    assert all(line.startswith("note ") or "finished" in line for line in lines), error
    assert results(store) == results(finished)
    assert not list(store.glob(".part-*"))
    assert nodes.in_use() == (0, 0)


def test_a_study_that_is_stopped_leaves_the_cluster_free(nodes, study_file, finished, tmp_path):
    store, out = tmp_path / "store", tmp_path / "out"
    options = ("--arms", "scratch", "--out", out, "--runs", store, "--ray", nodes.address)
    with subprocess.Popen(command("study", study_file, *options), stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: len(list(store.glob("*/fold_1/checkpoint.npz"))) >= 1, process)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=300)
    assert process.returncode == 130, error
    assert (
        f"resume with: radtransfer study {out / 'study.yaml'} --out {out} --runs {store} --ray {nodes.address}" in error
    )
    assert "Traceback" not in error
    assert nodes.in_use() == (0, 0)
    records = [json.loads(file.read_text())["status"] for file in store.glob("*/run.json")]
    assert "interrupted" in records and "running" not in records
    again = subprocess.run(command("study", study_file, *options), capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    expected = results(finished)
    assert results(store) == {name: value for name, value in expected.items() if (store / name).exists()}
    assert len(finished_runs(store)) == 4


def test_runs_come_back_from_machines_that_do_not_see_the_store(nodes, study_file, finished, tmp_path):
    store = tmp_path / "store"
    options = ("--set", "grid.seed=[0]", "--out", tmp_path / "out", "--runs", store, "--ray", nodes.address)
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    ran = subprocess.run(
        command("study", study_file, *options, program=UNSEEN), capture_output=True, text=True, env=environment
    )
    assert ran.returncode == 0, ran.stderr
    assert f"cannot access {store}; its runs are sent back" in ran.stderr
    assert len(finished_runs(store)) == 3
    expected = results(finished)
    assert results(store) == {name: value for name, value in expected.items() if (store / name).exists()}
    assert not [file for file in store.rglob("*.json") if "radtransfer-" in file.read_text()]
