"""The built-in set says that it is synthetic, is the same for the same seed, and grades by its lesions."""

import hashlib
import os
import sys

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict

from radtransfer.config.schema import DataSettings
from radtransfer.data.readers import read_table
from radtransfer.data.synthetic import (
    LESIONS_OF_GRADE,
    Options,
    cache_folder,
    fundus_image,
    parse_options,
    patient_appearance,
    read,
)
from radtransfer.errors import ConfigError, DiskError

SMALL = "images=20,size=32"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RADTRANSFER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def digests(table):
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in table.files]


def pixels(table):
    return np.stack([np.asarray(Image.open(file)) for file in table.files])


def test_it_gives_graded_images_with_two_eyes_per_patient():
    table = read(DataSettings(), SMALL)
    assert len(table) == 20
    assert table.classes == ("0", "1", "2", "3", "4")
    assert (table.task, table.splits) == ("multiclass", None)
    assert table.targets.dtype == np.float32
    assert table.targets.sum(axis=1).tolist() == [1] * 20
    assert [table.patients.count(patient) for patient in table.patients] == [2] * 20
    assert pixels(table).shape == (20, 32, 32, 3)


def test_it_is_in_the_table_of_datasets():
    table = read_table(DataSettings(source=f"synthetic_fundus:{SMALL}", positive_from=2))
    assert len(table) == 20


def test_it_says_that_it_is_synthetic():
    table = read(DataSettings(), SMALL)
    assert any("synthetic" in note for note in table.notes)
    assert "SYNTHETIC" in (table.files[0].parent / "README.txt").read_text()


def test_the_folder_can_be_read_as_a_csv():
    table = read(DataSettings(), SMALL)
    again = read_table(DataSettings(source=str(table.files[0].parent / "images.csv")))
    assert (again.paths, again.labels, again.patients) == (table.paths, table.labels, table.patients)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path, monkeypatch):
    first = digests(read(DataSettings(), SMALL))
    monkeypatch.setenv("RADTRANSFER_CACHE", str(tmp_path / "elsewhere"))
    assert digests(read(DataSettings(), SMALL)) == first
    assert set(digests(read(DataSettings(), f"{SMALL},seed=1"))).isdisjoint(first)


def test_more_images_add_patients_and_change_none():
    few, more = read(DataSettings(), SMALL), read(DataSettings(), "images=30,size=32")
    assert more.labels[:20] == few.labels
    assert digests(more)[:20] == digests(few)


def test_every_grade_occurs_even_among_ten_images():
    for seed in range(5):
        assert set(read(DataSettings(), f"images=10,size=32,seed={seed}").labels) == set("01234")


def test_the_images_are_drawn_once(cache):
    table = read(DataSettings(), SMALL)
    drawn = table.files[3].stat().st_mtime_ns
    table.files[4].unlink()
    again = read(DataSettings(), SMALL)
    assert again.files[3].stat().st_mtime_ns == drawn
    assert again.files[4] is None


def test_a_drawing_that_is_cut_short_leaves_nothing_to_be_read(cache, monkeypatch):
    def no_space(*arguments, **keywords):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", no_space)
        with pytest.raises(DiskError, match=r"No space left.*RADTRANSFER_CACHE"):
            read(DataSettings(), SMALL)
    assert list((cache / "synthetic_fundus").iterdir()) == []
    assert len(read(DataSettings(), SMALL)) == 20


def test_a_set_that_another_process_finished_first_is_kept(cache, monkeypatch):
    table = read(DataSettings(), SMALL)
    folder = table.files[0].parent
    is_dir, asked = type(folder).is_dir, []

    def not_yet(path, *arguments, **keywords):
        asked.append(path)
        return len(asked) > 1 and is_dir(path, *arguments, **keywords)

    before = digests(table)
    monkeypatch.setattr(type(folder), "is_dir", not_yet)
    assert digests(read(DataSettings(), SMALL)) == before
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        (None, Options()),
        ("", Options()),
        ("size=96", Options(size=96)),
        (" images=20 , seed=7 ", Options(images=20, seed=7)),
    ],
)
def test_options_left_out_have_defaults(location, expected):
    assert parse_options(location) == expected


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("image=20", "Did you mean 'images'"),
        ("images", "images must be an integer from 10"),
        ("images=9", "got '9'"),
        ("size=many", "size must be an integer from 32 to 1024, got 'many'"),
        ("seed=-1", "seed must be an integer from 0"),
    ],
)
def test_an_option_that_does_not_fit_is_named(location, message):
    with pytest.raises(ConfigError, match=message):
        parse_options(location)


@pytest.mark.parametrize("name", ["image_root", "path_column", "patient_column", "patient_regex"])
def test_a_setting_it_would_have_to_ignore_is_refused(name):
    with pytest.raises(ConfigError, match=f"data.{name}"):
        read(DataSettings(**{name: "x"}), SMALL)


@pytest.mark.skipif(sys.platform == "win32", reason="the user's cache folder of Linux and macOS")
def test_the_cache_is_the_users_unless_named(monkeypatch):
    monkeypatch.delenv("RADTRANSFER_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", os.sep + "xdg")
    assert cache_folder().parts[1:] == ("xdg", "radtransfer")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", os.sep + "home")
    assert cache_folder().parts[1:] == ("home", ".cache", "radtransfer")


def lesions(grade, kind):
    """How many pixels a grade changes in the picture of one eye; its vessels and light stay as they are."""
    appearance = patient_appearance(np.random.default_rng(5))
    image = fundus_image(np.random.default_rng(kind), appearance, grade, 64).astype(int)
    healthy = fundus_image(np.random.default_rng(kind), appearance, 0, 64).astype(int)
    return np.count_nonzero(np.abs(image - healthy).max(axis=2) > 60)


def test_a_higher_grade_has_more_lesions():
    marked = [np.mean([lesions(grade, seed) for seed in range(8)]) for grade in range(len(LESIONS_OF_GRADE))]
    assert marked[0] == 0
    assert all(low < high for low, high in zip(marked, marked[1:], strict=False))


def test_the_corners_are_dark_and_the_centre_is_red():
    images = pixels(read(DataSettings(), SMALL)).astype(float)
    assert images[:, :2, :2].mean() < 10
    red, green, blue = images[:, 12:20, 12:20].mean(axis=(0, 1, 2))
    assert red > green > blue


def test_mean_colour_does_not_give_the_grade_away():
    table = read(DataSettings(), "images=300,size=32")
    colours = pixels(table).mean(axis=(1, 2)) / 255
    referable = table.targets[:, 2:].sum(axis=1) > 0
    model, folds = LogisticRegression(C=100, max_iter=5000), GroupKFold(5, shuffle=True, random_state=0)
    scores = cross_val_predict(model, colours, referable, groups=table.patients, cv=folds, method="decision_function")
    assert roc_auc_score(referable, scores) < 0.7
