"""MRNet: slices of volumes, written to the cache once."""

import numpy as np
import pytest
from PIL import Image

from radtransfer.data.public_parsers import chosen_slices
from radtransfer.errors import DataError

EXAMINATIONS = {"train": ("0000", "0001", "0002"), "valid": ("1130", "1131")}


@pytest.fixture
def root(tree, cache):
    """Volumes of 5 slices, the pixels of slice i of the sagittal plane are i; one volume is not there."""
    text = {}
    for task, labels in (("acl", "01011"), ("meniscus", "10011"), ("abnormal", "01111")):
        marks = iter(labels)
        for part, numbers in EXAMINATIONS.items():
            text[f"MRNet-v1.0/{part}-{task}.csv"] = "".join(f"{number},{next(marks)}\n" for number in numbers)
    root = tree(text=text | {"MRNet-v1.0/.DS_Store": ""})
    for part, numbers in EXAMINATIONS.items():
        for plane in ("axial", "coronal", "sagittal"):
            folder = root / "MRNet-v1.0" / part / plane
            folder.mkdir(parents=True)
            for number in numbers:
                value = np.arange(5, dtype=np.uint8) + (100 if plane == "axial" else 0)
                np.save(folder / f"{number}.npy", np.broadcast_to(value[:, None, None], (5, 8, 8)))
    (root / "MRNet-v1.0" / "train" / "sagittal" / "0002.npy").unlink()
    return root


def values(table):
    return [None if file is None else int(np.asarray(Image.open(file))[0, 0]) for file in table.files]


def test_the_middle_sagittal_slice_stands_for_the_acl(root, read):
    table = read(f"mrnet:{root}")
    assert table.paths[:2] == ("train/0000_02.png", "train/0001_02.png")
    assert values(table) == [2, 2, None, 2, 2]
    assert (table.labels, table.classes) == (("no", "yes", "no", "yes", "yes"), ("no", "yes"))
    assert table.patients == ("0000", "0001", "0002", "1130", "1131") and table.splits is None
    assert "1 examinations have no sagittal volume" in table.notes
    assert any(note.startswith("5 sagittal slices (middle) of 5 examinations, as PNG files in") for note in table.notes)


def test_plane_task_and_slices_can_be_asked_for(root, read):
    table = read(f"mrnet:{root},plane=axial,task=meniscus,slices=3,split=official")
    assert values(table)[:4] == [101, 102, 103, 101]
    assert table.labels[:4] == ("yes", "yes", "yes", "no") and len(table) == 15
    assert table.splits.tolist() == [["train"] * 9 + ["test"] * 6]
    assert len(read(f"mrnet:{root},slices=all,plane=coronal")) == 25


@pytest.mark.parametrize(
    ("count", "wanted", "expected"),
    [(5, "middle", (2,)), (4, "middle", (2,)), (1, "middle", (0,)), (5, "3", (1, 2, 3)), (3, "all", (0, 1, 2))],
)
def test_slices_are_taken_around_the_middle(count, wanted, expected):
    assert chosen_slices(count, wanted) == expected
    assert chosen_slices(3, "9") == (0, 1, 2)


def test_slices_are_written_once_and_shared_by_the_tasks(root, read, cache):
    first = read(f"mrnet:{root}")
    written = first.files[0].stat().st_mtime_ns
    again = read(f"mrnet:{root},task=meniscus")
    assert again.files == first.files and again.files[0].stat().st_mtime_ns == written
    assert len(list((cache / "mrnet").iterdir())) == 1
    np.save(root / "MRNet-v1.0" / "train" / "sagittal" / "0000.npy", np.full((3, 8, 8), 77, np.uint8))
    assert values(read(f"mrnet:{root}"))[0] == 77


@pytest.mark.parametrize(
    "volume", [np.zeros((5, 8, 8), np.float32), np.zeros((8, 8), np.uint8), np.zeros((0, 8, 8), np.uint8)]
)
def test_a_volume_of_another_kind_is_an_error_that_leaves_nothing(root, read, cache, volume):
    np.save(root / "MRNet-v1.0" / "valid" / "sagittal" / "1131.npy", volume)
    with pytest.raises(DataError, match=r"1131\.npy: expected uint8 \(slices, height, width\), received"):
        read(f"mrnet:{root}")
    assert not cache.exists()


def test_a_damaged_volume_is_an_error(root, read):
    (root / "MRNet-v1.0" / "valid" / "sagittal" / "1131.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(DataError, match=r"Cannot read .*1131\.npy"):
        read(f"mrnet:{root}")


def test_tables_are_checked(root, read):
    table = root / "MRNet-v1.0" / "train-acl.csv"
    table.write_text("case,label\n0000,1\n")
    with pytest.raises(DataError, match=r"train-acl\.csv line 1: expected an examination and 0 or 1 .* 'case,label'"):
        read(f"mrnet:{root}")
    table.write_text("0000,1\n0000,0\n0001,0\n")
    with pytest.raises(DataError, match=r"'train/0000_02\.png' is listed twice .* label 'yes' and 'no'"):
        read(f"mrnet:{root}")
    table.unlink()
    with pytest.raises(DataError, match="has no train-acl.csv"):
        read(f"mrnet:{root}")


def test_a_plane_that_is_not_there_is_an_error(root, read):
    for part in EXAMINATIONS:
        (root / "MRNet-v1.0" / part / "axial").rename(root / f"{part} axial")
    with pytest.raises(DataError, match="has no axial volume of the 5 examinations in its tables"):
        read(f"mrnet:{root},plane=axial")
