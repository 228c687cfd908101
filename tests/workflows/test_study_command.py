import json
import os
import signal
import time
from types import SimpleNamespace

import pytest
import warm_process

from radtransfer.runs.folder import read_rows
from radtransfer.runs.lock import locked

OF_A_RUN = ("metrics.json", "predictions.csv", "folds.csv", "fold_1/history.csv", "fold_2/predictions.csv")

STUDY = """
study:
  name: tiny
  reference: scratch
  threshold: 0.0
base:
  data: {{source: {data}/images.csv, image_root: {data}/images}}
  splits: {{folds: 2}}
  model: {{backbone: cbr_tiny, image_size: 24}}
  training: {{batch_size: 8, learning_rate: 1.0e-3, epochs: 2, augmentation: none, eval_every: 3}}
sources:
  other:
    data: {{source: {data}/images.csv, image_root: {data}/images}}
    model: {{image_size: 24}}
    training: {{batch_size: 8, learning_rate: 1.0e-3, epochs: 1, augmentation: none}}
    seed: 7
arms:
  scratch: {{}}
  transfer: {{model.weights: source:other}}
grid:
  seed: [0, 1]
compare:
  cca: [[transfer@initial, transfer]]
"""

# The same runs written otherwise: other names, order and form, one seed more; seed 2 of the arm `plain` is new.
REWRITTEN = """
grid:
  seed: [1, 2]
arms:
  plain:
    transfer.scheme: auto
  again: {{model: {{weights: source:natural}}, seed: 0}}
sources:
  natural:
    seed: 7
    training.augmentation: none
    training: {{epochs: 1, learning_rate: 0.001, batch_size: 8}}
    model: {{image_size: 24}}
    data: {{image_root: {data}/images, source: {data}/images.csv}}
base:
  training: {{eval_every: 3, augmentation: none, epochs: 2, learning_rate: 0.001, batch_size: 8}}
  model.image_size: 24
  model.backbone: cbr_tiny
  splits.folds: 2
  system: {{workers: 1}}
  data: {{image_root: {data}/images, source: {data}/images.csv}}
"""


@pytest.fixture(scope="module")
def study_file(tiny_images, tmp_path_factory):
    path = tmp_path_factory.mktemp("studies") / "tiny.yaml"
    path.write_text(STUDY.format(data=tiny_images))
    return path


@pytest.fixture(scope="module")
def finished(radtransfer, study_file, tmp_path_factory):
    """The study, computed run after run in this process; tests may add runs to its store."""
    folder = tmp_path_factory.mktemp("finished")
    options = ("--out", folder / "out", "--runs", folder / "store", "--jobs", 0)
    outcome = radtransfer("study", study_file, *options, "--json")
    assert outcome.code == 0, outcome.err
    table = json.loads(outcome.out)
    return SimpleNamespace(out=folder / "out", store=folder / "store", options=options, table=table, outcome=outcome)


def runs_by_name(table):
    return {(row["arm"], row["labels"]["seed"]): row for row in table["runs"]}


def check_same_runs(store, other, keys):
    for key in keys:
        for name in OF_A_RUN:
            if (other / key / name).exists() or not name.startswith("fold_2"):
                assert (store / key / name).read_bytes() == (other / key / name).read_bytes(), f"{key}/{name}"


def test_a_study_tabulates_its_runs_and_their_folds(finished):
    rows = runs_by_name(finished.table)
    assert list(rows) == [("source:other", 7), ("scratch", 0), ("scratch", 1), ("transfer", 0), ("transfer", 1)]
    run = rows["transfer", 1]
    assert (run["status"], run["kind"], run["scheme"], run["weights"]) == (
        "finished",
        "arm",
        "transfer",
        "source:other",
    )
    assert run["reference"] == rows["scratch", 1]["run"]
    assert [fold["steps"] for fold in run["folds"]] == [3, 3]
    assert 0 < run["trainable_parameters"] < run["parameters"]
    assert len(rows["source:other", 7]["folds"]) == 1
    pairs = [[run["run"]] * 2 for (arm, _), run in rows.items() if arm == "transfer"]
    assert finished.table["compare"]["cca"] == [{"a": "transfer@initial", "b": "transfer", "runs": pairs}]
    lines = read_rows(finished.out / "table.csv")
    assert [line["level"] for line in lines].count("fold") == 1 + 4 * 2
    assert float(lines[0]["auc_class_sick"]) == rows["source:other", 7]["per_class"]["sick"]
    progress = json.loads((finished.out / "progress.json").read_text())
    assert (progress["done"], progress["total"], progress["running"], progress["failed"]) == (5, 5, [], {})


def test_the_run_of_a_transfer_starts_from_the_source_run(finished):
    rows = runs_by_name(finished.table)
    record = json.loads((finished.store / rows["transfer", 0]["run"] / "run.json").read_text())
    assert record["weights"]["file"].startswith(str(finished.store / rows["source:other", 7]["run"]))


def test_a_second_time_computes_nothing(radtransfer, study_file, finished):
    before = {path: path.stat().st_mtime_ns for path in finished.store.rglob("run.json")}
    again = radtransfer("study", study_file, *finished.options, "--json")
    assert again.code == 0
    assert json.loads(again.out) == finished.table
    assert "finished" not in again.err
    assert {path: path.stat().st_mtime_ns for path in finished.store.rglob("run.json")} == before


def test_the_resolved_study_is_the_same_study(radtransfer, finished):
    listed = radtransfer("study", finished.out / "study.yaml", "--runs", finished.store, "--dry-run", "--json")
    report = json.loads(listed.out)
    assert (report["done"], report["to_do"], report["seconds"]) == (5, 0, 0)


def test_another_study_shares_runs_and_computes_only_what_is_new(radtransfer, tiny_images, finished, tmp_path):
    other = tmp_path / "rewritten.yaml"
    other.write_text(REWRITTEN.format(data=tiny_images))
    options = ("--runs", finished.store, "--jobs", 0)
    before = radtransfer("study", other, *options, "--dry-run", "--json")
    report = json.loads(before.out)
    assert [(row["arm"], row["labels"]["seed"]) for row in report["runs"] if row["status"] == "to do"] == [("plain", 2)]
    assert report["seconds"] > 0  # known from the runs that are done
    assert before.err == ""
    outcome = radtransfer("study", other, *options, "--out", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    assert outcome.err.count("finished") == 1


def test_neither_the_order_nor_the_process_matters(study_file, finished, tmp_path):
    text = study_file.read_text()
    backwards = tmp_path / "backwards.yaml"
    transfer, scratch = "  transfer: {model.weights: source:other}\n", "  scratch: {}\n"
    text = text.replace(scratch + transfer, transfer + scratch).replace("seed: [0, 1]", "seed: [1, 0]")
    backwards.write_text(text)
    options = ("--out", tmp_path / "out", "--runs", tmp_path / "store", "--jobs", 2)
    ran = warm_process.run("study", backwards, *options)
    assert ran.returncode == 0, ran.stderr
    check_same_runs(tmp_path / "store", finished.store, [row["run"] for row in finished.table["runs"]])


def wait_for(condition, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    assert condition()


def test_a_study_that_was_stopped_and_killed_goes_on_to_the_same_result(radtransfer, study_file, finished, tmp_path):
    store, out = tmp_path / "store", tmp_path / "out"
    options = ("--out", out, "--runs", store)
    with warm_process.start("study", study_file, *options) as process:
        wait_for(lambda: list(store.glob("*/fold_1/checkpoint.npz")), process)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"resume with: radtransfer study {out / 'study.yaml'} --out {out} --runs {store} --jobs 1" in error
    assert "Traceback" not in error
    stopped = json.loads(next(store.glob("*/run.json")).read_text())
    assert stopped["status"] == "interrupted"
    with warm_process.start("study", out / "study.yaml", *options) as process:
        wait_for(lambda: list(store.glob("*/fold_2/checkpoint.npz")), process)
        process.kill()
    outcome = radtransfer("study", study_file, *options, "--jobs", 0)
    assert outcome.code == 0, outcome.err
    check_same_runs(store, finished.store, [row["run"] for row in finished.table["runs"]])


@pytest.fixture
def failing_seed_1(monkeypatch):
    from radtransfer.errors import TrainingError
    from radtransfer.training import run as job

    original = job.finetune

    def fails(config, **options):
        if config.seed == 1:
            raise TrainingError("The loss became nan")
        return original(config, **options)

    monkeypatch.setattr(job, "finetune", fails)
    return monkeypatch


def test_a_run_that_fails_is_kept_and_tried_again(radtransfer, study_file, tmp_path, failing_seed_1):
    options = ("--arms", "scratch", "--out", tmp_path / "out", "--runs", tmp_path / "store", "--jobs", 0)
    outcome = radtransfer("study", study_file, *options, "--json")
    assert outcome.code == 6
    assert "1 of 2 runs failed; the others are saved. scratch, seed 1: The loss became nan" in outcome.err
    rows = json.loads(outcome.out)["runs"]
    assert [(row["status"], row["error"]) for row in rows] == [("finished", None), ("failed", "The loss became nan")]
    listed = radtransfer("study", study_file, *options, "--dry-run")
    assert f"{rows[1]['run']} failed before: The loss became nan" in listed.out
    failing_seed_1.undo()
    again = radtransfer("study", study_file, *options, "--json")
    assert again.code == 0, again.err
    assert [row["error"] for row in json.loads(again.out)["runs"]] == [None, None]


def test_what_starts_from_a_failed_run_is_not_tried(radtransfer, study_file, tmp_path, monkeypatch):
    from radtransfer.errors import TrainingError
    from radtransfer.training import run as job

    def fails(config, **_):
        tried.append(config.seed)
        raise TrainingError("The loss became nan")

    tried = []
    monkeypatch.setattr(job, "finetune", fails)
    options = ("--arms", "transfer", "--out", tmp_path / "out", "--runs", tmp_path / "store", "--jobs", 0)
    outcome = radtransfer("study", study_file, *options)
    assert (outcome.code, tried) == (6, [7])
    assert "3 of 3 runs failed" in outcome.err
    assert "The run that it starts from" in outcome.err


def test_data_that_no_run_can_use_are_read_once(radtransfer, study_file, tmp_path, monkeypatch):
    from radtransfer.errors import DataError
    from radtransfer.training import run as job

    def fails(config, **_):
        tried.append(config.seed)
        raise DataError("2 images cannot be read")

    tried = []
    monkeypatch.setattr(job, "finetune", fails)
    options = ("--arms", "scratch", "--out", tmp_path / "out", "--runs", tmp_path / "store", "--jobs", 0)
    outcome = radtransfer("study", study_file, *options)
    assert (outcome.code, tried) == (3, [0])
    assert "every run failed: 2 images cannot be read" in outcome.err


def test_a_limit_leaves_the_rest_for_later(radtransfer, study_file, finished, tmp_path):
    options = ("--out", tmp_path / "out", "--runs", tmp_path / "store", "--jobs", 0)
    outcome = radtransfer("study", study_file, *options, "--limit", 1, "--json")
    assert outcome.code == 0, outcome.err
    assert [row["status"] for row in json.loads(outcome.out)["runs"]] == ["finished"] + ["waiting"] * 4
    assert "4 runs are left" in outcome.err


def test_a_dry_run_lists_the_runs_and_computes_none(radtransfer, study_file, tmp_path):
    options = ("--runs", tmp_path / "store", "--out", tmp_path / "out", "--dry-run")
    outcome = radtransfer("study", study_file, *options)
    assert outcome.code == 0, outcome.err
    assert outcome.err.count("timing cbr_tiny at 24 px") == 1
    assert "5 runs: 0 done, 5 to do, at most" in outcome.out
    assert outcome.out.count("waiting") == 2  # for the source
    assert not (tmp_path / "store").exists()
    assert not (tmp_path / "out").exists()


def test_a_dry_run_tells_the_input_of_every_run_and_which_settings_were_left_out(radtransfer, tiny_images, tmp_path):
    data = ("--data", tiny_images / "images.csv", "--image-root", tiny_images / "images", "--arms", "scratch,transfer")
    sets = ("grid.model.backbone=[cbr_tiny]", "grid.seed=[0]", "sources.source.model.preprocessing=tf")
    options = (*data, *(item for text in sets for item in ("--set", text)), "--runs", tmp_path, "--dry-run")
    outcome = radtransfer("study", "quick-advice", *options)
    assert outcome.code == 0, outcome.err
    assert outcome.err.count("left out, as they do not fit") == 1
    assert f"{tiny_images / 'images.csv'}: data.positive_from (2)" in outcome.err
    header, *rows = outcome.out.splitlines()[1:-1]
    assert header.split() == ["run", "status", "arm", "backbone", "seed", "input", "time"]
    assert [row.split()[-3] for row in rows] == ["tf"] * 3
    report = json.loads(radtransfer("study", "quick-advice", *options, "--json").out)
    assert {row["preprocessing"] for row in report["runs"]} == {"tf"}


def test_a_dry_run_without_timing_lists_the_runs_and_measures_nothing(radtransfer, study_file, tmp_path, monkeypatch):
    monkeypatch.setattr("radtransfer.studies.grid.require_keras", lambda: 1 / 0)
    options = ("--runs", tmp_path / "store", "--out", tmp_path / "out", "--dry-run", "--no-timing")
    outcome = radtransfer("study", study_file, *options)
    assert outcome.code == 0, outcome.err
    assert "note      timing" not in outcome.err
    assert "5 runs: 0 done, 5 to do, time unknown: without --no-timing, a run of each network is timed" in outcome.out
    listed = json.loads(radtransfer("study", study_file, *options, "--json").out)
    assert listed["seconds"] is None and [row["seconds"] for row in listed["runs"]] == [None] * 5


def test_a_run_that_another_process_computes_is_waited_for(radtransfer, study_file, finished, tmp_path, monkeypatch):
    from radtransfer.studies import runs as study_runs

    key = runs_by_name(finished.table)["scratch", 0]["run"]
    folder = tmp_path / "store" / key
    folder.mkdir(parents=True)
    lock = locked(folder)
    lock.__enter__()
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        if len(slept) == 1:
            lock.__exit__(None, None, None)

    monkeypatch.setattr(study_runs, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))
    monkeypatch.setattr(study_runs, "BUSY_SECONDS", 0.01)
    options = ("--arms", "scratch", "--out", tmp_path / "out", "--runs", tmp_path / "store", "--jobs", 0)
    outcome = radtransfer("study", study_file, *options, "--set", "grid.seed=[0]")
    assert outcome.code == 0, outcome.err
    assert slept
    assert outcome.err.count("is being computed by another process") == 1


def test_changed_data_are_told(radtransfer, tiny_images, tmp_path):
    import shutil

    data = tmp_path / "data"
    shutil.copytree(tiny_images, data)
    study = tmp_path / "study.yaml"
    study.write_text(STUDY.format(data=data))
    only = ("--arms", "scratch", "--set", "grid.seed=[0]", "--set", "training.epochs=1", "--set", "splits.fold=1")
    options = (*only, "--out", tmp_path / "out", "--runs", tmp_path / "store", "--jobs", 0)
    assert radtransfer("study", study, *options).code == 0
    os.utime(data / "images" / "sick" / "p01_0.png")
    replaced = radtransfer("study", study, *options)
    assert "have changed since these runs" in replaced.err
    assert "finished" not in replaced.err
    table = data / "images.csv"
    table.write_text("\n".join(table.read_text().splitlines()[:-4]) + "\n")
    changed = radtransfer("study", study, *options)
    assert "has changed since this study was last run" in changed.err
    assert changed.err.count("finished") == 1


def test_a_folder_that_is_no_study_is_left_alone(radtransfer, study_file, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    outcome = radtransfer("study", study_file, "--out", tmp_path, "--runs", tmp_path / "store", "--jobs", 0)
    assert outcome.code == 2
    assert "is not the folder of a study: it contains notes.txt" in outcome.err


def test_a_study_without_images_says_what_it_needs(radtransfer, tiny_images):
    outcome = radtransfer("study", "busi-advice", "--dry-run")
    assert outcome.code == 2
    assert "No images given for busi-advice. It needs: BUSI, its published folds, ImageNet weights" in outcome.err
    assert "Pass --data with a folder or a CSV" in outcome.err
    assert "finetune" not in outcome.err and "scratch:" not in outcome.err
    some = ("--set", f"arms.small.data.source={tiny_images / 'images'}")
    outcome = radtransfer("study", "busi-advice", "--dry-run", *some)
    assert outcome.code == 2
    assert "for scratch, imagenet, mean_var, through_stage1, frozen of busi-advice." in outcome.err
    assert "or --set arms.scratch.data.source=…" in outcome.err


def test_a_sweep_without_images_says_so(radtransfer, tmp_path):
    out = tmp_path / "sweep"
    outcome = radtransfer("freeze-sweep", "--backbone", "cbr_tiny", "--weights", "imagenet", "--out", out)
    assert outcome.code == 2 and not out.exists()
    assert "No images given for freeze-sweep. Pass --data" in outcome.err


def test_missing_weights_are_told_before_anything_runs(radtransfer, study_file, tmp_path):
    options = ("--runs", tmp_path / "store", "--out", tmp_path / "out", "--set", "arms.transfer.model.weights=gone.h5")
    outcome = radtransfer("study", study_file, *options)
    assert outcome.code == 4
    assert "transfer, seed 0: no weights at gone.h5" in outcome.err
    assert not (tmp_path / "store").exists()
