"""A whole run on DICOM images."""

import csv
import json

import numpy as np
import pytest
from dicom_files import write

TINY = ("--backbone", "cbr_tiny", "--image-size", 32, "--batch-size", 8, "--epochs", 1, "--folds", 2)


def chest(number, *, sick):
    """A chest-like picture of 12 bits: bright at the sides and in the middle, dark lungs, a shadow in the sick."""
    rng = np.random.default_rng(number)
    rows, columns = np.mgrid[:48, :40] / [[[48]], [[40]]]
    lungs = sum(np.exp(-(((columns - side) / 0.12) ** 2) - ((rows - 0.5) / 0.3) ** 2) for side in (0.3, 0.7))
    picture = 3000 - 2200 * lungs + rng.normal(0, 60, lungs.shape)
    if sick:
        picture[26:34, 8:16] += 1200
    return np.clip(picture, 0, 4095).astype("uint16")


@pytest.fixture(scope="module")
def chests(tmp_path_factory):
    """24 films of 12 patients, half of them MONOCHROME1, some without suffix, one of two frames."""
    folder = tmp_path_factory.mktemp("chests")
    for number in range(24):
        sick = bool(number // 2 % 2)
        pixels, options = chest(number, sick=sick), {"BitsStored": 12, "PatientID": f"p{number // 2:02d}"}
        if number % 3 == 0:
            pixels, options["PhotometricInterpretation"] = 4095 - pixels, "MONOCHROME1"
        if number % 4 == 0:
            options |= {"WindowCenter": 2048, "WindowWidth": 4096}
        if number == 23:
            pixels, options["NumberOfFrames"] = np.stack([pixels, chest(99, sick=sick)]), 2
        file = folder / ("sick" if sick else "well") / (f"{number}.dcm" if number % 5 else f"IM-{number:04d}")
        file.parent.mkdir(exist_ok=True)
        write(file, pixels, **options)
    return folder


def test_headers_that_the_pixels_deny_are_counted(tmp_path, radtransfer):
    for number in range(8):
        options = {"BitsStored": 12, "HighBit": 15 if number < 3 else 11}
        for name in ("a", "b"):
            file = tmp_path / "data" / name / f"{number}.dcm"
            file.parent.mkdir(parents=True, exist_ok=True)
            write(file, chest(number, sick=name == "a"), patient=f"{name}{number}", **options)
    outcome = radtransfer("data", "check", tmp_path / "data", "--json")
    (finding,) = [found for found in json.loads(outcome.out)["findings"] if found["kind"] == "header"]
    assert finding["severity"] == "warning"
    assert finding["message"].startswith("header and pixels of 6 images contradict each other: HighBit in the header")
    assert len(finding["files"]) == 6
    run = ("finetune", "--data", tmp_path / "data", *TINY, "--fold", 1, "--out", tmp_path / "run")
    outcome = radtransfer(*run)
    assert outcome.code == 0, outcome.err
    assert "header and pixels contradict each other in 6 of 16 images" in outcome.out + outcome.err


def test_headers_of_which_nothing_is_certain_stop_a_run_by_name(tmp_path, radtransfer):
    for number in range(8):
        file = tmp_path / "data" / "ab"[number % 2] / f"{number}.dcm"
        file.parent.mkdir(parents=True, exist_ok=True)
        write(file, chest(number, sick=True) * 3, BitsStored=12)
    outcome = radtransfer("finetune", "--data", tmp_path / "data", *TINY, "--out", tmp_path / "run")
    assert outcome.code == 3
    assert "its header says BitsStored 12 and HighBit 11" in outcome.err
    assert "Traceback" not in outcome.err


def folds_of(run):
    with (run / "folds.csv").open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def test_a_folder_of_dicom_files_trains_by_the_patients_of_their_headers(chests, radtransfer, tmp_path):
    outcome = radtransfer("finetune", "--data", chests, *TINY, "--cache", "ram", "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    assert "12 patients from the headers of 24 DICOM files" in outcome.out + outcome.err
    rows = folds_of(tmp_path / "run")
    assert {row["patient"] for row in rows} == {f"p{number:02d}" for number in range(12)}
    for fold in ("1", "2"):
        split_of = {}
        for row in rows:
            if row["fold"] == fold:
                split_of.setdefault(row["patient"], set()).add(row["split"])
        assert all(len(splits) == 1 for splits in split_of.values())


def test_all_frames_and_a_window_of_ones_own(chests, radtransfer, tmp_path):
    options = ("--frames", "all", "--window", "2000,3000", "--out", tmp_path / "run")
    outcome = radtransfer("finetune", "--data", chests, *TINY, *options)
    assert outcome.code == 0, outcome.err
    paths = {row["path"] for row in folds_of(tmp_path / "run")}
    assert {"sick/23.dcm#1", "sick/23.dcm#2"} <= paths
    assert len(paths) == 25


def test_a_damaged_file_is_named_before_training(chests, radtransfer, tmp_path):
    broken = tmp_path / "data"
    for file in chests.rglob("*"):
        if file.is_file():
            copy = broken / file.relative_to(chests)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
    (broken / "sick" / "3.dcm").write_bytes((broken / "sick" / "3.dcm").read_bytes()[:-100])
    outcome = radtransfer("finetune", "--data", broken, *TINY, "--out", tmp_path / "run")
    assert outcome.code == 3
    assert "'sick/3.dcm' (truncated: its pixel data is incomplete)" in outcome.err
    assert "Traceback" not in outcome.err
