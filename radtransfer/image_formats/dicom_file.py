"""A DICOM file through pydicom (extra `dicom`): its header, and the values of one frame as they are stored.

The pixels are decoded frame by frame, straight from the file.
"""

import re
import zlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from radtransfer.errors import BadImageError
from radtransfer.image_formats.dicom_guard import INSTALL, printable, reading, reason_of

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.uid import UID

_PLUGINS = {
    "JPEG 2000": ("openjpeg", "pylibjpeg-openjpeg"),
    "High-Throughput JPEG 2000": ("openjpeg", "pylibjpeg-openjpeg"),
    "JPEG Baseline": ("libjpeg", "pylibjpeg-libjpeg"),
    "JPEG Extended": ("libjpeg", "pylibjpeg-libjpeg"),
    "JPEG Lossless": ("libjpeg", "pylibjpeg-libjpeg"),
    "JPEG-LS": ("libjpeg", "pylibjpeg-libjpeg"),
}
"""The module and the package that read a transfer syntax whose name begins so."""

DEFLATED_LIMIT = 1_000_000_000
"""Bytes that a deflated file may unpack to: a small one can unpack to any size."""

_META_START = 128 + 4 + 12
"""Preamble, magic, and the element that says how long the rest of the group is, in bytes."""

_PIXELS = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}
_PIXEL_TYPES = (b"OB", b"OW", b"OF", b"OD", b"UN")
_ITEM, _END_OF_ITEMS = 0xFFFEE000, 0xFFFEE0DD


@dataclass(frozen=True, slots=True)
class DicomFile:
    """A DICOM image whose pixels are known to be there in full, in a syntax that can be read.

    Attributes:
        path: The file.
        header: Everything before the pixels.
        syntax: How they are stored.
        offset: Where they begin, bytes; 0 in a deflated file, which has to be unpacked first.
        options: What pydicom's decoder has to know about them apart from the header.
    """

    path: Path
    header: "Dataset"
    syntax: "UID"
    offset: int
    options: dict[str, str]

    @property
    def frames(self) -> int:
        """How many images it holds."""
        return max(1, int(self.header.get("NumberOfFrames") or 1))


def open_dicom(path: Path) -> DicomFile:
    """The DICOM image `path`, its header read and its pixels not.

    Raises:
        BadImageError: Not DICOM, no image in it, cut off, or compressed in a way that nothing here reads.
    """
    with reading(path), path.open("rb") as handle:
        from pydicom import dcmread

        _check_deflated(path)
        header = dcmread(handle, stop_before_pixels=True, force=True)
        _check_image(path, header)
        syntax = _syntax(header)
        _check_syntax(path, syntax)
        if syntax.is_deflated:
            return DicomFile(path, header, syntax, 0, {})
        options, length = _pixel_element(path, handle, syntax)
        file = DicomFile(path, header, syntax, handle.tell(), options)
        _check_length(file, handle, length)
        return file


def stored_frame(file: DicomFile, frame: int) -> np.ndarray:
    """The stored values of frame number `frame`, (height, width) or (height, width, 3), colours as RGB.

    Raises:
        BadImageError: The frame cannot be decoded.
    """
    with reading(file.path), file.path.open("rb") as handle:
        from pydicom import dcmread
        from pydicom.pixels import as_pixel_options, get_decoder, pixel_array

        if file.syntax.is_deflated:
            return pixel_array(dcmread(handle, force=True), index=frame)
        handle.seek(file.offset)
        options = as_pixel_options(file.header, **file.options)
        try:
            return get_decoder(file.syntax).as_array(handle, index=frame, **options)[0]
        except RuntimeError as error:  # all decoders of a compressed syntax failed
            advice = _plugin_advice(file.syntax.name)
            raise BadImageError(file.path, advice or f"damaged pixel data ({reason_of(error)})") from error


def _syntax(header: "Dataset") -> "UID":
    """The transfer syntax, of old files that do not name it from how they are written."""
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if "TransferSyntaxUID" in header.file_meta:
        return header.file_meta.TransferSyntaxUID
    implicit, little = header.original_encoding
    explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    return ImplicitVRLittleEndian if implicit else explicit


def _check_deflated(path: Path) -> None:
    """See that a deflated file, which has to be unpacked as a whole, does not unpack to any size."""
    from pydicom import filereader
    from pydicom.errors import InvalidDicomError

    try:
        meta = filereader.read_file_meta_info(path)
    except InvalidDicomError:
        return  # without preamble, and so not deflated
    if not getattr(meta.get("TransferSyntaxUID"), "is_deflated", False):
        return
    unpacked, inflater = 0, zlib.decompressobj(-zlib.MAX_WBITS)
    with path.open("rb") as handle:
        handle.seek(_META_START + int(meta.FileMetaInformationGroupLength))
        while not inflater.eof and (packed := handle.read(1 << 16)):
            while packed and not inflater.eof and unpacked <= DEFLATED_LIMIT:
                unpacked += len(inflater.decompress(packed, 1 << 20))
                packed = inflater.unconsumed_tail
    if unpacked > DEFLATED_LIMIT:
        limit = f"{DEFLATED_LIMIT // 1_000_000} MB"
        raise BadImageError(path, f"its deflated content unpacks to more than {limit}; store it smaller")


def _check_image(path: Path, header: "Dataset") -> None:
    if header.get("Rows") and header.get("Columns"):
        return
    if not header.file_meta and not any(tag >> 16 == 8 for tag in header.keys()):  # noqa: SIM118
        raise BadImageError(path, "not a DICOM file")
    from pydicom.uid import UID

    name = UID(header.file_meta.get("MediaStorageSOPClassUID") or header.get("SOPClassUID") or "").name
    what = "its image is missing, or cut off" if "Image Storage" in name else "a DICOM file without an image"
    raise BadImageError(path, f"{what} ({printable(name) or 'of no stated kind'})")


def _check_syntax(path: Path, syntax: "UID") -> None:
    from pydicom.pixels import get_decoder

    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:
        what = "video" if re.search("MPEG|HEVC|H.264|H.265", syntax.name) else "pixels"
        raise BadImageError(
            path, f"its {what} ({printable(syntax.name)}) cannot be read; convert it to uncompressed DICOM or PNG"
        ) from None
    if not available:
        raise BadImageError(path, _plugin_advice(syntax.name) or f"its pixels ({syntax.name}) cannot be read")


def _plugin_advice(syntax: str) -> str | None:
    """What to install to read the transfer syntax of this name; None where nothing is missing."""
    module, package = next((plugin for start, plugin in _PLUGINS.items() if syntax.startswith(start)), ("", ""))
    if not module or (find_spec(module) and find_spec("pylibjpeg")):
        return None
    return f"its pixels are compressed ({syntax}), which pylibjpeg and {package} read; install them: {INSTALL}"


def _pixel_element(path: Path, handle: BinaryIO, syntax: "UID") -> tuple[dict[str, str], int]:
    """What kind of pixel data begins at `handle`, and its length in bytes; `handle` is left at its first value."""
    order = "little" if syntax.is_little_endian else "big"
    start = handle.read(8)
    tag = int.from_bytes(start[:2], order) << 16 | int.from_bytes(start[2:4], order)
    if len(start) < 8 or tag not in _PIXELS:
        raise BadImageError(path, "it has no pixel data, or is cut off before it")
    kind = {"pixel_keyword": _PIXELS[tag]}
    # Not what the syntax says: there are compressed files whose elements are implicit.
    if start[4:6] in _PIXEL_TYPES and start[6:8] == b"\0\0":
        return kind | {"pixel_vr": start[4:6].decode()}, int.from_bytes(handle.read(4), order)
    return kind, int.from_bytes(start[4:8], order)


def _check_length(file: DicomFile, handle: BinaryIO, length: int) -> None:
    """That the pixel data, at whose first value `handle` is, is there to its last byte."""
    size = file.path.stat().st_size
    if file.syntax.is_encapsulated:
        whole = _items_are_whole(handle, size)
    else:
        whole = min(length, size - file.offset) >= _native_bytes(file)
    if not whole:
        raise BadImageError(file.path, "truncated: its pixel data is not all there")


def _items_are_whole(handle: BinaryIO, size: int) -> bool:
    """Whether the fragments of compressed pixel data all end before the file does."""
    fragments = 0
    while len(head := handle.read(8)) == 8:
        tag = int.from_bytes(head[:2], "little") << 16 | int.from_bytes(head[2:4], "little")
        if tag != _ITEM:
            return tag == _END_OF_ITEMS and fragments > 1
        if handle.seek(int.from_bytes(head[4:], "little"), 1) > size:
            return False
        fragments += 1
    # Some writers leave out the mark of the end.
    return not head and fragments > 1


def _native_bytes(file: DicomFile) -> int:
    header = file.header
    # Two pixels of YBR_FULL_422 share their colour.
    samples = 2 if header.get("PhotometricInterpretation") == "YBR_FULL_422" else header.get("SamplesPerPixel", 1)
    return -(-header.Rows * header.Columns * samples * header.BitsAllocated * file.frames // 8)
