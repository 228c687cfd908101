"""Folders of the cache appear whole or not at all."""

import os

import pytest

from radtransfer.errors import DataError, DiskError
from radtransfer.runs.cache import fingerprint, write_once


def test_a_folder_is_made_once(tmp_path):
    folder, made = tmp_path / "a" / "b", []

    def write(draft):
        made.append(draft)
        (draft / "1.png").write_bytes(b"x")

    write_once(folder, write, what="It")
    write_once(folder, write, what="It")
    assert len(made) == 1 and made[0] != folder
    assert [file.name for file in folder.iterdir()] == ["1.png"]
    assert list(folder.parent.iterdir()) == [folder]


def test_a_half_written_folder_is_left_by_no_error(tmp_path):
    def write(draft):
        (draft / "1.png").write_bytes(b"x")
        raise DataError("a damaged volume")

    with pytest.raises(DataError, match="damaged volume"):
        write_once(tmp_path / "a" / "b", write, what="The slices")
    assert list((tmp_path / "a").iterdir()) == []


def test_a_cache_that_cannot_take_them_is_told_once_and_a_temporary_folder_is_used(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RADTRANSFER_CACHE", str(tmp_path / "file"))
    written = []

    def write(draft):
        (draft / "1.png").write_bytes(b"x")
        written.append(draft)

    folder, notes = write_once(tmp_path / "file" / "a", write, what="The slices")
    assert [file.name for file in folder.iterdir()] == ["1.png"] and tmp_path not in folder.parents
    assert len(notes) == 1 and "cannot be written (it is not a directory)" in notes[0]
    assert write_once(tmp_path / "file" / "a", write, what="The slices") == (folder, [])
    assert write_once(tmp_path / "file" / "b", write, what="The slices")[1] == []
    assert len(written) == 2


def test_a_disk_without_room_for_them_is_told_as_such(tmp_path):
    def write(draft):
        raise OSError(28, "No space left on device")

    with pytest.raises(DiskError, match=r"The slices could not be written .*No space left.*_CACHE"):
        write_once(tmp_path / "a" / "b", write, what="The slices")
    assert list((tmp_path / "a").iterdir()) == []


def test_the_fingerprint_changes_with_the_files(tmp_path):
    file = tmp_path / "x.npy"
    file.write_bytes(b"1")
    os.utime(file, ns=(0, 0))
    first = fingerprint([file])
    assert fingerprint([file]) == first != fingerprint([file, file])
    os.utime(file, ns=(0, 1))
    assert fingerprint([file]) != first
    file.write_bytes(b"12")
    os.utime(file, ns=(0, 0))
    assert fingerprint([file]) != first
