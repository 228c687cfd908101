"""A DICOM file through pydicom (extra `dicom`): its header, and the values of one frame as they are stored.

Whatever pydicom and its plugins raise becomes a `BadImageError` here, and what they warn of reaches nobody.
"""

import logging
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from radtransfer.errors import BadImageError
from radtransfer.image_place import ImagePlace

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.uid import UID

INSTALL = "pip install 'radtransfer[dicom]'"

_LIBRARIES = ("pydicom", "pylibjpeg", "openjpeg")
_PLUGINS = {
    "JPEG 2000": ("openjpeg", "pylibjpeg-openjpeg"),
    "High-Throughput JPEG 2000": ("openjpeg", "pylibjpeg-openjpeg"),
    "JPEG Baseline": ("libjpeg", "pylibjpeg-libjpeg"),
    "JPEG Extended": ("libjpeg", "pylibjpeg-libjpeg"),
    "JPEG Lossless": ("libjpeg", "pylibjpeg-libjpeg"),
    "JPEG-LS": ("libjpeg", "pylibjpeg-libjpeg"),
}
"""The module and the package that read a transfer syntax whose name begins so."""

_PIXELS = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}
_ITEM, _END_OF_ITEMS = 0xFFFEE000, 0xFFFEE0DD
_UNKNOWN_LENGTH = 0xFFFFFFFF


def load_header(file: Path) -> "Dataset":
    """Everything in `file` before its pixels, which are known to be there in full, in a syntax that can be read.

    Raises:
        BadImageError: Not DICOM, no image in it, cut off, or compressed in a way that nothing here reads.
    """
    with reading(file), file.open("rb") as handle:
        header = _parsed(file, handle)
        _check_image(file, header)
        _check_syntax(file, header.file_meta.TransferSyntaxUID)
        if not _is_deflated(header):
            _check_length(file, header, handle)
    return header


def stored_frame(file: Path, header: "Dataset", frame: int) -> np.ndarray:
    """The stored values of frame number `frame`, (height, width) or (height, width, 3), colours as RGB.

    Raises:
        BadImageError: The frame cannot be decoded.
    """
    with reading(file), file.open("rb") as handle:
        from pydicom import dcmread
        from pydicom.pixels import pixel_array

        syntax = header.file_meta.TransferSyntaxUID
        try:
            if _is_deflated(header):
                return pixel_array(dcmread(handle, force=True), index=frame)
            return pixel_array(handle, index=frame, transfer_syntax_uid=syntax)
        # Of compressed pixels only.
        except RuntimeError as error:
            advice = _plugin_advice(syntax.name)
            raise BadImageError(file, advice or f"damaged pixel data ({_last_line(error)})") from error


def _parsed(file: Path, handle: BinaryIO) -> "Dataset":
    """The header; `handle` is left at the first byte of the pixel data."""
    from pydicom import dcmread
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    header = dcmread(handle, stop_before_pixels=True, force=True)
    if not any(tag >> 16 == 8 for tag in header.keys()):  # noqa: SIM118
        raise BadImageError(file, "not a DICOM file")
    if "TransferSyntaxUID" not in header.file_meta:
        implicit, little = header.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        header.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return header


def _check_image(file: Path, header: "Dataset") -> None:
    if header.get("Rows") and header.get("Columns"):
        return
    from pydicom.uid import UID

    name = UID(header.file_meta.get("MediaStorageSOPClassUID") or header.get("SOPClassUID") or "").name
    raise BadImageError(file, f"a DICOM file without an image ({name or 'of no stated kind'})")


def _check_syntax(file: Path, syntax: "UID") -> None:
    from pydicom.pixels import get_decoder

    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:
        what = "video" if re.search("MPEG|HEVC|H.264|H.265", syntax.name) else "pixels"
        raise BadImageError(
            file, f"its {what} ({syntax.name}) cannot be read; convert it to uncompressed DICOM or PNG"
        ) from None
    if not available:
        raise BadImageError(file, _plugin_advice(syntax.name) or f"its pixels ({syntax.name}) cannot be read")


def _plugin_advice(syntax: str) -> str | None:
    """What to install to read the transfer syntax of this name; None where nothing is missing."""
    module, package = next((plugin for start, plugin in _PLUGINS.items() if syntax.startswith(start)), ("", ""))
    if not module or (find_spec(module) and find_spec("pylibjpeg")):
        return None
    return f"its pixels are compressed ({syntax}), which pylibjpeg and {package} read; install them: {INSTALL}"


def _is_deflated(header: "Dataset") -> bool:
    return header.file_meta.TransferSyntaxUID.is_deflated


def _check_length(file: Path, header: "Dataset", handle: BinaryIO) -> None:
    """That the pixel data is in the file to its last byte; `handle` stands before it."""
    syntax = header.file_meta.TransferSyntaxUID
    order = "little" if syntax.is_little_endian else "big"
    tag = handle.read(4)
    number = int.from_bytes(tag[:2], order) << 16 | int.from_bytes(tag[2:], order)
    if len(tag) < 4 or number not in _PIXELS:
        raise BadImageError(file, "it has no pixel data, or is cut off before it")
    handle.seek(0 if syntax.is_implicit_VR else 4, 1)
    length = int.from_bytes(handle.read(4), order)
    size = file.stat().st_size
    if syntax.is_compressed:
        whole = _items_are_whole(handle, size)
    else:
        needed = _native_bytes(header)
        whole = min(length, size - handle.tell()) >= needed
    if not whole:
        raise BadImageError(file, "truncated: its pixel data is not all there")


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


def _native_bytes(header: "Dataset") -> int:
    # Two pixels of YBR_FULL_422 share their colour.
    samples = 2 if header.get("PhotometricInterpretation") == "YBR_FULL_422" else header.get("SamplesPerPixel", 1)
    bits = header.Rows * header.Columns * samples * header.BitsAllocated * frames_in(header)
    return -(-bits // 8)


def frames_in(header: "Dataset") -> int:
    """How many frames there are, at least 1."""
    return max(1, int(header.get("NumberOfFrames") or 1))


@contextmanager
def reading(file: ImagePlace) -> Iterator[None]:
    """Work on `file`, its header's elements included: in silence, and every error a `BadImageError`."""
    if not find_spec("pydicom"):
        raise BadImageError(file, f"a DICOM file, which pydicom reads; install it: {INSTALL}")
    try:
        with _SILENCE:
            yield
    except BadImageError:
        raise
    except FileNotFoundError:
        raise BadImageError(file, "not found") from None
    except PermissionError as error:
        raise BadImageError(file, f"cannot be opened ({error.strerror})") from None
    # pydicom raises what it meets in a damaged file: KeyError, struct.error, AssertionError and more.
    except Exception as error:
        raise BadImageError(file, f"damaged ({_last_line(error)})") from error


def _last_line(error: Exception) -> str:
    """Of the message of pydicom, whose first line names no reason where there are several."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].rstrip(".:") if lines else type(error).__name__


class _Silence:
    """While any thread is inside, what pydicom and its plugins warn of or log goes nowhere.

    One for all threads: the list of warning filters is the process', and threads that each set and restore it
    would leave it changed.
    """

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
