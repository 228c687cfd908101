"""PyTorch files written by hand, instruction by instruction: no PyTorch is needed."""

import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

STORAGES = {"float32": "FloatStorage", "float16": "HalfStorage", "int64": "LongStorage"}


def drawn(name: str, shape: Sequence[int]) -> np.ndarray:
    """float32 values that depend on nothing but name and shape; those of norms around one."""
    values = np.random.default_rng(zlib.crc32(name.encode())).random(shape, np.float32) - 0.5
    return values * np.float32(0.2) + np.float32(len(shape) == 1 and name.endswith("weight"))


def write_torch_file(
    path: Path, tensors: Mapping[str, np.ndarray], *, around: bytes = b"", pickled: bytes = b""
) -> Path:
    """A `.pt` file as `torch.save` lays it out; `around` is the name of a dictionary that holds the state dict."""
    content = state_dict(tensors)
    if around:
        content = b"}(" + text(around.decode()) + content + b"u"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", pickled or b"\x80\x02" + content + b".")
        for number, array in enumerate(tensors.values()):
            archive.writestr(f"archive/data/{number}", np.ascontiguousarray(array).tobytes())
        archive.writestr("archive/version", "3\n")
    return path


def state_dict(tensors: Mapping[str, np.ndarray]) -> bytes:
    """Its instructions: an ordered dictionary, made by a call, and its items."""
    items = b"".join(text(name) + tensor(number, array) for number, (name, array) in enumerate(tensors.items()))
    return b"ccollections\nOrderedDict\n)R(" + items + b"u"


def tensor(
    key: int, array: np.ndarray, *, shape: tuple = (), strides: tuple | None = None, length: int | None = None
) -> bytes:
    """The call that makes one from block `key`."""
    kind = STORAGES[str(array.dtype)]
    block = b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(str(key)) + text("cpu")
    block += number(array.size if length is None else length) + b"tQ"
    if strides is None:
        strides = np.cumprod([1, *array.shape[:0:-1]])[::-1] if array.ndim else []
    arguments = block + number(0) + numbers(shape or array.shape) + numbers(strides) + b"\x89" + b"}"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tR"


def text(value: str) -> bytes:
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def number(value: float) -> bytes:
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    return b"J" + struct.pack("<i", int(value)) if abs(value) < 2**31 else b"\x8a\x08" + struct.pack("<q", int(value))


def numbers(values) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"
