"""PatchCamelyon: patches of HDF5 files, written to the cache once."""

import h5py
import numpy as np
import pytest
from PIL import Image

from radtransfer.data import public_parsers
from radtransfer.errors import ConfigError, DataError

STEM = "camelyonpatch_level_2_split_"
COUNTS = {"train": 7, "valid": 3, "test": 4}


def write(root, part, *, labels=None, count=None, dtype=np.uint8):
    count = count or COUNTS[part]
    labels = np.arange(count) % 2 if labels is None else labels
    patches = np.zeros((count, 6, 6, 3), dtype)
    patches[..., 0] = np.arange(count)[:, None, None]
    patches[..., 1] = list(COUNTS).index(part)
    with h5py.File(root / f"{STEM}{part}_x.h5", "w") as file:
        file["x"] = patches
    with h5py.File(root / f"{STEM}{part}_y.h5", "w") as file:
        file["y"] = np.asarray(labels, np.uint8).reshape(-1, 1, 1, 1)


def meta(part):
    lines = [f"{i},True,False,0,0,camelyon16_{part}_tumor_{i // 2:03d}" for i in range(COUNTS[part])]
    return "\n".join([",tumor_patch,center_tumor_patch,coord_y,coord_x,wsi", *lines, ""])


@pytest.fixture
def root(tree, cache):
    root = tree(text={f"{STEM}{part}_meta.csv": meta(part) for part in COUNTS})
    for part in COUNTS:
        write(root, part)
    return root


def colours(table):
    return [tuple(np.asarray(Image.open(file))[0, 0, :2].tolist()) for file in table.files]


def test_the_three_files_are_the_split_and_the_slide_is_the_patient(root, read, monkeypatch):
    monkeypatch.setattr(public_parsers, "PATCHES_PER_FOLDER", 3)
    table = read(f"pcam:{root}")
    assert table.splits.tolist() == [["train"] * 7 + ["val"] * 3 + ["test"] * 4]
    assert colours(table) == [(i, part) for part, count in enumerate(COUNTS.values()) for i in range(count)]
    assert table.labels[:3] == ("no", "yes", "no") and table.classes == ("no", "yes")
    assert table.patients[:3] == ("camelyon16_train_tumor_000",) * 2 + ("camelyon16_train_tumor_001",)
    assert table.paths[4] == "train/001/000004.png"
    assert "patients are slides (8)" in table.notes
    assert any(note.startswith("14 of 14 patches, as PNG files in") for note in table.notes)


def test_a_number_of_images_is_drawn_from_all_parts_and_only_those_are_written(root, read, cache):
    table = read(f"pcam:{root},images=6,split=drawn")
    assert len(table) == 6 and table.splits is None
    assert table.paths == read(f"pcam:{root},images=6").paths
    assert len(list(cache.rglob("*.png"))) == 6
    number = [int(path.split("/")[-1].removesuffix(".png")) for path in table.paths]
    assert [red for red, _ in colours(table)] == number
    assert table.labels == tuple("yes" if i % 2 else "no" for i in number)
    with pytest.raises(ConfigError, match="images=15, but there are 14"):
        read(f"pcam:{root},images=15")


def test_patches_are_written_once(root, read, cache):
    files = read(f"pcam:{root}").files
    written = files[0].stat().st_mtime_ns
    assert read(f"pcam:{root},split=drawn").files == files and files[0].stat().st_mtime_ns == written
    assert len(list((cache / "pcam").iterdir())) == 1


def test_without_slides_patients_are_not_known(root, read):
    (root / f"{STEM}test_meta.csv").unlink()
    assert read(f"pcam:{root}").patients is None


def test_files_may_lie_in_folders_of_their_own(root, read):
    nested = root / "labels" / f"{STEM}test_y.h5"
    nested.mkdir(parents=True)
    (root / f"{STEM}test_y.h5").rename(nested / f"{STEM}test_y.h5")
    assert len(read(f"pcam:{root}")) == 14


def test_packed_files_are_named(root, read):
    (root / f"{STEM}valid_x.h5").rename(root / f"{STEM}valid_x.h5.gz")
    with pytest.raises(DataError, match=r"has no .*valid_x\.h5 \(only packed: run gunzip on it\)\. Expected:"):
        read(f"pcam:{root}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [0, 1, 1, 0, 1]}, "has 4 patches, .*test_y.h5 5 labels"),
        ({"labels": [0, 1, 2, 0]}, "expected 0 or 1"),
        ({"count": 5}, "has 5 patches, .*5 labels .*test_meta.csv 4 rows"),
        ({"dtype": np.float32}, r"expected uint8 \(images, height, width, 3\), received float32"),
    ],
)
def test_files_that_do_not_fit_each_other_are_an_error(root, read, change, message):
    write(root, "test", **change)
    with pytest.raises(DataError, match=message):
        read(f"pcam:{root}")


@pytest.mark.parametrize("kind", ["x", "y"])
def test_a_damaged_file_is_an_error(root, read, kind):
    (root / f"{STEM}test_{kind}.h5").write_bytes(b"<!DOCTYPE html>")
    with pytest.raises(DataError, match=rf"Cannot read the array '{kind}' of .*test_{kind}\.h5"):
        read(f"pcam:{root}")
