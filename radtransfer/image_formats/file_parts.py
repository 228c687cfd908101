"""Counts the parts of JPEG, PNG and GIF files before anyone reads them.

A few megabytes can hold a million of them: passes over all pixels, comments that the reader adds one to the other,
frames without content. No camera and no archive writes that many.
"""

import re
from collections.abc import Iterator

from radtransfer.errors import BadImageError
from radtransfer.image_place import ImagePlace

MOST_FRAMES = 10_000
"""Frames of one file that are counted, at most."""

_MOST = {"scans": 100, "segments": 2_000, "chunks": 10_000, "comments": 4_096}
_SCAN, _END = 0xDA, 0xD9
_MARKER = re.compile(rb"\xff+([^\x00\x01\xd0-\xd8\xff])")
"""Of a JPEG, with a length behind it, or its end; what stands in pixels is none of them."""

_PIXELS = (b"IDAT", b"fdAT")


def check_parts(place: ImagePlace, data: bytes) -> int:
    """How many frames the content `data` of an image file has, up to one more than `MOST_FRAMES`; at least 1.

    Raises:
        BadImageError: It has more of other parts than any writer makes.
    """
    counts = dict.fromkeys((*_MOST, "frames"), 0)
    for kind in _parts(data):
        counts[kind] += 1
        if counts[kind] > _MOST.get(kind, MOST_FRAMES):
            if kind == "frames":
                break
            raise BadImageError(place, f"it has more than {_MOST[kind]:,} {kind}; save it again")
    return counts["frames"] or 1


def _parts(data: bytes) -> Iterator[str]:
    if data.startswith(b"\xff\xd8"):
        return _of_jpeg(data)
    return _of_png(data) if data.startswith(b"\x89PNG") else _of_gif(data) if data.startswith(b"GIF8") else iter(())


def _of_jpeg(data: bytes) -> Iterator[str]:
    at = 2
    while (found := _MARKER.search(data, at)) and found[1][0] != _END:
        yield "scans" if found[1][0] == _SCAN else "segments"
        at = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")


def _of_png(data: bytes) -> Iterator[str]:
    at = 8
    while at + 8 <= len(data):
        name = data[at + 4 : at + 8]
        if name not in _PIXELS:
            yield "frames" if name == b"fcTL" else "chunks"
        at += 12 + int.from_bytes(data[at : at + 4], "big")


def _of_gif(data: bytes) -> Iterator[str]:
    """As Pillow walks over it: bytes that mean nothing are passed over."""
    at = 13 + _colours(data[10:11])
    while at < len(data) and data[at : at + 1] != b";":
        kind, label = data[at : at + 1], data[at + 1 : at + 2]
        at += 1
        if kind == b",":
            yield "frames"
            at += 10 + _colours(data[at + 8 : at + 9])
        elif kind == b"!":
            at += 1
        else:
            continue
        while at < len(data) and data[at]:
            if kind == b"!" and label == b"\xfe":
                yield "comments"
            at += 1 + data[at]
        at += 1


def _colours(flags: bytes) -> int:
    """Bytes of the table of colours that `flags` announce."""
    return 6 << (flags[0] & 7) if flags and flags[0] & 128 else 0
