"""TIFF files for tests, written byte by byte, so that neither Pillow nor tifffile decides what is in them."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

MINISWHITE, MINISBLACK, RGB, PALETTE, MASK, CMYK, YCBCR, CIELAB = 0, 1, 2, 3, 4, 5, 6, 8
UNSIGNED, SIGNED, FLOAT = 1, 2, 3
PLAIN, LZW, DEFLATE, PACKBITS, ZSTD = 1, 5, 8, 32773, 50000
_PILLOW_NAMES = {LZW: "tiff_lzw", PACKBITS: "packbits", ZSTD: "zstd"}


def page(values, *, photometric=MINISBLACK, bits=None, order="<", planar=1, compression=PLAIN, **options):
    """Tags and segments of one page.

    Args:
        values: (height, width) or (height, width, samples), of the type that the file is to have.
        photometric: Tag 262; None leaves it out.
        bits: Of a value; by itself those of the type.
        order: "<" or ">".
        planar: 1 or 2.
        compression: Tag 259.
        options: `tile` (rows, columns), `strip` (rows), `predictor` (1, 2 or 3), `fill` (1 or 2) and `tags` (number to
            a number or several), which go before those that are written by themselves; None leaves one out.
    """
    values = values[:, :, None] if values.ndim == 2 else values
    height, width, samples = values.shape
    bits = bits or values.dtype.itemsize * 8
    rows, columns = options.get("tile") or (options.get("strip", height), width)
    down, across = -(-height // rows), -(-width // columns)
    if "tile" in options:
        values = np.pad(values, ((0, down * rows - height), (0, across * columns - width), (0, 0)), mode="edge")
    planes = np.split(values, samples, axis=2) if planar == 2 else [values]
    segments = []
    for plane in planes:
        for row in range(down):
            for column in range(across):
                block = plane[row * rows : (row + 1) * rows, column * columns : (column + 1) * columns]
                data = _packed(_predicted(block, options.get("predictor", 1), order), bits, order)
                data = _compressed(data, len(block), compression)
                if options.get("fill") == 2:
                    data = np.packbits(np.unpackbits(np.frombuffer(data, "u1"), bitorder="little")).tobytes()
                segments.append(data)
    kind = {"u": UNSIGNED, "i": SIGNED, "f": FLOAT, "c": 6}[values.dtype.kind]
    tags = {256: width, 257: height, 258: [bits] * samples, 259: compression, 262: photometric, 277: samples}
    tags |= {284: planar, 339: [kind] * samples, 317: options.get("predictor"), 266: options.get("fill")}
    tags |= {322: columns, 323: rows} if "tile" in options else {278: rows}
    tags |= options.get("tags", {})
    return {tag: value for tag, value in tags.items() if value is not None}, segments, "tile" in options


def tiff(*pages, order="<", big=False):
    """A file of pages, as `page` gives them."""
    word, size = ("Q", 8) if big else ("I", 4)
    head = struct.pack(f"{order}2sHHH", b"", 43, 8, 0) if big else struct.pack(f"{order}2sH", b"", 42)
    data = bytearray((b"II" if order == "<" else b"MM") + head[2:] + bytes(size))
    link = len(data) - size
    for tags, segments, tiled in pages:
        places = []
        for segment in segments:
            places.append(len(data))
            data += segment + bytes(len(segment) % 2)
        offsets, counts = (324, 325) if tiled else (273, 279)
        tags = {offsets: places, counts: [len(segment) for segment in segments]} | tags
        entries = b""
        for tag, value in sorted(tags.items()):
            numbers = np.atleast_1d(value)
            short = tag in (258, 259, 262, 266, 274, 277, 284, 317, 320, 332, 338, 339)
            kind, letter = (3, "H") if short else (16, "Q") if big else (4, "I")
            content = struct.pack(f"{order}{len(numbers)}{letter}", *map(int, numbers))
            if len(content) > size:
                content, at = struct.pack(order + word, len(data)), content
                data += at + bytes(len(at) % 2)
            entries += struct.pack(f"{order}HH{word}", tag, kind, len(numbers)) + content.ljust(size, b"\0")
        data[link : link + size] = struct.pack(order + word, len(data))
        data += struct.pack(order + ("Q" if big else "H"), len(tags)) + entries
        link = len(data)
        data += bytes(size)
    return bytes(data)


def write(file, values, *, order="<", big=False, **options):
    """A file of one page."""
    file.write_bytes(tiff(page(values, order=order, **options), order=order, big=big))
    return file


def _predicted(block, predictor, order):
    if predictor == 2:
        whole = block.view(f"u{block.dtype.itemsize}")
        return np.diff(whole, axis=1, prepend=np.zeros_like(whole[:, :1])).astype(whole.dtype)
    if predictor == 3:
        size, samples = block.dtype.itemsize, block.shape[2]
        ordered = np.ascontiguousarray(block.astype(f">f{size}")).view("u1").reshape(len(block), -1, size)
        planes = ordered.transpose(0, 2, 1).reshape(len(block), -1)
        planes[:, samples:] = planes[:, samples:] - planes[:, :-samples]
        return planes[:, :, None]
    return block


def _packed(block, bits, order):
    if block.dtype.itemsize * 8 == bits or block.dtype == np.uint8 and bits >= 16:
        return block.astype(block.dtype.newbyteorder(order)).tobytes()
    wide = block.reshape(len(block), -1).astype("int64")[:, :, None] >> np.arange(bits - 1, -1, -1) & 1
    return np.packbits(wide.reshape(len(block), -1).astype("u1"), axis=1).tobytes()


def _compressed(data, rows, compression):
    if compression == DEFLATE:
        return zlib.compress(data)
    if compression not in _PILLOW_NAMES:
        return data
    # The stream of these is one of bytes, whatever values they are of.
    image, file = Image.frombytes("L", (len(data) // rows, rows), data), io.BytesIO()
    image.save(file, "TIFF", compression=_PILLOW_NAMES[compression], tiffinfo={278: rows})
    with Image.open(file) as image:
        (start,), (length,) = image.tag_v2[273], image.tag_v2[279]
    return file.getvalue()[start : start + length]
