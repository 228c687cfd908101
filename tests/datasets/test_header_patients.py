"""Patients from DICOM headers."""

import pytest
from dicom_files import blob, write
from PIL import Image

from radtransfer.config.schema import DataSettings
from radtransfer.data.readers import read_table
from radtransfer.data.table import NO_PATIENTS


@pytest.fixture
def folder(tmp_path):
    """Write a folder of two classes, an image per patient id in turn, and read it."""

    def make(*patients, name="{}.dcm", **settings):
        for number, patient in enumerate(patients):
            file = tmp_path / "data" / "ab"[number % 2] / name.format(number)
            file.parent.mkdir(parents=True, exist_ok=True)
            write(file, blob(), patient=patient)
        return read_table(DataSettings(source=str(tmp_path / "data"), **settings))

    make.root = tmp_path / "data"
    return make


def test_the_headers_give_the_patients(folder):
    table = folder("p1", "p2", "p1", "Zoë")
    assert table.paths == ("a/0.dcm", "a/2.dcm", "b/1.dcm", "b/3.dcm")
    assert table.patients == ("p1", "p1", "p2", "Zoë")
    assert "3 patients from the headers of 4 DICOM files" in table.notes
    assert NO_PATIENTS not in table.notes


def test_one_empty_id_makes_all_unused_and_a_note_counts_it(folder):
    table = folder("p1", "p2", "", "p3")
    assert table.patients is None
    assert any("not used: 1 of 4 headers have none" in note for note in table.notes)
    assert NO_PATIENTS in table.notes


def test_one_id_in_all_headers_is_no_patient(folder):
    table = folder("ANON", "ANON", "ANON")
    assert table.patients is None
    assert any("all 3 headers have the same, 'ANON'" in note for note in table.notes)


def test_a_dangling_link_is_of_no_format(folder):
    (folder.root / "a").mkdir(parents=True)
    (folder.root / "a" / "gone.png").symlink_to(folder.root / "nowhere.png")
    table = folder("p1", "p2", "p1")
    assert table.patients == ("p1", "p1", "a/gone.png", "p2")


def test_a_dangling_dicom_file_beside_other_images_has_no_id(folder):
    (folder.root / "b").mkdir(parents=True)
    (folder.root / "b" / "gone.dcm").symlink_to(folder.root / "nowhere.dcm")
    (folder.root / "a").mkdir()
    Image.new("L", (8, 8)).save(folder.root / "a" / "x.png")
    assert not any("patient ids" in note for note in folder().notes)


def test_no_ids_at_all_are_like_images_without_headers(folder):
    table = folder("", "", "")
    assert table.patients is None
    assert table.notes == (NO_PATIENTS,)


def test_images_of_other_formats_have_none(folder):
    (folder.root / "a").mkdir(parents=True)
    Image.new("L", (8, 8)).save(folder.root / "a" / "x.png")
    table = folder("p1", "p2", "p3")
    assert table.patients is None
    assert any("of 3 DICOM files not used: 1 image is of other formats" in note for note in table.notes)


def test_a_file_that_cannot_be_read_is_its_own_patient_until_the_images_are_checked(folder):
    folder("p1", "p2", "p1")
    (folder.root / "b" / "broken.dcm").write_bytes(b"x" * 500)
    table = folder()
    assert dict(zip(table.paths, table.patients, strict=True))["b/broken.dcm"] == "b/broken.dcm"
    assert "2 patients from the headers of 3 DICOM files" in table.notes


def test_an_expression_for_the_path_comes_first(folder):
    table = folder("p1", "p2", patient_regex=r"(\d)\.dcm")
    assert table.patients == ("0", "1")


def test_a_column_of_the_table_comes_first(folder):
    folder("p1", "p2")
    (folder.root / "t.csv").write_text("path,label,patient\na/0.dcm,x,7\nb/1.dcm,y,8\n")
    assert read_table(DataSettings(source=str(folder.root / "t.csv"))).patients == ("7", "8")


def test_a_table_without_patients_takes_them_from_the_headers(folder):
    folder("p1", "p2")
    (folder.root / "t.csv").write_text("path,label\na/0.dcm,x\nb/1.dcm,y\n")
    assert read_table(DataSettings(source=str(folder.root / "t.csv"))).patients == ("p1", "p2")


# Names of files


@pytest.mark.parametrize("name", ["IM-0001-000{}", "1.2.840.113619.2.55.{}", "I{}"])
def test_files_without_suffix_are_found_by_their_first_bytes(folder, name):
    table = folder("p1", "p2", name=name)
    assert table.paths == ("a/" + name.format(0), "b/" + name.format(1))
    assert table.patients == ("p1", "p2")


@pytest.mark.parametrize("name", ["DICOMDIR", ".1", "notes", "x.bin"])
def test_other_files_are_ignored(folder, name):
    folder("p1", "p2")
    if name == "notes":
        (folder.root / "a" / name).write_text("text" * 100)
    else:
        write(folder.root / "a" / name, blob())
    table = folder()
    assert table.paths == ("a/0.dcm", "b/1.dcm")
    assert "files that are not images, ignored: 1" in table.notes


@pytest.mark.parametrize("suffix", [".dcm", ".DCM", ".dicom", ".ima"])
def test_suffixes_of_dicom_are_known(folder, suffix):
    assert len(folder("p1", "p2", name="{}" + suffix)) == 2


def test_a_table_may_leave_the_suffix_out(folder):
    folder("p1", "p2")
    (folder.root / "t.csv").write_text("path,label\n0,x\n1,y\n")
    table = read_table(DataSettings(source=str(folder.root / "t.csv"), path_column="path"))
    assert [file.name for file in table.files] == ["0.dcm", "1.dcm"]


def test_a_missing_word_in_a_header_is_no_patient(folder):
    table = folder("p1", "p2", "Anonymous", "unknown")
    assert table.patients is None
    assert any("not used: 2 of 4 headers have none" in note for note in table.notes)
