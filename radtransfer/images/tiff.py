"""TIFF files: read by Pillow if its result agrees with the tags, else from the tags with tifffile.

Pillow reads 16-bit and float MinIsWhite as MinIsBlack and signed bytes as unsigned, reduces 16-bit colours to 8 bits,
mixes up their planes, and swaps the bytes of compressed big-endian floats. tifffile gives the positions of the values;
the libtiff in Pillow decompresses them, as tifffile needs the large package imagecodecs for LZW and 12 bits.
"""

import io
import logging
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from PIL import Image, ImageFile, ImagePalette, TiffImagePlugin

from radtransfer.errors import BadImageError
from radtransfer.images.files import MOST_FRAMES
from radtransfer.images.refs import SIXTEEN_BITS, ImageRef, as_part, read_contents, scaled

if TYPE_CHECKING:
    from tifffile import TiffFile

MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # TIFF and BigTIFF

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER, _ORIENTATION = 256, 257, 258, 259, 262, 266, 274
_SAMPLES, _PLANES, _PREDICTOR, _COLOUR_MAP, _SUB_PAGES, _INKS, _EXTRA, _FORMAT = 277, 284, 317, 320, 330, 332, 338, 339

_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_NAMES = {0: "grey", 1: "grey", 2: "RGB", 3: "palette", 4: "a transparency mask", 5: "CMYK", 6: "YCbCr", 8: "CIELab"}
_NAMES |= {9: "ICCLab", 10: "ITULab", 32803: "of a colour filter array", 32844: "LogL", 32845: "LogLuv"}
_COLOURS = {_MIN_IS_WHITE: 1, _MIN_IS_BLACK: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4}
"""Supported values of tag 262 (PhotometricInterpretation) to samples per pixel, without alpha."""

_MOST_EXTRA = 8  # extra samples per pixel, limited as a small file could unpack to any size

_PLAIN, _CCITT, _PACK_BITS = 1, (2, 3, 4), 32773
_WITH_PREDICTOR = (5, 8, 32946, 34925, 50000)
"""LZW, deflate (two codes), LZMA and Zstandard: compressions that support a predictor."""

_MOST_TAGS = 4096
_BYTES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Tags per page; bytes per value of a tag type, if more than one."""

_DEPTH, _SUBFILE, _NOT_FULL = 32997, 254, 0b101
"""Two tags, and the bits of the second for reduced-resolution copies and masks."""


@contextmanager
def open_tiff(ref: ImageRef, start: bytes) -> "Iterator[Image.Image | TiffValues]":
    """The page of a TIFF with first bytes `start`, only its tags read."""
    with closing(TiffPages(ref, start)) as pages, pages.page(ref) as page:
        yield page


class TiffPages:
    """The pages of an open TIFF in any order; each library opens the file once, when needed."""

    def __init__(self, ref: ImageRef, start: bytes):
        self._ref, self._start, self._mended = ref, start, None
        self._files: list[BinaryIO] = []

    @contextmanager
    def page(self, ref: ImageRef) -> "Iterator[Image.Image | TiffValues]":
        frame = as_part(ref).frame
        try:
            simple = frame == 0 and not self._first_kind & _NOT_FULL
            number = 0 if simple else self._numbers[frame]
            page = self._by_pillow(number) or TiffValues(ref, self._tifffile, number)
        except BadImageError as error:
            raise BadImageError(ref, error.reason) from None
        except IndexError:
            raise BadImageError(ref, f"it has no frame {frame + 1}") from None
        except Exception as error:
            raise BadImageError(ref, f"damaged or truncated in its header ({error})") from error
        yield page

    def close(self) -> None:
        while self._files:
            self._files.pop().close()

    @cached_property
    def _first_kind(self) -> int:
        return next(_pages(self._ref))[0]

    @cached_property
    def _numbers(self) -> list[int]:
        return _full_pages(self._ref)

    @cached_property
    def _pillow(self) -> TiffImagePlugin.TiffImageFile | None:
        """None if Pillow cannot read the file; it does not recognize big-endian BigTIFF."""
        if self._start.startswith(b"MM\0+"):
            return None
        self._files.append(_opened(self._ref))  # with a name, Pillow would reopen it for each page
        with suppress(Exception):
            return TiffImagePlugin.TiffImageFile(self._files[-1])
        return None

    @cached_property
    def _tifffile(self) -> Any:
        from tifffile import TiffFile

        logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)  # errors are reported by exceptions
        self._files.append(_opened(self._ref))
        return TiffFile(self._files[-1])

    def _by_pillow(self, number: int) -> Image.Image | None:
        """Page `number` by Pillow; None if Pillow cannot read it or contradicts its tags."""
        image = self._pillow
        if number == self._mended:  # perhaps already decoded, then without tiles
            return image
        self._mended = None
        with suppress(Exception):
            image.seek(number)
            if _pillow_is_right(image):
                _mend(image)
                self._mended = number
                return image
        return None


def count_pages(ref: ImageRef) -> int:
    """The number of images in a TIFF, without reduced-resolution copies and masks."""
    try:
        return len(_full_pages(ref))
    except BadImageError:
        raise
    except Exception as error:
        raise BadImageError(ref, f"damaged or truncated ({error})") from error


class TiffValues:
    """A page read from its tags.

    Attributes:
        orientation: EXIF orientation of the values, 1–8.
        mode: Kind of values, such as "signed 16-bit grey".
        deep: Whether a value has more than 8 bits.
        levels: Values that become 0 and 255: the range of the type; for 32 bits and more that of 16 bits; for floats 0
            and 255.
        inverted: Whether the smallest value is white.
    """

    def __init__(self, ref: ImageRef, file: "TiffFile", number: int):
        self._ref, self._file = ref, file
        page = self._page = file.pages[number]
        tag = page.tags.valueof
        self.width, self.height = page.imagewidth, page.imagelength
        orientation = tag(_ORIENTATION, 1)
        self.orientation = orientation if orientation in range(1, 9) else 1
        self._photometric, self._samples = tag(_PHOTOMETRIC), int(tag(_SAMPLES, 1))
        if self._photometric is None:
            raise BadImageError(
                ref, "its tag PhotometricInterpretation is missing, so 0 may be black or white; export it again"
            )
        name = _NAMES.get(self._photometric, f"of kind {int(self._photometric)}")
        if self._photometric not in _COLOURS or tag(_INKS, 1) != 1:
            raise BadImageError(ref, f"its pixels are {name}, which is not read; convert it to grey or RGB")
        if tag(_DEPTH, 1) != 1:
            raise BadImageError(ref, f"its page is a volume of {tag(_DEPTH)} slices; store each slice as a page")
        bits, formats = set(_numbers(tag(_BITS, 1))), set(_numbers(tag(_FORMAT, 1)))
        if len(bits) > 1 or len(formats) > 1:
            raise BadImageError(ref, "its pixels have values of several types; store all with one type")
        (self._bits,), (number_format,) = bits, formats
        kind = {1: "u", 2: "i", 3: "f"}.get(number_format)
        known = (16, 32, 64) if kind == "f" else (*range(1, 17), 32, 64)
        if kind is None or self._bits not in known or kind != "u" and self._photometric in (_PALETTE, _CMYK):
            what = {"u": "integers", "i": "signed integers", "f": "floats"}.get(kind, "neither integers nor floats")
            advice = "store it as unsigned integers of 8 or 16 bits"
            raise BadImageError(ref, f"its {name} values are {what} of {self._bits} bits; {advice}")
        self._check_samples(name, _numbers(tag(_EXTRA, ())))
        order = self._file.byteorder if self._bits % 8 == 0 else ">"
        self._type = np.dtype(
            f"{order}{kind}{max(1, self._bits // 8) if self._bits % 8 == 0 else 1 + (self._bits > 8)}"
        )
        self._check_compression(tag(_COMPRESSION, 1), tag(_PREDICTOR, 1), name)
        self.deep = self._bits > 8 and self._photometric != _PALETTE
        sign = {"i": "signed "}.get(kind, "")
        self.mode = f"float {name}" if kind == "f" else sign + (f"{self._bits}-bit {name}" if self._bits > 8 else name)
        half = 2.0 ** (self._bits - 1)
        whole = (-half, half - 1) if sign else (0.0, 2 * half - 1)
        self.levels = (0.0, 255.0) if kind == "f" else whole if self._bits <= 16 else SIXTEEN_BITS
        self.inverted = self._photometric == _MIN_IS_WHITE

    def values(self) -> np.ndarray:
        """(height, width, 3), RGB, floats before EXIF rotation: stored values of a deep page, else 0–255."""
        stored = self._stored()
        if self._photometric == _PALETTE:  # reduced to 8 bits as by Pillow; some maps have 8 bits
            table = np.array(self._page.tags.valueof(_COLOUR_MAP)).reshape(3, -1).T
            return (table if table.max() < 256 else table // 256).astype("float32")[stored[:, :, 0]]
        values = stored.astype("float32" if self._type.itemsize <= 2 or self._type.char == "f" else "float64")
        largest = 1.0 if self._type.kind == "f" else self.levels[1]
        if self._alpha:
            share = values[:, :, -1:] / largest
            values = np.where(share > 0, values[:, :, :-1] / np.where(share > 0, share, 1), values[:, :, :-1])
        if self._photometric == _CMYK:
            values = (largest - values[:, :, :3]) * (largest - values[:, :, 3:]) / largest
        if not self.deep:
            values = np.rint(scaled(values, self.levels))
            values = 255 - values if self.inverted else values
        return np.repeat(values, 3, axis=2) if values.shape[2] == 1 else values

    def _check_samples(self, name: str, extra: tuple[int, ...]) -> None:
        """Check that all samples of a pixel are known, and whether alpha is premultiplied."""
        expected = _COLOURS[self._photometric]
        further = self._samples - expected
        # Extra samples after RGB are ignored; after a single value they may be the actual image.
        alpha = further == 1 and extra[:1] in ((1,), (2,))
        if not 0 <= further <= _MOST_EXTRA or expected == 1 and further and not alpha:
            raise BadImageError(
                self._ref,
                f"its pixels have {self._samples} values of unknown meaning ({name} has {expected}); store those you "
                "need as RGB or as separate grey images",
            )
        self._alpha = extra[:1] == (1,)
        self._used = expected + self._alpha

    def _check_compression(self, compression: int, predictor: int, name: str) -> None:
        self._predictor = int(predictor) if compression in _WITH_PREDICTOR else 1
        if compression not in (_PLAIN, _PACK_BITS, *_WITH_PREDICTOR):
            how = getattr(compression, "name", compression)
            what = f"its {self._bits}-bit {name} pixels are compressed with {how}"
            raise BadImageError(self._ref, f"{what}, which is not read; store it uncompressed, or with LZW or deflate")
        fits = {1: True, 2: self._bits in (8, 16, 32, 64), 3: self._type.kind == "f"}
        if not fits.get(self._predictor, False):
            raise BadImageError(
                self._ref, f"its {self._bits}-bit {name} pixels have the predictor {predictor}; store it uncompressed"
            )

    def _stored(self) -> np.ndarray:
        """Stored values (height, width, samples), with alpha only if premultiplied."""
        page, tag = self._page, self._page.tags.valueof
        rows, columns = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, self.width)
        rows = rows if page.is_tiled else min(rows, self.height)
        planes, samples = (self._samples, 1) if tag(_PLANES, 1) == 2 else (1, self._samples)
        down, across = -(-self.height // rows), -(-self.width // columns)
        wanted = down * across * (self._used if planes > 1 else 1)
        if len(page.dataoffsets) < down * across * planes or rows * columns > 4 * self.height * self.width + 2**20:
            raise BadImageError(self._ref, "damaged: its strips or tiles do not fit its size")
        row_bytes = -(-columns * samples * self._bits // 8)
        stored = None
        for number in range(wanted):
            plane, row, column = number // (down * across), number // across % down * rows, number % across * columns
            here = rows if page.is_tiled else min(rows, self.height - row)
            data = self._segment(page.dataoffsets[number], page.databytecounts[number], row_bytes, here)
            block = self._unpacked(data, here, columns, samples)
            if stored is None:  # not before a first segment is complete
                stored = np.empty((self.height, self.width, self._used), block.dtype)
            target = stored[row : row + here, column : column + columns]
            target = target[:, :, plane : plane + 1] if planes > 1 else target
            target[...] = block[: target.shape[0], : target.shape[1], : target.shape[2]]
        return stored

    def _segment(self, offset: int, length: int, row_bytes: int, rows: int) -> bytes:
        self._file.filehandle.seek(offset)
        data = self._file.filehandle.read(length)
        compression, fill = self._page.tags.valueof(_COMPRESSION, 1), self._page.tags.valueof(_FILL_ORDER, 1)
        if compression != _PLAIN:
            return _unpacked_by_libtiff(data, row_bytes, rows, compression=compression, fill=fill)
        if len(data) < row_bytes * rows:
            raise BadImageError(self._ref, "truncated: its pixels are incomplete")
        if fill == 2:
            data = np.packbits(np.unpackbits(np.frombuffer(data, "u1"), bitorder="little")).tobytes()
        return data[: row_bytes * rows]

    def _unpacked(self, data: bytes, rows: int, columns: int, samples: int) -> np.ndarray:
        """The values of a segment, (rows, columns, samples), in native byte order."""
        size, bits = self._type.itemsize, self._bits
        if self._predictor == 3:
            differences = np.frombuffer(data, "u1").reshape(rows, columns * size, samples)
            planes = np.cumsum(differences, axis=1, dtype="u1").reshape(rows, size, columns * samples)
            data = np.ascontiguousarray(planes.transpose(0, 2, 1)).tobytes()
            return np.frombuffer(data, f">f{size}").reshape(rows, columns, samples).astype(f"f{size}")
        if bits % 8:
            each = np.unpackbits(np.frombuffer(data, "u1").reshape(rows, -1), axis=1)[:, : columns * samples * bits]
            wide = np.zeros((rows, columns, samples, 8 * size), "u1")
            wide[..., -bits:] = each.reshape(rows, columns, samples, bits)
            if self._type.kind == "i":
                wide[..., :-bits] = wide[..., -bits, None]
            return np.packbits(wide, axis=-1).view(self._type)[..., 0].astype(self._type.newbyteorder("="))
        values = np.frombuffer(data, self._type).reshape(rows, columns, samples).astype(self._type.newbyteorder("="))
        if self._predictor == 2:
            whole = values.view(f"u{size}")
            values = np.cumsum(whole, axis=1, dtype=whole.dtype).view(values.dtype)
        return values


def _pillow_is_right(image: TiffImagePlugin.TiffImageFile) -> bool:
    """Whether Pillow reads the page correctly, with data for all pixels (it leaves missing ones black)."""
    tag = image.tag_v2.get
    photometric, bits, compression = tag(_PHOTOMETRIC), _numbers(tag(_BITS, 1)), tag(_COMPRESSION, 1)
    if set(_numbers(tag(_FORMAT, 1))) != {1} or tag(_INKS, 1) != 1 or tag(_DEPTH, 1) != 1:
        return False
    if tag(_FILL_ORDER, 1) != 1 and compression not in _CCITT:
        return False
    if tag(_PLANES, 1) != 1 and (photometric != _RGB or set(bits) != {8}):
        return False
    right = photometric == _MIN_IS_BLACK if bits == (16,) else max(bits) <= 8 and photometric in (*_COLOURS, _YCBCR)
    corners = [tile[1] for tile in image.tile]
    planes = 3 if tag(_PLANES, 1) != 1 else 1
    ends_in_corner = bool(corners) and corners[-1][2:] == (tag(_WIDTH), tag(_HEIGHT))
    return right and ends_in_corner and len(corners) >= planes * len(set(corners))


def _mend(image: TiffImagePlugin.TiffImageFile) -> None:
    """Correct Pillow's setup of the page."""
    tags = image.tag_v2
    if tags.get(_PHOTOMETRIC) == _YCBCR and tags.get(_COMPRESSION, 1) == _PLAIN:
        # libtiff also reads uncompressed YCbCr.
        image.tile = [ImageFile._Tile("libtiff", (0, 0, *image.size), 0, ("RGBX", "raw", False, tags.offset))]
        image.use_load_libtiff = True
    if image.mode in ("P", "PA") and max(tags[_COLOUR_MAP]) < 256:
        image.palette = ImagePalette.raw("RGB;L", bytes(tags[_COLOUR_MAP]))


def _full_pages(ref: ImageRef) -> list[int]:
    """Numbers of the pages that are not reduced-resolution copies or masks; all pages if there are no others."""
    pages = list(_pages(ref))
    kind, has_others_below = pages[0]
    if kind & _NOT_FULL and has_others_below:
        raise BadImageError(
            ref, "its first page is a preview of an image in a sub-page; export that image as a separate TIFF"
        )
    return [number for number, (kind, _) in enumerate(pages) if not kind & _NOT_FULL] or list(range(len(pages)))


def _pages(ref: ImageRef) -> Iterator[tuple[int, bool]]:
    """Tag 254 of each page (at most `MOST_FRAMES` + 1), and whether it has sub-pages; checks the sizes of tags."""
    with _opened(ref) as file:
        head = file.read(16)
        size = file.seek(0, io.SEEK_END)
        order, endian = ("<", "little") if head.startswith(b"I") else (">", "big")
        counter, word, least = (8, "Q", 8) if b"+" in head[2:4] else (2, "I", 4)
        entry = 4 + 2 * least
        offset = int.from_bytes(head[least : 2 * least], endian)
        seen: set[int] = set()
        announced = 0
        while (offset or not seen) and len(seen) <= MOST_FRAMES:
            if offset in seen:
                raise BadImageError(ref, "damaged: its pages form a cycle")
            seen.add(offset)
            file.seek(offset)
            count = int.from_bytes(file.read(counter) if offset else b"", endian)
            entries = file.read(min(count, _MOST_TAGS) * entry)
            if not count or len(entries) < min(count, _MOST_TAGS) * entry:
                raise BadImageError(ref, "truncated: its tags are missing")
            offset = int.from_bytes(file.read(least), endian)
            kind, below = 0, False
            for tag, number_type, length, value in struct.iter_unpack(f"{order}HH{word}{least}s", entries):
                announced += length * _BYTES.get(number_type, 1)
                below |= tag == _SUB_PAGES
                if tag == _SUBFILE:
                    (kind,) = struct.unpack_from(f"{order}{'H' if number_type == 3 else 'I'}", value)
            if count > _MOST_TAGS or announced > 2 * size + 2**16 * len(seen):
                raise BadImageError(ref, "damaged: its tags are larger than the file")
            yield kind, below


def _opened(ref: ImageRef) -> BinaryIO:
    part = as_part(ref)
    return part.path.open("rb") if part.length is None else io.BytesIO(read_contents(part))


def _numbers(value: Any) -> tuple[int, ...]:
    return tuple(int(number) for number in np.atleast_1d(value))


def _unpacked_by_libtiff(data: bytes, row_bytes: int, rows: int, *, compression: int, fill: int) -> bytes:
    """Decompress a segment with the libtiff in Pillow, as a grey image of the bytes."""
    tags = {_WIDTH: row_bytes, _HEIGHT: rows, _BITS: 8, _COMPRESSION: compression, _PHOTOMETRIC: 1, _FILL_ORDER: fill}
    start = 8 + 2 + 12 * 10 + 4
    tags |= {273: start, _SAMPLES: 1, 278: rows, 279: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4 if value > 0xFFFF else 3, 1, value) for tag, value in tags.items())
    file = io.BytesIO(struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4) + data)
    with TiffImagePlugin.TiffImageFile(file) as image:
        return image.tobytes()
