"""Patient ids: two spellings of one, and ids that a spreadsheet has rounded."""

import csv
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radtransfer.config.schema import DataSettings
from radtransfer.data.image_list import read_leniently
from radtransfer.data.readers import read_table
from radtransfer.data.table import patient_key
from radtransfer.errors import DataError

ONE_PERSON = (
    *("0001", "1", "00001", " 1", "1 ", "\t1", "1.0", "01.00", "1,0", "'0001", '"1"', '="0001"'),
    *("\u00a01", "1\u200b", "\ufeff1", "\uff11", "\u0660\u0661", "1\u2009", "\u200e1"),
)
ANOTHER = (
    *("P0001", "p0001", "P1", "p01", " P1", "P1 ", "\uff30\uff11", "P\u200b1", "P\u00ad1", "P1.0", "\ufeffP001"),
)
SPELLINGS = (
    ONE_PERSON,
    ANOTHER,
    ("Site 1-07", "site 01-7", "SITE  1-007", "Site\u00a01\u20117", "Site 1\u20137"),
    ("Zoë", "Zoe\u0308", "ZOË", "zoë "),
    ("Straße 5", "STRASSE 05", "strasse 5"),
    ("2020_003", "2020_3"),
)
DIFFERENT = (
    ("1", "10", "100", "P1", "1P", "0", "11", "1-1", "1.5", "1.2.3", "1.2.3.0", "1,000", "A1", "B1", "1a", "1b"),
    ("12E5", "12E05x", "1200000", "1E5P", "P-1", "P1", "P_1", "P 1"),
)


@pytest.mark.parametrize("spellings", SPELLINGS, ids=lambda names: names[0])
def test_all_spellings_of_a_patient_have_one_key(spellings):
    assert len({patient_key(name) for name in spellings}) == 1


@pytest.mark.parametrize("names", DIFFERENT, ids=lambda names: names[0])
def test_different_patients_have_different_keys(names):
    assert len({patient_key(name) for name in names}) == len(names)


@given(st.text(max_size=12))
def test_a_key_is_its_own_key_and_case_space_and_zeros_do_not_change_it(name):
    key = patient_key(name)
    assert patient_key(key) == key
    assert patient_key(f" \ufeff{name}\u00a0") == key
    assert patient_key(f"x{name}-007") == patient_key(f"X{name}-7")


@pytest.fixture
def write(tmp_path):
    """Writes a CSV of one image per patient, whose files need not exist."""

    def make(patients, *, name="table.csv", column="pid", **columns):
        rows = [
            [f"{name}-{i}.png", "ab"[i % 2], patient, *(values[i] for values in columns.values())]
            for i, patient in enumerate(patients)
        ]
        with (tmp_path / name).open("w", newline="", encoding="utf-8") as handle:
            csv.writer(handle).writerows([["path", "label", column, *columns], *rows])
        (tmp_path / f"{name}-0.png").touch()
        return tmp_path / name

    return make


def read(source, **settings):
    return read_table(DataSettings(source=str(source), **settings))


@pytest.mark.parametrize("pair", [("0001", "1"), ("P0001", "p0001"), ("7", "7\u200b"), ("A 1", "A\u00a0\u00a01")])
def test_two_spellings_of_a_patient_in_one_column_are_refused_with_the_way_out(write, pair):
    source = write([*pair, "other"])
    with pytest.raises(DataError, match=r"1 patient has several spellings in column 'pid'") as refused:
        read(source)
    assert repr(min(pair)) in str(refused.value) and "table.csv-0.png" in str(refused.value)
    assert "--allow-alike-patients" in str(refused.value)


def test_allowed_spellings_are_different_people_as_they_are_written(write):
    table = read(write(["0001", "1", "other"]), allow_alike_patients=True)
    assert table.patients == table.patient_keys == ("0001", "1", "other")


def test_ids_of_one_spelling_are_kept_as_they_are_written(write):
    table = read(write(["P0001", "P0002", "P0001", "p3 "]))
    assert table.patients == ("P0001", "P0002", "P0001", "p3")


def test_spellings_in_several_tables_of_a_folder_are_refused(tmp_path):
    header = "path,label,patient\n"
    (tmp_path / "train_fold1.csv").write_text(header + "a.png,x,1\nb.png,y,2\n")
    (tmp_path / "test_fold1.csv").write_text(header + "c.png,x,0001\nd.png,y,0002\n")
    (tmp_path / "a.png").touch()
    with pytest.raises(DataError, match="2 patients have several spellings"):
        read(tmp_path)


def test_an_image_whose_patient_is_spelt_in_two_ways_is_told_of_the_spelling(tmp_path):
    header = "path,label,patient\n"
    for fold, (train, test) in enumerate([("a", "b"), ("b", "a")], start=1):
        numbers = {"a": 1, "b": 2}
        (tmp_path / f"train_fold{fold}.csv").write_text(f"{header}{train}.png,{train},{numbers[train]}\n")
        (tmp_path / f"test_fold{fold}.csv").write_text(f"{header}{test}.png,{test},000{numbers[test]}\n")
    with pytest.raises(DataError, match="spellings of one patient.*: 0002 in .* 2 in .*--allow-alike-patients"):
        read(tmp_path)
    with pytest.raises(DataError, match="contradictory patients.* Correct the wrong rows"):
        read(tmp_path, allow_alike_patients=True)


def test_patients_by_a_regular_expression_are_compared_too(tmp_path):
    (tmp_path / "t.csv").write_text("path,label\n001_a.png,x\n1_b.png,y\n2_c.png,x\n")
    (tmp_path / "001_a.png").touch()
    with pytest.raises(DataError, match=r"'001' \(001_a.png\) and '1' \(1_b.png\)") as refused:
        read(tmp_path / "t.csv", patient_regex=r"^(\d+)_")
    assert "--patient-regex" in str(refused.value)


@pytest.mark.parametrize("rounded", ["1.23457E+11", "1,23457E+11", "1.2E+05", "1E+12", "1.23457e+11", " 9.9E+15"])
def test_ids_that_a_spreadsheet_rounded_are_refused_and_their_column_named(write, rounded):
    for allowed in (False, True):
        with pytest.raises(DataError, match=r"column 'MRN'.*rounded by a spreadsheet") as refused:
            read(write(["a", "b", rounded, rounded], column="MRN"), patient_column="MRN", allow_alike_patients=allowed)
        assert repr(rounded.strip()) in str(refused.value)


def test_long_numbers_that_all_end_in_zeros_are_taken_for_rounded_unless_the_user_says_no(write):
    source = write(["123456789012345000", "123456789012346000", "7"])
    with pytest.raises(DataError, match=r"column 'pid'.*rounded.*--allow-alike-patients"):
        read(source)
    assert len(set(read(source, allow_alike_patients=True).patients)) == 3
    assert read(write(["123456789012345000", "123456789012346001", "7"])).patients[0] == "123456789012345000"


def test_ids_that_only_resemble_rounded_numbers_are_read(write):
    names = ("12E5", "P1E+3", "1E5", "E+11", "12.5", "10E+11", "2E-11", "1.5E+1x")
    assert read(write(names)).patients == names


def test_images_that_are_patients_of_their_own_are_told_apart_by_their_whole_names(write):
    paths = [f"own.csv-{i}.png" for i in range(2)]
    table = read(write([paths[0], "own.csv-01.png", "x"], name="own.csv"))
    assert len(set(table.patient_keys)) == 3


def test_a_check_of_the_data_goes_on_after_it_has_found_two_spellings(write):
    source = write(["0001", "1", "2", "1.2E+11"], split=["train", "test", "train", "test"])
    table, mistakes = read_leniently(DataSettings(source=str(source)))
    assert len(table) == 4
    assert {mistake.kind: len(mistake.paths) for mistake in mistakes} == {"patients_rounded": 1, "patients_alike": 2}


def test_many_patients_are_compared_through_their_different_ids_only(write, monkeypatch):
    from radtransfer.data import table as patient_keys

    calls, key = [], patient_keys.patient_key
    monkeypatch.setattr(patient_keys, "patient_key", lambda name: calls.append(name) or key(name))
    names = [f"P{i % 7:04d}" for i in range(1000)]
    random.Random(0).shuffle(names)
    read(write(names))
    assert len(calls) == 7
