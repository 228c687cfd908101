"""Image files before decoding: limits on their parts, a cache of open files, and unsupported formats.

* `check_parts` limits scans, comments and frames, as a small file may have millions of them.
* `cached_file` keeps files with several frames open, so that reading n frames does not take n² steps, and caches
  decoded frames that depend on earlier ones (GIF).
* To support a format, add its reader to `formats.READERS` and remove it here.
"""

import atexit
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from radtransfer.errors import BadImageError
from radtransfer.images.refs import FilePart, ImageRef

MOST_FRAMES = 10_000  # largest number of frames of a file

_MOST = {"scans": 100, "segments": 2_000, "chunks": 10_000, "comments": 4_096}
_SCAN, _END = 0xDA, 0xD9
_MARKER = re.compile(rb"\xff+([^\x00\x01\xd0-\xd8\xff])")  # JPEG marker followed by a length, or the end


def check_parts(ref: ImageRef, data: bytes) -> int:
    """The number of frames in `data`, at most `MOST_FRAMES` + 1; BadImageError for too many other parts."""
    walks = {b"\xff\xd8": _jpeg_parts, b"\x89PNG": _png_parts, b"GIF8": _gif_parts}
    counts = dict.fromkeys((*_MOST, "frames"), 0)
    for kind in next((walk(data) for magic, walk in walks.items() if data.startswith(magic)), ()):
        counts[kind] += 1
        if counts[kind] > _MOST.get(kind, MOST_FRAMES):
            if kind == "frames":
                break
            raise BadImageError(ref, f"it has more than {_MOST[kind]:,} {kind}; save it again")
    return counts["frames"] or 1


def _jpeg_parts(data: bytes) -> Iterator[str]:
    at = 2
    while (found := _MARKER.search(data, at)) and found[1][0] != _END:
        yield "scans" if found[1][0] == _SCAN else "segments"
        at = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")


def _png_parts(data: bytes) -> Iterator[str]:
    at = 8
    while at + 8 <= len(data):
        name = data[at + 4 : at + 8]
        if name not in (b"IDAT", b"fdAT"):
            yield "frames" if name == b"fcTL" else "chunks"
        at += 12 + int.from_bytes(data[at : at + 4], "big")


def _gif_parts(data: bytes) -> Iterator[str]:
    """Like Pillow, skips meaningless bytes."""

    def palette_bytes(flags: bytes) -> int:
        return 6 << (flags[0] & 7) if flags and flags[0] & 128 else 0

    at = 13 + palette_bytes(data[10:11])
    while at < len(data) and data[at : at + 1] != b";":
        kind, label = data[at : at + 1], data[at + 1 : at + 2]
        at += 1
        if kind == b",":
            yield "frames"
            at += 10 + palette_bytes(data[at + 8 : at + 9])
        elif kind == b"!":
            at += 1
        else:
            continue
        while at < len(data) and data[at]:
            if kind == b"!" and label == b"\xfe":
                yield "comments"
            at += 1 + data[at]
        at += 1


_MOST_FILES, _ROOM = 8, 256_000_000  # open files; bytes of decoded frames per file


class CachedFile:
    """Cached objects of an open file, by name."""

    def __init__(self, identity: tuple) -> None:
        self.identity, self.lock, self._known = identity, threading.RLock(), {}

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """The object `name`, created by `make` on first use."""
        if name not in self._known:
            self._known[name] = make()
        return self._known[name]

    def close(self) -> None:
        with self.lock:
            for item in self._known.values():
                if hasattr(item, "close"):
                    item.close()
            self._known.clear()


_files: OrderedDict[Path, CachedFile] = OrderedDict()
_files_lock = threading.Lock()


@contextmanager
def cached_file(path: Path) -> Iterator[CachedFile]:
    """The cached file `path`, locked for this thread."""
    status = path.stat()
    # A forked process would share file positions with its parent.
    identity = os.getpid(), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
    with _files_lock:
        kept, old = _files.pop(path, None), []
        if kept is None or kept.identity != identity:
            kept, old = CachedFile(identity), [kept] if kept and kept.identity[0] == identity[0] else []
        _files[path] = kept
        if len(_files) > _MOST_FILES:
            old.append(_files.popitem(last=False)[1])
    for file in old:
        file.close()
    with kept.lock:
        yield kept


@atexit.register
def close_files() -> None:
    """Close all cached files of this process."""
    while _files:
        _, kept = _files.popitem()
        if kept.identity[0] == os.getpid():
            kept.close()


class FrameSequence:
    """The frames of an open Pillow image in which frames depend on earlier ones: GIF, WebP, animated PNG."""

    def __init__(self, image: Image.Image) -> None:
        self._image, self._next, self._failure = image, 0, None
        self._kept: OrderedDict[int, Image.Image] = OrderedDict()

    def frame(self, ref: FilePart) -> Image.Image:
        """The decoded frame; BadImageError if it or an earlier one is missing or damaged."""
        if ref.frame not in self._kept and ref.frame < self._next:
            self._next = 0
        while ref.frame not in self._kept:
            if self._failure is not None and self._next == self._failure[0]:
                raise BadImageError(ref, self._failure[1])
            try:
                self._image.seek(self._next)
                frame = self._image.copy()
            except EOFError:
                self._failure = self._next, f"it has no frame {self._next + 1}"
            except Exception as error:  # Pillow raises what it meets in a damaged file
                self._failure = self._next, f"damaged or truncated ({error})"
            else:
                frame.format = self._image.format
                self._kept[self._next] = frame
                self._next += 1
                if len(self._kept) > max(1, _ROOM // (4 * frame.width * frame.height)):
                    self._kept.popitem(last=False)
        return self._kept[ref.frame]

    def close(self) -> None:
        self._image.close()
        self._kept.clear()


_PICTURE = "save it as PNG or JPEG"
_VOLUME = "write its slices as PNG"
_SLIDE = "write regions of it as PNG or TIFF"
_ARRAYS = "write each of its images as PNG"
_FRAMES = "write its frames as PNG"
_PACKED = "unpack it"
_TABLE = "save it as 'CSV UTF-8'"

_FORMATS: dict[str, tuple[str, str, tuple[bytes, ...]]] = {
    "HEIC": (_PICTURE, ".heic .heif .heics .hif", ()),
    "AVIF": (_PICTURE, ".avif .avifs", ()),
    "JPEG 2000": (_PICTURE, ".jp2 .j2k .j2c .jpc .jpf .jpx .jpm", (b"\x00\x00\x00\x0cjP  ", b"\xff\x4f\xff\x51")),
    "JPEG XL": (_PICTURE, ".jxl", (b"\x00\x00\x00\x0cJXL ", b"\xff\x0a")),
    "JPEG XR": (_PICTURE, ".jxr .wdp .hdp", (b"II\xbc",)),
    "JPEG-LS": (_PICTURE, ".jls", ()),
    "Photoshop": (_PICTURE, ".psd .psb", (b"8BPS",)),
    "camera raw": (_PICTURE, ".cr2 .cr3 .nef .arw .dng .orf .rw2 .raf", ()),
    "OpenEXR": (_PICTURE, ".exr", (b"v/1\x01",)),
    "TGA": (_PICTURE, ".tga", ()),
    "DDS": (_PICTURE, ".dds", (b"DDS ",)),
    "BPG": (_PICTURE, ".bpg", (b"BPG\xfb",)),
    "PAM": (_PICTURE, ".pam", (b"P7\n",)),
    "PFM": (_PICTURE, ".pfm", (b"PF\n", b"Pf\n")),
    "PCX": (_PICTURE, ".pcx", ()),
    "SVG": (_PICTURE, ".svg .svgz", ()),
    "PDF": ("write its pages as PNG", ".pdf", (b"%PDF-",)),
    "PostScript": (_PICTURE, ".eps .ps", (b"%!PS",)),
    "NIfTI": (_VOLUME, ".nii .nii.gz", ()),
    "Analyze": (_VOLUME, ".img .img.gz", ()),
    "MetaImage": (_VOLUME, ".mha .mhd", (b"ObjectType", b"NDims")),
    "NRRD": (_VOLUME, ".nrrd .nhdr", (b"NRRD0",)),
    "MINC": (_VOLUME, ".mnc", ()),
    "FITS": (_ARRAYS, ".fits .fit .fts", (b"SIMPLE  =",)),
    "FreeSurfer": (_VOLUME, ".mgh .mgz", ()),
    "raw pixels": (_VOLUME, ".raw .zraw", ()),
    "NumPy": (_ARRAYS, ".npy .npz", (b"\x93NUMPY",)),
    "HDF5": (_ARRAYS, "", (b"\x89HDF\r\n\x1a\n",)),
    "MATLAB": (_ARRAYS, ".mat", (b"MATLAB 5.0 MAT", b"MATLAB 7.3 MAT")),
    "whole slide": (_SLIDE, ".svs .ndpi .mrxs .scn .vms .vmu .bif .svslide .isyntax .vsi .qptiff", ()),
    "microscopy": (_SLIDE, ".czi .lif .nd2 .oib .oif", (b"ZISRAWFILE",)),
    "video": (
        _FRAMES,
        ".mp4 .m4v .mov .avi .mkv .webm .mpg .mpeg .wmv .flv .mts .3gp",
        (b"\x1aE\xdf\xa3", b"\x00\x00\x01\xba"),
    ),
    "ZIP": (_PACKED, ".zip", ()),
    "TAR": (_PACKED, ".tar .tgz .tbz2 .txz .tar.gz .tar.bz2 .tar.xz .tar.zst", ()),
    "gzip": (_PACKED, ".gz", (b"\x1f\x8b",)),
    "bzip2": (_PACKED, ".bz2", (b"BZh",)),
    "XZ": (_PACKED, ".xz", (b"\xfd7zXZ\x00",)),
    "Zstandard": (_PACKED, ".zst", (b"\x28\xb5\x2f\xfd",)),
    "7-Zip": (_PACKED, ".7z", (b"7z\xbc\xaf\x27\x1c",)),
    "RAR": (_PACKED, ".rar", (b"Rar!\x1a\x07",)),
    "Excel workbook": (_TABLE, "", (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",)),
    "Parquet": (_TABLE, "", (b"PAR1",)),
    "Arrow": (_TABLE, "", (b"ARROW1", b"FEA1")),
    "SQLite": (_TABLE, "", (b"SQLite format 3\x00",)),
    "Word document": (_TABLE, "", ()),
    "OpenDocument": (_TABLE, "", ()),
}
"""Unsupported formats: name to advice, suffixes (none for HDF5, as weights have the same), and first bytes."""

TABLES = frozenset(name for name, (advice, _, _) in _FORMATS.items() if advice == _TABLE)
PACKED = frozenset(name for name, (advice, _, _) in _FORMATS.items() if advice == _PACKED)
_BY_SUFFIX = {suffix: name for name, (_, suffixes, _) in _FORMATS.items() for suffix in suffixes.split()}
BEGINNINGS = {magic: name for name, (_, _, magics) in _FORMATS.items() for magic in magics}

_CONTAINERS = frozenset(["gzip", "bzip2", "XZ", "Zstandard", "ZIP", "HDF5"])
"""Containers, where the suffix is more specific than the first bytes: `.nii.gz` is NIfTI."""

START = 4096  # bytes of a file needed to detect its format


DICOM_SUFFIXES = frozenset([".dcm", ".dicom", ".ima"])
PREAMBLE = 132  # bytes of a file needed to detect DICOM


def is_dicom(start: bytes) -> bool:
    """Whether a file that starts with `start`, its first `PREAMBLE` bytes, is DICOM with a preamble."""
    return start[128:PREAMBLE] == b"DICM"


def format_by_name(name: str) -> str | None:
    """The unsupported image format with the suffix of `name`; None for hidden files."""
    if name.startswith("."):
        return None
    ends = re.fullmatch(r".*?((?:\.\w{1,8})?(\.\w{1,8}))", name.lower())
    return _BY_SUFFIX.get(ends[1]) or _BY_SUFFIX.get(ends[2]) if ends else None


def format_by_content(start: bytes) -> str | None:
    """The unsupported format of a file that starts with `start`, its first `START` bytes."""
    if start[4:8] == b"ftyp":  # an ISO media file lists compatible brands
        brands = {start[at : at + 4] for at in (8, *range(16, min(int.from_bytes(start[:4]), 256), 4))}
        if brands & {b"avif", b"avis"}:
            return "AVIF"
        if brands & {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}:
            return "HEIC"
        return "camera raw" if b"crx " in brands else "video"
    if start.startswith(b"PK\x03\x04"):  # a ZIP file, known by the names of its first members
        first = start[30 : 30 + int.from_bytes(start[26:28], "little")]
        if first.endswith(b".npy"):
            return "NumPy"
        if b"vnd.oasis.opendocument" in start[:128]:
            return "OpenDocument"
        if first.startswith((b"[Content_Types]", b"_rels/", b"docProps/", b"xl/", b"word/")):
            return "Word document" if b"word/" in start else "Excel workbook"
        return "ZIP"
    if start.startswith(b"RIFF") and start[8:12] == b"AVI ":
        return "video"
    if start[:4] in (b"\x5c\x01\x00\x00", b"\x00\x00\x01\x5c"):
        return "NIfTI" if start[344:347] in (b"n+1", b"ni1") else "Analyze"
    if start[4:12] in (b"n+2\0\r\n\x1a\n", b"ni2\0\r\n\x1a\n"):
        return "NIfTI"
    if start[257:262] == b"ustar":
        return "TAR"
    if re.match(rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml|<!--|<!doctype svg|<svg)", start, re.IGNORECASE) and b"<svg" in start:
        return "SVG"
    return next((name for magic, name in BEGINNINGS.items() if start.startswith(magic)), None)


def why_unread(start: bytes, name: str) -> str | None:
    """Why a file called `name` that starts with `start` is not read; None for an unknown format."""
    found = format_by_content(start)
    if found is None or found in _CONTAINERS:
        found = format_by_name(name) or found
    return None if found is None else f"{found}, which is not read; {advice(found)}"


def advice(format: str) -> str:
    """What to do with a file in an unsupported format."""
    return _FORMATS[format][0]
