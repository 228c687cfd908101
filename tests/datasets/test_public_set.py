"""What the readers of public downloads share."""

from pathlib import Path

import numpy as np
import pytest

from radtransfer.config.schema import DataSettings
from radtransfer.data.public import NUMBER, PublicSet
from radtransfer.data.public_parsers import Row, read_columns, table_of_rows
from radtransfer.errors import ConfigError, DataError, UnknownNameError

KNEES = PublicSet(
    name="knees",
    about="Knees.",
    tree="""
train/a.png
test/b.png
""",
    parse=lambda root, options, settings: None,
    required=("train", "test"),
    subfolders=("knees-v1",),
    options={"task": ("acl", "meniscus"), "slices": ("middle", NUMBER)},
    columns=("label_column",),
)


def test_the_folder_may_be_the_one_that_holds_the_archive(tree):
    root = tree("knees-v1/train/a.png", "knees-v1/test/b.png")
    options = {"task": "acl", "slices": "middle"}
    assert KNEES.open(DataSettings(), str(root)) == (root / "knees-v1", options)
    assert KNEES.open(DataSettings(), str(root / "knees-v1")) == (root / "knees-v1", options)


def test_another_tree_is_shown_with_the_one_that_is_expected(tree):
    root = tree("train/a.png", "1.png", "other/2.png")
    with pytest.raises(DataError) as caught:
        KNEES.open(DataSettings(), str(root))
    assert str(caught.value) == (
        f"knees: {root} has no test. Expected:\n  train/a.png\n  test/b.png\nFound: 1.png, other/, train/."
    )


@pytest.mark.parametrize("location", [None, "", "nowhere", "nowhere,task=acl"])
def test_a_folder_that_is_not_there_is_an_error_with_the_tree(location):
    with pytest.raises(DataError, match=r"knees: (nowhere|no folder given) is not a folder. Expected:\n  train/a.png"):
        KNEES.open(DataSettings(), location)


def test_options_are_read_and_checked(tree):
    root = tree("train/a.png", "test/b.png")
    assert KNEES.open(DataSettings(), f"{root},slices=3,task=meniscus")[1] == {"task": "meniscus", "slices": "3"}
    with pytest.raises(UnknownNameError, match="Unknown option of knees 'tasks'. Did you mean 'task'"):
        KNEES.open(DataSettings(), f"{root},tasks=acl")
    with pytest.raises(ConfigError, match="option task is 'pcl'; expected one of acl, meniscus"):
        KNEES.open(DataSettings(), f"{root},task=pcl")
    with pytest.raises(ConfigError, match="option slices is '0'; expected one of middle, a positive integer"):
        KNEES.open(DataSettings(), f"{root},slices=0")
    with pytest.raises(ConfigError, match="option task is given twice"):
        KNEES.open(DataSettings(), f"{root},task=acl,task=acl")


@pytest.mark.parametrize("name", ["path_column", "patient_column", "image_root"])
def test_a_setting_that_makes_no_sense_is_refused(tree, name):
    root = tree("train/a.png", "test/b.png")
    with pytest.raises(DataError, match=f"--{name.replace('_', '-')} does not apply to knees"):
        KNEES.open(DataSettings(**{name: "x"}), str(root))
    KNEES.open(DataSettings(label_column=("x",)), str(root))


def test_rows_become_a_table(tree):
    root = tree("1.png", "2.png")
    rows = [Row("1.png", "b", "p", "train"), Row("2.png", "a", "q", "test"), Row("3.png", "a", "q", "test")]
    table = table_of_rows([*rows, rows[0]], root, DataSettings(), positive_from=2, notes=["first"])
    assert table.paths == ("1.png", "2.png", "3.png")
    assert table.files == (root / "1.png", root / "2.png", None)
    assert (table.labels, table.classes) == (("b", "a", "a"), ("a", "b"))
    assert (table.patients, table.splits.tolist()) == (("p", "q", "q"), [["train", "test", "test"]])
    assert table.positive_from == table.select(np.array([0, 2])).positive_from == 2
    assert table.notes == (
        "first",
        "1 repeated rows of one image counted once",
        "1 of 3 images are not on disk, such as '3.png'",
    )


def test_patients_and_splits_are_none_where_there_are_none(tree):
    table = table_of_rows([Row("1.png", "a"), Row("2.png", "b")], tree("1.png"), DataSettings())
    assert table.patients is None and table.splits is None and table.positive_from is None


def test_patient_regex_goes_before_the_patients_of_the_set(tree):
    rows = [Row("1.png", "a", "p"), Row("2.png", "b", "q")]
    assert table_of_rows(rows, tree("1.png"), DataSettings(patient_regex=r"(\d)")).patients is None


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (Row("1.png", "b", "p"), "'1.png' is listed twice .*, with label 'a' and 'b'"),
        (Row("1.png", "a", "q"), "with patient 'p' and 'q'"),
        (Row("1.png", "a", "p", "test"), "with split '' and 'test'"),
    ],
)
def test_contradictory_rows_are_an_error(other, message):
    with pytest.raises(DataError, match=message):
        table_of_rows([Row("1.png", "a", "p"), other], Path(), DataSettings())


def test_no_rows_or_no_images_on_disk_are_an_error(tmp_path):
    with pytest.raises(DataError, match="contains no images of the set"):
        table_of_rows([], tmp_path, DataSettings())
    with pytest.raises(DataError, match=r"None of the 2 images is on disk; expected, for example, .*1\.png"):
        table_of_rows([Row("1.png", "a"), Row("2.png", "b")], tmp_path, DataSettings())


def test_a_missing_column_is_named(tree):
    root = tree(text={"train.csv": "image, level\n a ,1\n"})
    assert read_columns(root / "train.csv", "level", "image") == [("1", "a")]
    with pytest.raises(DataError, match="has no column grade: expected image, grade. Columns: image, level"):
        read_columns(root / "train.csv", "image", "grade")
