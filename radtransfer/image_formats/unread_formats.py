"""Formats that are known and not read: by the first bytes of a file, and by its name.

To read one of them, give it a reader in `pillow_images.READERS` and remove it here.
"""

import re

_PICTURE = "save it as PNG or JPEG"
_VOLUME = "write its slices as PNG"
_SLIDE = "write regions of it as PNG or TIFF"
_ARRAYS = "write each of its images as PNG"
_FRAMES = "write its frames as PNG"
_PACKED = "unpack it"

_IMAGES = {
    "HEIC": (_PICTURE, ".heic .heif .heics .hif"),
    "AVIF": (_PICTURE, ".avif .avifs"),
    "JPEG 2000": (_PICTURE, ".jp2 .j2k .j2c .jpc .jpf .jpx .jpm"),
    "JPEG XL": (_PICTURE, ".jxl"),
    "JPEG XR": (_PICTURE, ".jxr .wdp .hdp"),
    "JPEG-LS": (_PICTURE, ".jls"),
    "Photoshop": (_PICTURE, ".psd .psb"),
    "camera raw": (_PICTURE, ".cr2 .cr3 .nef .arw .dng .orf .rw2 .raf"),
    "OpenEXR": (_PICTURE, ".exr"),
    "TGA": (_PICTURE, ".tga"),
    "DDS": (_PICTURE, ".dds"),
    "BPG": (_PICTURE, ".bpg"),
    "PAM": (_PICTURE, ".pam"),
    "PFM": (_PICTURE, ".pfm"),
    "PCX": (_PICTURE, ".pcx"),
    "SVG": (_PICTURE, ".svg .svgz"),
    "PDF": ("write its pages as PNG", ".pdf"),
    "PostScript": (_PICTURE, ".eps .ps"),
    "NIfTI": (_VOLUME, ".nii .nii.gz"),
    "Analyze": (_VOLUME, ".img .img.gz"),
    "MetaImage": (_VOLUME, ".mha .mhd"),
    "NRRD": (_VOLUME, ".nrrd .nhdr"),
    "MINC": (_VOLUME, ".mnc"),
    "FITS": (_ARRAYS, ".fits .fit .fts"),
    "FreeSurfer": (_VOLUME, ".mgh .mgz"),
    "raw pixels": (_VOLUME, ".raw .zraw"),
    "NumPy": (_ARRAYS, ".npy .npz"),
    "HDF5": (_ARRAYS, ""),
    "MATLAB": (_ARRAYS, ".mat"),
    "whole slide": (_SLIDE, ".svs .ndpi .mrxs .scn .vms .vmu .bif .svslide .isyntax .vsi .qptiff"),
    "microscopy": (_SLIDE, ".czi .lif .nd2 .oib .oif"),
    "video": (_FRAMES, ".mp4 .m4v .mov .avi .mkv .webm .mpg .mpeg .wmv .flv .mts .3gp"),
    "ZIP": (_PACKED, ".zip"),
    "TAR": (_PACKED, ".tar .tgz .tbz2 .txz .tar.gz .tar.bz2 .tar.xz .tar.zst"),
    "gzip": (_PACKED, ".gz"),
    "bzip2": (_PACKED, ".bz2"),
    "XZ": (_PACKED, ".xz"),
    "Zstandard": (_PACKED, ".zst"),
    "7-Zip": (_PACKED, ".7z"),
    "RAR": (_PACKED, ".rar"),
}
"""What holds images: name to what to do with a file, and how its name may end; that of HDF5 is that of weights too."""

TABLES = frozenset(["Excel workbook", "Word document", "OpenDocument", "Parquet", "Arrow", "SQLite"])
"""What may hold a table."""

PACKED = frozenset(name for name, (advice, _) in _IMAGES.items() if advice == _PACKED)
"""What holds other files, or one."""

_BY_SUFFIX = {suffix: name for name, (_, suffixes) in _IMAGES.items() for suffix in suffixes.split()}

BEGINNINGS = {
    b"\x00\x00\x00\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\x00\x00\x00\x0cJXL ": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
    b"II\xbc": "JPEG XR",
    b"8BPS": "Photoshop",
    b"v/1\x01": "OpenEXR",
    b"DDS ": "DDS",
    b"BPG\xfb": "BPG",
    b"P7\n": "PAM",
    b"PF\n": "PFM",
    b"Pf\n": "PFM",
    b"SIMPLE  =": "FITS",
    b"%PDF-": "PDF",
    b"%!PS": "PostScript",
    b"ObjectType": "MetaImage",
    b"NDims": "MetaImage",
    b"NRRD0": "NRRD",
    b"\x93NUMPY": "NumPy",
    b"MATLAB 5.0 MAT": "MATLAB",
    b"MATLAB 7.3 MAT": "MATLAB",
    b"ZISRAWFILE": "microscopy",
    b"\x1aE\xdf\xa3": "video",
    b"\x00\x00\x01\xba": "video",
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "XZ",
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"7z\xbc\xaf\x27\x1c": "7-Zip",
    b"Rar!\x1a\x07": "RAR",
    b"\x89HDF\r\n\x1a\n": "HDF5",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "Excel workbook",
    b"PAR1": "Parquet",
    b"ARROW1": "Arrow",
    b"FEA1": "Arrow",
    b"SQLite format 3\x00": "SQLite",
}

_CONTAINERS = frozenset(["gzip", "bzip2", "XZ", "Zstandard", "ZIP", "HDF5"])
"""Whose name says more than their first bytes: a `.nii.gz` is NIfTI."""

START = 4096
"""Bytes from the beginning of a file that tell its format."""


def format_by_name(name: str) -> str | None:
    """The format of images in a file called so that is known and not read; hidden files have none."""
    if name.startswith("."):
        return None
    ends = re.fullmatch(r".*?((?:\.\w{1,8})?(\.\w{1,8}))", name.lower())
    return _BY_SUFFIX.get(ends[1]) or _BY_SUFFIX.get(ends[2]) if ends else None


def format_by_content(start: bytes) -> str | None:
    """The format that is known and not read of a file that begins with `start`, its first `START` bytes."""
    if start[4:8] == b"ftyp":
        return _format_by_brand(start)
    if start.startswith(b"RIFF") and start[8:12] == b"AVI ":
        return "video"
    if start.startswith(b"PK\x03\x04"):
        return _format_in_zip(start)
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
    """Why a file called `name` that begins with `start` is not read as an image; None where its format is not known."""
    found = format_by_content(start)
    if found is None or found in _CONTAINERS:
        found = format_by_name(name) or found
    return None if found is None else f"{found}, which is not read; {advice(found)}"


def advice(format: str) -> str:
    """What to do with a file of a format that is not read."""
    return "save it as 'CSV UTF-8'" if format in TABLES else _IMAGES[format][0]


def _format_by_brand(start: bytes) -> str:
    """Of an ISO media file, whose box `ftyp` lists what it is compatible with."""
    brands = {start[place : place + 4] for place in (8, *range(16, min(int.from_bytes(start[:4]), 256), 4))}
    if brands & {b"avif", b"avis"}:
        return "AVIF"
    if brands & {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}:
        return "HEIC"
    return "camera raw" if b"crx " in brands else "video"


def _format_in_zip(start: bytes) -> str:
    """Of a ZIP file by the names of its first members."""
    first = start[30 : 30 + int.from_bytes(start[26:28], "little")]
    if first.endswith(b".npy"):
        return "NumPy"
    if b"vnd.oasis.opendocument" in start[:128]:
        return "OpenDocument"
    if first.startswith((b"[Content_Types]", b"_rels/", b"docProps/", b"xl/", b"word/")):
        return "Word document" if b"word/" in start else "Excel workbook"
    return "ZIP"
