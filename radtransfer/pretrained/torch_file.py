"""Reads PyTorch files without PyTorch and without unpickling.

`.pt`, `.pth` since PyTorch 1.6: a zip of a pickle, archive/data.pkl, and the numbers of each tensor, archive/data/0 …
`.safetensors`: a length, a header in JSON, the numbers.

`pickle` imports and calls whatever a file names. Here a small interpreter follows the pickle's instructions; it knows
dictionaries, lists, tuples, numbers, strings and one call, which creates a tensor from a stored block. Everything else
is refused by name.

A few hundred bytes can nest a tuple so often that comparing, printing or walking it never ends. Therefore no object is
walked twice, only plain values become keys, and every visited item counts as a step.
"""

import json
import math
import pickletools
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from radtransfer.errors import WeightsError
from radtransfer.pretrained.read import DAMAGED, bfloat16_to_float32, check_content, reading
from radtransfer.pretrained.safety import container_of

Tensors = dict[str, np.ndarray]
"""Name to array, in the order of the file; floats as float32, integers as stored."""

_MAX_HEADER = 32 * 2**20
"""Maximum bytes of the pickle or header, which is far smaller in a state dict."""

_MAX_BYTES = 16 * 2**30
"""Maximum bytes of all tensors; networks here have less than 1 GB."""

_MAX_STEPS = 2_000_000
_MAX_NAME, _MAX_DIMENSIONS = 1000, 32
_MAX_DEPTH = 8
"""Maximum depth of nested dictionaries in which a state dict is searched."""

_CONTAINERS = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "backbone")
_KEYS = (str, bytes, int, float, type(None))
"""Allowed types of dictionary keys; entries under other keys are not named tensors."""

_NOT_OPENED = (
    "Opening it would run its code, so it is not opened. If you trust it, save its weights with "
    "torch.save(model.state_dict(), …) and convert that file."
)

_TENSOR_CALLS = ("torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_tensor")
_PARAMETER_CALLS = ("torch._utils _rebuild_parameter", "torch._utils _rebuild_parameter_with_state")
_EMPTY_CALLS = ("collections OrderedDict", "collections defaultdict", "collections Counter")
_DTYPES = {  # of a storage in a pickle, in safetensors, in NumPy, which has no bfloat16
    "Double": ("F64", "<f8"),
    "Float": ("F32", "<f4"),
    "Half": ("F16", "<f2"),
    "BFloat16": ("BF16", "bfloat16"),
    "Long": ("I64", "<i8"),
    "Int": ("I32", "<i4"),
    "Short": ("I16", "<i2"),
    "Char": ("I8", "i1"),
    "Byte": ("U8", "u1"),
    "Bool": ("BOOL", "?"),
}
_STORAGES = {f"torch {name}Storage": dtype for name, (_, dtype) in _DTYPES.items()}
_SAFE_DTYPES = dict(_DTYPES.values())
_LITERALS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = {
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "INT", "LONG", "BINFLOAT", "FLOAT", "BINUNICODE", "UNICODE"),
    *("SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING", "STRING"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}


@dataclass(frozen=True)
class _Named:
    """A name that the pickle asks to import; it is not imported."""

    name: str


@dataclass(frozen=True)
class _Refused:
    """An object that was not created; harmless unless it contains a tensor."""

    name: str


@dataclass(frozen=True)
class _Block:
    """A stored block of numbers."""

    key: str
    dtype: str
    length: int

    @property
    def itemsize(self) -> int:
        return 2 if self.dtype == "bfloat16" else np.dtype(self.dtype).itemsize

    def numbers(self, content: bytes) -> np.ndarray:
        if self.dtype == "bfloat16":
            return bfloat16_to_float32(np.frombuffer(content, "<u2"))
        numbers = np.frombuffer(content, self.dtype)
        return numbers.astype(np.float32) if numbers.dtype.kind == "f" else numbers


@dataclass(frozen=True)
class _Tensor:
    """A view of a block."""

    block: _Block
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def is_pytorch(path: Path) -> bool:
    """Whether the content is a PyTorch zip or safetensors."""
    if container_of(path) == "zip":
        try:
            with zipfile.ZipFile(path) as archive:
                return any(name.rpartition("/")[2] == "data.pkl" for name in archive.namelist())
        except DAMAGED:
            return False  # another reader reports the error
    return _safetensors_header_size(path) is not None


def read_pytorch(path: Path) -> Tensors:
    """All tensors of the state dict in `path`.

    Raises WeightsError, with the reason, if the file is not a state dict, damaged, or older than PyTorch 1.6.
    """
    check_content(path)
    if not is_pytorch(path):
        raise WeightsError(f"{path}: expected a PyTorch file (a complete zip with data.pkl) or safetensors.")
    with reading(path):
        return _read_zip(path) if zipfile.is_zipfile(path) else _read_safetensors(path)


def _read_zip(path: Path) -> Tensors:
    with zipfile.ZipFile(path) as archive:
        pickled = next(name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl")
        if archive.getinfo(pickled).file_size > _MAX_HEADER:
            raise WeightsError("holds a pickle that is too large for a state dict. Nothing was read.")
        folder = pickled.removesuffix("data.pkl")
        if f"{folder}byteorder" in archive.namelist():
            with archive.open(f"{folder}byteorder") as order:
                if order.read(16) != b"little":
                    raise WeightsError("was written on a big-endian machine. Save it again on a little-endian one.")
        found = _state_dict(_read_pickle(archive.read(pickled)))
        blocks = {tensor.block for tensor in found.values()}
        _check_sizes(archive, folder, blocks, found.values())
        content = {block: block.numbers(archive.read(f"{folder}data/{block.key}")) for block in blocks}
    arrays = {}
    for name, tensor in found.items():
        numbers, shape, strides = content[tensor.block], tensor.shape, tensor.strides
        last = tensor.offset + sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
        if math.prod(shape) and last >= len(numbers):
            raise WeightsError(
                f"declares a tensor of shape {shape} beyond its {len(numbers)} numbers. Download it again."
            )
        steps = tuple(step * numbers.itemsize for step in strides)
        arrays[name] = np.lib.stride_tricks.as_strided(numbers[tensor.offset :], shape, steps).copy()
    return arrays


def _state_dict(content: Any) -> dict[str, _Tensor]:
    for _ in range(_MAX_DEPTH + 1):
        if not isinstance(content, dict):
            break
        tensors = {str(name): value for name, value in content.items() if isinstance(value, _Tensor)}
        if tensors:
            return tensors
        inner = next((content[name] for name in _CONTAINERS if isinstance(content.get(name), dict)), None)
        if inner is None:
            break
        content = inner
    if isinstance(content, dict):
        held = ", ".join(f"{name!s:.40}" for name in list(content)[:6]) or "nothing"
        raise WeightsError(f"holds no state dict (it holds {held}). Save model.state_dict().")
    name = getattr(content, "name", type(content).__name__)
    raise WeightsError(f"holds a pickled {str(name).replace(' ', '.')}, not a state dict. {_NOT_OPENED}")


def _check_sizes(archive: zipfile.ZipFile, folder: str, blocks: set[_Block], tensors: Iterable[_Tensor]) -> None:
    """Check, before allocating memory, that blocks have their declared lengths and tensors fit into them."""
    total = 0
    for block in blocks:
        size = archive.getinfo(f"{folder}data/{block.key}").file_size
        if size != block.length * block.itemsize:
            raise WeightsError(f"declares {block.length} numbers in a block of {size} bytes. Download it again.")
        total += size
    if total > min(_MAX_BYTES, 4 * Path(archive.filename).stat().st_size + 2**20):
        raise WeightsError(f"declares {total / 1e6:,.0f} MB, which is impossible. Nothing was read.")
    if sum(math.prod(tensor.shape) for tensor in tensors) * 4 > 4 * total + 2**20:
        raise WeightsError("declares tensors larger than its stored numbers. Nothing was read.")


def _safetensors_header_size(path: Path) -> int | None:
    """Bytes of the header, or None if the file does not begin like safetensors."""
    with path.open("rb") as handle:
        length, brace = int.from_bytes(handle.read(8), "little"), handle.read(1)
    return length if brace == b"{" and 2 <= length <= min(_MAX_HEADER, path.stat().st_size - 8) else None


def _read_safetensors(path: Path) -> Tensors:
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
    for block, _, start, stop in sorted(declared.values(), key=lambda entry: entry[2]):
        if block.length and start < end:
            raise WeightsError(f"declares {block.key!r:.80} in bytes that belong to another tensor. Download it again.")
        end = max(end, stop)
    return {
        name: block.numbers(content[start:stop]).reshape(shape)
        for name, (block, shape, start, stop) in declared.items()
    }


def _declared(name: str, entry: Any, *, size: int) -> tuple[_Block, tuple[int, ...], int, int]:
    """The block, shape, start and end of a tensor in a safetensors header, in `size` bytes of numbers."""
    dtype, shape, offsets = (
        (entry.get(key) for key in ("dtype", "shape", "data_offsets")) if isinstance(entry, dict) else (None, 0, 0)
    )
    if not isinstance(dtype, str) or dtype not in _SAFE_DTYPES:
        raise WeightsError(f"holds {name!r:.80} of type {dtype!r:.80}, which is not supported.")
    whole = all(
        isinstance(numbers, list) and all(type(number) is int and 0 <= number < 2**63 for number in numbers)
        for numbers in (shape, offsets)
    )
    if not whole or len(shape) > _MAX_DIMENSIONS or len(offsets) != 2:
        raise WeightsError(
            f"declares {name!r:.80} of shape {shape!r:.80} in bytes {offsets!r:.80}: expected a list of up to "
            f"{_MAX_DIMENSIONS} non-negative integers, and a list of two. Download it again."
        )
    block, (start, end) = _Block(name, _SAFE_DTYPES[dtype], math.prod(shape)), offsets
    if end - start != block.length * block.itemsize or end > size:
        raise WeightsError(f"declares {name!r:.80} of shape {shape!r:.80} in bytes {start} to {end} of {size}.")
    return block, tuple(shape), start, end


def _read_pickle(content: bytes) -> Any:
    """The content of the pickle of a state dict: dictionaries, lists and tuples of `_Tensor` and plain values."""
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(content):
            machine.step()
            if opcode.name == "STOP":
                return machine.stack[-1]
            machine.follow(opcode.name, argument)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        reason = f"{type(error).__name__}: {error!s:.100}"
        raise WeightsError(f"holds a damaged pickle ({reason}). Download it again.") from None
    raise WeightsError("holds a pickle without end. Download it again.")


class _Machine:
    """Interprets the few pickle instructions that a state dict needs."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []  # for each open mark, the stack before it
        self.memo: dict[int, Any] = {}
        self.texts: dict[str | bytes, str | bytes] = {}
        self.steps = 0

    def step(self, count: int = 1) -> None:
        self.steps += count
        if self.steps > _MAX_STEPS:
            raise WeightsError(f"holds a pickle of more than {_MAX_STEPS:,} steps, too many for a state dict.")

    def follow(self, name: str, argument: Any) -> None:
        match name:
            case "PROTO" | "FRAME":
                pass
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                self.stack.append(_LITERALS[name])
            case _ if name in _VALUES:
                self.stack.append(self.value(argument))
            case "EMPTY_DICT":
                self.stack.append({})
            case "EMPTY_LIST" | "EMPTY_SET":
                self.stack.append([])
            case "EMPTY_TUPLE":
                self.stack.append(())
            case "MARK":
                self.outer.append(self.stack)
                self.stack = []
            case "TUPLE" | "LIST":
                items = self.since_mark()
                self.stack.append(tuple(items) if name == "TUPLE" else items)
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                self.stack.append(tuple(self.pop(int(name[-1]))))
            case "APPEND" | "APPENDS" | "ADDITEMS":
                items = self.pop(1) if name == "APPEND" else self.since_mark()
                if isinstance(self.stack[-1], list):
                    self.stack[-1].extend(items)
            case "SETITEM" | "SETITEMS":
                self.set_items(self.pop(2) if name == "SETITEM" else self.since_mark())
            case "POP":
                self.pop(1)
            case "BINPUT" | "LONG_BINPUT" | "PUT":
                if argument.bit_length() > 32:
                    raise IndexError("an impossible memo index")
                self.memo[argument] = self.stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = self.stack[-1]
            case "BINGET" | "LONG_BINGET" | "GET":
                self.stack.append(self.memo[argument])
            case "GLOBAL" | "STACK_GLOBAL":
                self.name(*([argument] if name == "GLOBAL" else self.pop(2)))
            case "BINPERSID":
                self.block()
            case "REDUCE":
                self.call()
            case "NEWOBJ":
                made = getattr(self.pop(2)[0], "name", "object")
                self.stack.append({} if made in _EMPTY_CALLS else _Refused(made))
            case "BUILD":
                self.build()
            case _:
                raise WeightsError(f"holds the pickle instruction {name}, which no state dict needs. {_NOT_OPENED}")

    def value(self, value: Any) -> Any:
        """Equal texts become one object, fast to compare; integers over 64 bits, whose hashes collide, None."""
        if isinstance(value, str | bytes):
            return self.texts.setdefault(value, value)
        return None if isinstance(value, int) and value.bit_length() > 64 else value

    def since_mark(self) -> list[Any]:
        if not self.outer:
            raise IndexError("no mark")
        items, self.stack = self.stack, self.outer.pop()
        return items

    def pop(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise IndexError("stack is empty")
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, dict):
            pairs = zip(items[::2], items[1::2], strict=True)
            target.update((key, value) for key, value in pairs if isinstance(key, _KEYS))

    def name(self, *names: Any) -> None:
        """A name to be imported: module and name, in one text or two."""
        if not all(isinstance(name, str) and len(name) <= _MAX_NAME for name in names):
            raise WeightsError("imports something whose name is not a short text. Nothing was read.")
        self.stack.append(_Named(" ".join(names)))

    def block(self) -> None:
        (identity,) = self.pop(1)
        kind, storage, key, _place, length = identity
        if kind != "storage" or not isinstance(storage, _Named) or storage.name not in _STORAGES:
            given = getattr(storage, "name", type(storage).__name__)
            raise WeightsError(f"holds a block of the unknown type {given!r}.")
        if not isinstance(key, str) or len(key) > _MAX_NAME or type(length) is not int or length < 0:
            raise WeightsError("holds a block without a valid name or length. Download it again.")
        self.stack.append(_Block(key, _STORAGES[storage.name], length))

    def call(self) -> None:
        """Create a tensor or an empty container; any other call becomes `_Refused`."""
        function, arguments = self.pop(2)
        name = function.name if isinstance(function, _Named) else type(function).__name__
        if name in _TENSOR_CALLS:
            block, offset, shape, strides = arguments[:4]
            if not isinstance(block, _Block):
                raise WeightsError("holds a tensor without a block of numbers.")
            if not len(shape) == len(strides) <= _MAX_DIMENSIONS or not all(
                type(number) is int and number >= 0 for number in (offset, *shape, *strides)
            ):
                raise WeightsError("declares a tensor whose shape, strides or offset are not non-negative integers.")
            self.stack.append(_Tensor(block, offset, tuple(shape), tuple(strides)))
        elif name in _PARAMETER_CALLS:
            self.stack.append(arguments[0])
        else:
            self.stack.append({} if name in _EMPTY_CALLS else _Refused(name))

    def build(self) -> None:
        (state,) = self.pop(1)
        if isinstance(self.stack[-1], _Refused) and self.holds_tensor(state):
            raise WeightsError(f"is a whole pickled model ({self.stack[-1].name.replace(' ', '.')}). {_NOT_OPENED}")

    def holds_tensor(self, state: Any) -> bool:
        """Whether `state` contains a tensor or an object that was not created."""
        waiting, seen = [state], set()
        while waiting:
            item = waiting.pop()
            if isinstance(item, _Tensor | _Refused):
                return True
            if isinstance(item, dict | list | tuple) and id(item) not in seen:
                seen.add(id(item))
                self.step(len(item))
                waiting.extend(item.values() if isinstance(item, dict) else item)
        return False
