"""ISIC 2018 task 3: diagnoses in seven columns, several images of one lesion."""

import pytest

from radtransfer.errors import DataError

HEADER = "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC\n"
TRUTH = HEADER + (
    "ISIC_0024306,0.0,1.0,0.0,0.0,0.0,0.0,0.0\n"
    "ISIC_0024307,0.0,1.0,0.0,0.0,0.0,0.0,0.0\n"
    "ISIC_0024313,1.0,0.0,0.0,0.0,0.0,0.0,0.0\n"
)
LESIONS = (
    "image,lesion_id,diagnosis_confirm_type\n"
    "ISIC_0024306,HAM_0000550,follow_up\nISIC_0024307,HAM_0000550,follow_up\nISIC_0024313,HAM_0001,histopathology\n"
)
PREFIX = "ISIC2018_Task3_"


def truth(part, content=TRUTH):
    return {f"{PREFIX}{part}_GroundTruth/{PREFIX}{part}_GroundTruth.csv": content}


@pytest.fixture
def root(tree):
    images = [f"{PREFIX}Training_Input/ISIC_00{number}.jpg" for number in (24306, 24307, 24313)]
    extra = {
        f"{PREFIX}Training_Input/LICENSE.txt": "CC BY-NC",
        f"{PREFIX}Training_LesionGroupings.csv": LESIONS,
    }
    return tree(*images, text=truth("Training") | extra)


def test_the_column_with_1_is_the_class_and_the_lesion_the_patient(root, read):
    table = read(f"isic2018:{root}")
    assert table.paths[0] == f"{PREFIX}Training_Input/ISIC_0024306.jpg"
    assert (table.labels, table.patients) == (("NV", "NV", "MEL"), ("HAM_0000550", "HAM_0000550", "HAM_0001"))
    assert table.splits is None and "patients are lesions (2)" in table.notes


def test_without_the_lesions_images_are_not_kept_together_and_it_says_so(root, read):
    (root / f"{PREFIX}Training_LesionGroupings.csv").unlink()
    table = read(f"isic2018:{root}")
    assert table.patients is None
    assert any("images of one lesion are not kept together" in note for note in table.notes)


def test_an_image_without_lesion_is_one_of_its_own(root, tree, read):
    tree(text={f"{PREFIX}Training_LesionGroupings.csv": LESIONS.replace("ISIC_0024313,", "ISIC_0099999,")})
    table = read(f"isic2018:{root}")
    assert table.patients[2] == "ISIC_0024313"
    assert "1 training images have no lesion in the table and count as lesions of their own" in table.notes


def test_the_tables_may_stand_in_the_folder_itself(root, tree, read):
    (root / f"{PREFIX}Training_GroundTruth" / f"{PREFIX}Training_GroundTruth.csv").unlink()
    with pytest.raises(DataError, match=r"has no ISIC2018_Task3_Training_GroundTruth\.csv"):
        read(f"isic2018:{root}")
    tree(text={f"{PREFIX}Training_GroundTruth.csv": TRUTH})
    assert len(read(f"isic2018:{root}")) == 3


def test_the_official_split_adds_validation_and_test(root, tree, read):
    with pytest.raises(DataError, match="has no ISIC2018_Task3_Validation_GroundTruth"):
        read(f"isic2018:{root},split=official")
    tree(
        f"{PREFIX}Validation_Input/ISIC_0034321.jpg",
        text=truth("Validation", HEADER + "ISIC_0034321,0,0,1,0,0,0,0\n")
        | truth("Test", HEADER + "ISIC_0034524,0,0,0,0,0,0,1\n"),
    )
    table = read(f"isic2018:{root},split=official")
    assert table.splits.tolist() == [["train", "train", "train", "val", "test"]]
    assert (table.labels[3:], table.patients[3:]) == (("BCC", "VASC"), ("ISIC_0034321", "ISIC_0034524"))
    assert any(note.startswith("1 of 5 images are not on disk") for note in table.notes)


@pytest.mark.parametrize("cells", ["0,0,0,0,0,0,0", "1,1,0,0,0,0,0", ",,,,,,"])
def test_an_image_has_one_diagnosis(root, tree, read, cells):
    tree(text=truth("Training", HEADER + f"ISIC_0024306,{cells}\n"))
    with pytest.raises(DataError, match="ISIC_0024306 has [02] diagnoses .*expected one 1.0"):
        read(f"isic2018:{root}")
