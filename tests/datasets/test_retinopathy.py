"""EyePACS and APTOS 2019: five grades, of which 2 or worse is referable."""

import pytest

from radtransfer.errors import DataError

TRAIN = "image,level\n10_left,0\n10_right,2\n13_left,4\n13_right,1\n15_left,3\n15_left,3\n"
SOLUTION = "image,level,Usage\n1_left,0,Public\n1_right,2,Public\n2_left,4,Private\n2_right,0,Private\n"
EYES = ("10_left", "10_right", "13_left", "13_right")


@pytest.fixture
def eyepacs(tree):
    return tree(*(f"train/{eye}.jpeg" for eye in EYES), text={"trainLabels.csv": TRAIN, ".DS_Store": ""})


@pytest.fixture
def aptos(tree):
    return tree("train_images/000c1434d8d7.png", text={"train.csv": "id_code,diagnosis\n000c1434d8d7,2\nffff,0.0\n"})


def test_eyepacs_has_two_eyes_per_patient_and_says_what_is_referable(eyepacs, read):
    table = read(f"eyepacs:{eyepacs}")
    assert table.paths == (*(f"train/{eye}.jpeg" for eye in EYES), "train/15_left.jpeg")
    assert (table.labels, table.patients) == (("0", "2", "4", "1", "3"), ("10", "10", "13", "13", "15"))
    assert table.positive_from == 2 and table.splits is None
    assert {"3 patients by the image names", "1 repeated rows of one image counted once"} <= set(table.notes)
    assert "1 of 5 images are not on disk, such as 'train/15_left.jpeg'" in table.notes
    assert any("AUC for grade ≥ 2 (referable)" in note for note in table.notes)


def test_the_official_split_validates_on_the_public_part(eyepacs, tree, read):
    with pytest.raises(DataError, match="has no retinopathy_solution.csv, which split=official needs"):
        read(f"eyepacs:{eyepacs},split=official")
    tree("test/1_left.jpeg", text={"retinopathy_solution.csv": SOLUTION})
    table = read(f"eyepacs:{eyepacs},split=official")
    assert table.splits.tolist() == [["train"] * 5 + ["val"] * 2 + ["test"] * 2]
    assert table.paths[5] == "test/1_left.jpeg" and table.files[5].is_file()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("image,level\n10_left,5\n", "The grade of 10_left is '5'; expected 0, 1, 2, 3 or 4"),
        ("image,level\n10_left,\n", "The grade of 10_left is ''"),
        ("image,level\nten,1\n", "expected an image such as 10_left, received 'ten'"),
        ("image,grade\n10_left,1\n", "has no column level"),
        ("image,level\n10_left,1\n10_left,2\n", "'train/10_left.jpeg' is listed twice"),
    ],
)
def test_a_table_that_holds_something_else_is_an_error(eyepacs, tree, read, table, message):
    tree(text={"trainLabels.csv": table})
    with pytest.raises(DataError, match=message):
        read(f"eyepacs:{eyepacs}")


def test_the_usage_is_public_or_private(eyepacs, tree, read):
    tree(text={"retinopathy_solution.csv": "image,level,Usage\n1_left,0,Secret\n"})
    with pytest.raises(DataError, match="Usage of 1_left is 'Secret'"):
        read(f"eyepacs:{eyepacs},split=official")


def test_aptos_has_no_patients(aptos, read):
    table = read(f"aptos2019:{aptos}")
    assert table.paths == ("train_images/000c1434d8d7.png", "train_images/ffff.png")
    assert table.labels == ("2", "0") and table.patients is None and table.positive_from == 2


def test_the_note_is_gone_where_the_user_says_what_is_positive(aptos, read):
    assert not any("referable" in note for note in read(f"aptos2019:{aptos}", positive_from=1).notes)
