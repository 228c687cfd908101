"""Breast ultrasound with its masks."""

import pytest

from radtransfer.errors import DataError

IMAGES = ("benign/benign (1).png", "benign/benign (100).png", "malignant/malignant (1).png", "normal/normal (1).png")
MASKS = (
    *("benign/benign (1)_mask.png", "benign/benign (100)_mask.png", "benign/benign (100)_mask_1.png"),
    *("malignant/malignant (1)_mask.png", "normal/normal (1)_mask.png"),
)


@pytest.fixture(params=["Dataset_BUSI_with_GT", "images"])
def root(tree, request):
    return tree(
        *(f"{request.param}/{name}" for name in (*IMAGES, *MASKS)),
        text={f"{request.param}/.DS_Store": "", f"{request.param}/benign/.DS_Store": ""},
    )


def test_masks_are_skipped_and_normal_is_benign(root, read):
    table = read(f"busi:{root}")
    assert table.paths == IMAGES
    assert table.labels == ("benign", "benign", "malignant", "benign")
    assert table.classes == ("benign", "malignant") and table.patients is None and table.splits is None
    assert {"1 normal images counted as benign", "masks skipped: 5"} <= set(table.notes)
    assert "files that are not images, ignored: 1" in table.notes


def test_normal_may_be_a_class_of_its_own_or_left_out(root, read):
    assert read(f"busi:{root},normal=class").classes == ("benign", "malignant", "normal")
    table = read(f"busi:{root},normal=leave_out")
    assert table.labels == ("benign", "benign", "malignant")
    assert "1 normal images left out" in table.notes


def test_a_class_that_is_missing_is_an_error(tree, read):
    root = tree("benign/benign (1).png", "malignant/malignant (1).png")
    with pytest.raises(DataError, match=r"busi: .* has no normal\. Expected:(?s:.)*Found: benign/, malignant/\."):
        read(f"busi:{root}")


def test_the_real_images_are_those_of_the_published_folds(busi, read):
    table = read(f"busi:{busi / 'images'}")
    assert dict(zip(table.classes, table.targets.sum(axis=0), strict=True)) == {"benign": 570, "malignant": 210}
    folds = read(str(busi / "folds"), image_root=str(busi / "images"))
    label = dict(zip(table.files, table.labels, strict=True))
    assert all(label[file] == wanted for file, wanted in zip(folds.files, folds.labels, strict=True))
