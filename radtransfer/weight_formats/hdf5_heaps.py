"""Looks at the parts of an HDF5 file over which the HDF5 library, where they are damaged, loops without end or crashes.

Texts of any length, such as names of layers, lie in global heaps: objects one after the other, each with its size.
An object of size 0 is not past itself, and the library reads it for ever, where no signal and no limit reaches it.
An attribute that says it is a list of any length where its text begins ends the process, without a message.
https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html, III.E, Global Heap, and IV.A.2.d, Datatype.
"""

import mmap
import re
import struct
from pathlib import Path

import h5py

from radtransfer.errors import WeightsError

_HEAP = re.compile(rb"GCOL\x01\0\0\0")
_DEEPEST, _MOST_OBJECTS = 64, 100_000
"""Groups, one in the other, and groups and datasets of a file."""

_HEADER, _ALIGNMENT = 16, 8
"""Bytes of the header of a heap and of each object in it, and what all sizes are rounded up to."""


def check_heaps(content: bytes | mmap.mmap) -> None:
    """Raises WeightsError if the objects of a global heap do not lie one behind the other up to its end."""
    for found in _HEAP.finditer(content):
        start = found.start()
        # Chance writes these eight bytes into weights once in many files; only sizes that could be of a heap count.
        if start % _ALIGNMENT or start + _HEADER > len(content):
            continue
        (size,) = struct.unpack_from("<Q", content, start + 8)
        if not _HEADER <= size <= len(content) - start:
            raise WeightsError("is damaged: a heap of its texts is cut off. Download it again.")
        _walk(content, start, size)


def check_file_heaps(path: Path) -> None:
    """`check_heaps` of a file, without reading it into memory."""
    with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
        check_heaps(content)


def check_attributes(file: h5py.File) -> None:
    """Look at every group and dataset, and read no attribute.

    Raises:
        WeightsError: An attribute is a list of any length, or groups are nested, or objects are many, as in no weights
            file; or one stands in two places, so that walking over all places may never end.
    """
    waiting, seen = [(file.id, 0)], set()
    while waiting:
        item, depth = waiting.pop()
        place = h5py.h5o.get_info(item).addr
        if place in seen and not isinstance(item, h5py.h5g.GroupID):
            continue
        if place in seen or depth > _DEEPEST:
            raise WeightsError("nests its groups without end, or has one in two places. Download it again.")
        if len(seen) >= _MOST_OBJECTS:
            raise WeightsError(f"has more than {_MOST_OBJECTS:,} groups and datasets, which no weights file has.")
        seen.add(place)
        for number in range(h5py.h5a.get_num_attrs(item)):
            if h5py.h5a.open(item, index=number).get_type().get_class() == h5py.h5t.VLEN:
                name = h5py.h5i.get_name(item).decode("utf-8", "replace")
                raise WeightsError(f"is damaged: an attribute of {name} is no text. Download it again.")
        if isinstance(item, h5py.h5f.FileID):
            item = h5py.h5g.open(item, b"/")
        if isinstance(item, h5py.h5g.GroupID):
            names = [name for name in item if item.links.get_info(name).type == h5py.h5l.TYPE_HARD]
            waiting += [(h5py.h5o.open(item, name), depth + 1) for name in names]


def _walk(content: bytes | mmap.mmap, start: int, size: int) -> None:
    place = _HEADER
    while place + _HEADER <= size:
        number, _, _, length = struct.unpack_from("<HHIQ", content, start + place)
        # Object 0 is what is free at the end, its own header counted.
        step = length if number == 0 else _HEADER + -(-length // _ALIGNMENT) * _ALIGNMENT
        if step < _HEADER or place + step > size:
            raise WeightsError("is damaged: a text in it is longer than what holds it. Download it again.")
        place += step
