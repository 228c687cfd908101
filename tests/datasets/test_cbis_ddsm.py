"""CBIS-DDSM: a row per finding, and mammograms in the forms in which people have them."""

import pytest

from radtransfer.errors import DataError

HEADER = (
    "patient_id,breast density,left or right breast,image view,abnormality id,abnormality type,"
    "assessment,pathology,subtlety,image file path,cropped image file path,ROI mask file path\n"
)
UID = "1.3.6.1.4.1.9590.100.1.2."


def finding(case, pathology, *, series, number=1):
    patient = "_".join(case.split("_")[1:3])
    path = f"{case}/{UID}1/{UID}{series}/000000.dcm"
    crop = f"{case}_{number}/{UID}2/{UID}{series}9/000001.dcm"
    return f'{patient},3,LEFT,CC,{number},mass,4,{pathology},4,{path},"{crop}\n","{crop}\n"\n'


def tables(**lines):
    names = [f"{kind}_{split}" for kind in ("mass", "calc") for split in ("train", "test")]
    defaults = {
        "mass_train": finding("Mass-Training_P_00001_LEFT_CC", "MALIGNANT", series=11)
        + finding("Mass-Training_P_00001_LEFT_MLO", "BENIGN", series=12)
        + finding("Mass-Training_P_00001_LEFT_MLO", "MALIGNANT", series=12, number=2)
        + finding("Mass-Training_P_00004_LEFT_CC", "BENIGN", series=13)
        + finding("Mass-Training_P_00004_LEFT_CC", "BENIGN", series=13, number=2),
        "mass_test": finding("Mass-Test_P_00016_LEFT_CC", "MALIGNANT", series=14),
        "calc_train": finding("Calc-Training_P_00005_RIGHT_CC", "BENIGN_WITHOUT_CALLBACK", series=15),
        "calc_test": finding("Calc-Test_P_00001_LEFT_CC", "BENIGN", series=16),
    }
    return {
        "{}_case_description_{}_set.csv".format(*name.split("_")): HEADER + (defaults | lines)[name] for name in names
    }


CASES = {
    *("Mass-Training_P_00001_LEFT_CC", "Mass-Training_P_00001_LEFT_MLO", "Mass-Training_P_00004_LEFT_CC"),
    *("Mass-Test_P_00016_LEFT_CC", "Calc-Training_P_00005_RIGHT_CC", "Calc-Test_P_00001_LEFT_CC"),
}
CONVERTED = tuple(f"images/{case}.png" for case in sorted(CASES))
KAGGLE = (
    *(f"jpeg/{UID}{series}/1-{series}0.jpg" for series in range(11, 17)),
    *(f"jpeg/{UID}{series}9/{number}-100.jpg" for series in range(11, 17) for number in (1, 2)),
)


def test_a_mammogram_is_one_image_and_malignant_if_any_finding_is(tree, read):
    table = read(f"cbis_ddsm:{tree(*CONVERTED, text=tables())}")
    labels = {path.split("/")[-1]: label for path, label in zip(table.paths, table.labels, strict=True)}
    assert labels == {
        "Mass-Training_P_00001_LEFT_CC.png": "MALIGNANT",
        "Mass-Training_P_00001_LEFT_MLO.png": "MALIGNANT",
        "Mass-Training_P_00004_LEFT_CC.png": "BENIGN",
        "Mass-Test_P_00016_LEFT_CC.png": "MALIGNANT",
        "Calc-Training_P_00005_RIGHT_CC.png": "BENIGN",
        "Calc-Test_P_00001_LEFT_CC.png": "BENIGN",
    }
    assert set(table.patients) == {"P_00001", "P_00004", "P_00005", "P_00016"} and table.splits is None
    assert "8 findings in 6 mammograms of 4 patients; 1 with benign and malignant findings are malignant" in table.notes
    assert "BENIGN_WITHOUT_CALLBACK counted as BENIGN" in table.notes


def test_kaggles_jpeg_folders_are_the_series_and_crops_are_not_taken(tree, read):
    text = {f"csv/{name}": content for name, content in tables().items()} | {"csv/dicom_info.csv": "file_path\nx\n"}
    table = read(f"cbis_ddsm:{tree(*KAGGLE, text=text)}")
    assert sorted(table.paths) == sorted(KAGGLE[:6])
    assert None not in table.files


def test_the_archives_folders_are_the_cases_and_a_converted_image_goes_before_its_dicom(tree, read):
    case = "Mass-Training_P_00001_LEFT_CC"
    place = f"CBIS-DDSM/{case}/08-29-2017-DDSM-96009/1.0-full mammogram images-63992"
    root = tree(
        f"{place}/1-1.png",
        f"CBIS-DDSM/{case}_1/x/1-1.png",
        text=tables() | {f"{place}/1-1.dcm": "DICM", f"CBIS-DDSM/Mass-Test_P_00016_LEFT_CC/{UID}1/9/1-1.dcm": "DICM"},
    )
    table = read(f"cbis_ddsm:{root}")
    assert table.paths[0] == f"{place}/1-1.png"
    assert f"CBIS-DDSM/Mass-Test_P_00016_LEFT_CC/{UID}1/9/1-1.dcm" in table.paths
    assert any(note.startswith("4 of 6 images are not on disk, such as 'Mass-Training_P") for note in table.notes)


def test_cases_and_the_official_split_can_be_asked_for(tree, read):
    root = tree(*CONVERTED, text=tables())
    table = read(f"cbis_ddsm:{root},cases=mass,split=official")
    assert table.splits.tolist() == [["train", "train", "train", "test"]]
    with pytest.raises(DataError, match="two or more classes, found one: BENIGN"):
        read(f"cbis_ddsm:{root},cases=calc")


def test_the_official_split_has_patients_on_both_sides_and_the_leak_check_sees_them(tree, read):
    table = read(f"cbis_ddsm:{tree(*CONVERTED, text=tables())},split=official")
    sides = {
        split for patient, split in zip(table.patients, table.splits[0].tolist(), strict=True) if patient == "P_00001"
    }
    assert sides == {"train", "test"}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ({"mass_test": finding("Mass-Test_P_1_LEFT_CC", "UNSURE", series=1)}, "expected a pathology .*'UNSURE'"),
        (
            {"mass_test": "P_1,3,LEFT,CC,1,mass,4,BENIGN,4,1.png,c,r\n"},
            "image file path CASE/STUDY/SERIES/FILE.*'1.png'",
        ),
        (
            {"mass_test": finding("Mass-Training_P_00001_LEFT_CC", "BENIGN", series=11)},
            "Mass-Training_P_00001_LEFT_CC has two series, patients or splits",
        ),
    ],
)
def test_a_table_that_holds_something_else_is_an_error(tree, read, lines, message):
    with pytest.raises(DataError, match=message):
        read(f"cbis_ddsm:{tree(*CONVERTED, text=tables(**lines))}")


def test_two_images_of_one_mammogram_are_an_error(tree, read):
    root = tree(*CONVERTED, "copies/Mass-Training_P_00001_LEFT_CC.png", text=tables())
    with pytest.raises(DataError, match="both match Mass-Training_P_00001_LEFT_CC. Keep one"):
        read(f"cbis_ddsm:{root}")


def test_tables_without_images_are_an_error(tree, read):
    with pytest.raises(DataError, match="has none of the 6 mammograms in its tables. Expected:"):
        read(f"cbis_ddsm:{tree('thumbnail.png', text=tables())}")


def test_a_missing_table_is_an_error(tree, read):
    root = tree(*CONVERTED, text=tables())
    (root / "calc_case_description_test_set.csv").unlink()
    with pytest.raises(DataError, match=r"has no calc_case_description_test_set\.csv"):
        read(f"cbis_ddsm:{root}")
    assert len(read(f"cbis_ddsm:{root},cases=mass")) == 4
