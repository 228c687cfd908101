"""PyTorch files (`.pt`, `.pth`) since 1.6: a zip of a pickle and a block of numbers per tensor. Nothing is unpickled.

    archive/data.pkl     the state dict, see `state_pickle.py`
    archive/data/0, 1 …  its numbers

and `.safetensors`: a length, a header in JSON, the numbers.
"""

import json
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from radtransfer.errors import WeightsError
from radtransfer.weight_formats.container import container_of
from radtransfer.weight_formats.diagnosis import check_content, damage
from radtransfer.weight_formats.state_pickle import (
    LARGEST,
    MOST_DIMENSIONS,
    StoredBlock,
    StoredTensor,
    read_state_pickle,
)

LARGEST_FILE = 16 * 2**30
"""Bytes of all tensors together; the networks here have less than 1 GB."""

_CONTAINERS = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "backbone")
_DEEPEST = 8
"""Dictionaries, one in the other, in which a state dict is looked for."""

_SAFE_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "bfloat16", "I64": "<i8", "I32": "<i4", "I16": "<i2"}
_SAFE_DTYPES |= {"I8": "i1", "U8": "u1", "BOOL": "?"}
_DAMAGED = (
    OSError,
    KeyError,
    ValueError,
    TypeError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True)
class StateDict:
    """The tensors of a PyTorch file.

    Attributes:
        path: The file.
        tensors: Name to array, in the file's order; floats become float32, whole numbers stay as they are.
    """

    path: Path
    tensors: Mapping[str, np.ndarray] = field(repr=False)


def is_pytorch(path: Path) -> bool:
    """Whether the content is a PyTorch zip or safetensors."""
    if container_of(path) == "zip":
        try:
            with zipfile.ZipFile(path) as archive:
                return any(name.rpartition("/")[2] == "data.pkl" for name in archive.namelist())
        except _DAMAGED:
            return False  # another reader says what is wrong with it
    return _safetensors_header_size(path) is not None


def read_pytorch(path: Path) -> StateDict:
    """All tensors of the state dict in `path`.

    Raises:
        WeightsError: Not such a file, damaged, of the format before PyTorch 1.6, or a whole pickled model; says which.
    """
    check_content(path)
    if not is_pytorch(path):
        raise WeightsError(f"{path} is neither a PyTorch file (a whole zip with data.pkl) nor safetensors.")
    try:
        tensors = _read_zip(path) if zipfile.is_zipfile(path) else _read_safetensors(path)
    except WeightsError as error:
        raise WeightsError(f"weights file {path} {error}") from None
    except _DAMAGED as error:
        raise WeightsError(damage(path, error)) from None
    return StateDict(path, tensors)


def _read_zip(path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        pickled = next(name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl")
        if archive.getinfo(pickled).file_size > LARGEST:
            raise WeightsError("holds a pickle far larger than that of a state dict. Nothing was read.")
        folder = pickled.removesuffix("data.pkl")
        if f"{folder}byteorder" in archive.namelist():
            with archive.open(f"{folder}byteorder") as order:
                if order.read(16) != b"little":
                    raise WeightsError("was written on a big-endian machine. Save it again on another.")
        found = dict(_state_dict(read_state_pickle(archive.read(pickled))))
        _check_sizes(archive, folder, found.values())
        blocks = {
            block: _numbers(archive.read(f"{folder}data/{block.key}"), block)
            for block in {tensor.block for tensor in found.values()}
        }
        return {name: _array(tensor, blocks[tensor.block]) for name, tensor in found.items()}


def _state_dict(content: Any, depth: int = 0) -> Iterator[tuple[str, StoredTensor]]:
    """The names and tensors of a state dict, alone or beside an epoch, an optimizer and the like."""
    if isinstance(content, dict):
        if any(isinstance(value, StoredTensor) for value in content.values()):
            return ((str(name), value) for name, value in content.items() if isinstance(value, StoredTensor))
        for name in _CONTAINERS:
            if isinstance(content.get(name), dict) and depth < _DEEPEST:
                return _state_dict(content[name], depth + 1)
        held = ", ".join(f"{name!s:.40}" for name in list(content)[:6]) or "nothing"
        raise WeightsError(f"holds no state dict (it holds {held}). Save model.state_dict().")
    name = getattr(content, "name", type(content).__name__)
    raise WeightsError(
        f"holds a pickled {str(name).replace(' ', '.')}, not a state dict; making it would run its code, so it is not "
        "opened. Where it is trusted, save torch.save(model.state_dict(), …) and convert that."
    )


def _check_sizes(archive: zipfile.ZipFile, folder: str, tensors: Any) -> None:
    """Before anything is allocated: every block is as long as it says, and no tensor reaches beyond its block."""
    total = 0
    for block in {tensor.block for tensor in tensors}:
        size = archive.getinfo(f"{folder}data/{block.key}").file_size
        if size != block.length * _itemsize(block.dtype):
            raise WeightsError(f"declares {block.length} numbers in a block of {size} bytes. Download it again.")
        total += size
    if total > min(LARGEST_FILE, 4 * Path(archive.filename).stat().st_size + 2**20):
        raise WeightsError(f"declares {total / 1e6:,.0f} MB, which cannot be. Nothing was read.")
    if sum(math.prod(tensor.shape) for tensor in tensors) * 4 > 4 * total + 2**20:
        raise WeightsError("declares tensors larger than the numbers it holds. Nothing was read.")


def _array(tensor: StoredTensor, numbers: np.ndarray) -> np.ndarray:
    shape, strides = tensor.shape, tensor.strides
    last = tensor.offset + sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
    if math.prod(shape) and last >= len(numbers):
        raise WeightsError(f"declares a tensor of shape {shape} beyond its {len(numbers)} numbers. Download it again.")
    steps = tuple(step * numbers.itemsize for step in strides)
    return np.lib.stride_tricks.as_strided(numbers[tensor.offset :], shape, steps).copy()


def _numbers(content: bytes, block: StoredBlock) -> np.ndarray:
    if block.dtype == "bfloat16":
        # The upper half of a float32; NumPy has no such type.
        return (np.frombuffer(content, "<u2").astype(np.uint32) << 16).view(np.float32)
    numbers = np.frombuffer(content, block.dtype)
    return numbers.astype(np.float32) if numbers.dtype.kind == "f" else numbers


def _itemsize(dtype: str) -> int:
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


def _safetensors_header_size(path: Path) -> int | None:
    """Bytes of the header, or None if the file does not begin as safetensors do."""
    with path.open("rb") as handle:
        length, brace = int.from_bytes(handle.read(8), "little"), handle.read(1)
    return length if brace == b"{" and 2 <= length <= min(LARGEST, path.stat().st_size - 8) else None


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    length = _safetensors_header_size(path)
    with path.open("rb") as handle:
        handle.seek(8)
        header = json.loads(handle.read(length))
        content = handle.read()
    declared = {
        name: _declared(name, entry, size=len(content)) for name, entry in header.items() if name != "__metadata__"
    }
    if not declared:
        raise WeightsError("holds no tensors.")
    end = 0
    for block, _, start in sorted(declared.values(), key=lambda entry: entry[2]):
        if block.length and start < end:
            raise WeightsError(f"declares {block.key!r:.80} in bytes that belong to another tensor. Download it again.")
        end = max(end, start + block.length * _itemsize(block.dtype))
    return {
        name: _numbers(content[start : start + block.length * _itemsize(block.dtype)], block).reshape(shape)
        for name, (block, shape, start) in declared.items()
    }


def _declared(name: str, entry: Any, *, size: int) -> tuple[StoredBlock, tuple[int, ...], int]:
    """Of a tensor in a safetensors header its block, its shape, and where it begins in the `size` bytes of numbers."""
    dtype, shape, offsets = (
        (entry.get(key) for key in ("dtype", "shape", "data_offsets")) if isinstance(entry, dict) else (None, 0, 0)
    )
    if not isinstance(dtype, str) or dtype not in _SAFE_DTYPES:
        raise WeightsError(f"holds {name!r:.80} of the type {dtype!r:.80}, which is not read.")
    whole = all(
        isinstance(numbers, list) and all(type(number) is int and 0 <= number < 2**63 for number in numbers)
        for numbers in (shape, offsets)
    )
    if not whole or len(shape) > MOST_DIMENSIONS or len(offsets) != 2:
        raise WeightsError(
            f"declares {name!r:.80} of shape {shape!r:.80} in bytes {offsets!r:.80}: expected a list of up to "
            f"{MOST_DIMENSIONS} whole numbers from 0 on, and a list of two. Download it again."
        )
    block, (start, end) = StoredBlock(name, _SAFE_DTYPES[dtype], math.prod(shape)), offsets
    if end - start != block.length * _itemsize(block.dtype) or end > size:
        raise WeightsError(f"declares {name!r:.80} of shape {shape!r:.80} in bytes {start} to {end} of {size}.")
    return block, tuple(shape), start
