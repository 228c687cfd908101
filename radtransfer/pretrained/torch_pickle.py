"""The pickle inside a PyTorch file, read without running it: names and places of tensors, nothing else.

`pickle` builds whatever a file asks for, by calling whatever it names. Here its instructions are only parsed, and
followed by a machine that knows dictionaries, lists, tuples, numbers, strings and one call, that which makes a tensor
from a stored block. Anything else is refused by name.

A few hundred bytes can name one tuple within itself so often that comparing, printing or walking it never ends. So no
object is walked twice, nothing but plain values becomes a key, and every item looked at counts as a step.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from radtransfer.errors import WeightsError

LARGEST = 32 * 2**20
"""Bytes; the pickle of a state dict holds names and numbers and is far smaller."""

_MOST_STEPS = 2_000_000
_LONGEST_NAME, MOST_DIMENSIONS = 1000, 32
_KEYS = (str, bytes, int, float, type(None))
"""What a dictionary here may have as a key; entries under others, such as tuples, are no tensors with a name."""

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
    """The few instructions that a state dict needs."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []  # of each mark that is open, what lay on the stack before it
        self.memo: dict[int, Any] = {}
        self.texts: dict[str | bytes, str | bytes] = {}
        self.steps = 0

    def step(self, count: int = 1) -> None:
        self.steps += count
        if self.steps > _MOST_STEPS:
            raise WeightsError(f"holds a pickle of more than {_MOST_STEPS:,} steps, which no state dict has.")

    def follow(self, name: str, argument: Any) -> None:
        if name in _LITERALS:
            self.stack.append(_LITERALS[name])
        elif name in _VALUES:
            self.stack.append(self.value(argument))
        elif name in _INSTRUCTIONS:
            _INSTRUCTIONS[name](self, argument)
        elif name not in ("PROTO", "FRAME"):
            raise WeightsError(f"holds the pickle instruction {name}, which no state dict needs; it is not followed.")

    def value(self, value: Any) -> Any:
        """Equal texts as one object, so that comparing them costs nothing; None for a number that no tensor needs.

        Many numbers of more than 64 bits can have one hash.
        """
        if isinstance(value, str | bytes):
            return self.texts.setdefault(value, value)
        return None if isinstance(value, int) and value.bit_length() > 64 else value

    def mark(self, _: Any) -> None:
        self.outer.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        if not self.outer:
            raise IndexError("no mark")
        items, self.stack = self.stack, self.outer.pop()
        return items

    def collect(self, kind: type) -> None:
        items = self.since_mark()
        self.stack.append(kind(items))

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
            pairs = zip(items[::2], items[1::2], strict=True)
            target.update((key, value) for key, value in pairs if isinstance(key, _KEYS))

    def extend(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)

    def holds_tensor(self, state: Any) -> bool:
        """Whether a tensor stands in `state`, or an object whose making was not followed."""
        waiting, seen = [state], set()
        while waiting:
            item = waiting.pop()
            if isinstance(item, StoredTensor | Refused):
                return True
            if isinstance(item, dict | list | tuple) and id(item) not in seen:
                seen.add(id(item))
                self.step(len(item))
                waiting.extend(item.values() if isinstance(item, dict) else item)
        return False


def _called(function: Any, arguments: Any) -> Any:
    """What the one call that is known gives; of others, only that they were asked for."""
    name = function.name if isinstance(function, Named) else type(function).__name__
    if name in _TENSOR_CALLS:
        block, offset, shape, strides = arguments[:4]
        if not isinstance(block, StoredBlock):
            raise WeightsError("holds a tensor without a block of numbers.")
        if not len(shape) == len(strides) <= MOST_DIMENSIONS or not all(map(_is_count, (offset, *shape, *strides))):
            raise WeightsError("declares a tensor whose shape, strides and place are not whole numbers from 0 on.")
        return StoredTensor(block, offset, tuple(shape), tuple(strides))
    if name in _PARAMETER_CALLS:
        return arguments[0]
    if name in _EMPTY_CALLS:
        return {}
    return Refused(name)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _persistent(machine: _Machine, _: Any) -> None:
    (identity,) = machine.pop(1)
    kind, storage, key, _place, length = identity
    if kind != "storage" or not isinstance(storage, Named) or storage.name not in _STORAGES:
        raise WeightsError(f"holds a block of the unknown type {getattr(storage, 'name', type(storage).__name__)!r}.")
    if not isinstance(key, str) or len(key) > _LONGEST_NAME or not _is_count(length):
        raise WeightsError("holds a block whose name is no text, or whose length no whole number. Download it again.")
    machine.stack.append(StoredBlock(key, _STORAGES[storage.name], length))


def _named(machine: _Machine, name: str) -> None:
    if len(name) > _LONGEST_NAME:
        raise WeightsError(f"names something of {len(name):,} letters to be imported. Nothing was read.")
    machine.stack.append(Named(name))


def _stack_global(machine: _Machine, _: Any) -> None:
    module, name = machine.pop(2)
    if not isinstance(module, str) or not isinstance(name, str) or max(len(module), len(name)) > _LONGEST_NAME:
        raise WeightsError("names something to be imported, not by a short text. Nothing was read.")
    machine.stack.append(Named(f"{module} {name}"))


def _new_object(machine: _Machine, _: Any) -> None:
    cls, _arguments = machine.pop(2)
    machine.stack.append({} if getattr(cls, "name", "") in _EMPTY_CALLS else Refused(getattr(cls, "name", "object")))


def _build(machine: _Machine, _: Any) -> None:
    (state,) = machine.pop(1)
    if isinstance(machine.stack[-1], Refused) and machine.holds_tensor(state):
        raise WeightsError(
            f"is a whole pickled model ({machine.stack[-1].name.replace(' ', '.')}): making it would run its code, "
            "so it is not opened. Where it is trusted, save torch.save(model.state_dict(), …) and convert that."
        )


def _put(machine: _Machine, argument: int) -> None:
    if argument.bit_length() > 32:
        raise IndexError("a place in the memo that no file has")
    machine.memo[argument] = machine.stack[-1]


def _get(machine: _Machine, argument: int) -> None:
    machine.stack.append(machine.memo[argument])


_INSTRUCTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine.mark,
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "EMPTY_TUPLE": lambda machine, _: machine.stack.append(()),
    "EMPTY_SET": lambda machine, _: machine.stack.append([]),
    "TUPLE": lambda machine, _: machine.collect(tuple),
    "TUPLE1": lambda machine, _: machine.stack.append(tuple(machine.pop(1))),
    "TUPLE2": lambda machine, _: machine.stack.append(tuple(machine.pop(2))),
    "TUPLE3": lambda machine, _: machine.stack.append(tuple(machine.pop(3))),
    "LIST": lambda machine, _: machine.collect(list),
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
    "BINGET": _get,
    "LONG_BINGET": _get,
    "GET": _get,
    "GLOBAL": _named,
    "STACK_GLOBAL": _stack_global,
    "BINPERSID": _persistent,
    "REDUCE": _Machine.call,
    "NEWOBJ": _new_object,
    "BUILD": _build,
}
