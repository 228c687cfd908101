"""The value of one setting: from what YAML gives to the type its field asks for."""

import dataclasses
import math
import types
import typing
from collections.abc import Iterator
from typing import Any

from radtransfer.errors import closest_names
from radtransfer.yaml_text import parse_scalar


def fields_of(kind: type, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field, Any]]:
    """The settings of a dataclass and its sections: dotted name, field, type."""
    hints = typing.get_type_hints(kind)
    for item in dataclasses.fields(kind):
        annotation = hints[item.name]
        if dataclasses.is_dataclass(annotation):
            yield from fields_of(annotation, f"{prefix}{item.name}.")
        elif item.metadata:
            yield prefix + item.name, item, annotation


def converted(value: Any, annotation: Any) -> Any:
    """`value` as the annotated type; the text of the error says what was expected."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(value, typing.get_args(annotation))
    if origin is typing.Literal:
        if value in typing.get_args(annotation):
            return value
        raise ValueError(f"expected one of {', '.join(map(str, typing.get_args(annotation)))}")
    if origin is tuple:
        return _convert_tuple(value, typing.get_args(annotation)[0])
    if origin is dict:
        return _convert_mapping(value, typing.get_args(annotation)[1])
    if dataclasses.is_dataclass(annotation):
        return value if isinstance(value, annotation) else _convert_fields(value, annotation)
    return _convert_plain(value, annotation)


def _convert_mapping(value: Any, member: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError("expected a mapping")
    result = {}
    for key, item in value.items():
        try:
            result[str(key)] = converted(item, member)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{key}: {error}") from None
    return result


def _convert_fields(value: Any, kind: type) -> Any:
    """A mapping as the dataclass `kind`, whose fields are settings."""
    if not isinstance(value, dict):
        raise TypeError("expected a mapping")
    known, result = {name: (item, annotation) for name, item, annotation in fields_of(kind)}, {}
    for key, inner in value.items():
        if key not in known:
            raise ValueError(f"unknown key {key!r}. {closest_names(str(key), known)}")
        item, annotation = known[key]
        result[key] = converted(inner, annotation)
        check_range(result[key], item)
    return kind(**result)


def _convert_union(value: Any, members: tuple) -> Any:
    expected = []
    for member in members:
        if member is type(None):
            if value is None:
                return None
            continue
        try:
            return converted(value, member)
        except (TypeError, ValueError) as error:
            expected.append(str(error))
    raise ValueError(" or ".join(expected))


def _convert_tuple(value: Any, member: type) -> tuple:
    if value is None:
        return ()
    if isinstance(value, str):
        parts = [part.strip() for part in value.split(",") if part.strip()]
        value = [parse_scalar(part) for part in parts] if member is not str else parts
    if not isinstance(value, list | tuple):
        value = [value]
    return tuple(converted(item, member) for item in value)


def _convert_plain(value: Any, kind: type) -> Any:
    if kind is bool:
        if isinstance(value, bool):
            return value
        raise TypeError("expected true or false")
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if kind is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind is str and isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value)
    raise TypeError(f"expected {({float: 'a number', int: 'a whole number', str: 'text'})[kind]}")


def check_range(value: Any, item: dataclasses.Field) -> None:
    """Raises ValueError if a number is outside the range of its setting."""
    low, high = item.metadata["low"], item.metadata["high"]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("expected a finite number")
    if low is None or not isinstance(value, int | float) or isinstance(value, bool):
        return
    if not low <= value <= high:
        raise ValueError(f"expected a value from {low:g} to {high:g}")
