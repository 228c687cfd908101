import json

import numpy as np
import pytest


@pytest.mark.parametrize(("name", "made"), [("keras", "m.keras"), ("savedmodel", "m"), ("weights", "m.weights.h5")])
def test_an_export_is_reloaded_elsewhere_and_compared_on_real_images(radtransfer, finished_run, tmp_path, name, made):
    arguments = ("export", finished_run.path, "--fold", 1, "--format", name, "--out", tmp_path / "m", "--json")
    outcome = radtransfer(*arguments)
    assert outcome.code == 0, outcome.err
    (exported,) = json.loads(outcome.out)
    assert exported["path"] == str(tmp_path / made)
    assert (tmp_path / made).exists()
    assert exported["images"] == 8
    assert exported["difference"] <= 1e-5
    assert [item.name for item in tmp_path.iterdir()] == [made]


def test_all_folds_are_exported_into_a_folder(radtransfer, finished_run, tmp_path):
    outcome = radtransfer("export", finished_run.path, "--fold", "all", "--format", "keras", "--out", tmp_path / "all")
    assert outcome.code == 0, outcome.err
    assert {item.name for item in (tmp_path / "all").iterdir()} == {"fold_1.keras", "fold_2.keras"}
    assert outcome.out.count("largest difference") == 2


def test_the_fold_must_be_named_where_there_are_several(radtransfer, finished_run, tmp_path):
    outcome = radtransfer("export", finished_run.path, "--format", "keras", "--out", tmp_path / "m.keras")
    assert outcome.code == 2
    assert "Finished folds: 1, 2" in outcome.err


def test_nothing_is_overwritten(radtransfer, finished_run, tmp_path):
    (tmp_path / "m.keras").write_text("mine")
    arguments = ("export", finished_run.path / "fold_1", "--format", "keras", "--out", tmp_path / "m.keras")
    outcome = radtransfer(*arguments)
    assert outcome.code == 2
    assert "exists; nothing was written" in outcome.err
    assert (tmp_path / "m.keras").read_text() == "mine"


def test_an_export_that_predicts_otherwise_is_refused(radtransfer, finished_run, tmp_path, monkeypatch):
    from radtransfer.export_formats import keras_archive

    def write_other_weights(model, path):
        model.set_weights([weight + np.float32(0.01) for weight in model.get_weights()])
        model.save(path)

    wrong = type(keras_archive.KERAS)(".keras", write_other_weights, keras_archive.KERAS.read)
    monkeypatch.setattr(keras_archive, "KERAS", wrong)
    outcome = radtransfer("export", finished_run.path / "fold_1", "--format", "keras", "--out", tmp_path / "m.keras")
    assert outcome.code == 1
    assert "predicts differently" in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_run_is_named(radtransfer, tmp_path):
    outcome = radtransfer("export", tmp_path, "--format", "keras", "--out", tmp_path / "m.keras")
    assert outcome.code == 2
    assert "expected a run.json" in outcome.err
