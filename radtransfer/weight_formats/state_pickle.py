"""The pickle inside a PyTorch file, read without running it: names and places of tensors, nothing else.

`pickle` builds whatever a file asks for, by calling whatever it names. Here its instructions are only parsed, and
followed by a machine that knows dictionaries, lists, tuples, numbers, strings and one call, that which makes a tensor
from a stored block. Anything else is refused by name.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from radtransfer.errors import WeightsError

LARGEST = 32 * 2**20
"""Bytes; the pickle of a state dict holds names and numbers and is far smaller."""

_MOST_STEPS = 2_000_000
_TENSOR_CALLS = ("torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_tensor")
_PARAMETER_CALLS = ("torch._utils _rebuild_parameter", "torch._utils _rebuild_parameter_with_state")
_EMPTY_CALLS = ("collections OrderedDict", "collections defaultdict", "collections Counter")
_STORAGES = {
    "torch FloatStorage": "<f4",
    "torch DoubleStorage": "<f8",
    "torch HalfStorage": "<f2",
    "torch BFloat16Storage": "bfloat16",
    "torch LongStorage": "<i8",
    "torch IntStorage": "<i4",
    "torch ShortStorage": "<i2",
    "torch CharStorage": "i1",
    "torch ByteStorage": "u1",
    "torch BoolStorage": "?",
}
_LITERALS = {
    "NONE": None,
    "NEWTRUE": True,
    "NEWFALSE": False,
}
_VALUES = {
    "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "INT", "LONG", "BINFLOAT", "FLOAT",
    "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE", "BINSTRING", "SHORT_BINSTRING", "STRING",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
}  # fmt: skip
_MARK = object()


@dataclass(frozen=True)
class Named:
    """Something the pickle names to be imported; it never is."""

    name: str


@dataclass(frozen=True)
class StoredBlock:
    """A block of numbers beside the pickle: its key, NumPy type ("bfloat16" where NumPy has none) and length."""

    key: str
    dtype: str
    length: int


@dataclass(frozen=True)
class StoredTensor:
    """A tensor: a view of a block."""

    block: StoredBlock
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class Refused:
    """An object whose making was not followed; harmless where no tensor stands in it."""

    name: str


def read_state_pickle(content: bytes) -> Any:
    """What the pickle holds: dictionaries, lists and tuples of `StoredTensor` and plain values.

    Raises:
        WeightsError: It is damaged, endless, or is the pickle of a whole model, whose code would have to run.
    """
    machine = _Machine()
    try:
        for steps, (opcode, argument, _) in enumerate(pickletools.genops(content)):
            if steps > _MOST_STEPS:
                raise WeightsError("holds a pickle of millions of instructions, which no state dict has.")
            if opcode.name == "STOP":
                return machine.stack[-1]
            machine.follow(opcode.name, argument)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, RecursionError, UnicodeDecodeError) as error:
        raise WeightsError(f"holds a damaged pickle ({type(error).__name__}: {error}). Download it again.") from None
    raise WeightsError("holds a pickle without end. Download it again.")


class _Machine:
    """The few instructions that a state dict needs."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def follow(self, name: str, argument: Any) -> None:
        if name in _LITERALS:
            self.stack.append(_LITERALS[name])
        elif name in _VALUES:
            self.stack.append(argument)
        elif name in _INSTRUCTIONS:
            _INSTRUCTIONS[name](self, argument)
        elif name not in ("PROTO", "FRAME"):
            raise WeightsError(f"holds the pickle instruction {name}, which no state dict needs; it is not followed.")

    def since_mark(self) -> list[Any]:
        place = max((number for number, item in enumerate(self.stack) if item is _MARK), default=None)
        if place is None:
            raise IndexError("no mark")
        items = self.stack[place + 1 :]
        del self.stack[place:]
        return items

    def pop(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise IndexError("stack is empty")
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def call(self, _: Any) -> None:
        function, arguments = self.pop(2)
        self.stack.append(_called(function, arguments))

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, dict):
            target.update(zip(items[::2], items[1::2], strict=True))

    def extend(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)


def _called(function: Any, arguments: Any) -> Any:
    """What the one call that is known gives; of others, only that they were asked for."""
    name = function.name if isinstance(function, Named) else type(function).__name__
    if name in _TENSOR_CALLS:
        block, offset, shape, strides = arguments[:4]
        if not isinstance(block, StoredBlock):
            raise WeightsError("holds a tensor without a block of numbers.")
        return StoredTensor(block, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))
    if name in _PARAMETER_CALLS:
        return arguments[0]
    if name in _EMPTY_CALLS:
        return {}
    return Refused(name)


def _persistent(machine: _Machine, _: Any) -> None:
    (identity,) = machine.pop(1)
    kind, storage, key, _place, length = identity
    if kind != "storage" or not isinstance(storage, Named) or storage.name not in _STORAGES:
        name = storage.name if isinstance(storage, Named) else storage
        raise WeightsError(f"holds a block of the unknown type {name!r}.")
    machine.stack.append(StoredBlock(str(key), _STORAGES[storage.name], int(length)))


def _stack_global(machine: _Machine, _: Any) -> None:
    module, name = machine.pop(2)
    machine.stack.append(Named(f"{module} {name}"))


def _new_object(machine: _Machine, _: Any) -> None:
    cls, _arguments = machine.pop(2)
    machine.stack.append({} if getattr(cls, "name", "") in _EMPTY_CALLS else Refused(getattr(cls, "name", "object")))


def _build(machine: _Machine, _: Any) -> None:
    (state,) = machine.pop(1)
    if isinstance(machine.stack[-1], Refused) and _holds_tensor(state):
        raise WeightsError(
            f"is a whole pickled model ({machine.stack[-1].name.replace(' ', '.')}): making it would run its code, "
            "so it is not opened. Where it is trusted, save torch.save(model.state_dict(), …) and convert that."
        )


def _holds_tensor(state: Any, depth: int = 0) -> bool:
    if isinstance(state, StoredTensor):
        return True
    if depth > 20 or not isinstance(state, (dict, list, tuple)):
        return isinstance(state, Refused)
    return any(_holds_tensor(item, depth + 1) for item in (state.values() if isinstance(state, dict) else state))


def _put(machine: _Machine, argument: Any) -> None:
    machine.memo[int(argument)] = machine.stack[-1]


_INSTRUCTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": lambda machine, _: machine.stack.append(_MARK),
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "EMPTY_TUPLE": lambda machine, _: machine.stack.append(()),
    "EMPTY_SET": lambda machine, _: machine.stack.append([]),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.since_mark())),
    "TUPLE1": lambda machine, _: machine.stack.append(tuple(machine.pop(1))),
    "TUPLE2": lambda machine, _: machine.stack.append(tuple(machine.pop(2))),
    "TUPLE3": lambda machine, _: machine.stack.append(tuple(machine.pop(3))),
    "LIST": lambda machine, _: machine.stack.append(machine.since_mark()),
    "APPEND": lambda machine, _: machine.extend(machine.pop(1)),
    "APPENDS": lambda machine, _: machine.extend(machine.since_mark()),
    "ADDITEMS": lambda machine, _: machine.extend(machine.since_mark()),
    "SETITEM": lambda machine, _: machine.set_items(machine.pop(2)),
    "SETITEMS": lambda machine, _: machine.set_items(machine.since_mark()),
    "POP": lambda machine, _: machine.pop(1),
    "BINPUT": _put,
    "LONG_BINPUT": _put,
    "PUT": _put,
    "MEMOIZE": lambda machine, _: machine.memo.__setitem__(len(machine.memo), machine.stack[-1]),
    "BINGET": lambda machine, argument: machine.stack.append(machine.memo[int(argument)]),
    "LONG_BINGET": lambda machine, argument: machine.stack.append(machine.memo[int(argument)]),
    "GET": lambda machine, argument: machine.stack.append(machine.memo[int(argument)]),
    "GLOBAL": lambda machine, argument: machine.stack.append(Named(argument)),
    "STACK_GLOBAL": _stack_global,
    "BINPERSID": _persistent,
    "REDUCE": _Machine.call,
    "NEWOBJ": _new_object,
    "BUILD": _build,
}
