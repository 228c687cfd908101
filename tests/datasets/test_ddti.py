"""Thyroid ultrasound whose scores stand in XML files."""

import pytest

from radtransfer.errors import DataError


def case(score):
    tirads = "<tirads/>" if score is None else f"<tirads>{score}</tirads>"
    return f'<?xml version="1.0"?><case><number>1</number><sex>F</sex>{tirads}<mark><image>1</image></mark></case>'


def files(**scores):
    return {f"{number.strip('_')}.xml": case(score) for number, score in scores.items()}


@pytest.fixture
def root(tree):
    names = ("1_1.jpg", "1_2.jpg", "2_1.jpg", "10_1.jpg", "11_1.jpg", "12_1.jpg")
    return tree(*names, text=files(_1="4a", _2=3, _10=5.0, _11=None, _12=2, _99="4b") | {"._1.xml": "mac"})


def test_the_score_gives_the_class_and_the_examination_is_the_patient(root, read):
    table = read(f"ddti:{root}")
    assert dict(zip(table.paths, table.labels, strict=True)) == {
        "1_1.jpg": "malignant",
        "1_2.jpg": "malignant",
        "2_1.jpg": "benign",
        "10_1.jpg": "malignant",
        "12_1.jpg": "benign",
    }
    assert dict(zip(table.paths, table.patients, strict=True))["1_2.jpg"] == "1"
    assert "1 images of examinations without a TI-RADS score are left out" in table.notes


def test_examinations_without_score_may_count_as_benign(root, read):
    table = read(f"ddti:{root},unscored=benign")
    assert dict(zip(table.paths, table.labels, strict=True))["11_1.jpg"] == "benign"
    assert "1 images of examinations without a TI-RADS score count as benign" in table.notes


def test_a_file_without_the_element_has_no_score(tree, root, read):
    tree(text={"2.xml": "<case><number>2</number></case>"})
    assert "2_1.jpg" not in read(f"ddti:{root}").paths


def test_other_images_are_said(tree, root, read):
    tree("thumbnail.jpg", "deeper/3_1.jpg")
    table = read(f"ddti:{root}")
    assert len(table) == 5
    assert "images that are not called N_M.jpg, ignored: thumbnail.jpg" in table.notes


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (case("4d"), r"2\.xml: expected a TI-RADS score of 1 to 5 .* received '4d'"),
        (case("6"), "received '6'"),
        ("<case><tirads>3", r"Cannot read .*2\.xml"),
    ],
)
def test_an_xml_file_that_holds_something_else_is_an_error(tree, root, read, content, message):
    tree(text={"2.xml": content})
    with pytest.raises(DataError, match=message):
        read(f"ddti:{root}")


def test_images_without_xml_file_are_an_error(tree, root, read):
    tree("3_1.jpg")
    with pytest.raises(DataError, match=r"has no XML file for 1 images, such as 3_1\.jpg"):
        read(f"ddti:{root}")
