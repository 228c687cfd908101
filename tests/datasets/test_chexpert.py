"""CheXpert: five of fourteen observations, uncertain and unmentioned ones among them."""

import numpy as np
import pytest

from radtransfer.config.schema import SplitSettings
from radtransfer.data.public_parsers import CHEXPERT_LABELS as LABELS
from radtransfer.data.splits import assign_folds
from radtransfer.errors import DataError

OBSERVATIONS = (
    *("No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema"),
    *("Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other"),
    *("Fracture", "Support Devices"),
)


def line(path, side="Frontal", **cells):
    values = [cells.get(name.replace(" ", "_"), "") for name in OBSERVATIONS]
    return ",".join([f"CheXpert-v1.0-small/{path}", "Female", "68", side, "AP", *values])


def table_text(*lines):
    return "\n".join([",".join(["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *OBSERVATIONS]), *lines, ""])


TRAIN = (
    line("train/patient00001/study1/view1_frontal.jpg", Edema="1.0", Atelectasis="-1.0", Pleural_Effusion="0.0"),
    line("train/patient00002/study2/view1_frontal.jpg", Cardiomegaly="1.0", Fracture="1.0"),
    line("train/patient00002/study2/view2_lateral.jpg", side="Lateral", Cardiomegaly="0.0"),
    line("train/patient00003/study1/view1_frontal.jpg", Edema="0.0"),
)
VALID = (line("valid/patient64541/study1/view1_frontal.jpg", **dict.fromkeys(("Edema", "Atelectasis"), "1.0")),)


@pytest.fixture
def root(tree):
    names = [text.split(",")[0].partition("/")[2] for text in (*TRAIN[:3], *VALID)]
    return tree(*names, text={"train.csv": table_text(*TRAIN), "valid.csv": table_text(*VALID)})


def test_the_five_competition_labels_are_read(root, read):
    table = read(f"chexpert:{root}")
    assert table.classes == LABELS and table.task == "multilabel"
    assert table.paths[0] == "train/patient00001/study1/view1_frontal.jpg" and table.files[0].is_file()
    np.testing.assert_array_equal(table.targets[0], [np.nan, 0, 0, 1, 0])
    assert table.patients == ("patient00001", "patient00002", "patient00002", "patient00003", "patient64541")
    assert "1 of 5 images are not on disk, such as 'train/patient00003/study1/view1_frontal.jpg'" in table.notes


def test_uncertain_and_unmentioned_are_the_users_choice(root, read):
    table = read(f"chexpert:{root}", uncertain="ones", unmentioned="ignore")
    np.testing.assert_array_equal(table.targets[0], [1, np.nan, np.nan, 1, 0])


def test_other_observations_can_be_asked_for(root, read):
    assert read(f"chexpert:{root}", label_column=("Fracture", "Edema")).classes == ("Edema", "Fracture")
    table = read(f"chexpert:{root}", label_column=("Fracture",))
    assert (table.task, table.targets[:, 0].tolist()) == ("multilabel", [0, 1, 0, 0, 0])
    with pytest.raises(DataError, match=r"train\.csv has no column Edemma.*Columns: Path,.*Edema"):
        read(f"chexpert:{root}", label_column=("Edemma",))


def test_valid_is_the_test_set_and_validation_comes_from_train(root, read):
    table = read(f"chexpert:{root}")
    assert table.splits.tolist() == [["train"] * 4 + ["test"]] and "valid.csv is the test set" in table.notes
    (fold,) = assign_folds(table, SplitSettings(val_fraction=0.3), seed=0, allow_leakage=False)
    assert set(fold.split.tolist()) == {"train", "val", "test"} and fold.split[4] == "test"
    assert read(f"chexpert:{root},split=drawn").splits is None


def test_views_can_be_left_out(root, read):
    table = read(f"chexpert:{root},view=frontal")
    assert len(table) == 4 and "1 images that are not frontal left out" in table.notes
    assert len(read(f"chexpert:{root.parent / 'set'},view=lateral")) == 1


def test_the_folder_may_hold_the_archive_and_paths_may_name_the_full_one(tree, read):
    text = table_text(*TRAIN[:2]).replace("CheXpert-v1.0-small", "CheXpert-v1.0")
    root = tree(
        "CheXpert-v1.0/train/patient00001/study1/view1_frontal.jpg",
        "CheXpert-v1.0/valid/a.jpg",
        text={"CheXpert-v1.0/train.csv": text, "CheXpert-v1.0/valid.csv": table_text(*VALID)},
    )
    assert read(f"chexpert:{root}").files[0].is_file()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (line("study1/view1_frontal.jpg"), "expected a Path such as train/patient00001"),
        (line("train/patient00009/study1/view1_frontal.jpg", Edema="2"), "column 'Edema': expected 1, 0, -1"),
        (line("train/patient00001/study1/view1_frontal.jpg", Edema="0.0"), "is listed twice .* with label"),
    ],
)
def test_a_table_that_holds_something_else_is_an_error(root, tree, read, bad, message):
    tree(text={"train.csv": table_text(*TRAIN, bad)})
    with pytest.raises(DataError, match=message):
        read(f"chexpert:{root}")
