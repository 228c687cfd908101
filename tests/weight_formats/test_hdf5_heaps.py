import struct

import h5py
import pytest

from radtransfer.errors import WeightsError
from radtransfer.pretrained.read import read_weight_file
from radtransfer.pretrained.safety import check_attributes, check_heaps


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "names.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = ["conv", "a name that is longer"]
    return path


def test_a_whole_heap_passes(file):
    assert b"GCOL" in file.read_bytes()
    check_heaps(file.read_bytes())


def test_an_object_that_does_not_lead_past_itself_is_refused_where_the_library_hangs(file):
    content = bytearray(file.read_bytes())
    first = content.index(b"GCOL") + 16
    struct.pack_into("<HHIQ", content, first, 0, 0, 0, 0)
    file.write_bytes(content)
    with pytest.raises(WeightsError, match="names.h5 is damaged: a text exceeds its heap"):
        read_weight_file(file)


@pytest.mark.parametrize(("place", "size"), [(8, 2**60), (8, 3), (24, 2**64 - 1), (24, 5000)])
def test_sizes_that_lead_out_of_the_heap_are_refused(file, place, size):
    content = bytearray(file.read_bytes())
    struct.pack_into("<Q", content, content.index(b"GCOL") + place, size)
    with pytest.raises(WeightsError, match="is damaged"):
        check_heaps(bytes(content))


@pytest.mark.parametrize("kind", [0, 5, 9])
def test_a_list_where_text_should_be_is_refused_where_the_library_crashes(file, kind):
    content = bytearray(file.read_bytes())
    text = b"\x19\x01\x01\0\x10\0\0\0"  # of any length, 16 bytes for its place
    assert content.count(text) == 1
    content[content.index(text) + 1] = kind
    file.write_bytes(content)
    with h5py.File(file) as opened, pytest.raises(WeightsError, match="an attribute of / is not a text"):
        check_attributes(opened)
    with pytest.raises(WeightsError, match="names.h5 is damaged: an attribute of / is not a text"):
        read_weight_file(file)


def test_texts_numbers_and_lists_of_a_length_pass(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        inner = file.create_group("a/b").create_dataset("c", data=[1.0])
        for name, value in (
            ("text", "word"),
            ("bytes", b"word"),
            ("number", 1.5),
            ("list", [1, 2]),
            ("many", ["a", "bc"]),
        ):
            inner.attrs[name] = value
        check_attributes(file)
