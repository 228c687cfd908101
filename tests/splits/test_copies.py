import os

import numpy as np
import pytest

from radtransfer.data import splits as module
from radtransfer.data.splits import copies, copy_notes
from radtransfer.data.table import ImageTable
from radtransfer.images.refs import FilePart


@pytest.fixture
def files(tmp_path):
    contents = [b"x" * 9000, b"y" * 9000, b"x" * 9000, b"x" * 4500 + b"z" * 4500, b"", b"x" * 8999 + b"!"]
    for number, content in enumerate(contents):
        (tmp_path / f"{number}.png").write_bytes(content)
    return [tmp_path / f"{number}.png" for number in range(len(contents))]


def test_files_of_the_same_bytes_are_found(files, tmp_path):
    assert copies([*files, None, tmp_path / "none.png"]) == [[0, 2]]


def test_parts_of_files_are_compared_by_their_bytes(files):
    assert copies([FilePart(files[3], 0, 4000), files[1], FilePart(files[0], 100, 4000)]) == [[0, 2]]


def test_frames_of_one_file_are_no_copies(files):
    assert copies([FilePart(files[0], frame=0), FilePart(files[0], frame=1), files[1]]) == []


def test_only_what_is_alike_is_read_whole(files, monkeypatch):
    read, digest = [], module._digest
    monkeypatch.setattr(module, "_digest", lambda part: read.append(part.path.name) or digest(part))
    copies(files)
    assert sorted(read) == ["0.png", "2.png", "5.png"]


def test_copies_in_two_splits_are_told_with_their_labels(files):
    targets = np.eye(2, dtype="float32")[[0, 0, 1, 0, 1, 1]]
    table = ImageTable(
        paths=tuple(os.fspath(file.name) for file in files),
        files=tuple(files),
        targets=targets,
        classes=("benign", "malignant"),
        task="multiclass",
        patients=None,
    )
    apart = np.array(["train", "train", "test", "val", "test", "train"])
    (note,) = copy_notes(table, [(1, np.array(["train"] * 6)), (2, apart)], workers=1)
    assert "1 image has copies" in note
    assert "'0.png' and '2.png', labelled benign and malignant, in train and test of fold 2" in note
    assert list(copy_notes(table, [(1, np.array(["train"] * 6))], workers=1)) == []
