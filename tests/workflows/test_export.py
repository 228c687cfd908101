import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import yaml

from radtransfer.exports.formats import EXPORT_FORMATS

FORMATS = [
    ("keras", "m.keras"),
    ("savedmodel", "m"),
    pytest.param("tflite", "m.tflite", marks=pytest.mark.slow),
    pytest.param("onnx", "m.onnx", marks=pytest.mark.slow),
    ("weights", "m.weights.h5"),
]


def check_needs(name):
    for package in EXPORT_FORMATS[name].needs:
        pytest.importorskip(package)


@pytest.mark.parametrize(("name", "made"), FORMATS)
def test_an_export_is_reloaded_elsewhere_and_compared_on_real_images(radtransfer, finished_run, tmp_path, name, made):
    check_needs(name)
    arguments = ("export", finished_run.path, "--fold", 1, "--format", name, "--out", tmp_path / "m", "--json")
    outcome = radtransfer(*arguments)
    assert outcome.code == 0, outcome.err
    (exported,) = json.loads(outcome.out)
    assert exported["path"] == str(tmp_path / made)
    assert exported["images"] == 8
    assert exported["difference"] <= 1e-5
    assert (exported["bytes_difference"] is not None) == (name == "savedmodel")
    assert sorted(item.name for item in tmp_path.iterdir()) == sorted([made, f"{made}.card.md"])
    metadata = EXPORT_FORMATS[name].read_metadata(tmp_path / made)
    assert metadata["classes"] == ["sick", "well"]
    assert metadata["input"]["shape"] == [None, 24, 24, 3]
    assert metadata["provenance"]["run"] == "finished"
    assert str(finished_run.path.parent) not in json.dumps(metadata)
    card = (tmp_path / f"{made}.card.md").read_text()
    assert "not a medical device" in card
    assert f"differs from the run's model by at most {exported['difference']:.2g}" in " ".join(card.split())


def test_what_is_inside_and_what_is_left_to_do_is_printed(radtransfer, finished_run, tmp_path):
    outcome = radtransfer("export", finished_run.path / "fold_1", "--format", "savedmodel", "--out", tmp_path / "m")
    assert outcome.code == 0, outcome.err
    assert "inside    input scale torch" in outcome.out
    assert "resize it to 24×24" in outcome.out
    assert "serve_bytes does all of it" in outcome.out
    assert (tmp_path / "m" / "assets.extra" / "labels.txt").read_text() == "sick\nwell\n"


def test_a_saved_model_takes_files_of_any_size(radtransfer, finished_run, tiny_images, tmp_path):
    import tensorflow as tf

    outcome = radtransfer("export", finished_run.path / "fold_1", "--format", "savedmodel", "--out", tmp_path / "m")
    assert outcome.code == 0, outcome.err
    model = tf.saved_model.load(str(tmp_path / "m"))
    small = sorted((tiny_images / "images").rglob("*.png"))[0].read_bytes()
    large = tf.io.encode_jpeg(np.zeros((300, 211, 3), np.uint8)).numpy()
    found = model.signatures["serve_bytes"](image_bytes=tf.constant([small, large]))
    (probabilities,) = found.values()
    assert probabilities.shape == (2, 2)
    np.testing.assert_allclose(tf.reduce_sum(probabilities, axis=1), 1, atol=1e-6)


def test_a_run_that_cuts_to_the_retina_has_no_signature_for_files(radtransfer, finished_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished_run.path, run)
    settings = yaml.safe_load((run / "config.yaml").read_text())
    settings["images"]["fundus_crop"] = True
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    outcome = radtransfer("export", run / "fold_1", "--format", "savedmodel", "--out", tmp_path / "m", "--json")
    assert outcome.code == 0, outcome.err
    (exported,) = json.loads(outcome.out)
    assert exported["bytes_difference"] is None
    assert "crop it to the disc of the retina" in exported["caller"]


def test_without_the_images_drawn_ones_are_compared(radtransfer, finished_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished_run.path, run)
    settings = yaml.safe_load((run / "config.yaml").read_text())
    settings["data"]["source"] = str(tmp_path / "gone.csv")
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    outcome = radtransfer("export", run / "fold_1", "--format", "savedmodel", "--out", tmp_path / "m", "--json")
    assert outcome.code == 0, outcome.err
    (exported,) = json.loads(outcome.out)
    assert exported["images"] == 0
    assert exported["bytes_difference"] <= 1e-5


def test_all_folds_are_exported_into_a_folder(radtransfer, finished_run, tmp_path):
    outcome = radtransfer("export", finished_run.path, "--fold", "all", "--format", "keras", "--out", tmp_path / "all")
    assert outcome.code == 0, outcome.err
    names = {item.name for item in (tmp_path / "all").iterdir()}
    assert names == {f"fold_{k}.keras{end}" for k in (1, 2) for end in ("", ".card.md")}
    assert outcome.out.count("largest difference") == 2


def test_the_fold_must_be_named_where_there_are_several(radtransfer, finished_run, tmp_path):
    outcome = radtransfer("export", finished_run.path, "--format", "keras", "--out", tmp_path / "m.keras")
    assert outcome.code == 2
    assert "Finished folds: 1, 2" in outcome.err


@pytest.mark.parametrize("taken", ["m.keras", "m.keras.card.md"])
def test_nothing_is_overwritten(radtransfer, finished_run, tmp_path, taken):
    (tmp_path / taken).write_text("mine")
    arguments = ("export", finished_run.path / "fold_1", "--format", "keras", "--out", tmp_path / "m.keras")
    outcome = radtransfer(*arguments)
    assert outcome.code == 2
    assert "exists; nothing was written" in outcome.err
    assert [item.name for item in tmp_path.iterdir()] == [taken]
    assert (tmp_path / taken).read_text() == "mine"


def test_an_export_that_predicts_otherwise_is_refused_and_leaves_nothing(
    radtransfer, finished_run, tmp_path, monkeypatch
):
    from radtransfer.exports import formats as keras_archive

    def write_other_weights(exported, path):
        model = exported.model
        model.set_weights([weight + np.float32(0.01) for weight in model.get_weights()])
        model.save(path)

    wrong = type(keras_archive.KERAS)(
        ".keras", write_other_weights, keras_archive.KERAS.read_metadata, keras_archive.KERAS.read, ""
    )
    monkeypatch.setattr(keras_archive, "KERAS", wrong)
    out = tmp_path / "new" / "folder" / "m.keras"
    outcome = radtransfer("export", finished_run.path / "fold_1", "--format", "keras", "--out", out)
    assert outcome.code == 7
    assert "Expected the reloaded export to predict the same" in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_a_converter_that_fails_is_told_in_one_line(tmp_path):
    from radtransfer.errors import ExportError
    from radtransfer.exports.formats import run_python

    with pytest.raises(ExportError, match="It failed: ValueError: no such thing. Nothing was written"):
        run_python("raise ValueError('no such thing')", [], failure="It failed")


def test_a_package_that_is_missing_is_named(radtransfer, finished_run, tmp_path, monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    outcome = radtransfer("export", finished_run.path / "fold_1", "--format", "onnx", "--out", tmp_path / "m")
    assert outcome.code == 2
    assert "radtransfer[export]" in outcome.err


def test_a_keras_export_opens_in_safe_mode_where_this_package_is_not_imported(radtransfer, finished_run, tmp_path):
    outcome = radtransfer("export", finished_run.path / "fold_2", "--format", "keras", "--out", tmp_path / "m")
    assert outcome.code == 0, outcome.err
    code = (
        "import sys, keras; keras.models.load_model(sys.argv[1], safe_mode=True); print('radtransfer' in sys.modules)"
    )
    process = subprocess.run([sys.executable, "-P", "-c", code, tmp_path / "m.keras"], capture_output=True, text=True)
    assert process.stdout.strip() == "False", process.stderr


def test_what_is_no_run_is_named(radtransfer, tmp_path):
    outcome = radtransfer("export", tmp_path, "--format", "keras", "--out", tmp_path / "m.keras")
    assert outcome.code == 2
    assert "expected a run.json" in outcome.err
