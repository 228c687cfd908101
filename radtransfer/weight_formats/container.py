"""What a model file is wrapped in, HDF5 or a zip: decided once, by its bytes, and the same for every reader."""

import io
import mmap
import struct
import zipfile
from collections import Counter
from pathlib import Path
from typing import Literal

import h5py

from radtransfer.errors import WeightsError
from radtransfer.weight_formats.hdf5 import check_self_contained
from radtransfer.weight_formats.hdf5_heaps import check_attributes, check_file_heaps, check_heaps

WEIGHTS = "model.weights.h5"
"""The HDF5 file in a `.keras` archive."""

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_MOST_COMPRESSED = 64
"""How many times larger than its file the unpacked content may be."""


def container_of(path: Path) -> Literal["zip", "hdf5"] | None:
    """The container of the file `path`; None if it is neither.

    Raises:
        WeightsError: It is both, so that two readers would read two models.
    """
    zipped, hdf5 = _zip_of(path), h5py.is_hdf5(path)
    if zipped is not None and hdf5 and not _is_within(path, zipped):
        raise WeightsError(
            f"{path} is an HDF5 file and a zip at once, and programs differ in which of the two they read. "
            "Nothing was read. Save the model again."
        )
    return "zip" if zipped is not None else "hdf5" if hdf5 else None


def open_archive(path: Path) -> zipfile.ZipFile:
    """The zip in `path`.

    Raises:
        WeightsError: It holds a name twice, begins with something else, or unpacks to far more than it can hold.
    """
    archive = zipfile.ZipFile(path)
    members = archive.infolist()
    name, times = Counter(member.filename.casefold() for member in members).most_common(1)[0]
    declared = sum(member.file_size for member in members)
    if times > 1:
        problem = f"holds {name} {times} times, and programs differ in which one they read. Save the model again."
    elif min(member.header_offset for member in members):
        problem = "is a zip with something in front of it. Save the model again."
    elif declared > _MOST_COMPRESSED * path.stat().st_size + 2**20:
        problem = f"declares {declared / 1e6:,.0f} MB, which cannot be. Nothing was unpacked. Download it again."
    else:
        return archive
    archive.close()
    raise WeightsError(f"weights file {path} {problem}")


def open_hdf5(source: Path | bytes) -> h5py.File:
    """An HDF5 file, or the content of one, that the HDF5 library can read to its end and that names no other file.

    Raises:
        WeightsError: It is damaged, refers to another file, or declares far more than it holds.
    """
    if isinstance(source, bytes):
        check_heaps(source)
        file, size = h5py.File(io.BytesIO(source), "r"), len(source)
    else:
        check_file_heaps(source)
        file, size = h5py.File(source, "r"), source.stat().st_size
    try:
        check_attributes(file)
        check_self_contained(file, file_size=size)
    except BaseException:
        file.close()
        raise
    return file


def _zip_of(path: Path) -> list[zipfile.ZipInfo] | None:
    """The members of a zip; None where chance wrote the four bytes of a zip's end, or there are none."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.infolist() or None
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error):
        return None


def _is_within(path: Path, members: list[zipfile.ZipInfo]) -> bool:
    """Whether the HDF5 that readers find in `path` is the stored weights, which happen to lie where they look."""
    with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
        looked_at = (0, *(512 << power for power in range(64) if 512 << power < len(content)))
        found = next((place for place in looked_at if content[place : place + 8] == _SIGNATURE), None)
        for member in members:
            start = member.header_offset
            name, extra = (int.from_bytes(content[start + at : start + at + 2], "little") for at in (26, 28))
            if member.filename == WEIGHTS and not member.compress_type and start + 30 + name + extra == found:
                return True
    return False
