import csv
import json
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

from radtransfer.runs.folder import read_rows


def rows(text):
    return list(csv.DictReader(text.splitlines()))


@pytest.fixture(scope="module")
def exports(radtransfer, finished_run, tmp_path_factory):
    """The first fold as a Keras file and as a SavedModel, both with an operating point."""
    folder = tmp_path_factory.mktemp("exports")
    for kind, name in (("keras", "m.keras"), ("savedmodel", "saved")):
        arguments = ("--fold", 1, "--format", kind, "--out", folder / name, "--operating-point", "sensitivity=0.9")
        assert radtransfer("export", finished_run.path, *arguments).code == 0
    return folder


def test_a_fold_predicts_what_it_predicted_when_it_was_trained(radtransfer, finished_run, tiny_images):
    outcome = radtransfer(
        "predict", finished_run.path / "fold_1", tiny_images / "images.csv", "--image-root", tiny_images / "images"
    )
    assert outcome.code == 0, outcome.err
    found = {row["path"]: row for row in rows(outcome.out)}
    assert len(found) == 48
    for line in read_rows(finished_run.path / "fold_1" / "predictions.csv"):
        row = found[line["path"]]
        for name in ("p_well", "p_sick"):
            assert float(row[name]) == pytest.approx(float(line[name]), abs=1e-6)
        assert row["predicted"] == ("sick" if float(row["p_sick"]) > float(row["p_well"]) else "well")


def test_a_run_predicts_the_mean_of_its_folds(radtransfer, finished_run, tiny_images):
    folder = tiny_images / "images"
    whole, *each = (
        rows(radtransfer("predict", model, folder, *options).out)
        for model, options in (
            (finished_run.path, ()),
            (finished_run.path, ("--fold", 1)),
            (finished_run.path / "fold_2", ()),
        )
    )
    assert len(whole) == 48
    assert [row["path"] for row in whole] == [row["path"] for row in each[0]]
    for mean, one, two in zip(whole, *each, strict=True):
        assert float(mean["p_sick"]) == pytest.approx((float(one["p_sick"]) + float(two["p_sick"])) / 2, abs=1e-7)


@pytest.mark.parametrize("name", ["m.keras", "saved"])
def test_an_export_predicts_the_same_with_its_classes_and_its_operating_point(
    radtransfer, finished_run, exports, tiny_images, name
):
    folder = tiny_images / "images"
    outcome = radtransfer("predict", exports / name, folder)
    assert outcome.code == 0, outcome.err
    run = radtransfer("predict", finished_run.path / "fold_1", folder, "--operating-point", "sensitivity=0.9")
    assert run.code == 0, run.err
    assert list(rows(outcome.out)[0]) == ["path", "predicted", "positive", "p_sick", "p_well"]
    for mine, its in zip(rows(outcome.out), rows(run.out), strict=True):
        assert (mine["path"], mine["predicted"], mine["positive"]) == (its["path"], its["predicted"], its["positive"])
        assert mine["predicted"] == ("well" if mine["positive"] == "1" else "sick")
        assert float(mine["p_sick"]) == pytest.approx(float(its["p_sick"]), abs=1e-6)


def test_another_operating_point_of_an_export_is_refused(radtransfer, exports, tiny_images):
    outcome = radtransfer("predict", exports / "saved", tiny_images / "images", "--operating-point", "youden")
    assert (outcome.code, outcome.out) == (2, "")
    assert "was exported with sensitivity=0.9" in outcome.err


def test_calibration_takes_the_temperature_that_an_export_carries(radtransfer, exports, tiny_images, tmp_path):
    with zipfile.ZipFile(exports / "m.keras") as old, zipfile.ZipFile(tmp_path / "m.keras", "w") as new:
        for name in old.namelist():
            text = old.read(name)
            if name == "radtransfer.json":
                text = json.dumps(json.loads(text) | {"temperature": 20.0})
            new.writestr(name, text)
    arguments = ("predict", tmp_path / "m.keras", tiny_images / "images", "--format", "jsonl")
    outcomes = [radtransfer(*arguments), radtransfer(*arguments, "--calibration", "temperature")]
    plain, scaled = ([json.loads(line) for line in outcome.out.splitlines()] for outcome in outcomes)
    assert len(plain) == 48
    assert [row["predicted"] for row in plain] == [row["predicted"] for row in scaled]
    surest = [max(abs(row["probabilities"]["sick"] - 0.5) for row in found) for found in (plain, scaled)]
    assert surest[1] < surest[0]
    note = "temperature 20 is an end of the range ("
    assert note not in outcomes[0].err and note in outcomes[1].err


def test_the_file_is_whole_and_says_its_format_by_its_name(radtransfer, finished_run, tiny_images, tmp_path):
    out = tmp_path / "deep" / "p.jsonl"
    arguments = ("predict", finished_run.path / "fold_1", tiny_images / "images", "--out", out)
    outcome = radtransfer(*arguments)
    assert (outcome.code, outcome.out) == (0, "")
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(lines) == 48
    assert set(lines[0]) == {"path", "predicted", "probabilities"}
    assert sum(lines[0]["probabilities"].values()) == pytest.approx(1)
    outcome = radtransfer(*arguments)
    assert outcome.code == 2
    assert "--overwrite" in outcome.err
    assert radtransfer(*arguments, "--overwrite").code == 0
    assert [item.name for item in out.parent.iterdir()] == ["p.jsonl"]


def test_nothing_is_left_of_a_file_that_was_interrupted(radtransfer, finished_run, tiny_images, tmp_path, monkeypatch):
    from radtransfer.evaluation import predictions as predict

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(predict, "predicted_names", stop)
    outcome = radtransfer("predict", finished_run.path / "fold_1", tiny_images / "images", "--out", tmp_path / "p.csv")
    assert outcome.code == 130
    assert list(tmp_path.iterdir()) == []


def test_unreadable_images_are_listed_and_the_others_predicted(radtransfer, finished_run, tiny_images, tmp_path):
    shutil.copytree(tiny_images / "images" / "sick", tmp_path / "images")
    first, second, *others = sorted((tmp_path / "images").iterdir())
    first.write_bytes(first.read_bytes()[:70])
    second.write_bytes(b"")
    arguments = ("predict", finished_run.path / "fold_1", tmp_path / "images")
    outcome = radtransfer(*arguments)
    assert outcome.code == 3
    assert [row["path"] for row in rows(outcome.out)] == [str(path) for path in others]
    for path in (first, second):
        assert f"unreadable: {path}: " in outcome.err
    assert "2 of 24 images cannot be read" in outcome.err
    outcome = radtransfer(*arguments, "--on-bad-image", "skip")
    assert outcome.code == 0
    assert "2 of 24 images cannot be read and are left out" in outcome.err


def test_where_no_image_can_be_read_skipping_does_not_help(radtransfer, finished_run, tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    outcome = radtransfer("predict", finished_run.path, tmp_path, "--on-bad-image", "skip")
    assert outcome.code == 3
    assert "1 of 1 images" in outcome.err


def test_more_images_than_are_looked_at_together(radtransfer, finished_run, tiny_images, monkeypatch):
    from radtransfer.evaluation import predictions as image_stream

    folder = tiny_images / "images"
    whole = radtransfer("predict", finished_run.path / "fold_1", folder).out
    monkeypatch.setattr(image_stream, "_CHUNK", 7)
    parts = radtransfer("predict", finished_run.path / "fold_1", folder, "--batch-size", 3).out
    for mine, its in zip(rows(parts), rows(whole), strict=True):
        assert (mine["path"], mine["predicted"]) == (its["path"], its["predicted"])
        assert float(mine["p_sick"]) == pytest.approx(float(its["p_sick"]), abs=1e-6)


def test_dicom_and_16_bits_are_read_as_in_training(radtransfer, finished_run, tiny_images, tmp_path):
    pytest.importorskip("pydicom")
    from dicom_files import write

    grey = np.asarray(Image.open(sorted((tiny_images / "images" / "sick").iterdir())[0]))
    Image.fromarray(grey).save(tmp_path / "a.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "b.png")
    write(tmp_path / "c.dcm", grey)
    outcome = radtransfer("predict", finished_run.path / "fold_1", tmp_path)
    assert outcome.code == 0, outcome.err
    first, *others = (float(row["p_sick"]) for row in rows(outcome.out))
    assert others == pytest.approx([first, first], abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (("--fold", 9), 2, "fold 9 is not finished. Finished folds: 1, 2"),
        (("--operating-point", "best"), 2, "sensitivity=X"),
        (("--batch-size", 0), 2, "batch-size"),
        (("--format", "xml"), 2, "csv"),
    ],
)
def test_wrong_options_are_one_message(radtransfer, finished_run, tiny_images, arguments, code, word):
    outcome = radtransfer("predict", finished_run.path, tiny_images / "images", *arguments)
    assert (outcome.code, outcome.out) == (code, "")
    assert word in outcome.err
    assert "Traceback" not in outcome.err


def test_what_is_no_model_exits_with_4(radtransfer, tiny_images, tmp_path):
    (tmp_path / "m.keras").write_bytes(b"no archive")
    (tmp_path / "m.h5").write_bytes(b"no archive")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"nothing")
    for name, word in (
        ("none", "No model at"),
        ("m.keras", "cannot be loaded"),
        ("m.h5", "not a .keras"),
        ("saved", "SavedModel"),
    ):
        outcome = radtransfer("predict", tmp_path / name, tiny_images / "images")
        assert (outcome.code, outcome.out) == (4, ""), name
        assert word in outcome.err or "not a model that Keras can load" in outcome.err


def test_a_keras_file_of_others_has_numbers_for_classes(radtransfer, finished_run, tiny_images, tmp_path):
    shutil.copy(finished_run.path / "fold_1" / "model.keras", tmp_path / "m.keras")
    outcome = radtransfer("predict", tmp_path / "m.keras", tiny_images / "images")
    assert outcome.code == 0, outcome.err
    assert list(rows(outcome.out)[0]) == ["path", "predicted", "p_0", "p_1"]
    assert "does not say what its classes are" in outcome.err


def test_dangling_links_and_formats_that_are_not_read_are_listed_with_exit_code_3(
    radtransfer, finished_run, tiny_images, tmp_path
):
    shutil.copy(next((tiny_images / "images").rglob("*.png")), tmp_path / "good.png")
    (tmp_path / "annexed.png").symlink_to("../.git/annex/objects/1.png")
    (tmp_path / "phone.jpg").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(90))
    (tmp_path / "volume.nii.gz").write_bytes(b"\x1f\x8b\x08" + bytes(90))
    outcome = radtransfer("predict", finished_run.path, tmp_path)
    assert outcome.code == 3
    assert [row["path"] for row in rows(outcome.out)] == [str(tmp_path / "good.png")]
    assert "annexed.png: a dangling link" in outcome.err and "datalad get" in outcome.err
    assert "phone.jpg: HEIC, which is not read; save it as PNG or JPEG" in outcome.err
    assert "volume.nii.gz: NIfTI, which is not read; write its slices as PNG" in outcome.err
    assert "3 of 4 images cannot be read" in outcome.err
    assert radtransfer("predict", finished_run.path, tmp_path, "--on-bad-image", "skip").code == 0
