import numpy as np
import pytest

from radtransfer.config.schema import DataSettings
from radtransfer.data.table import ImageTable
from radtransfer.errors import ConfigError, DataError
from radtransfer.evaluation.results import match_classes, read_test_set
from radtransfer.evaluation.scoring import Scoring

MODEL = Scoring("multiclass", ("benign", "malignant"))


def table(labels, classes, *, task="multiclass"):
    targets = np.array(labels, "float32") if task == "multilabel" else np.eye(len(classes), dtype="float32")[labels]
    names = tuple(f"{number}.png" for number in range(len(targets)))
    return ImageTable(names, (None,) * len(names), targets, classes, task)


def match(data, scoring=MODEL, **class_map):
    return match_classes(data, scoring, model="runs/first", class_map=class_map)


def test_classes_are_matched_by_name_not_by_place():
    found = match(table([0, 1, 1], ("malignant", "benign")))
    assert found.classes == MODEL.classes
    assert found.labels == ("malignant", "benign", "benign")


def test_a_class_that_the_model_does_not_know_is_explained():
    with pytest.raises(DataError) as caught:
        match(table([0, 1, 2, 2], ("benign", "malignant", "normal")))
    text = str(caught.value)
    assert "Expected benign, malignant. The data has all of them." in text
    assert "normal (2 images)" in text
    assert "--class-map normal=CLASS" in text


def test_another_spelling_is_suggested():
    with pytest.raises(DataError) as caught:
        match(table([0, 1], ("Benign", "MALIGNANT")))
    assert "The data lacks benign, malignant." in str(caught.value)
    assert "--class-map Benign=benign --class-map MALIGNANT=malignant" in str(caught.value)


def test_a_class_can_count_as_another_or_be_left_out():
    data = table([0, 1, 2, 2], ("benign", "malignant", "normal"))
    assert match(data, normal="benign").labels == ("benign", "malignant", "benign", "benign")
    left = match(data, normal="")
    assert left.labels == ("benign", "malignant")
    assert left.paths == ("0.png", "1.png")


def test_classes_can_be_exchanged():
    data = table([0, 1], ("benign", "malignant"))
    assert match(data, benign="malignant", malignant="benign").labels == ("malignant", "benign")


def test_a_class_that_the_data_lacks_is_told():
    found = match(table([0, 0], ("benign",)))
    assert found.notes == ("the data has no class malignant; metrics that need it are undefined",)
    assert found.targets.tolist() == [[1, 0], [1, 0]]


def test_a_map_of_what_is_not_there_is_refused():
    data = table([0, 1], ("benign", "malignant"))
    with pytest.raises(ConfigError, match="the data has no class 'normal'"):
        match(data, normal="benign")
    with pytest.raises(ConfigError, match="no class 'benin'. Did you mean 'benign'"):
        match(data, benign="benin")


def test_labels_that_only_one_side_has_are_unknown_or_left_out():
    scoring = Scoring("multilabel", ("edema", "fracture"))
    found = match(table([[1, 0], [0, 1]], ("edema", "nodule"), task="multilabel"), scoring)
    assert found.targets[:, 0].tolist() == [1, 0]
    assert np.isnan(found.targets[:, 1]).all()
    assert "labels unknown to runs/first are left out: nodule" in found.notes
    with pytest.raises(DataError, match="nodule"):
        match(table([[1], [0]], ("nodule",), task="multilabel"), scoring)


def test_one_class_per_image_is_not_several_labels():
    with pytest.raises(DataError, match="several labels per image .*, the data has one class per.*--label-separator"):
        match(table([0, 1], ("benign", "malignant")), Scoring("multilabel", ("edema", "fracture")))


@pytest.fixture
def split_table(tmp_path):
    (tmp_path / "images.csv").write_text(
        "path,label,split\na.png,benign,train\nb.png,malignant,train\nc.png,benign,test\nd.png,malignant,test\n"
    )
    return DataSettings(source=str(tmp_path / "images.csv"))


def test_data_with_splits_is_evaluated_whole_or_by_split(split_table):
    whole = read_test_set(split_table, MODEL, model="runs/first")
    assert whole.paths == ("a.png", "b.png", "c.png", "d.png")
    assert any("--split test" in note for note in whole.notes)
    assert read_test_set(split_table, MODEL, model="runs/first", split="test").paths == ("c.png", "d.png")
    with pytest.raises(ConfigError, match="--split val: no image has it"):
        read_test_set(split_table, MODEL, model="runs/first", split="val")


def test_a_split_of_data_without_splits_is_refused(tmp_path):
    (tmp_path / "images.csv").write_text("path,label\na.png,benign\nb.png,malignant\n")
    with pytest.raises(ConfigError, match="has no splits"):
        read_test_set(DataSettings(source=str(tmp_path / "images.csv")), MODEL, model="r", split="test")


def test_an_image_that_stands_in_several_folds_counts_once(tmp_path):
    (tmp_path / "folds.csv").write_text(
        "path,label,fold,split\n"
        + "".join(
            f"{name}.png,{label},{fold},{split}\n"
            for fold, splits in ((1, ("test", "train")), (2, ("train", "test")))
            for (name, label), split in zip((("a", "benign"), ("b", "malignant")), splits, strict=True)
        )
    )
    found = read_test_set(DataSettings(source=str(tmp_path / "folds.csv")), MODEL, model="r", split="test")
    assert found.paths == ("a.png", "b.png")
