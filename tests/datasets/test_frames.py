"""A row per frame."""

import numpy as np
import pytest
from dicom_files import blob, write
from PIL import Image

from radtransfer.config.schema import DataSettings, SplitSettings
from radtransfer.data.readers import read_table
from radtransfer.data.splits import assign_folds, find_leaks
from radtransfer.images.formats import decode_outside, inspect_image
from radtransfer.images.refs import FilePart


def cine(file, frames, **options):
    """A DICOM file of so many frames, frame k all of value 10 k, or a plain one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if frames == 1:
        return write(file, blob(), **options)
    pixels = np.stack([np.full((8, 8), 10 * (k + 1), "uint8") for k in range(frames)])
    return write(file, pixels, NumberOfFrames=frames, **options)


def pages(file, *sizes):
    """A TIFF or GIF with a page of each size, page k all of value 10 k."""
    file.parent.mkdir(parents=True, exist_ok=True)
    images = [Image.new("L", (size, size), 10 * (k + 1)) for k, size in enumerate(sizes)]
    images[0].save(file, save_all=True, append_images=images[1:])
    return file


@pytest.fixture
def data(tmp_path):
    cine(tmp_path / "a" / "1.dcm", 3, patient="p1")
    cine(tmp_path / "a" / "2.dcm", 1, patient="p2")
    cine(tmp_path / "b" / "3.dcm", 2, patient="p1")
    return tmp_path


def read(folder, **settings):
    return read_table(DataSettings(source=str(folder), **{"frames": "all", **settings}))


def test_each_frame_is_a_row_with_the_label_and_patient_of_its_file(data):
    table = read(data)
    assert table.paths == ("a/1.dcm#1", "a/1.dcm#2", "a/1.dcm#3", "a/2.dcm", "b/3.dcm#1", "b/3.dcm#2")
    assert table.patients == ("p1", "p1", "p1", "p2", "p1", "p1")
    assert table.labels == ("a", "a", "a", "a", "b", "b")
    assert table.files[2] == FilePart(data / "a" / "1.dcm", frame=2)
    assert table.files[3] == data / "a" / "2.dcm"
    assert "2 files with several frames give 5 images" in table.notes


def test_the_first_frame_stands_for_the_file_by_default(data):
    table = read(data, frames="first")
    assert table.paths == ("a/1.dcm", "a/2.dcm", "b/3.dcm")
    assert decode_outside(table.files[0], inspect_image(table.files[0]), "auto").max() == 10


def test_each_row_is_its_own_picture(data):
    table = read(data)
    values = [decode_outside(place, inspect_image(place), "auto").max() for place in table.files[:3]]
    assert values == [10, 20, 30]


@pytest.mark.parametrize("suffix", [".tif", ".TIFF", ".gif"])
def test_pages_and_animations_count_too(tmp_path, suffix):
    pages(tmp_path / "a" / f"1{suffix}", 8, 8, 8)
    pages(tmp_path / "b" / f"2{suffix}", 8)
    table = read(tmp_path)
    assert table.paths == (f"a/1{suffix}#1", f"a/1{suffix}#2", f"a/1{suffix}#3", f"b/2{suffix}")
    values = [decode_outside(place, inspect_image(place), "auto").max() for place in table.files]
    assert values == [10, 20, 30, 10]


def test_pages_may_differ_in_size(tmp_path):
    pages(tmp_path / "a" / "1.tif", 8, 12)
    pages(tmp_path / "b" / "2.tif", 8)
    assert [inspect_image(place).height for place in read(tmp_path).files] == [8, 12, 8]


def test_without_patients_the_file_is_the_patient_and_is_never_split(tmp_path):
    for number in range(8):
        cine(tmp_path / "ab"[number % 2] / f"{number}.dcm", 5, patient="")
    table = read(tmp_path)
    assert table.patients == tuple(path.partition("#")[0] for path in table.paths)
    assert any("frames of one file stay together" in note for note in table.notes)
    settings = SplitSettings(folds=3, val_fraction=0.3)
    for fold in assign_folds(table, settings, seed=0, allow_leakage=False):
        for patient in set(table.patients):
            of_file = np.array(table.patients) == patient
            assert len(set(fold.split[of_file])) == 1


def test_a_frame_in_train_and_another_in_test_is_a_leak(data):
    table = read(data)
    split = np.array(["train", "test", "test", "train", "train", "train"])
    found = find_leaks(table.select(np.arange(4)), [(1, split[:4])])
    assert any("1 image is in both train and test of fold 1" in phrase for phrase in found)


def test_given_splits_hold_for_all_frames(data):
    (data / "t.csv").write_text("path,label,split\na/1.dcm,x,train\na/2.dcm,y,train\nb/3.dcm,y,test\n")
    table = read(data / "t.csv")
    assert table.splits.tolist() == [["train", "train", "train", "train", "test", "test"]]


@pytest.mark.parametrize("frames", ["first", "all"])
@pytest.mark.parametrize("prefix", ["", "/elsewhere/"])
def test_a_table_may_name_frames_as_the_folds_of_a_run_do(data, frames, prefix):
    (data / "t.csv").write_text(f"path,label\n{prefix}a/1.dcm#3,x\n{prefix}a/1.dcm#1,x\n{prefix}a/2.dcm,y\n")
    table = read(data / "t.csv", frames=frames)
    first = data / "a" / "1.dcm"
    assert table.files == (FilePart(first, frame=2), FilePart(first, frame=0), data / "a" / "2.dcm")
    assert table.patients == ("p1", "p1", "p2")


def test_a_file_whose_name_ends_like_a_frame_is_itself(data):
    cine(data / "a" / "1.dcm#2", 1)
    (data / "t.csv").write_text("path,label\na/1.dcm#2,x\na/2.dcm,y\n")
    assert read(data / "t.csv").files[0] == data / "a" / "1.dcm#2"


def test_a_note_says_that_no_file_has_frames(tmp_path):
    cine(tmp_path / "a" / "1.dcm", 1)
    cine(tmp_path / "b" / "2.dcm", 1)
    table = read(tmp_path)
    assert table.paths == ("a/1.dcm", "b/2.dcm")
    assert "--frames all: no file has several frames" in table.notes


def test_files_that_cannot_be_read_stay_one_row(data):
    (data / "b" / "broken.dcm").write_bytes(b"x" * 500)
    (data / "b" / "broken.tif").write_bytes(b"II*\0" + b"x" * 500)
    assert read(data).paths[-2:] == ("b/broken.dcm", "b/broken.tif")


def test_a_file_that_was_cut_does_not_lose_its_frames_in_silence(tmp_path):
    pages(tmp_path / "b" / "2.tif", 8, 8)
    cut = pages(tmp_path / "a" / "1.tif", 8, 8, 8)
    cut.write_bytes(cut.read_bytes()[:-200])
    table = read(tmp_path)
    assert table.paths == ("a/1.tif", "b/2.tif#1", "b/2.tif#2")
    told = "cannot count the frames of 1 damaged files, such as a/1.tif; only the first of each is used"
    assert f"--frames all: {told}" in table.notes
