"""Folders of train_fold1.csv, val_fold1.csv …"""

import pytest

from radtransfer.config.schema import DataSettings
from radtransfer.data.readers import read_table
from radtransfer.errors import ConfigError, DataError


@pytest.fixture
def folds(tmp_path):
    """Write files, given as name to text or to (path, label) letters, and read the folder."""

    def read(files, **settings):
        for name, rows in files.items():
            text = rows if "," in rows else "path,class\n" + "".join(f"{row},{row in 'ace'}\n" for row in rows)
            (tmp_path / name).write_text(text, encoding="utf-8")
        return read_table(DataSettings(source=str(tmp_path), **settings))

    return read


def splits_of(table):
    return [dict(zip(table.paths, row.tolist(), strict=True)) for row in table.splits]


def test_numbered_tables_are_folds(folds):
    found = folds(
        {"train_fold1.csv": "ab", "val_fold1.csv": "c", "test_fold1.csv": "d"}
        | {"train_fold2.csv": "dc", "val_fold2.csv": "b", "test_fold2.csv": "a"}
    )
    assert splits_of(found) == [
        {"a": "train", "b": "train", "c": "val", "d": "test"},
        {"a": "test", "b": "val", "c": "train", "d": "train"},
    ]
    assert "2 folds, given with the data" in found.notes


@pytest.mark.parametrize("names", [("breast_train_fold1.csv", "breast_test_fold1.csv"), ("train.csv", "test.csv")])
def test_prefixes_and_missing_numbers_and_missing_val_tables_are_fine(folds, names):
    found = folds(dict(zip(names, ("ab", "cd"), strict=True)))
    assert splits_of(found) == [{"a": "train", "b": "train", "c": "test", "d": "test"}]


@pytest.mark.parametrize("word", ["eval", "Evaluation", "validate", "dev"])
def test_all_words_for_a_validation_set_are_read_in_file_names(folds, word):
    found = folds({"set_train_fold1.csv": "ab", f"set_{word}_fold1.csv": "c", "set_test_fold1.csv": "d"})
    assert splits_of(found) == [{"a": "train", "b": "train", "c": "val", "d": "test"}]


def test_without_test_tables_eval_tables_are_the_test_set(folds):
    found = folds({"train_fold1.csv": "ab", "eval_fold1.csv": "cd"})
    assert splits_of(found) == [{"a": "train", "b": "train", "c": "test", "d": "test"}]


def test_the_file_names_give_the_split_and_not_a_column(folds):
    with pytest.raises(ConfigError, match="--split-column set names a column of a table, but .* is a fold_directory"):
        folds({"train.csv": "ab", "test.csv": "cd"}, split_column="set")


@pytest.mark.parametrize("name", ["split", "set"])
def test_a_column_that_contradicts_the_file_names_is_warned_of_without_a_way_that_is_closed(folds, name):
    rows = f"path,class,{name}\n{{}},0,{{}}\n{{}},1,{{}}\n"
    found = folds(
        {"train.csv": rows.format("a", "train", "b", "Test"), "test.csv": rows.format("c", "test", "d", "test")}
    )
    notes = [note for note in found.notes if note.startswith("split ignored")]
    assert len(notes) == 1 and f"column {name!r} contains splits (train 1, test 3)" in notes[0]
    assert notes[0].endswith("is not used: column 'split of the file' is used")
    agreeing = rows.format("a", "training", "b", "Train"), rows.format("c", "test", "d", "testing")
    found = folds(dict(zip(("train.csv", "test.csv"), agreeing, strict=True)))
    assert not any(note.startswith("split ignored") for note in found.notes)


def test_a_shared_table_belongs_to_every_fold(folds):
    found = folds({"train_fold1.csv": "ab", "train_fold2.csv": "ba", "val.csv": "e", "test.csv": "cd"})
    assert [fold["d"] for fold in splits_of(found)] == ["test", "test"]
    assert [fold["e"] for fold in splits_of(found)] == ["val", "val"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"train_fold1.csv": "ab", "train_fold2.csv": "a", "test_fold1.csv": "c"}, "for fold 2. Add test_fold2.csv"),
        ({"a_train.csv": "ab", "b_train.csv": "c"}, "several data sets: a, b"),
        ({"train.csv": "ab", "train_fold1.csv": "ab"}, "several train tables for fold 1: train.csv, train_fold"),
        (
            {"train.csv": "ab", "test.csv": "path,class\na,False\n"},
            "contradictory labels, such as 'a': False in test.csv line 2, True in train.csv line 2",
        ),
        (
            {"train.csv": "ab", "test.csv": "path,label\nc,0\n"},
            "the common columns of the tables in .* has no column for the lab",
        ),
    ],
)
def test_tables_that_do_not_fit_together_are_explained(folds, files, message):
    with pytest.raises(DataError, match=message):
        folds(files)


def test_tables_win_over_class_folders_of_the_same_name_and_say_so(folds, tmp_path):
    (tmp_path / "train").mkdir()
    notes = folds({"train.csv": "ab", "valid.csv": "cd"}).notes
    assert any("read train.csv, valid.csv" in note and "--data image_folder:" in note for note in notes)


def test_the_published_busi_folds_are_read_as_they_are(busi):
    table = read_table(DataSettings(source=str(busi / "folds"), image_root=str(busi / "images")))
    assert len(table) == 780
    assert all(file.is_file() for file in table.files)
    assert len(set(table.files)) == 780
    assert table.classes == ("benign", "malignant")
    for split in table.splits:
        assert [(split == name).sum() for name in ("train", "val", "test")] == [624, 31, 125]
    assert (table.splits == "test").any(axis=0).sum() == 625
    assert table.paths[0].startswith("../../../data/breast/")


def test_two_columns_of_one_name_are_refused_as_in_one_table(tmp_path):
    for name in ("train.csv", "test.csv"):
        (tmp_path / name).write_text(f"path,label,label\n{name}1.png,a,b\n{name}2.png,b,a\n")
    with pytest.raises(DataError, match="2 columns with the same name for the label"):
        read_table(DataSettings(source=str(tmp_path)))


def test_a_table_that_is_a_dangling_link_is_not_passed_over(tmp_path):
    (tmp_path / "train_fold1.csv").write_text("path,label\n1.png,a\n2.png,b\n")
    (tmp_path / "test_fold1.csv").symlink_to(".git/annex/objects/test.csv")
    with pytest.raises(DataError, match="test_fold1.csv: a dangling link"):
        read_table(DataSettings(source=str(tmp_path)))
