"""TIFF files: read by Pillow where it gives what the tags say, else by their tags through tifffile.

Pillow takes 16-bit and floating-point MinIsWhite for MinIsBlack and signed bytes for unsigned ones, cuts 16-bit
colours to 8 bits, mixes up their planes, and swaps the bytes of compressed big-endian floats. tifffile says where the
values are; as it unpacks LZW and 12 bits only with imagecodecs, a large package, the libtiff in Pillow does that here.
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

MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # how a TIFF begins; the last two are BigTIFF

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER, _ORIENTATION = 256, 257, 258, 259, 262, 266, 274
_SAMPLES, _PLANES, _PREDICTOR, _COLOUR_MAP, _SUB_PAGES, _INKS, _EXTRA, _FORMAT = 277, 284, 317, 320, 330, 332, 338, 339

_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_NAMES = {0: "grey", 1: "grey", 2: "RGB", 3: "palette", 4: "a transparency mask", 5: "CMYK", 6: "YCbCr", 8: "CIELab"}
_NAMES |= {9: "ICCLab", 10: "ITULab", 32803: "of a colour filter array", 32844: "LogL", 32845: "LogLuv"}
_COLOURS = {_MIN_IS_WHITE: 1, _MIN_IS_BLACK: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4}
"""Values of a pixel by tag 262, without alpha, of all kinds that are read here."""

_MOST_EXTRA = 8  # values of a pixel beyond its colours: more would be room for a small file to unpack to any size

_PLAIN, _CCITT, _PACK_BITS = 1, (2, 3, 4), 32773
_WITH_PREDICTOR = (5, 8, 32946, 34925, 50000)
"""LZW, deflate (twice), LZMA and Zstandard: the compressions before which values may be replaced by differences."""

_MOST_TAGS = 4096
_BYTES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Tags of a page; bytes of the values that a tag can hold, by their type, where it is more than one."""

_DEPTH, _SUBFILE, _NOT_FULL = 32997, 254, 0b101
"""Two tags, and two bits in the second: a smaller copy of another page, and a mask."""


@contextmanager
def open_tiff(place: ImageRef, start: bytes) -> "Iterator[Image.Image | TiffValues]":
    """The first page of a TIFF that begins with `start`, its tags read and its pixels not."""
    with closing(TiffPages(place, start)) as pages, pages.page(place) as page:
        yield page


class TiffPages:
    """The pages of an open TIFF, one at a time and in any order; each library opens the file once, when needed."""

    def __init__(self, place: ImageRef, start: bytes):
        self._place, self._start, self._mended = place, start, None
        self._files: list[BinaryIO] = []

    @contextmanager
    def page(self, place: ImageRef) -> "Iterator[Image.Image | TiffValues]":
        frame = as_part(place).frame
        try:
            simple = frame == 0 and not self._first_kind & _NOT_FULL
            number = 0 if simple else self._numbers[frame]
            page = self._by_pillow(number) or TiffValues(place, self._tifffile, number)
        except BadImageError as error:
            raise BadImageError(place, error.reason) from None
        except IndexError:
            raise BadImageError(place, f"it has no frame {frame + 1}") from None
        # As Pillow, tifffile raises what it meets in a damaged file.
        except Exception as error:
            raise BadImageError(place, f"damaged or truncated in its header ({error})") from error
        yield page

    def close(self) -> None:
        while self._files:
            self._files.pop().close()

    @cached_property
    def _first_kind(self) -> int:
        return next(_pages(self._place))[0]

    @cached_property
    def _numbers(self) -> list[int]:
        return _full_pages(self._place)

    @cached_property
    def _pillow(self) -> TiffImagePlugin.TiffImageFile | None:
        """None where Pillow does not read the file; it misses that big-endian BigTIFF is BigTIFF."""
        if self._start.startswith(b"MM\0+"):
            return None
        self._files.append(_opened(self._place))  # by name, Pillow would open it again for each uncompressed page
        with suppress(Exception):
            return TiffImagePlugin.TiffImageFile(self._files[-1])
        return None

    @cached_property
    def _tifffile(self) -> Any:
        from tifffile import TiffFile

        logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)  # whoever reads a damaged file says so
        self._files.append(_opened(self._place))
        return TiffFile(self._files[-1])

    def _by_pillow(self, number: int) -> Image.Image | None:
        """Page `number` through Pillow; None where Pillow does not read it, or not as its tags say."""
        image = self._pillow
        if number == self._mended:  # perhaps with its pixels, and then without the places of these
            return image
        self._mended = None
        with suppress(Exception):
            image.seek(number)
            if _pillow_is_right(image):
                _mend(image)
                self._mended = number
                return image
        return None


def count_pages(place: ImageRef) -> int:
    """How many images a TIFF holds, smaller copies and masks of its pages aside."""
    try:
        return len(_full_pages(place))
    except BadImageError:
        raise
    except Exception as error:
        raise BadImageError(place, f"damaged or truncated ({error})") from error


class TiffValues:
    """A page that is read by its tags.

    Attributes:
        orientation: 1–8: how the values have yet to be turned.
        mode: What it holds in words, such as "signed 16-bit grey".
        deep: Whether a value has more than 8 bits.
        levels: The values that become 0 and 255: those that its type can hold; of 32 bits and more those of 16 bits,
            of floats 0 and 255.
        inverted: Whether its smallest value is white.
    """

    def __init__(self, place: ImageRef, file: "TiffFile", number: int):
        self._place, self._file = place, file
        page = self._page = file.pages[number]
        tag = page.tags.valueof
        self.width, self.height = page.imagewidth, page.imagelength
        orientation = tag(_ORIENTATION, 1)
        self.orientation = orientation if orientation in range(1, 9) else 1
        self._photometric, self._samples = tag(_PHOTOMETRIC), int(tag(_SAMPLES, 1))
        if self._photometric is None:
            raise BadImageError(
                place, "its tags do not say whether 0 is black (PhotometricInterpretation is missing); store it again"
            )
        name = _NAMES.get(self._photometric, f"of kind {int(self._photometric)}")
        if self._photometric not in _COLOURS or tag(_INKS, 1) != 1:
            raise BadImageError(place, f"its pixels are {name}, which is not read; convert it to grey or RGB")
        if tag(_DEPTH, 1) != 1:
            raise BadImageError(place, f"its page is a volume of {tag(_DEPTH)} slices; store each as a page of its own")
        bits, formats = set(_numbers(tag(_BITS, 1))), set(_numbers(tag(_FORMAT, 1)))
        if len(bits) > 1 or len(formats) > 1:
            raise BadImageError(place, "its pixels hold values of several types; store them all as one")
        (self._bits,), (number_format,) = bits, formats
        kind = {1: "u", 2: "i", 3: "f"}.get(number_format)
        known = (16, 32, 64) if kind == "f" else (*range(1, 17), 32, 64)
        if kind is None or self._bits not in known or kind != "u" and self._photometric in (_PALETTE, _CMYK):
            what = {"u": "integers", "i": "signed integers", "f": "floats"}.get(kind, "neither integers nor floats")
            advice = "store it as unsigned integers of 8 or 16 bits"
            raise BadImageError(place, f"its {name} values are {what} of {self._bits} bits; {advice}")
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
        """(height, width, 3), RGB, floating point, not turned: of a deep page as they are stored, else 0–255."""
        stored = self._stored()
        if self._photometric == _PALETTE:  # cut to 8 bits as Pillow does it; some writers store a map of 8 bits
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
        """See that each value of a pixel has a meaning, and whether colours were multiplied by an alpha."""
        expected = _COLOURS[self._photometric]
        further = self._samples - expected
        # What follows RGB is no part of it; what follows a single value may be what the image is of.
        alpha = further == 1 and extra[:1] in ((1,), (2,))
        if not 0 <= further <= _MOST_EXTRA or expected == 1 and further and not alpha:
            raise BadImageError(
                self._place,
                f"its pixels are {self._samples} values each, of which its tags do not say what they are ({name} has "
                f"{expected}); store what you want to use as RGB, or as one grey image each",
            )
        self._alpha = extra[:1] == (1,)
        self._used = expected + self._alpha

    def _check_compression(self, compression: int, predictor: int, name: str) -> None:
        self._predictor = int(predictor) if compression in _WITH_PREDICTOR else 1
        if compression not in (_PLAIN, _PACK_BITS, *_WITH_PREDICTOR):
            how = getattr(compression, "name", compression)
            what = f"its {self._bits}-bit {name} pixels are compressed with {how}"
            raise BadImageError(
                self._place, f"{what}, which is not read; store it uncompressed, or with LZW or deflate"
            )
        fits = {1: True, 2: self._bits in (8, 16, 32, 64), 3: self._type.kind == "f"}
        if not fits.get(self._predictor, False):
            raise BadImageError(
                self._place, f"its {self._bits}-bit {name} pixels have the predictor {predictor}; store it uncompressed"
            )

    def _stored(self) -> np.ndarray:
        """(height, width, values), as they are stored, with an alpha only where the colours were multiplied by it."""
        page, tag = self._page, self._page.tags.valueof
        rows, columns = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, self.width)
        rows = rows if page.is_tiled else min(rows, self.height)
        planes, samples = (self._samples, 1) if tag(_PLANES, 1) == 2 else (1, self._samples)
        down, across = -(-self.height // rows), -(-self.width // columns)
        wanted = down * across * (self._used if planes > 1 else 1)
        if len(page.dataoffsets) < down * across * planes or rows * columns > 4 * self.height * self.width + 2**20:
            raise BadImageError(self._place, "damaged: its strips or tiles do not fit its size")
        row_bytes = -(-columns * samples * self._bits // 8)
        stored = None
        for number in range(wanted):
            plane, row, column = number // (down * across), number // across % down * rows, number % across * columns
            here = rows if page.is_tiled else min(rows, self.height - row)
            data = self._segment(page.dataoffsets[number], page.databytecounts[number], row_bytes, here)
            block = self._unpacked(data, here, columns, samples)
            if stored is None:  # not before a first segment is there in full
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
            raise BadImageError(self._place, "truncated: its pixels are not all there")
        if fill == 2:
            data = np.packbits(np.unpackbits(np.frombuffer(data, "u1"), bitorder="little")).tobytes()
        return data[: row_bytes * rows]

    def _unpacked(self, data: bytes, rows: int, columns: int, samples: int) -> np.ndarray:
        """The values of a segment, (rows, columns, samples), in the byte order of this machine."""
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
    """Whether Pillow reads the page as its tags say, and there is data for all pixels: else it leaves them black."""
    tag = image.tag_v2.get
    photometric, bits, compression = tag(_PHOTOMETRIC), _numbers(tag(_BITS, 1)), tag(_COMPRESSION, 1)
    if set(_numbers(tag(_FORMAT, 1))) != {1} or tag(_INKS, 1) != 1 or tag(_DEPTH, 1) != 1:
        return False
    if tag(_FILL_ORDER, 1) != 1 and compression not in _CCITT:
        return False
    if tag(_PLANES, 1) != 1 and (photometric != _RGB or set(bits) != {8}):
        return False
    right = photometric == _MIN_IS_BLACK if bits == (16,) else max(bits) <= 8 and photometric in (*_COLOURS, _YCBCR)
    places = [tile[1] for tile in image.tile]
    planes = 3 if tag(_PLANES, 1) != 1 else 1
    ends_in_corner = bool(places) and places[-1][2:] == (tag(_WIDTH), tag(_HEIGHT))
    return right and ends_in_corner and len(places) >= planes * len(set(places))


def _mend(image: TiffImagePlugin.TiffImageFile) -> None:
    """Make Pillow do what only its setup of the page gets wrong."""
    tags = image.tag_v2
    if tags.get(_PHOTOMETRIC) == _YCBCR and tags.get(_COMPRESSION, 1) == _PLAIN:
        # libtiff, which reads it when compressed, reads it plain as well.
        image.tile = [ImageFile._Tile("libtiff", (0, 0, *image.size), 0, ("RGBX", "raw", False, tags.offset))]
        image.use_load_libtiff = True
    if image.mode in ("P", "PA") and max(tags[_COLOUR_MAP]) < 256:
        image.palette = ImagePalette.raw("RGB;L", bytes(tags[_COLOUR_MAP]))


def _full_pages(place: ImageRef) -> list[int]:
    """The numbers of the pages that are neither a smaller copy of another nor a mask; of all, if there is no other."""
    pages = list(_pages(place))
    kind, has_others_below = pages[0]
    if kind & _NOT_FULL and has_others_below:
        raise BadImageError(
            place, "its first page is a preview of an image that is stored below it; export that as a TIFF of its own"
        )
    return [number for number, (kind, _) in enumerate(pages) if not kind & _NOT_FULL] or list(range(len(pages)))


def _pages(place: ImageRef) -> Iterator[tuple[int, bool]]:
    """Of each page tag 254, and whether it has pages below it; before Pillow or tifffile reads what its tags hold.

    Of more than `MOST_FRAMES` pages, one more than these.
    """
    with _opened(place) as file:
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
                raise BadImageError(place, "damaged: its pages follow each other in a circle")
            seen.add(offset)
            file.seek(offset)
            count = int.from_bytes(file.read(counter) if offset else b"", endian)
            entries = file.read(min(count, _MOST_TAGS) * entry)
            if not count or len(entries) < min(count, _MOST_TAGS) * entry:
                raise BadImageError(place, "truncated: its tags are not there")
            offset = int.from_bytes(file.read(least), endian)
            kind, below = 0, False
            for tag, number_type, length, value in struct.iter_unpack(f"{order}HH{word}{least}s", entries):
                announced += length * _BYTES.get(number_type, 1)
                below |= tag == _SUB_PAGES
                if tag == _SUBFILE:
                    (kind,) = struct.unpack_from(f"{order}{'H' if number_type == 3 else 'I'}", value)
            if count > _MOST_TAGS or announced > 2 * size + 2**16 * len(seen):
                raise BadImageError(place, "damaged: its tags announce more than the file can hold")
            yield kind, below


def _opened(place: ImageRef) -> BinaryIO:
    part = as_part(place)
    return part.path.open("rb") if part.length is None else io.BytesIO(read_contents(part))


def _numbers(value: Any) -> tuple[int, ...]:
    return tuple(int(number) for number in np.atleast_1d(value))


def _unpacked_by_libtiff(data: bytes, row_bytes: int, rows: int, *, compression: int, fill: int) -> bytes:
    """A segment by the codec of libtiff, which is in Pillow: given to it as a grey image of the segment's bytes."""
    tags = {_WIDTH: row_bytes, _HEIGHT: rows, _BITS: 8, _COMPRESSION: compression, _PHOTOMETRIC: 1, _FILL_ORDER: fill}
    start = 8 + 2 + 12 * 10 + 4
    tags |= {273: start, _SAMPLES: 1, 278: rows, 279: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4 if value > 0xFFFF else 3, 1, value) for tag, value in tags.items())
    file = io.BytesIO(struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4) + data)
    with TiffImagePlugin.TiffImageFile(file) as image:
        return image.tobytes()
