"""DICOM files through pydicom (extra `dicom`): the header, and the stored values of one frame.

Every use of pydicom is within `reading`, which silences it and turns its errors into `BadImageError`.
"""

import logging
import re
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from radtransfer.errors import BadImageError
from radtransfer.images.files import cached_file
from radtransfer.images.refs import ImageRef, as_part, is_frame

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.uid import UID

INSTALL = "pip install 'radtransfer[dicom]'"

_LIBRARIES = ("pydicom", "pylibjpeg", "openjpeg")


@contextmanager
def reading(ref: ImageRef) -> Iterator[None]:
    """Use pydicom on `ref` without log messages, with every error as a `BadImageError`."""
    if not find_spec("pydicom"):
        raise BadImageError(ref, f"a DICOM file, which needs pydicom; install it: {INSTALL}")
    try:
        with _SILENCE:
            yield
    except BadImageError:
        raise
    except FileNotFoundError:
        raise BadImageError(ref, "not found") from None
    except PermissionError as error:
        raise BadImageError(ref, f"cannot be opened ({error.strerror})") from None
    # pydicom may raise anything for a damaged file: KeyError, struct.error, AssertionError.
    except Exception as error:
        raise BadImageError(ref, f"damaged ({reason_of(error)})") from error


def reason_of(error: Exception) -> str:
    """The second line of the message, as the first only announces it; else the only line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return printable(lines[min(1, len(lines) - 1)].rstrip(".:") if lines else type(error).__name__)


def printable(text: str) -> str:
    """`text` from a header with non-printable characters replaced."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


class _Silence:
    """Suppresses warnings and logs of pydicom while any thread is inside; warning filters are shared by threads."""

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._outer = ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside > 1:
                return
            self._outer.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", module="|".join(_LIBRARIES))
            for logger in map(logging.getLogger, _LIBRARIES):
                self._outer.callback(setattr, logger, "propagate", logger.propagate)
                logger.propagate = False

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._outer.close()


_SILENCE = _Silence()


GREY, PALETTE = ("MONOCHROME1", "MONOCHROME2"), "PALETTE COLOR"
COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")


_PLUGINS = {
    "JPEG 2000": ("openjpeg", "pylibjpeg-openjpeg"),
    "High-Throughput JPEG 2000": ("openjpeg", "pylibjpeg-openjpeg"),
    "JPEG Baseline": ("libjpeg", "pylibjpeg-libjpeg"),
    "JPEG Extended": ("libjpeg", "pylibjpeg-libjpeg"),
    "JPEG Lossless": ("libjpeg", "pylibjpeg-libjpeg"),
    "JPEG-LS": ("libjpeg", "pylibjpeg-libjpeg"),
}
"""Start of the name of a transfer syntax to the module and package that read it."""

DEFLATED_LIMIT = 1_000_000_000  # largest unpacked size of a deflated file, bytes


_PIXELS = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}
_PIXEL_TYPES = (b"OB", b"OW", b"OF", b"OD", b"UN")
_ITEM, _END_OF_ITEMS = 0xFFFEE000, 0xFFFEE0DD


@dataclass(slots=True)
class DicomFile:
    """A DICOM image with complete pixels in a supported transfer syntax."""

    path: Path
    header: "Dataset"  # everything before the pixels
    syntax: "UID"
    offset: int  # of the pixels in bytes; 0 in a deflated file, which is unpacked first
    options: dict[str, Any]  # options of pydicom's decoder that are not in the header
    notes: list[str] = field(default_factory=list)  # contradictions of header and pixels, and how they are resolved
    # Content of a deflated file with several frames, unpacked once
    whole: "Dataset | None" = None

    @property
    def frames(self) -> int:
        return max(1, int(self.header.get("NumberOfFrames") or 1))


def open_dicom(ref: ImageRef) -> DicomFile:
    """The DICOM image with only its header read; for a frame, cached."""
    if not is_frame(ref):
        return _open(as_part(ref).path)
    with reading(ref), cached_file(ref.path) as kept:
        return kept.once("dicom", lambda: _open(ref.path))


def _open(path: Path) -> DicomFile:
    with reading(path), path.open("rb") as handle:
        from pydicom import dcmread

        _check_deflated(path)
        header = dcmread(handle, stop_before_pixels=True, force=True)
        _check_image(path, header)
        syntax = _syntax(path, header)
        if syntax.is_deflated:
            data = dcmread(path, force=True)
            keyword = next((name for name in _PIXELS.values() if name in data), None)
            if keyword is None:
                raise BadImageError(path, "no pixel data, or truncated before it")
            file = DicomFile(path, header, syntax, 0, {"pixel_keyword": keyword})
            _check_header(file)
            file.whole = data if file.frames > 1 else None
            _check_length(file, len(data[keyword].value), cut=False)
            return file
        options, length = _pixel_element(path, handle, syntax)
        file = DicomFile(path, header, syntax, handle.tell(), options)
        _check_header(file)
        size = path.stat().st_size
        if not syntax.is_encapsulated:
            _check_length(file, min(length, size - file.offset), cut=length > size - file.offset)
            return file
        fragments = _fragments(handle, size)
        if fragments is None:
            raise BadImageError(path, "truncated: its pixel data is incomplete")
        if len(fragments) == file.frames > 1:  # else pydicom searches each frame from the start
            offsets, lengths = zip(*fragments, strict=True)
            file.options["extended_offsets"] = list(offsets), list(lengths)
        return file


def stored_frame(file: DicomFile, frame: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Stored values, (height, width) or (height, width, 3) RGB, and notes on contradictions of header and pixels."""
    with reading(file.path), file.path.open("rb") as handle:
        from pydicom import dcmread
        from pydicom.pixels import as_pixel_options, get_decoder, pixel_array

        options = {"correct_unused_bits": False}
        if file.syntax.is_deflated:
            options |= {name: value for name, value in file.options.items() if name != "pixel_keyword"}
            return _true_values(pixel_array(file.whole or dcmread(handle, force=True), index=frame, **options), file)
        handle.seek(file.offset)
        options |= as_pixel_options(file.header, **file.options)
        try:
            stored = get_decoder(file.syntax).as_array(handle, index=frame, **options)[0]
        except RuntimeError as error:  # all decoders of a compressed syntax failed
            advice = _plugin_advice(file.syntax.name)
            raise BadImageError(file.path, advice or f"damaged pixel data ({reason_of(error)})") from error
        except ValueError as error:
            if "broadcast" not in str(error):
                raise
            what = "its compressed pixels differ in size or colours from its header; export it again"
            raise BadImageError(file.path, what) from error
        return _true_values(stored, file)


def _check_header(file: DicomFile) -> None:
    """Check that the header describes the pixels completely and without contradictions."""
    header, path = file.header, file.path
    photometric, samples = str(header.get("PhotometricInterpretation") or ""), header.get("SamplesPerPixel")
    known = (*GREY, PALETTE, *COLOURS)
    if photometric not in known:
        found = printable(photometric) or "of unknown kind"
        raise BadImageError(path, f"its pixels are {found}; expected {', '.join(known)}")
    expected = 3 if photometric in COLOURS else 1
    if samples and samples != expected:
        what = f"{photometric} pixels have {expected} values each, the header says {samples}"
        raise BadImageError(path, f"damaged: {what}")
    if file.options["pixel_keyword"] != "PixelData":
        return
    allowed = {"SamplesPerPixel": (1, 3), "BitsAllocated": (1, 8, 16, 32, 64), "PixelRepresentation": (0, 1)}
    if samples == 3:
        allowed["PlanarConfiguration"] = (0, 1)
    allocated = header.get("BitsAllocated")
    allowed["BitsStored"] = range(1, (allocated or 0) + 1)
    for name, values in allowed.items():
        value = header.get(name)
        if value is None or value == "":
            raise BadImageError(path, f"its header lacks {name}, which is needed to read its pixels; export it again")
        if value not in values:
            bits = f" with BitsAllocated {allocated}" if name == "BitsStored" else ""
            raise BadImageError(path, f"its header says {name} {printable(str(value))}{bits}, which is invalid")
    # Of the compressed syntaxes, only JPEG Baseline and Extended have chroma subsampling.
    subsampling = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")
    if photometric == "YBR_FULL_422" and file.syntax.is_encapsulated and file.syntax not in subsampling:
        file.options["photometric_interpretation"] = "RGB"  # see `dicom._full_length`
    if samples == 3 and header.PixelRepresentation == 1:
        file.options["pixel_representation"] = 0
        file.notes.append("the header says that colours are signed, which is invalid; read as unsigned")


def _check_length(file: DicomFile, length: int, *, cut: bool) -> None:
    """Check uncompressed pixels of `length` bytes; `cut` if their element is longer."""
    header, path = file.header, file.path
    pixels, photometric = header.Rows * header.Columns * file.frames, header.get("PhotometricInterpretation")
    bits = 32 if "Float" in file.options["pixel_keyword"] else header.get("BitsAllocated") or 0
    bits = 64 if "Double" in file.options["pixel_keyword"] else bits
    # Two pixels of YBR_FULL_422 share their chroma.
    half, full = (-(-pixels * samples * bits // 8) for samples in (2, 3))
    needed = half if photometric == "YBR_FULL_422" else -(-pixels * header.get("SamplesPerPixel", 1) * bits // 8)
    if photometric == "YBR_FULL_422" and full <= length <= full + 1:
        file.options["photometric_interpretation"] = "RGB"  # see `dicom._full_length`
        return
    if photometric == "YBR_FULL" and half <= length <= half + 1 and not cut:
        file.options["photometric_interpretation"] = "YBR_FULL_422"
        file.notes.append(
            "the header says YBR_FULL, but the pixels have the length of YBR_FULL_422; read as YBR_FULL_422"
        )
        return
    if length < needed and cut:
        raise BadImageError(path, "truncated: its pixel data is incomplete")
    least = max(2, needed // (max(header.Rows, header.Columns) * file.frames))  # of a row or a column
    if not needed <= length < needed + least:
        raise BadImageError(
            path,
            f"its header describes {needed} bytes of pixels, but it has {length}: its size, bits, colours or number of "
            "frames must be wrong; export it again",
        )
    if length > needed + needed % 2:
        file.notes.append("a few more bytes of pixels than the header describes; ignored")


def _true_values(stored: np.ndarray, file: DicomFile) -> tuple[np.ndarray, tuple[str, ...]]:
    """The values in the bits given by `BitsStored` and `HighBit`, checked against the pixels."""
    header, notes = file.header, list(file.notes)
    if stored.dtype.kind not in "iu" or file.options["pixel_keyword"] != "PixelData":
        return stored, tuple(notes)
    stored = _of_declared_sign(stored.astype(stored.dtype.newbyteorder("="), copy=False), header, notes)
    bits, size = int(header.BitsStored), 8 * stored.dtype.itemsize
    if bits >= size or header.BitsAllocated == 1:
        return stored, tuple(notes)
    high = header.get("HighBit")
    high = bits - 1 if high in (None, "") else int(high)
    whole = stored.view(f"u{stored.dtype.itemsize}")
    above = whole >> bits
    lowest = above.flat[0] if (above == above.flat[0]).all() else None  # equal in all pixels: not part of the image
    extended = (stored.dtype.kind == "i") & np.array_equal((stored << (size - bits)) >> (size - bits), stored)
    overlays = (header.get((group, 0x0102)) for group in range(0x6000, 0x6020, 2))  # may use the upper bits
    shift = 0
    if extended or lowest == 0:
        if high != bits - 1:
            notes.append("HighBit in the header is not BitsStored - 1, but the values are in the lowest bits")
    elif high >= bits and not (whole & (2 ** (high + 1 - bits) - 1)).any():
        shift = high + 1 - bits
        notes.append("the values are not in the lowest bits, but below HighBit; read from there")
    elif high == bits - 1 and (lowest is not None or any(item and int(item.value or 0) >= bits for item in overlays)):
        notes.append("bits above BitsStored are set; ignored")
    else:
        what = f"BitsStored {bits} and HighBit {high}"
        raise BadImageError(
            file.path, f"its header says {what}, but its values use other bits, so their meaning is uncertain"
        )
    return (stored << (size - bits - shift)) >> (size - bits), tuple(notes)


def _of_declared_sign(stored: np.ndarray, header: "Dataset", notes: list[str]) -> np.ndarray:
    """`stored` as signed or unsigned, according to the smallest and largest value in the header, if given."""
    size = stored.dtype.itemsize
    named = header.get("SmallestImagePixelValue"), header.get("LargestImagePixelValue")
    if None in named or not all(isinstance(value, int) for value in named) or header.BitsStored != 8 * size:
        return stored
    for kind, word in (("u", "unsigned"), ("i", "signed")):
        other = stored.view(f"{kind}{size}")
        ends, own = (
            [int(value) % 2 ** (8 * size) for value in pair]
            for pair in ((other.min(), other.max()), (stored.min(), stored.max()))
        )
        if ends == [value % 2 ** (8 * size) for value in named] != own:
            notes.append(f"the header contradicts itself about signs; read as {word} by its smallest and largest value")
            return other
    return stored


def _syntax(path: Path, header: "Dataset") -> "UID":
    """The supported transfer syntax; for old files without one, from their encoding."""
    from pydicom.pixels import get_decoder
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if "TransferSyntaxUID" in header.file_meta:
        syntax = header.file_meta.TransferSyntaxUID
    else:
        implicit, little = header.original_encoding
        syntax = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        syntax = ImplicitVRLittleEndian if implicit else syntax
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:
        what = "video" if re.search("MPEG|HEVC|H.264|H.265", syntax.name) else "pixels"
        raise BadImageError(
            path, f"its {what} ({printable(syntax.name)}) cannot be read; convert it to uncompressed DICOM or PNG"
        ) from None
    if not available:
        raise BadImageError(path, _plugin_advice(syntax.name) or f"its pixels ({syntax.name}) cannot be read")
    return syntax


def _check_deflated(path: Path) -> None:
    """Check the unpacked size of a deflated file."""
    from pydicom import filereader
    from pydicom.errors import InvalidDicomError

    try:
        meta = filereader.read_file_meta_info(path)
    except InvalidDicomError:
        return  # no preamble: not deflated
    if not getattr(meta.get("TransferSyntaxUID"), "is_deflated", False):
        return
    unpacked, inflater = 0, zlib.decompressobj(-zlib.MAX_WBITS)
    with path.open("rb") as handle:
        # Preamble, magic, and the group length element.
        handle.seek(128 + 4 + 12 + int(meta.FileMetaInformationGroupLength))
        while not inflater.eof and (packed := handle.read(1 << 16)):
            while packed and not inflater.eof and unpacked <= DEFLATED_LIMIT:
                unpacked += len(inflater.decompress(packed, 1 << 20))
                packed = inflater.unconsumed_tail
    if unpacked > DEFLATED_LIMIT:
        limit = f"{DEFLATED_LIMIT // 1_000_000} MB"
        raise BadImageError(path, f"its deflated content unpacks to more than {limit}; reduce it")


def _check_image(path: Path, header: "Dataset") -> None:
    if header.get("Rows") and header.get("Columns"):
        return
    if not header.file_meta and not any(tag >> 16 == 8 for tag in header.keys()):  # noqa: SIM118
        raise BadImageError(path, "not a DICOM file")
    from pydicom.uid import UID

    name = UID(header.file_meta.get("MediaStorageSOPClassUID") or header.get("SOPClassUID") or "").name
    what = "its image is missing or truncated" if "Image Storage" in name else "a DICOM file without an image"
    raise BadImageError(path, f"{what} ({printable(name) or 'of unknown kind'})")


def _plugin_advice(syntax: str) -> str | None:
    """What to install for the transfer syntax; None if nothing is missing."""
    module, package = next((plugin for start, plugin in _PLUGINS.items() if syntax.startswith(start)), ("", ""))
    if not module or (find_spec(module) and find_spec("pylibjpeg")):
        return None
    return f"its pixels are compressed ({syntax}), which needs pylibjpeg and {package}; install them: {INSTALL}"


def _pixel_element(path: Path, handle: BinaryIO, syntax: "UID") -> tuple[dict[str, Any], int]:
    """The kind of pixel data at `handle` and its length in bytes; moves `handle` to the first value."""
    order = "little" if syntax.is_little_endian else "big"
    start = handle.read(8)
    tag = int.from_bytes(start[:2], order) << 16 | int.from_bytes(start[2:4], order)
    if len(start) < 8 or tag not in _PIXELS:
        raise BadImageError(path, "no pixel data, or truncated before it")
    kind = {"pixel_keyword": _PIXELS[tag]}
    # Not by the syntax, as some compressed files have implicit elements.
    if start[4:6] in _PIXEL_TYPES and start[6:8] == b"\0\0":
        return kind | {"pixel_vr": start[4:6].decode()}, int.from_bytes(handle.read(4), order)
    return kind, int.from_bytes(start[4:8], order)


def _fragments(handle: BinaryIO, size: int) -> list[tuple[int, int]] | None:
    """Offset (from the end of the offset table) and length of each fragment of compressed pixels; None if truncated."""
    items: list[tuple[int, int]] = []
    while len(head := handle.read(8)) == 8:
        tag = int.from_bytes(head[:2], "little") << 16 | int.from_bytes(head[2:4], "little")
        if tag != _ITEM:
            head = b"" if tag == _END_OF_ITEMS else head
            break
        length = int.from_bytes(head[4:], "little")
        items.append((handle.tell() - 8, length))
        if handle.seek(length, 1) > size:
            return None
    # Some writers omit the end marker. The first item is the offset table.
    if head or len(items) < 2:
        return None
    return [(start - items[1][0], length) for start, length in items[1:]]
