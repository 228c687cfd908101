"""Positions of images in TFRecord files, found without reading the images.

A record is its length (uint64), a checksum of the length (uint32), the data, and a checksum of the data (uint32). The
data is a `tf.train.Example`, a protocol buffer:

    Example    1: Features          Feature    1: BytesList, 2: FloatList or 3: Int64List
    Features   1: map entries       *List      1: the values, numbers packed or not
    map entry  1: name, 2: Feature

Formats: https://www.tensorflow.org/tutorials/load_data/tfrecord and https://protobuf.dev/programming-guides/encoding
"""

import contextlib
import functools
import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from radtransfer.errors import DataError

_HEADER, _FOOTER = 12, 4
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

Value = int | float | bytes
Buffer = bytes | mmap.mmap


class Span(NamedTuple):
    """A range of bytes."""

    offset: int
    length: int


Example = dict[str, list[int | float | Span]]  # values of each feature, bytes as their position


def read_examples(file: Path, *, image: str) -> Iterator[tuple[Span, dict[str, list[Value]]]]:
    """For each record of `file` the position of feature `image`, and the values of all others."""
    try:
        with file.open("rb") as handle:
            # An empty file (a shard without examples) cannot be mapped.
            empty = handle.seek(0, 2) == 0
            mapped = contextlib.nullcontext(b"") if empty else mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}. Prepare the data set again.") from None
    with mapped as buffer:
        for number, record in enumerate(record_spans(buffer, file)):
            yield example_parts(buffer, record, image=image, where=f"{file}, record {number}")


def example_parts(buffer: Buffer, span: Span, *, image: str, where: str) -> tuple[Span, dict[str, list[Value]]]:
    """The position of feature `image` of the example at `span`, and the values of all others."""
    try:
        example = parse_example(buffer, span)
    except (IndexError, ValueError, struct.error):
        raise DataError(f"{where} is damaged. Prepare the data set again.") from None
    spans = example.pop(image, [])
    if len(spans) != 1 or not isinstance(spans[0], Span):
        raise DataError(f"{where} has no image called {image!r}. Prepare the data set again.")
    return spans[0], {name: [_contents(buffer, value) for value in values] for name, values in example.items()}


def record_spans(buffer: Buffer, file: Path) -> Iterator[Span]:
    """The position of the data of each record of `file`, from the headers alone."""
    at, end = 0, len(buffer)
    while at < end:
        header = buffer[at : at + _HEADER]
        truncated = f"{file} is truncated in the record at byte {at}. Prepare or copy the data set again."
        if len(header) < _HEADER:
            raise DataError(truncated)
        length, checksum = struct.unpack("<QI", header)
        if checksum != masked_crc32c(header[:8]):
            raise DataError(
                f"{file} is damaged at byte {at}, or compressed, or not a TFRecord file: the checksum of a record "
                "header is wrong. Prepare the data set again, as uncompressed TFRecord."
            )
        if at + _HEADER + length + _FOOTER > end:
            raise DataError(truncated)
        yield Span(at + _HEADER, length)
        at += _HEADER + length + _FOOTER


def parse_example(buffer: Buffer, span: Span) -> Example:
    """The features of the serialized `tf.train.Example` at `span`."""
    example: Example = {}
    for _, features in _messages(buffer, span, 1):
        for _, entry in _messages(buffer, features, 1):
            parts = dict(_messages(buffer, entry, 1, 2))
            name = _contents(buffer, parts[1]).decode() if 1 in parts else ""
            example[name] = _values(buffer, parts[2]) if 2 in parts else []
    return example


@functools.lru_cache(maxsize=4096)
def masked_crc32c(data: bytes) -> int:
    """The checksum of TFRecord: CRC-32C (RFC 3720), rotated by 15 bits, plus a constant."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ _crc_table()[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


@functools.cache
def _crc_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


def _contents(buffer: Buffer, value: int | float | Span) -> Value:
    return buffer[value.offset : value.offset + value.length] if isinstance(value, Span) else value


def _values(buffer: Buffer, feature: Span) -> list[int | float | Span]:
    """The values of a Feature."""
    values: list[int | float | Span] = []
    for kind, items in _messages(buffer, feature, 1, 2, 3):
        for _, wire, value in _fields(buffer, items):
            if kind == 1:
                values.append(value)
            elif kind == 2:
                floats = _contents(buffer, value)
                values += struct.unpack(f"<{len(floats) // 4}f", floats)
            else:
                numbers = [] if wire == _BYTES else [value]
                at, end = (value.offset, value.offset + value.length) if wire == _BYTES else (0, 0)
                while at < end:
                    number, at = _varint(buffer, at)
                    numbers.append(number)
                values += [number - (1 << 64) if number >> 63 else number for number in numbers]
    return values


def _messages(buffer: Buffer, span: Span, *numbers: int) -> Iterator[tuple[int, Span]]:
    """The fields with these numbers, all with bytes, of the message at `span`."""
    for number, wire, value in _fields(buffer, span):
        if number in numbers:
            if wire != _BYTES:
                raise ValueError(f"field {number} has wire type {wire}")
            yield number, value


def _fields(buffer: Buffer, span: Span) -> Iterator[tuple[int, int, int | Span]]:
    """Number, wire type and value of each field: an integer, or the position of its bytes."""
    at, end = span.offset, span.offset + span.length
    while at < end:
        key, at = _varint(buffer, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(buffer, at)
            yield number, wire, value
            continue
        if wire == _BYTES:
            length, at = _varint(buffer, at)
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if at + length > end:
            raise IndexError("a field reaches beyond its message")
        yield number, wire, Span(at, length)
        at += length


def _varint(buffer: Buffer, at: int) -> tuple[int, int]:
    """The varint at `at`, and the position after it."""
    value = shift = 0
    while True:
        byte = buffer[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
