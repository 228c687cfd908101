import csv
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from radtransfer.config.schema import DataSettings
from radtransfer.data.readers import read_table
from radtransfer.data.run_data import data_changes, images_digest
from radtransfer.runs.folder import write_json, write_rows


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A run folder, and the settings of its data: four images."""
    monkeypatch.setenv("RADTRANSFER_CACHE", str(tmp_path / "cache"))
    rows = [[f"{i}.png", ("well", "sick")[i % 2], f"p{i}"] for i in range(4)]
    for i, row in enumerate(rows):
        Image.fromarray(np.full((8, 8), 10 * i, np.uint8)).save(tmp_path / row[0])
    write_rows(tmp_path / "images.csv", ("path", "label", "patient"), rows)
    run = tmp_path / "run"
    run.mkdir()
    write_rows(run / "folds.csv", ("path", "label", "patient", "fold", "split"), [[*row, 1, "test"] for row in rows])
    settings = DataSettings(source=str(tmp_path / "images.csv"))
    write_json(run / "run.json", {"images_sha256": images_digest(read_table(settings).files, workers=1)})
    return run, settings


def rewrite(settings, change):
    table = Path(settings.source)
    header, *rows = csv.reader(table.read_text().splitlines())
    write_rows(table, header, change(rows))


def test_the_same_data_has_not_changed(made):
    assert data_changes(*made) == []


def test_a_copy_and_other_times_are_no_change(made, tmp_path):
    run, settings = made
    shutil.copytree(tmp_path, tmp_path.parent / f"{tmp_path.name} copy")
    copied = DataSettings(source=str(tmp_path.parent / f"{tmp_path.name} copy" / "images.csv"))
    os.utime(tmp_path / "1.png", (1, 1))
    assert data_changes(run, settings) == data_changes(run, copied) == []


def test_another_label_and_patient_are_told(made):
    run, settings = made
    rewrite(settings, lambda rows: [["0.png", "sick", "p9"], *rows[1:]])
    label, patient = data_changes(run, settings)
    assert "the label of 1 images, such as '0.png': 'well', now 'sick'" in label
    assert "the patient of 1 images, such as '0.png': 'p0', now 'p9'" in patient


def test_an_image_that_left_the_table_is_told(made):
    run, settings = made
    rewrite(settings, lambda rows: rows[1:])
    assert "1 of its images are not in the table any more, such as '0.png'" in data_changes(run, settings)[0]


def test_new_images_are_no_change(made, tmp_path):
    run, settings = made
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "9.png")
    rewrite(settings, lambda rows: [*rows, ["9.png", "well", "p9"]])
    assert data_changes(run, settings) == []


def test_other_pixels_in_a_file_of_one_size_are_told(made, tmp_path):
    run, settings = made
    (tmp_path / "2.png").write_bytes((tmp_path / "2.png").read_bytes()[:-1] + b"x")
    assert "image files have other contents" in data_changes(run, settings)[0]


def test_nothing_is_said_of_data_that_is_gone(made, tmp_path):
    run, settings = made
    (tmp_path / "images.csv").unlink()
    assert data_changes(run, settings) == []


def test_files_that_have_not_changed_are_read_once(made, monkeypatch):
    run, settings = made
    from radtransfer.data import run_data as module

    monkeypatch.setattr(module, "_digest", lambda file: pytest.fail("read again"))
    assert data_changes(run, settings) == []
