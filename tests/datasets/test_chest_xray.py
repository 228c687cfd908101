"""Chest X-rays of Kermany et al., as Kaggle gives them."""

import pytest

from radtransfer.config.schema import SplitSettings
from radtransfer.data.splits import assign_folds
from radtransfer.errors import DataError

IMAGES = (
    *("train/NORMAL/IM-0115-0001.jpeg", "train/NORMAL/NORMAL2-IM-1427-0001-0002.jpeg"),
    *("train/PNEUMONIA/person1_bacteria_1.jpeg", "train/PNEUMONIA/person1_bacteria_2.jpeg"),
    *("val/NORMAL/NORMAL2-IM-1431-0001.jpeg", "val/PNEUMONIA/person1946_bacteria_4874.jpeg"),
    *("test/NORMAL/NORMAL2-IM-0115-0001.jpeg", "test/PNEUMONIA/person1_virus_6.jpeg"),
)


@pytest.fixture
def root(tree):
    """With what macOS and the archive leave: hidden files, and everything a second time."""
    copies = [f"chest_xray/{name}" for name in IMAGES]
    return tree(*IMAGES, *copies, text={"train/.DS_Store": "", "train/NORMAL/.DS_Store": "", "__MACOSX/a": ""})


def test_all_three_folders_are_pooled_and_patients_taken_together(root, read):
    table = read(f"chest_xray:{root}")
    assert sorted(table.paths) == sorted(IMAGES)
    assert table.classes == ("NORMAL", "PNEUMONIA") and table.splits is None
    patients = dict(zip(table.paths, table.patients, strict=True))
    assert patients["train/NORMAL/IM-0115-0001.jpeg"] == patients["test/NORMAL/NORMAL2-IM-0115-0001.jpeg"] == "0115"
    assert patients["train/PNEUMONIA/person1_bacteria_1.jpeg"] == patients["test/PNEUMONIA/person1_virus_6.jpeg"]
    assert "5 patients by the file names" in table.notes
    assert "files that are not images, ignored: 1" in table.notes


def test_the_official_split_takes_patients_apart_and_does_not_leak(root, read):
    table = read(f"chest_xray:{root},split=official")
    assert {path.split("/")[0] for path, split in zip(table.paths, table.splits[0], strict=True) if split == "val"} == {
        "val"
    }
    assert len(set(table.patients)) == 7
    assert len(assign_folds(table, SplitSettings(), seed=0, allow_leakage=False)) == 1


@pytest.mark.parametrize(
    ("name", "together", "apart"),
    [
        ("person78_bacteria_378.jpeg", "person78", "person78_bacteria"),
        ("person1372_virus_2365_1.jpeg", "person1372", "person1372_virus"),
        ("IM-0001-0001.jpeg", "0001", "IM-0001"),
        ("NORMAL2-IM-0395-0001-0001.jpeg", "0395", "NORMAL2-IM-0395"),
        ("VIRUS-1980593-0001.jpeg", "VIRUS-1980593", "VIRUS-1980593"),
    ],
)
def test_the_patient_is_in_the_name(name, together, apart, tree, read):
    root = tree(f"train/NORMAL/{name}", "train/PNEUMONIA/person9_virus_1.jpeg")
    for part in ("train", "test"):
        for label in ("NORMAL", "PNEUMONIA"):
            (root / part / label).mkdir(parents=True, exist_ok=True)
    assert read(f"chest_xray:{root}").patients[0] == together
    assert read(f"chest_xray:{root},split=official").patients[0] == apart


def test_the_archive_of_the_original_has_no_val(tree, read):
    root = tree("train/NORMAL/NORMAL-1-0001.jpeg", "test/PNEUMONIA/VIRUS-2-0001.jpeg")
    (root / "train" / "PNEUMONIA").mkdir()
    (root / "test" / "NORMAL").mkdir()
    assert read(f"chest_xray:{root}").patients == ("NORMAL-1", "VIRUS-2")


def test_a_name_without_patient_is_an_error_unless_the_user_says_how(tree, root, read):
    tree("train/NORMAL/scan.jpeg")
    with pytest.raises(DataError, match="no patient in the file name 'train/NORMAL/scan.jpeg'"):
        read(f"chest_xray:{root}")
    assert read(f"chest_xray:{root}", patient_regex="/([^/]+)$").patients[2] == "scan.jpeg"


def test_another_class_is_an_error(tree, root, read):
    tree("train/COVID/IM-1-1.jpeg")
    with pytest.raises(DataError, match=r"train has unexpected folders: COVID\. Expected:"):
        read(f"chest_xray:{root}")
