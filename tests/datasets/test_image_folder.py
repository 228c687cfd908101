"""A folder with one sub-folder per class."""

import os

import pytest
from PIL import Image

from radtransfer.config.schema import DataSettings
from radtransfer.data.checks import survey_image
from radtransfer.data.readers import read_table
from radtransfer.errors import ConfigError, DataError, UnknownNameError


def make_images(root, *names):
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(file)


def read(root, **settings):
    return read_table(DataSettings(source=str(root), **settings))


def test_class_folders_are_the_sorted_classes_and_paths_are_relative_to_the_folder(tmp_path):
    make_images(tmp_path, "sick/b.png", "healthy/a (1).png", "sick/visit 2/c.jpg")
    table = read(tmp_path)
    assert table.classes == ("healthy", "sick")
    assert table.paths == ("healthy/a (1).png", "sick/b.png", "sick/visit 2/c.jpg")
    assert table.labels == ("healthy", "sick", "sick")
    assert all(file.is_file() for file in table.files)
    assert table.task == "multiclass" and table.splits is None and table.patients is None


def test_grades_as_folder_names_are_sorted_by_value(tmp_path):
    make_images(tmp_path, *(f"{grade}/a.png" for grade in (10, 9, 0)))
    assert read(tmp_path).classes == ("0", "9", "10")


def test_files_that_are_not_images_are_ignored_with_a_count(tmp_path):
    make_images(tmp_path, "a/1.png", "b/2.png", "loose.png")
    (tmp_path / "captions.csv").write_text("path\n")
    (tmp_path / "a" / "._1.png").write_bytes(b"mac")
    (tmp_path / "b" / "Thumbs.db").write_bytes(b"win")
    notes = read(tmp_path).notes
    assert "files that are not images, ignored: 3" in notes
    assert "images outside the class folders, ignored: 1, such as 'loose.png'" in notes


def test_split_folders_are_one_fixed_split(tmp_path):
    make_images(tmp_path, "train/a/1.png", "train/b/2.png", "valid/a/3.png", "Test/b/4.png", "docs/c/5.png")
    table = read(tmp_path)
    assert dict(zip(table.paths, table.splits[0].tolist(), strict=True)) == {
        "Test/b/4.png": "test",
        "train/a/1.png": "train",
        "train/b/2.png": "train",
        "valid/a/3.png": "val",
    }
    assert table.classes == ("a", "b")
    assert "images outside the class folders, ignored: 1, such as 'docs/c/5.png'" in table.notes


@pytest.mark.parametrize("deeper", ["", "visit/"])
def test_a_class_called_test_is_a_class(tmp_path, deeper):
    make_images(tmp_path, f"test/{deeper}1.png", f"control/{deeper}2.png")
    assert read(tmp_path).classes == ("control", "test")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a/1.png"], "expected one sub-folder of images per class.*found one class: a"),
        (["1.png", "2.png"], "found 2 images in the folder itself and none in sub-folders"),
        ([], "found 0 images"),
    ],
)
def test_a_folder_without_two_classes_says_what_was_expected_and_found(tmp_path, names, message):
    make_images(tmp_path, *names)
    with pytest.raises(DataError, match=message):
        read(tmp_path)


def test_a_folder_that_holds_only_a_table_points_to_it(tmp_path):
    (tmp_path / "labels.csv").write_text("path,label\n")
    with pytest.raises(DataError, match=r"--data .*labels\.csv"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["path_column", "patient_column", "label_column"])
def test_a_named_column_is_refused(tmp_path, name):
    make_images(tmp_path, "a/1.png", "b/2.png")
    value = ("x",) if name == "label_column" else "x"
    with pytest.raises(DataError, match=f"--{name.replace('_', '-')} names a column"):
        read(tmp_path, **{name: value})


def test_linked_folders_are_followed_where_that_is_allowed_and_loops_end(tmp_path):
    make_images(tmp_path / "elsewhere", "1.png")
    make_images(tmp_path / "data", "b/2.png")
    (tmp_path / "data" / "a").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "b" / "loop").symlink_to(tmp_path / "data")
    assert read(tmp_path / "data", outside_root=True).paths == ("a/1.png", "b/2.png")


def test_a_name_that_is_not_unicode_is_refused(tmp_path):
    make_images(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "a" / "1.png").rename(tmp_path / "a" / os.fsdecode(b"\xff.png"))
    with pytest.raises(DataError, match="not valid Unicode"):
        read(tmp_path)


def test_a_dataset_is_chosen_by_name_or_by_what_stands_there(tmp_path):
    make_images(tmp_path, "a/1.png", "b/2.png")
    assert len(read(f"image_folder:{tmp_path}")) == 2
    with pytest.raises(UnknownNameError, match="Unknown dataset 'image_foldr'. Did you mean 'image_folder'"):
        read("image_foldr:x")
    with pytest.raises(DataError, match="No data at.*expected a folder with one sub-folder per class"):
        read(tmp_path / "nothing")
    with pytest.raises(DataError, match="No data at"):
        read(r"C:\images")
    with pytest.raises(ConfigError, match="--data"):
        read_table(DataSettings())


def test_busi_is_read_as_a_folder(busi):
    table = read(busi / "images")
    assert len(table) == 780
    assert table.targets.sum(axis=0).tolist() == [437, 210, 133]
    assert table.classes == ("benign", "malignant", "normal")
    assert "files that are not images, ignored: 1" in table.notes


def test_a_class_folder_called_like_a_missing_word_is_a_class_and_said(tmp_path):
    make_images(tmp_path, "NA/1.png", "unknown/2.png", "tumour/3.png")
    table = read(tmp_path)
    assert table.classes == ("NA", "tumour", "unknown")
    assert any("'NA', 'unknown'" in note and "classes" in note for note in table.notes)


def test_eval_and_validate_folders_are_splits(tmp_path):
    make_images(tmp_path, "train/a/1.png", "validate/b/2.png", "eval/a/3.png")
    assert read(tmp_path).splits.tolist() == [["test", "train", "val"]]
    make_images(tmp_path, "test/b/4.png")
    assert read(tmp_path).splits.tolist() == [["val", "test", "train", "val"]]


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(400)


def test_dangling_links_with_an_image_name_are_images_that_are_missing(tmp_path):
    make_images(tmp_path / "data", "a/1.png", "b/2.png")
    make_images(tmp_path / "elsewhere", "3.png")
    for link, target in {
        "data/a/annexed.png": "../.git/annex/objects/Xk/9w/MD5E-s20--1.png/MD5E-s20--1.png",
        "data/b/circle.png": "circle.png",
        "data/b/more": "../../elsewhere",
        "elsewhere/gone.dcm": "/nowhere/gone.dcm",
        "data/b/gone.txt": "/nowhere/gone.txt",
        "data/c": "/nowhere/c",
    }.items():
        (tmp_path / link).symlink_to(target)
    table = read(tmp_path / "data", outside_root=True)
    assert table.paths == ("a/1.png", "a/annexed.png", "b/2.png", "b/circle.png", "b/more/3.png", "b/more/gone.dcm")
    assert "broken links, ignored: 2, such as 'b/gone.txt'" in table.notes
    problems = {path: survey_image(file) for path, file in zip(table.paths, table.files, strict=True)}
    missing = {path: record.reason for path, record in problems.items() if record.problem == "missing"}
    assert list(missing) == ["a/annexed.png", "b/circle.png", "b/more/gone.dcm"]
    assert all("a dangling link" in reason for reason in missing.values())
    assert "run `datalad get` or `git annex get`" in missing["a/annexed.png"]
    assert "datalad" not in missing["b/more/gone.dcm"]


def test_formats_that_are_not_read_are_counted_by_name_and_their_classes_told(tmp_path):
    make_images(tmp_path, "a/1.png", "b/2.png")
    for name in ("a/x.HEIC", "a/y.heif", "b/v.nii.gz", "b/notes.txt", "c/array.npz", "b/._z.heic"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(HEIC)
    (tmp_path / "d").mkdir()
    table = read(tmp_path)
    assert table.classes == ("a", "b")
    note = next(note for note in table.notes if "not read" in note)
    assert note.startswith("2 HEIC, 1 NIfTI, 1 NumPy not read ('a/x.HEIC': save it as PNG or JPEG;")
    assert "files that are not images, ignored: 2" in table.notes
    assert "folders without images, ignored: 'c', 'd'" in table.notes


def test_a_folder_of_formats_that_are_not_read_alone_names_them(tmp_path):
    for name in ("a/1.jp2", "b/2.jp2"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match="2 JPEG 2000 not read .'a/1.jp2': save it as PNG or JPEG"):
        read(tmp_path)
