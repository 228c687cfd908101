"""Tables with mistakes: the rest is read, and every mistake is said."""

import pytest

from radtransfer.config.schema import DataSettings
from radtransfer.data.image_list import read_leniently
from radtransfer.errors import ConfigError


@pytest.fixture
def read(tmp_path):
    def read(text, **settings):
        (tmp_path / "table.csv").write_text(text)
        return read_leniently(DataSettings(source=str(tmp_path / "table.csv"), **settings))

    return read


def test_a_sound_table_has_no_mistakes(read):
    table, mistakes = read("path,label\na.png,x\nb.png,y\n")
    assert mistakes == []
    assert table.paths == ("a.png", "b.png")


def test_every_mistake_is_said_and_the_other_rows_are_kept(read, tmp_path):
    (tmp_path / "c.png").touch()
    table, mistakes = read(
        "path,label,patient,split\n"
        "a.png,x,1,train\nb.png,y,2,test\n"
        "c.png,x,3,train\nc.png,y,3,train\n"
        "d.png,,4,train\n"
        "e.png,x,,train\n"
        "f.png,x,6,tarin\n"
        "g.png,x,7,train\ng.png,x,8,train\n"
        ",x,9,train\n",
        missing_patients="error",
    )
    assert table.paths == ("a.png", "b.png")
    assert {mistake.paths: mistake.kind for mistake in mistakes} == {
        (): "table",
        ("c.png",): "contradictory_labels",
        ("g.png",): "contradictory_patients",
        ("d.png",): "missing_labels",
        ("e.png",): "missing_patients",
        ("f.png",): "table",
    }
    assert [mistake.refs for mistake in mistakes if mistake.paths == ("c.png",)] == [(tmp_path / "c.png",)]
    assert all(mistake.message for mistake in mistakes)


def test_several_labels_with_other_values_than_0_and_1_are_mistakes(read):
    table, mistakes = read("path,p,q\na.png,1,0\nb.png,0,maybe\nc.png,0,1\n", label_column=("p", "q"))
    assert table.paths == ("a.png", "c.png")
    assert [mistake.paths for mistake in mistakes] == [("b.png",)]


def test_a_single_class_is_a_mistake_of_a_table_that_is_read(read):
    table, mistakes = read("path,label\na.png,x\nb.png,x\n")
    assert len(table) == 2
    assert "two or more classes" in mistakes[0].message


def test_an_expression_that_finds_no_patient_is_a_mistake(read):
    table, mistakes = read("path,label\na.png,x\nb.png,y\n", patient_regex=r"(\d+)")
    assert table.patients is None
    assert "--patient-regex" in mistakes[0].message


@pytest.mark.parametrize("text", ["path,label\n", "x,y\n1,2\n", "path,label\na.png\n", ",label\n,x\n"])
def test_what_is_no_table_of_images_gives_none_and_says_why(read, text):
    table, mistakes = read(text)
    assert table is None
    assert mistakes[-1].message


def test_no_data_gives_none(tmp_path):
    table, (mistake,) = read_leniently(DataSettings(source=str(tmp_path / "nowhere")))
    assert table is None and "nowhere" in mistake.message


def test_settings_that_contradict_each_other_are_errors(read):
    with pytest.raises(ConfigError, match="one source of patients"):
        read("path,label\na.png,x\n", patient_column="a", patient_regex="(b)")
