"""Tables as users bring them."""

import gzip
import io
import re
import zipfile

import numpy as np
import pytest

from radtransfer.config.schema import DataSettings
from radtransfer.data.readers import read_table
from radtransfer.errors import ConfigError, DataError


@pytest.fixture
def table(tmp_path):
    """Write `text` as a CSV and read it."""

    def read(text, *, encoding="utf-8", **settings):
        file = tmp_path / "table.csv"
        file.write_bytes(text.encode(encoding))
        return read_table(DataSettings(source=str(file), **settings))

    return read


@pytest.mark.parametrize(
    "header",
    [
        "path,class,pid",
        "filename,acl_label,patient_id",
        "img_dir,label,Subject",
        "dir,Target,group",
        "Image Path,Diagnosis,Patient ID",
        "file,grade,patient",
    ],
)
def test_columns_are_found_by_their_usual_names(table, header):
    found = table(f"{header}\na.png,yes,7\nb.png,no,8\n")
    assert found.paths == ("a.png", "b.png")
    assert found.classes == ("no", "yes")
    assert found.labels == ("yes", "no")
    assert found.patients == ("7", "8")


def test_of_several_label_columns_the_preferred_one_is_taken_and_the_others_named(table):
    found = table(",filename,Target,label,Age\n0,a.png,1,yes,50\n1,b.png,0,no,60\n")
    assert found.classes == ("no", "yes")
    choice = "column 'label' used as label (also possible: 'Target'; choose with --label-column NAME)"
    assert choice in found.notes
    assert "columns not used: Target, Age" in found.notes


def test_a_named_column_wins(table):
    text = "filename,other,label,Target,pid,who\na.png,x.png,yes,1,7,k\nb.png,y.png,no,0,7,l\n"
    found = table(text, path_column="other", label_column=("target",), patient_column="who")
    assert (found.paths, found.classes, found.patients) == (("x.png", "y.png"), ("0", "1"), ("k", "l"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"label_column": ("class",)},
            r"Column 'class' \(--label-column\) is not in table.csv. Columns: filename, acl_label. "
            "Use --label-column acl_label",
        ),
        ({"patient_column": "pid"}, r"'pid' \(--patient-column\) is not in table.csv"),
        ({"label_column": ("acl", "acl_labels")}, r"'acl' .* Use --label-column acl_label\."),
        ({"label_column": ("acl_label", "edema")}, r"'edema' .* Use --label-column NAME, one of these\."),
        ({"path_column": "filenam"}, r"'filenam' \(--path-column\).*Use --path-column filename"),
    ],
)
def test_a_column_the_table_lacks_lists_those_it_has(table, settings, message):
    with pytest.raises(DataError, match=message):
        table("filename,acl_label\na.png,yes\nb.png,no\n", **settings)


def test_a_table_without_a_header_is_told_from_one_without_a_path(table):
    with pytest.raises(DataError, match="table.csv has no header: .* Received: 'a.png', an image, in the first line"):
        table("a.png,yes\nb.png,no\n")


def test_a_table_without_path_or_label_says_how_to_name_them(table):
    with pytest.raises(
        DataError, match="no column for the image path.*Columns: scan, label. Name it with --path-column"
    ):
        table("scan,label\na.png,yes\n")
    with pytest.raises(DataError, match="no column for the label.*Name it with --label-column"):
        table("path,finding,site\na.png,yes,left\nb.png,no,right\n")


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiter_byte_order_mark_quotes_and_unicode_are_understood(table, delimiter):
    rows = [["path", "label"], ['"benign, left (1).png"', "gut"], ["Müller.png", "b"]]
    text = "\r\n".join(delimiter.join(row) for row in rows) + "\r\n\r\n"
    found = table(text, encoding="utf-8-sig")
    assert found.paths[0] == "benign, left (1).png"
    assert found.classes == ("b", "gut")


@pytest.mark.parametrize(
    ("text", "encoding", "message"),
    [
        ("path,label\na.png,ä\n", "latin-1", "not UTF-8"),
        ("path,label\na,b.png,yes\n", "utf-8", "line 2 has 3 cells, the header has 2"),
        ("path,label\na.png\n", "utf-8", "line 2 has 1 cells"),
        ('path,label\n"a.png,yes\n', "utf-8", "not valid CSV"),
        ("path,label\n", "utf-8", "lists no images"),
        ("", "utf-8", "lists no images"),
        (
            "path,label\na.png,yes\n,no\n",
            "utf-8",
            r"1 rows have no image path \(column 'path': empty 1\): table.csv line 3",
        ),
        ("path,label\na.png,\nb.png,no\nc.png,nan\n", "utf-8", "2 rows have no label.*line 2, table.csv line 4"),
    ],
)
def test_a_broken_table_says_where(table, text, encoding, message):
    with pytest.raises(DataError, match=message):
        table(text, encoding=encoding)


def test_integer_labels_written_as_floats_are_integers_sorted_by_value(table):
    found = table("path,level\na,10.0\nb,2\nc,0.0\nd,10\n")
    assert found.classes == ("0", "2", "10")
    assert found.labels == ("10", "2", "0", "10")


def test_one_class_is_refused(table):
    with pytest.raises(DataError, match="two or more classes, found one: yes"):
        table("path,label\na,yes\nb,yes\n")


def test_repeated_rows_count_once_and_contradictory_ones_are_named(table):
    found = table("path,label\na,yes\nb,no\na,yes\n")
    assert found.paths == ("a", "b")
    assert any("1 repeated rows" in note for note in found.notes)
    with pytest.raises(DataError, match="1 image has contradictory labels, such as 'a': yes in .* line 2, no in"):
        table("path,label\na,yes\nb,no\na,no\n")
    with pytest.raises(DataError, match="contradictory patients, such as 'a': 1 in"):
        table("path,label,pid\na,yes,1\nb,no,2\na,yes,2\n")


def test_a_1_and_a_1_0_of_one_image_agree(table):
    assert len(table("path,label\na,1\nb,0\na,1.0\n")) == 2


# Several labels


def test_without_a_label_column_the_columns_of_zeros_and_ones_are_labels(table):
    found = table("Path,Sex,Age,Oedema,Atelectasis\na,M,60,1.0,\nb,F,0,-1.0,0.0\n")
    assert found.task == "multilabel"
    assert found.classes == ("Atelectasis", "Oedema")
    np.testing.assert_array_equal(found.targets, np.array([[0, 1], [0, np.nan]], "float32"))
    guess = "2 labels from the columns with 0, 1, -1 or nothing: Oedema, Atelectasis"
    assert guess in found.notes


@pytest.mark.parametrize(
    ("uncertain", "unmentioned", "expected"),
    [("zeros", "zeros", [0, 0]), ("ones", "ignore", [1, np.nan]), ("ignore", "zeros", [np.nan, 0])],
)
def test_uncertain_and_unmentioned_labels_count_as_asked(table, uncertain, unmentioned, expected):
    text = "path,A,B\na,-1,\nb,1,0\nc,0,1\n"
    found = table(text, label_column=("A", "B"), uncertain=uncertain, unmentioned=unmentioned)
    np.testing.assert_array_equal(found.targets[0], np.array(expected, "float32"))


def test_a_label_that_is_not_zero_or_one_is_named_by_row_and_column(table):
    with pytest.raises(DataError, match="table.csv line 3, column 'B': expected 1, 0, -1.*received 'maybe'"):
        table("path,A,B\na,1,0\nb,0,maybe\n", label_column=("A", "B"))


def test_a_multilabel_task_takes_one_column_too(table):
    found = table("path,A,B\na,1,x\nb,,y\n", label_column=("A",), task="multilabel")
    assert (found.task, found.classes, found.targets.tolist()) == ("multilabel", ("A",), [[1.0], [0.0]])


def test_a_label_with_one_value_only_is_noted(table):
    notes = table("path,A,B\na,1,0\nb,1,1\n").notes
    assert "label 'A' has only 1: its AUC will be undefined" in notes


# Task and grades


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        ("path,label\na,1\nb,2\nc,3\n", {"task": "binary"}, "needs two classes; found 3: 1, 2, 3"),
        ("path,label\na,x\nb,y\n", {"task": "multilabel"}, "no column for the label"),
        ("path,A,B\na,1,0\nb,1,1\n", {"task": "multiclass"}, "line 3: expected 1 in exactly one of the columns A, B"),
        ("path,label\na,x\nb,y\n", {"positive_from": 1}, "needs one integer grade per image; the labels are x, y"),
        ("path,label\na,0\nb,1\n", {"positive_from": 2}, "grades are 0, 1, none is at or above it. Choose one above 0"),
        ("path,label\na,0\nb,1\n", {"positive_from": 0}, "none is below it"),
    ],
)
def test_labels_that_do_not_fit_the_task_are_refused(table, text, settings, message):
    with pytest.raises(DataError, match=message):
        table(text, **settings)


def test_grades_that_reach_positive_from_pass(table):
    assert len(table("path,label\na,0\nb,1\nc,4\n", positive_from=2)) == 3


# Patients


def test_without_patients_a_note_says_so(table):
    assert any(
        note.startswith("no patient column; images of one patient may be in both train and test.")
        and r"--patient-regex '^(\d+)_'" in note
        for note in table("path,label\na,0\nb,1\n").notes
    )


def test_the_first_group_of_the_expression_is_the_patient_in_path_or_file_name(table):
    text = "path,label\nx/0448_1.png,0\nx/0448_2.png,1\nx/07_1.png,1\n"
    assert table(text, patient_regex=r"x/(\d+)_").patients == ("0448", "0448", "07")
    assert table(text, patient_regex=r"^(\d+)_").patients == ("0448", "0448", "07")


def test_an_expression_beats_a_guessed_column_but_not_a_named_one(table):
    text = "path,label,group\n1_a,0,g\n2_a,1,g\n"
    assert table(text, patient_regex=r"^(\d)").patients == ("1", "2")
    with pytest.raises(ConfigError, match="Leave one out"):
        table(text, patient_regex=r"^(\d)", patient_column="group")


@pytest.mark.parametrize(
    ("regex", "error", "message"),
    [
        (r"(\d+)_", DataError, "no patient for 1 of 2 images, such as 'b.png'"),
        (r"(\d+)?", DataError, "no patient for 1 of 2 images, such as 'b.png'"),
        (r"\d+_", ConfigError, "has no group"),
        (r"(\d+", ConfigError, "is not a regular expression"),
    ],
)
def test_an_expression_that_does_not_work_is_explained(table, regex, error, message):
    with pytest.raises(error, match=message):
        table("path,label\n1_a.png,0\nb.png,1\n", patient_regex=regex)


# Given splits


def test_a_split_column_is_one_fixed_split_in_any_usual_spelling(table):
    found = table("path,label,Split\na,0,training\nb,1,Train\nc,0,valid\nd,1,Testing\n")
    assert found.splits.tolist() == [["train", "train", "val", "test"]]
    with pytest.raises(DataError, match="line 2, column 'split': expected train, val or test, received 'holdout'"):
        table("path,label,split\na,0,holdout\nb,1,test\n")


def test_a_fold_column_alone_says_where_an_image_is_test(table):
    found = table("path,label,fold\na,0,0\nb,1,1.0\nc,1,0\n")
    assert found.splits.tolist() == [["test", "train", "test"], ["train", "test", "train"]]
    assert any("given with the data as 0, 1, numbered from 1" in note for note in found.notes)
    with pytest.raises(DataError, match="has only one fold"):
        table("path,label,fold\na,0,1\nb,1,1\n")


def test_rows_per_image_and_fold_are_folded_back(table):
    found = table("path,label,patient,fold,split\na,0,,1,train\nb,1,,1,test\nc,1,,1,val\na,0,,2,test\nb,1,,2,train\n")
    assert found.paths == ("a", "b", "c")
    assert found.splits.tolist() == [["train", "test", "val"], ["test", "train", ""]]
    assert found.patients is None


def test_an_image_in_two_splits_keeps_a_row_for_each(table):
    found = table("path,label,fold,split\na,0,1,train\na,0,1,test\nb,1,1,train\na,0,2,test\nb,1,2,test\n")
    assert found.paths == ("a", "a", "b")
    assert found.splits.tolist() == [["train", "test", "train"], ["test", "", "test"]]


def test_classes_that_are_spelt_alike_are_told(table):
    found = table("path,label\na.png,Benign\nb.png,benign\nc.png,benign\nd.png,malignant\n")
    assert found.classes == ("Benign", "benign", "malignant")
    said = (
        "'Benign' (1) and 'benign' (2) differ in spelling only and count as 2 classes; "
        "use one spelling if they are the same"
    )
    assert said in found.notes
    assert not any("differ in spelling" in note for note in table("path,label\na.png,grade 1\nb.png,grade 2\n").notes)


# Missing words

WORDS = (
    *(
        "",
        " ",
        "NA",
        "na",
        "N/A",
        "not applicable",
        "Not Reported",
        "unk",
        "(blank)",
        "no data",
        r"\N",
        "#N/A",
        "n.a.",
        "nan",
        "NaN",
        "NaT",
        "None",
        "NULL",
        "(null)",
        "<NA>",
        "Unknown",
        "missing",
    ),
    *("?", "-", "--", "—", ".", "#VALUE!"),
)


@pytest.mark.parametrize("word", WORDS)
def test_missing_words_are_no_label_in_every_spelling(table, word):
    text = f'path,label,note\na,x,\nb,y,\nc,"{word}",\nd,"{word}",\n'
    said = re.escape(repr(word.strip()))
    counted = (
        rf"2 rows have no label \(column 'label': {said if word.strip() else 'empty'} 2\): table.csv line 4, table.csv"
    )
    with pytest.raises(DataError, match=counted):
        table(text)
    found = table(text, missing_values="drop")
    assert (found.paths, found.classes) == (("a", "b"), ("x", "y"))
    assert any(note.startswith("missing labels: 2 images without a label are left out") for note in found.notes)
    assert len(table(text, missing_values="class").classes) == 3


@pytest.mark.parametrize("label", ["no", "normal", "nanometre", "unknown primary", "0", "none seen", "+", "[]", "NAD"])
def test_words_that_only_look_like_missing_ones_are_classes(table, label):
    assert label in table(f'path,label\na,x\nb,"{label}"\n').classes


def test_the_word_is_the_class_if_asked_for_and_an_empty_cell_is_missing(table):
    found = table("path,label\na,none\nb,mild\nc,\n", missing_values="class")
    assert found.classes == ("mild", "missing", "none")


def test_a_row_without_a_label_does_not_contradict_one_that_has_it(table):
    text = "path,label,fold,split\na,x,1,train\na,NA,2,test\nb,y,1,test\nb,y,2,train\nc,NA,1,train\nc,,2,train\n"
    found = table(text, missing_values="drop")
    assert found.labels == ("x", "y")
    assert found.splits.tolist() == [["train", "test"], ["test", "train"]]


def test_missing_words_in_columns_of_zeros_and_ones_are_unmentioned(table):
    text = "path,A,B\na,1,NA\nb,unknown,0\nc,-,1\n"
    assert table(text).targets.tolist() == [[1, 0], [0, 0], [0, 1]]
    known = table(text, unmentioned="ignore").targets
    np.testing.assert_array_equal(np.isnan(known), [[False, True], [True, False], [True, False]])


@pytest.mark.parametrize("word", WORDS)
def test_an_image_whose_patient_is_missing_is_its_own_patient(table, word):
    text = f'path,label,pid\na,x,1\nb,y,1\nc,x,"{word}"\nd,y,"{word}"\ne,x,c\n'
    found = table(text)
    assert len(set(found.patients)) == 4
    assert found.patients[:2] == ("1", "1") and found.patients[4] == "c"
    assert any(note.startswith("missing patients: 2 of 5 images have none") for note in found.notes)
    with pytest.raises(DataError, match="2 rows have no patient.*--missing-patients own"):
        table(text, missing_patients="error")


def test_own_patients_do_not_depend_on_the_order_of_rows_and_are_those_of_the_folds_that_are_read_back(table):
    rows = ["a,x,1", "b,y,NA", "c,x,", "d,y,1"]
    whose = [dict(zip(found.paths, found.patients, strict=True)) for found in
             (table("\n".join(["path,label,pid", *order])) for order in (rows, rows[::-1]))]  # fmt: skip
    assert whose[0] == whose[1]
    again = table(
        "\n".join(["path,label,patient", *(f"{path},{path in 'bd'},{who}" for path, who in whose[0].items())])
    )
    assert dict(zip(again.paths, again.patients, strict=True)) == whose[0]


def test_two_names_of_one_file_have_one_patient_also_a_missing_one(table, tmp_path):
    (tmp_path / "a.png").touch()
    (tmp_path / "link.png").symlink_to(tmp_path / "a.png")
    found = table("path,label,pid\na.png,x,NA\nlink.png,x,NA\nb.png,y,NA\nc.png,y,2\n")
    assert found.patients[0] == found.patients[1] != found.patients[2]
    assert table("path,label,pid\na.png,x,NA\nlink.png,x,7\nb.png,y,2\n").patients == ("7", "7", "2")


def test_where_no_image_has_a_patient_they_are_not_known(table):
    found = table("path,label,pid\na,x,NA\nb,y,\n")
    assert found.patients is None
    assert any("missing patients: 2 of 2 images have none ('NA' 1, empty 1)" in note for note in found.notes)


def test_images_that_were_patients_of_their_own_are_refused_in_the_folds_of_a_run_too(table):
    found = table("path,label,patient\na,0,1\nb,1,NA\n")
    rows = "".join(f"{i},{label},{i}\n" for i, label in zip(found.patients, found.labels, strict=True))
    text = "path,label,patient\n" + rows
    assert table(text).patients == found.patients
    with pytest.raises(DataError, match="1 of 2 images have none"):
        table(text, missing_patients="error")


def test_an_expression_that_finds_a_missing_word_finds_no_patient(table):
    found = table("path,label\n1_a,x\nunknown_b,y\nunknown_c,y\n1_d,x\n", patient_regex="^([^_]+)_")
    assert len(set(found.patients)) == 3


# Official splits


@pytest.mark.parametrize("column", ["set", "Subset", "partition", "Phase", "data_split", "split"])
@pytest.mark.parametrize("word", ["validate", "Validation", "valid", "dev", "eval", "Tuning set"])
def test_an_official_split_is_found_by_the_usual_names_and_words(table, column, word):
    found = table(f"path,label,{column}\na,0,Training\nb,1,train\nc,0,{word}\nd,1,TEST\ne,1,nan\n")
    assert found.splits.tolist() == [["train", "train", "val", "test", ""]]
    assert f"split from column {column!r}" in found.notes
    assert any(note.startswith("not assigned: 1 of 5 images") for note in found.notes)


def test_eval_is_the_test_set_where_there_is_no_other(table):
    assert table("path,label,set\na,0,train\nb,1,dev\nc,0,eval\n").splits.tolist() == [["train", "val", "test"]]


@pytest.mark.parametrize("text", ["holdout", "arterial"])
def test_a_column_with_a_usual_name_that_holds_something_else_is_not_a_split(table, text):
    found = table(f"path,label,phase\na,0,{text}\nb,1,venous\n")
    assert found.splits is None
    assert f"column 'phase' is not used as split: it contains {text!r}, 'venous'" in found.notes
    with pytest.raises(DataError, match="expected train, val or test, received"):
        table(f"path,label,phase\na,0,{text}\nb,1,venous\n", split_column="phase")


def test_a_mistyped_word_in_an_official_split_is_an_error_and_not_the_end_of_it(table):
    with pytest.raises(DataError, match="line 4, column 'set': expected train, val or test, received 'tset'"):
        table("path,label,set\na,0,train\nb,1,test\nc,0,tset\n")


@pytest.mark.parametrize(("false", "true"), [("0", "1"), ("False", "TRUE"), ("no", "Yes"), ("0.0", "1.0")])
def test_a_column_that_says_whether_an_image_is_test_is_a_split(table, false, true):
    text = "path,label,{}\na,0,{}\nb,1,{}\nc,1,NA\n"
    assert table(text.format("is_test", false, true)).splits.tolist() == [["train", "test", ""]]
    assert table(text.format("isTrain", false, true)).splits.tolist() == [["test", "train", ""]]
    assert table(text.format("test", false, true), split_column="test").splits.tolist() == [["train", "test", ""]]


def test_an_unclear_value_in_such_a_column_is_an_error_and_other_columns_of_the_name_are_no_split(table):
    with pytest.raises(DataError, match="line 4, column 'is_test': expected true or false.* received 'x'"):
        table("path,label,is_test\na,0,1\nb,1,0\nc,0,x\n")
    assert table("path,label,is_test\na,0,urine\nb,1,blood\n").splits is None


def test_a_column_called_test_is_warned_of_and_no_label_by_itself(table):
    text = "path,A,B,test\na,0,1,0\nb,1,0,1\nc,1,1,0\n"
    found = table(text)
    assert found.classes == ("A", "B")
    assert any(note.startswith("split ignored: column 'test' contains 0 and 1 and is not used") for note in found.notes)
    assert table(text, split_column="test").splits.tolist() == [["train", "test", "train"]]
    assert table(text, label_column=("A", "test")).classes == ("A", "test")
    assert table("path,label,in_test\na,0,0\nb,1,1\n").splits.tolist() == [["train", "test"]]
    assert table("path,test\na,0\nb,1\n").classes == ("0", "1")


def test_one_true_or_false_column_per_split_is_a_split(table):
    found = table("path,label,is_train,is_val,is_test\na,0,1,0,0\nb,1,0,1,0\nc,1,0,0,1\n")
    assert found.splits.tolist() == [["train", "val", "test"]]
    with pytest.raises(DataError, match="line 2, column .*: expected true or false, and true for at most one"):
        table("path,label,is_train,is_test\na,0,1,1\nb,1,0,1\n")


@pytest.mark.parametrize("none", ["-1", "-1.0", "", "NA"])
def test_an_image_without_a_fold_takes_no_part(table, none):
    found = table(f"path,label,kfold\na,0,0.0\nb,1,1.0\nc,1,0\nd,0,{none}\n")
    assert found.splits.tolist() == [["test", "train", "test", ""], ["train", "test", "train", ""]]
    assert any(note.startswith("not assigned: 1 of 4 images") for note in found.notes)


def test_fold_and_split_can_be_named(table):
    text = "path,label,cohort,block\na,0,train,1\nb,1,test,2\nc,1,train,2\n"
    assert table(text, split_column="Cohort").splits.tolist() == [["train", "test", "train"]]
    assert table(text, fold_column="block").splits.tolist() == [["test", "train", "train"], ["train", "test", "test"]]
    with pytest.raises(DataError, match=r"'kohort' \(--split-column\) is not in table.csv.*Use --split-column cohort"):
        table(text, split_column="kohort")
    with pytest.raises(DataError, match="'cohort' .*contains splits. Use --split-column cohort"):
        table(text, fold_column="cohort")


def test_a_split_that_is_not_used_is_a_warning_that_names_it(table):
    (warning,) = [
        note for note in table("path,label,cohort\na,0,Train\nb,1,Test\nc,1,Train\n").notes if "cohort" in note
    ][:1]
    assert warning.startswith("split ignored: column 'cohort' contains splits (train 2, test 1) and is not used")
    assert "--split-column cohort" in warning
    notes = table("path,label,group\na,0,Train\nb,1,Test\n").notes
    assert any(note.startswith("split ignored: column 'group'") for note in notes)
    notes = table("path,label,split,cohort\na,0,train,train\nb,1,test,test\n").notes
    assert not any(note.startswith("split ignored") for note in notes)


def test_a_fold_column_of_splits_is_a_split(table):
    assert table("path,label,fold\na,0,train\nb,1,test\n").splits.tolist() == [["train", "test"]]


def test_of_a_fold_and_a_split_for_each_image_the_named_one_counts_or_else_the_split(table):
    text = "path,label,split,fold\na,0,train,0\nb,1,train,1\nc,1,test,-1\n"
    found = table(text)
    assert found.splits.tolist() == [["train", "train", "test"]]
    assert any(note.startswith("split ignored: column 'fold' is not used") for note in found.notes)
    assert table(text, fold_column="fold").splits.tolist() == [["test", "train", ""], ["train", "test", ""]]


# Labels as people write them


def test_one_hot_columns_are_classes_if_asked_for_and_hinted_at(table):
    text = "image,MEL,NV,BCC\na,1.0,0.0,0.0\nb,0.0,1.0,0.0\nc,0.0,0.0,1.0\n"
    found = table(text, task="multiclass")
    assert (found.task, found.classes, found.labels) == ("multiclass", ("BCC", "MEL", "NV"), ("MEL", "NV", "BCC"))
    assert any(
        note.startswith("one-hot columns: every image has exactly one of MEL, NV, BCC") for note in table(text).notes
    )
    assert not any(note.startswith("one-hot") for note in table(text, task="multilabel").notes)
    assert table("path,A,B\na,1,0\nb,0,1\n", task="binary", label_column=("A", "B")).labels == ("A", "B")


@pytest.mark.parametrize("row", ["0,0", "1,1", "1,-1"])
def test_a_row_of_one_hot_columns_with_none_or_two_is_named(table, row):
    with pytest.raises(DataError, match="line 4: expected 1 in exactly one of the columns A, B"):
        table(f"path,A,B\na,1,0\nb,0,1\nc,{row}\n", task="multiclass")


def test_a_row_of_one_hot_columns_without_values_has_no_label(table):
    with pytest.raises(DataError, match="1 rows have no label.*--missing-values drop"):
        table("path,A,B\na,1,0\nb,0,1\nc,,NA\n", task="multiclass")


@pytest.mark.parametrize(
    ("separator", "cells"),
    [
        ("|", ["Effusion|Mass", "Mass", "No Finding"]),
        ("; ", ["Effusion; Mass", "Mass", "no findings"]),
        (",", ["['Effusion', 'Mass']", "['Mass']", "[]"]),
        ("|", ['["Mass", "Effusion"]', '["Mass"]', "[ ]"]),
        (",", ["{Mass,Effusion}", "{Mass}", "{No Finding}"]),
        ("/", ["Effusion / Mass/", "Mass", "No Finding"]),
    ],
)
def test_several_labels_in_one_cell_are_labels_of_their_own(table, separator, cells):
    quoted = ['"' + cell.replace('"', '""') + '"' for cell in cells]
    rows = "".join(f"{i},{cell}\n" for i, cell in enumerate(quoted))
    found = table(f"path,Finding Labels\n{rows}", label_separator=separator)
    assert (found.task, found.classes) == ("multilabel", ("Effusion", "Mass"))
    assert found.targets.tolist() == [[1, 1], [0, 1], [0, 0]]


def test_a_missing_word_among_several_labels_is_a_missing_label(table):
    text = "path,label\na,x|y\nb,y\nc,NA\nd,x|unknown\n"
    with pytest.raises(DataError, match="2 rows have no label"):
        table(text, label_separator="|")
    assert table(text, label_separator="|", missing_values="drop").paths == ("a", "b")
    assert table(text, label_separator="|", missing_values="class").classes == ("NA", "unknown", "x", "y")


def test_the_order_of_labels_in_a_cell_is_no_contradiction(table):
    assert len(table("path,label\na,x|y\na,y|x\nb,y\n", label_separator="|")) == 2


@pytest.mark.parametrize(
    "cells", [("x|y", "x"), ("x;y", "y"), ("x, y", "y", "x"), ("['x', 'y']", "['x']"), ("x/y", "x", "y")]
)
def test_classes_that_share_a_separator_are_hinted_at(table, cells):
    text = "path,label\n" + "".join(f'{i},"{cell}"\n' for i, cell in enumerate(cells))
    assert any(note.startswith("joined labels: ") and "--label-separator '" in note for note in table(text).notes)


def test_punctuation_in_a_name_is_no_hint(table):
    text = 'path,label\na,"carcinoma, ductal"\nb,"carcinoma, lobular"\nc,CT/MR\n'
    assert not any(note.startswith("joined") for note in table(text).notes)


@pytest.mark.parametrize(
    "settings",
    [
        {"label_separator": ""},
        {"label_separator": "|", "task": "multiclass"},
        {"label_separator": "|", "label_column": ("A", "B")},
    ],
)
def test_a_separator_that_cannot_be_used_is_refused(table, settings):
    with pytest.raises(ConfigError, match="--label-separator needs"):
        table("path,A,B\na,x,y\nb,y,x\n", **settings)


@pytest.mark.parametrize(
    ("yes", "no"), [("True", "False"), ("YES", "no"), ("1.0", "0.0"), ("1,0", "0,0"), ("y", "n"), ("TRUE", "0")]
)
def test_words_for_yes_and_no_are_ones_and_zeros_in_label_columns(table, yes, no):
    found = table(f"path;A;B\na;{yes};{no}\nb;{no};\nc;{no};{yes}\n")
    assert found.targets.tolist() == [[1, 0], [0, 0], [0, 1]]


def test_one_text_column_for_several_labels_is_pointed_to_the_separator(table):
    with pytest.raises(DataError, match="received 'a|b'.*Several labels in one cell need --label-separator"):
        table("path,label\nx,a|b\ny,a\nz,b\n", task="multilabel", label_column=("label",))


def test_a_label_column_with_nearly_as_many_values_as_rows_is_refused_by_name(table):
    rows = "".join(f"{i},id-{i}\n" for i in range(30_000))
    with pytest.raises(DataError, match="'label' has 30000 different values in 30000 images.*Name the class column"):
        table(f"path,label\n{rows}")
    assert len(table("path,label\n" + "".join(f"{i},{i % 10}x\n" for i in range(11))).classes) == 10


@pytest.mark.parametrize("value", [lambda i: f"{i / 37:.2f}", lambda i: 20 + i * 7 % 61, lambda i: f"{i % 12}.5"])
def test_numbers_that_look_continuous_are_out_of_scope(table, value):
    rows = "".join(f"{i},{value(i)}\n" for i in range(60))
    with pytest.raises(DataError, match="'label' has .* look like measurements.*no regression"):
        table(f"path,label\n{rows}")


def test_many_grades_are_classes_with_a_note(table):
    rows = "".join(f"{i},{i % 40}\n" for i in range(400))
    found = table(f"path,label\n{rows}")
    assert len(found.classes) == 40
    assert any(note.startswith("label column: 'label' has 40 whole numbers, from 0 to 39") for note in found.notes)
    assert len(table("path,label\na,0.5\nb,1.5\nc,1\nd,0.5\n").classes) == 3


def test_the_only_column_that_can_be_the_label_is_taken_and_said(table):
    found = table("path,diagn,comment,cohort\n" + "".join(f"{i},{i % 2}x,text {i},train\n" for i in range(12)))
    assert found.classes == ("0x", "1x")
    assert any("labels from column 'diagn', the only candidate" in note for note in found.notes)
    with pytest.raises(DataError, match="Candidates: 'site', 'diagn'"):
        table("path,site,diagn\na,left,x\nb,right,y\n")


ROWS = "path,label,patient\na.png,yes,7\nb.png,no,8\n"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("sep=;\r\n" + ROWS.replace(",", ";"), "utf-8"),
        ('"sep=\t"\n' + ROWS.replace(",", "\t"), "utf-8-sig"),
        ("# made by a program, on a day\n# second line\n\n" + ROWS, "utf-8"),
        ("sep=,\n# quoted by Excel,,\n" + ROWS, "utf-8"),
        ('"# made by a program, on a day",,\n' + ROWS, "utf-8"),
        ("# by, some, program\n" + ROWS, "utf-8"),
        (ROWS.replace("\na", "\n# of the first hospital\na") + "# end,,\n", "utf-8"),
        ("#" + ROWS, "utf-8"),  # a header all the same
        ("# path,label,patient\n" + ROWS.partition("\n")[2], "utf-8"),
        (ROWS.replace(",", "\t"), "utf-16"),  # Excel's Unicode text
    ],
)
def test_what_programs_write_before_the_header_is_skipped(table, text, encoding):
    found = table(text, encoding=encoding)
    assert (found.paths, found.labels, found.patients) == (("a.png", "b.png"), ("yes", "no"), ("7", "8"))


def test_a_title_before_the_header_is_named(table):
    with pytest.raises(
        DataError, match="line 2 has 3 cells, the header has 1.*If 'Table 1' is a title above the header"
    ):
        table("Table 1\n" + ROWS)
    with pytest.raises(DataError, match="lists no images"):
        table("# only a comment\n")


def test_lines_are_counted_with_those_before_the_header(table):
    with pytest.raises(DataError, match="table.csv line 5 has 2 cells, the header has 3"):
        table("sep=,\n# a comment\n" + ROWS.replace(",8", ""))


def test_a_value_with_a_hash_is_no_comment(table):
    assert table("path,label\n#1.png,#a\n#2.png,#b\n").paths == ("#1.png", "#2.png")


def zipped(*names):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        for name in names:
            file.writestr(name, ROWS)
    return data.getvalue()


def numpy_archive():
    data = io.BytesIO()
    np.savez(data, labels=np.zeros(3))
    return data.getvalue()


@pytest.mark.parametrize(
    ("content", "received"),
    [
        (gzip.compress(ROWS.encode()), "gzip. Unpack it"),
        (zipped("table.csv"), "ZIP. Unpack it"),
        (zipped("[Content_Types].xml", "xl/workbook.xml"), "Excel workbook. Save it as 'CSV UTF-8'"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99), "Excel workbook. Save it as 'CSV UTF-8'"),
        (numpy_archive(), "NumPy. Write each of its images as PNG, and give a CSV"),
        (b"\x93NUMPY\x01\0" + bytes(99), "NumPy. Write each of its images as PNG, and give a CSV"),
        (b"PAR1" + bytes(99), "Parquet. Save it as 'CSV UTF-8'"),
        (b"SQLite format 3\0" + bytes(99), "SQLite. Save it as 'CSV UTF-8'"),
        (b"\x89HDF\r\n\x1a\n" + bytes(99), "HDF5. Write each of its images as PNG, and give a CSV"),
        (b"%PDF-1.7\n\xe2\xe3", "PDF. Write its pages as PNG, and give a CSV"),
        (b"\x89PNG\r\n\x1a\n" + bytes(99), "an image. Give a CSV that lists the images"),
        (b'[{"path": "a.png", "label": "yes"}]', "JSON"),
        (b'{"path": "a.png"}\n{"path": "b.png"}\n', "JSON"),
        (b"<!DOCTYPE html><html></html>", "HTML or XML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "a pointer of Git LFS or git-annex"),
    ],
    ids=str.split("gzip zip xlsx xls npz npy parquet sqlite hdf5 pdf png json jsonl html pointer"),
)
def test_a_file_of_another_kind_given_as_a_table_is_named(tmp_path, content, received):
    (tmp_path / "table.csv").write_bytes(content)
    with pytest.raises(DataError, match=f"table.csv is not a table. Expected: text.* Received: {re.escape(received)}"):
        read_table(DataSettings(source=str(tmp_path / "table.csv")))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            "path,label,label",
            "2 columns with the same name for the label: 'label', 'label'. Rename or remove all but one[.]",
        ),
        ("path,label, Label", "'label', 'Label'. Rename or remove all but one, or choose with --label-column NAME"),
        ("path,Path,label", "2 columns with the same name for the path"),
        ("path,patient_id,Patient ID,label", "2 columns with the same name for the patient"),
        ("path,label,split,split", "2 columns with the same name for the split"),
        ("path,edema,Edema,fracture", "2 columns with the same name for the label: 'edema', 'Edema'"),
    ],
)
def test_two_columns_of_one_name_are_refused_where_they_are_used(table, header, message):
    cells = {"path": "{}.png", "split": "train", "edema": "{}", "fracture": "1"}
    names = [re.sub(r"\W", "", name.lower()) for name in header.split(",")]
    rows = "".join(",".join(cells.get(name, "x{}").format(i) for name in names) + "\n" for i in range(2))
    with pytest.raises(DataError, match=message):
        table(f"{header}\n{rows}")


def test_two_columns_of_one_name_that_are_not_used_do_no_harm(table):
    text = "path,label,age,age,Label\na.png,x,1,1,p\nb.png,y,2,2,q\n"
    found = table(text, label_column=("label",))
    assert found.classes == ("x", "y")
    assert "columns not used: age, age, Label" in found.notes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ROWS + "c" * 131_073 + ".png,yes,9\n", "table.csv line 4 has a cell of more than 131,072 characters"),
        ("path,label," + "c" * 131_073 + "\n" + ROWS, "table.csv line 1 has a cell of more than 131,072 characters"),
        ('path,label\n"a.png,yes\n' + "b.png,no\n" * 20_000, "a quote is not closed"),
        (",".join(["path", *map(str, range(100_000))]) + "\n" + "0," * 100_000 + "0\n", "has 100,001 columns"),
        (ROWS + "c\0.png,yes,9\n", "table.csv line 4 contains a NUL character"),
        (ROWS.encode("utf-16-le").decode("latin-1"), "table.csv line 1 contains a NUL character"),
    ],
)
def test_what_no_table_of_images_holds_is_refused_by_its_line(table, text, message):
    with pytest.raises(DataError, match=message):
        table(text)


def test_a_link_to_a_table_that_is_not_there_is_called_one(tmp_path):
    (tmp_path / "t.csv").symlink_to(".git/annex/objects/t.csv")
    with pytest.raises(DataError, match="Cannot read .*t.csv: a dangling link.*datalad get"):
        read_table(DataSettings(source=str(tmp_path / "t.csv")))
