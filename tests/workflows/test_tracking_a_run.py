"""Trackers on whole runs and studies, with TensorBoard itself."""

import json

import pytest

from radtransfer.training.trackers import TRACKERS

pytest.importorskip("tensorboard")


def steps(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(run / "trackers" / "tensorboard"))
    reader.Reload()
    return [event.step for event in reader.Tensors("val_auc/fold_1")]


def test_a_tracked_run_gives_the_same_numbers(radtransfer, table_options, finished_run, tmp_path):
    out = tmp_path / "run"
    run = ("finetune", *table_options, "--folds", 2, "--epochs", 2, "--out", out, "--track", "tensorboard")
    outcome = radtransfer(*run)
    assert outcome.code == 0, outcome.err
    assert f"tensorboard: tensorboard --logdir {out / 'trackers' / 'tensorboard'}" in outcome.err
    assert len(steps(out)) == 2
    for name in ("predictions.csv", "metrics.json", "fold_2/history.csv"):
        assert (out / name).read_bytes() == (finished_run.path / name).read_bytes()
    # Asking for other trackers, or none, is no other run.
    assert radtransfer(*run[:-2], "--resume").code == 0
    outcome = radtransfer(*run[:-2], "--overwrite")
    assert outcome.code == 0, outcome.err
    assert not (out / "trackers").exists()


def test_a_stopped_run_loses_no_point(table_options, radtransfer, tmp_path):
    from radtransfer.config.load import load_config
    from radtransfer.process import Progress
    from radtransfer.training.run import finetune

    class Stop(Progress):
        def epoch(self, fold, folds, epochs, row):
            if row["epoch"] == 2:
                raise KeyboardInterrupt

    out = tmp_path / "run"
    options = ("--folds", 2, "--fold", 1, "--epochs", 3, "--track", "tensorboard", "--out", out)
    names = ("data.source", "data.image_root", "model.backbone", "model.image_size", "training.batch_size")
    values = [str(item) for item in table_options[1::2]]
    settings = dict(zip((*names, "training.learning_rate"), values, strict=True))
    sets = [f"{name}={value}" for name, value in settings.items()]
    sets += ["splits.folds=2", "splits.fold=1", "training.epochs=3", "track=tensorboard", f"out={out}"]
    with pytest.raises(KeyboardInterrupt):
        finetune(load_config(sets=tuple(sets)), progress=Stop())
    outcome = radtransfer("finetune", *table_options, *options, "--resume")
    assert outcome.code == 0, outcome.err
    found = steps(out)
    assert found == sorted(set(found)) and len(found) == 3


def test_each_run_of_a_study_is_a_run_of_the_tracker(radtransfer, tiny_images, tmp_path):
    study = tmp_path / "study.yaml"
    study.write_text(
        "base: {model.backbone: cbr_tiny, model.image_size: 24, training.epochs: 1, splits.folds: 1}\n"
        "arms: {scratch: {}}\ngrid: {seed: [0, 1]}\n",
        encoding="utf-8",
    )
    store = tmp_path / "store"
    command = ("study", study, "--data", tiny_images / "images.csv", "--image-root", tiny_images / "images")
    command += ("--out", tmp_path / "out", "--runs", store, "--jobs", 0)
    outcome = radtransfer(*command, "--track", "tensorboard")
    assert outcome.code == 0, outcome.err
    runs = [path.parent for path in store.glob("*/run.json")]
    assert len(runs) == 2 and all(len(steps(run)) == 1 for run in runs)
    outcome = radtransfer(*command, "--dry-run", "--json")  # untracked, the runs are the same
    assert json.loads(outcome.out)["done"] == 2


def test_a_missing_package_stops_before_anything_is_read(radtransfer, table_options, tmp_path, monkeypatch):
    monkeypatch.setattr(TRACKERS["wandb"], "package", "no_such_package")
    outcome = radtransfer("finetune", *table_options, "--track", "wandb", "--out", tmp_path / "run")
    assert outcome.code == 2
    assert "--track wandb: not installed. Run: pip install 'radtransfer[track]'" in outcome.err
    assert not (tmp_path / "run" / "run.json").exists()
    outcome = radtransfer("finetune", *table_options, "--track", "tensorbord", "--out", tmp_path / "run")
    assert outcome.code == 2 and "Did you mean 'tensorboard'?" in outcome.err
