"""Image headers, and the pixels of images that TensorFlow does not decode.

To add a format that Pillow reads, add its first bytes and its reader to `READERS`.
"""

import errno
import io
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import BmpImagePlugin, GifImagePlugin, Image, JpegImagePlugin, PngImagePlugin, PpmImagePlugin, WebPImagePlugin

from radtransfer.errors import BadImageError
from radtransfer.images.dicom import decode_dicom, read_header
from radtransfer.images.files import (
    DICOM_SUFFIXES,
    MOST_FRAMES,
    PREAMBLE,
    START,
    FrameSequence,
    cached_file,
    check_parts,
    format_by_content,
    is_dicom,
    why_unread,
)
from radtransfer.images.refs import SIXTEEN_BITS, FilePart, ImageRef, as_part, is_frame, read_contents, scaled
from radtransfer.images.tiff import MAGICS, TiffPages, TiffValues, count_pages, open_tiff

# Not `Image.open`, which may start other programs and warns from 89 megapixels.
READERS = {
    b"\x89PNG\r\n\x1a\n": PngImagePlugin.PngImageFile,
    b"\xff\xd8\xff": JpegImagePlugin.JpegImageFile,
    b"BM": BmpImagePlugin.BmpImageFile,
    b"GIF8": GifImagePlugin.GifImageFile,
    b"RIFF": WebPImagePlugin.WebPImageFile,
    **{b"P%d" % number: PpmImagePlugin.PpmImageFile for number in range(1, 7)},
}

_IN_PARTS = (PngImagePlugin.PngImageFile, JpegImagePlugin.JpegImageFile, GifImagePlugin.GifImageFile)

NOT_IMAGES = {
    b"<!doctype html": "an HTML page, not an image; download it again",
    b"<html": "an HTML page, not an image; download it again",
    b"version https://git-lfs": "a Git LFS pointer, not an image; run `git lfs pull`",
    b"/annex/objects/": "a git-annex pointer, not an image; run `datalad get` or `git annex get`",
    b".git/annex/objects/": "a git-annex pointer, not an image; run `datalad get` or `git annex get`",
    b"../": "the path of a link, not an image; check the repository out where links are allowed",
}

_RARE_JPEGS = {0xC3: "a lossless JPEG"} | dict.fromkeys((0xC5, 0xC6, 0xC7), "a hierarchical JPEG")
_RARE_JPEGS |= dict.fromkeys((0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF), "a JPEG with arithmetic coding")


PIXEL_LIMIT = 200_000_000  # larger images are rejected by their header, as a small file can unpack to any size


@contextmanager
def open_image(ref: ImageRef) -> Iterator[Image.Image | TiffValues]:
    """The image with only its header read: a Pillow image, or `TiffValues` if Pillow misreads a TIFF.

    Files with frames stay open. BadImageError if it is empty, of unknown format, or its header is damaged.
    """
    start = first_bytes(ref)
    if not is_frame(ref):
        with open_tiff(ref, start) if start.startswith(MAGICS) else _open(ref, start) as image:
            yield image
        return
    with cached_file(ref.path) as kept:
        if start.startswith(MAGICS):
            with kept.once("pages", lambda: TiffPages(ref.path, start)).page(ref) as page:
                yield page
        else:
            yield kept.once("frames", lambda: FrameSequence(_open(ref, start, decoded=True))).frame(ref)


def check_size(ref: ImageRef, height: int, width: int) -> None:
    """Raises BadImageError for no pixels, or more than `PIXEL_LIMIT`."""
    if width * height > PIXEL_LIMIT:
        limit = f"the limit of {PIXEL_LIMIT // 1_000_000} megapixels"
        raise BadImageError(ref, f"its {width}×{height} pixels are above {limit}; reduce it")
    if not width * height:
        raise BadImageError(ref, f"it has no pixels ({width}×{height})")


def _open(ref: ImageRef, start: bytes, *, decoded: bool = False) -> Image.Image:
    """The first image of a file other than TIFF; with `decoded`, its size is checked."""
    reader = next((reader for magic, reader in READERS.items() if start.startswith(magic)), None)
    part = as_part(ref)
    if reader is None or (start.startswith(b"RIFF") and start[8:12] == b"AVI "):
        start = first_bytes(ref, START)
        known = (words for magic, words in NOT_IMAGES.items() if start.lstrip().lower().startswith(magic))
        reason = next(known, why_unread(start, part.path.name) or "not an image of a known format")
        raise BadImageError(ref, reason)
    try:
        content = read_contents(part) if reader in _IN_PARTS or part.length is not None else b""
        check_parts(ref, content)
        image = reader(str(part.path) if part.length is None else io.BytesIO(content))
    except BadImageError:
        raise
    except Exception as error:  # as in `decode_with_pillow`
        reason = kind_of_jpeg(ref) or f"damaged or truncated in its header ({error})"
        raise BadImageError(ref, reason) from error
    if decoded:
        check_size(ref, image.height, image.width)
    return image


def first_bytes(ref: ImageRef, count: int = 64) -> bytes:
    """The first bytes of an image; BadImageError if it is empty or unreadable."""
    part = as_part(ref)

    def read(most: int) -> bytes:
        with part.path.open("rb") as file:
            file.seek(part.offset)
            return file.read(most if part.length is None else min(most, part.length))

    try:
        if is_frame(ref):
            with cached_file(part.path) as kept:
                start = kept.once("start", lambda: read(START))[:count]
        else:
            start = read(count)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):
            raise BadImageError(ref, why_missing(part.path)) from None
        raise BadImageError(ref, f"cannot be opened ({error.strerror})") from None
    if not start:
        raise BadImageError(ref, "an empty file")
    return start


def kind_of_jpeg(ref: ImageRef) -> str | None:
    """Why a JPEG of an unsupported kind is not read; None for others."""
    data, at = read_contents(ref), 2
    while data.startswith(b"\xff\xd8") and data[at : at + 1] == b"\xff" and at + 4 < len(data):
        marker, bits = data[at + 1], data[at + 4]
        if marker in (0xC0, 0xC1, 0xC2, *_RARE_JPEGS):  # start of frame
            kind = f"a JPEG of {bits} bits" if bits != 8 else _RARE_JPEGS.get(marker)
            return kind and f"its pixels are {kind}, which is not read; convert it to PNG or DICOM"
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def why_missing(path: Path) -> str:
    """Why there is no file at `path`: not found, or a dangling link."""
    if not path.is_symlink():
        return "not found"
    target = str(path.readlink())
    annexed = "annex/objects" in target.replace("\\", "/")
    advice = "run `datalad get` or `git annex get`" if annexed else "restore it, or correct the link"
    return f"a dangling link, its target {target} is missing; {advice}"


def decode_with_pillow(ref: ImageRef, *, levels: tuple[float, float] | None = None) -> np.ndarray:
    """The pixels of an image before EXIF rotation, float32 (height, width, 3), RGB, 0–255, without alpha.

    Deeper values are mapped from `levels` to 0–255, clipped, and inverted for MinIsWhite; without `levels`, the range
    of the format is used, and floats are unchanged.
    """
    with open_image(ref) as image:
        values = _values(image, ref)
        if not is_deep(image):
            return values
        as_stored = levels is None and image.mode.startswith("float")
        shown = values.astype("float32") if as_stored else scaled(values, levels or levels_of(image))
        return 255 - shown if isinstance(image, TiffValues) and image.inverted else shown


def stored_values(ref: ImageRef) -> np.ndarray:
    """The stored values of an image of more than 8 bits, floating point (height, width, 3)."""
    with open_image(ref) as image:
        return _values(image, ref)


def is_deep(image: Image.Image | TiffValues) -> bool:
    """Whether a value has more than 8 bits."""
    return image.deep if isinstance(image, TiffValues) else image.mode.startswith("I") or levels_of(image)[1] > 255


def levels_of(image: Image.Image | TiffValues) -> tuple[float, float]:
    """The default levels of the format."""
    if isinstance(image, TiffValues):
        return image.levels
    if image.format != "PPM" or not image.tile:
        return SIXTEEN_BITS if image.mode.startswith("I") else (0.0, 255.0)
    words = image.tile[0][3]  # mode and largest value, or mode only
    return 0.0, 65535.0 if words == "I;16B" else 255.0 if isinstance(words, str) else float(words[-1])


def _values(image: Image.Image | TiffValues, ref: ImageRef) -> np.ndarray:
    """The stored values, (height, width, 3), all finite; float32, or float64 of a TIFF."""
    try:
        if isinstance(image, TiffValues):
            pixels = image.values()
        elif not is_deep(image):
            # A palette entry may carry transparency, which a direct conversion warns about.
            image = image.convert("RGBA") if image.mode in ("P", "PA") else image
            pixels = np.asarray(image.convert("RGB")).astype("float32")
        elif image.format == "PPM":
            pixels = _values_of_pnm(image)
        else:
            pixels = np.repeat(np.asarray(image).astype("float32")[:, :, None], 3, axis=2)
    except BadImageError:
        raise
    # Pillow may raise anything for a damaged file: SyntaxError, IndexError, zlib.error.
    except Exception as error:
        raise BadImageError(ref, f"damaged or truncated ({error})") from error
    # Values beyond float32 are rejected, so that differences are finite.
    beyond = pixels.dtype != np.float32 and np.abs(pixels).max() > np.finfo("float32").max
    if beyond or not np.isfinite(pixels).all():
        raise BadImageError(ref, "it contains NaN or infinite values")
    return pixels


def _values_of_pnm(image: Image.Image) -> np.ndarray:
    """The values of a PGM or PPM of more than 8 bits, which Pillow rescales (grey) or reduces to 8 bits (RGB)."""
    decoder, _, start, _ = image.tile[0]
    shape = image.height, image.width, 3 if image.mode == "RGB" else 1
    image.fp.seek(start)
    data, count = image.fp.read(), shape[0] * shape[1] * shape[2]
    if decoder == "ppm_plain":
        values = np.array(re.sub(rb"#[^\n]*", b"", data).split()[:count], "float32")
    else:
        values = np.frombuffer(data, ">u2", count).astype("float32")
    if values.size < count or values.min() < 0 or values.max() > levels_of(image)[1]:
        raise ValueError("values are missing, or above the maximum in the header")
    return np.broadcast_to(values.reshape(shape), (*shape[:2], 3)).copy()


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """How one image is stored."""

    # "jpeg", "png8", "png16": TensorFlow; "pixels": raw bytes; "pillow": `decode_with_pillow`; "dicom": `decode_dicom`
    decoder: str
    height: int
    width: int
    orientation: int = 1  # EXIF, 1–8
    deep: bool = False  # whether a value has more than 8 bits
    # Values of an image of more than 8 bits that become 0 and 255 (not for DICOM)
    levels: tuple[float, float] = SIXTEEN_BITS
    # Top, left, height and width of the visible part, before `orientation`; None: all
    disc: tuple[int, int, int, int] | None = None
    # Whether the smallest value of a deep image is white; `levels` are before inversion
    inverted: bool = False
    notes: tuple[str, ...] = ()  # contradictions of header and pixels, and how they are resolved; set by decoding


def inspect_image(ref: ImageRef) -> ImageFacts:
    """Facts from the header; BadImageError if it is damaged, of unknown format, or above `PIXEL_LIMIT`."""
    if isinstance(ref, FilePart) and ref.pixels is not None:
        return ImageFacts("pixels", *ref.pixels)
    if _holds_dicom(ref):
        header = read_header(ref)
        check_size(ref, header.height, header.width)
        return ImageFacts("dicom", header.height, header.width, deep=header.bits > 8)
    with open_image(ref) as image:
        height, width = image.height, image.width
        decoder, orientation, inverted = "pillow", 1, False
        if isinstance(image, TiffValues):
            orientation, inverted = image.orientation, image.deep and image.inverted
        else:
            orientation, is_first = _orientation(image), not as_part(ref).frame
            if is_first and image.format == "PNG":
                decoder = "png16" if first_bytes(ref)[24] == 16 else "png8"
            elif is_first and image.format == "JPEG" and image.mode in ("L", "RGB"):  # TensorFlow reads CMYK inverted
                decoder = "jpeg"
        deep = decoder == "png16" or is_deep(image)
        levels = levels_of(image) if deep and decoder == "pillow" else SIXTEEN_BITS
    check_size(ref, height, width)
    return ImageFacts(decoder, height, width, orientation, deep, levels, inverted=inverted)


def count_frames(file: Path) -> int:
    """The number of frames or pages of `file`, at most `MOST_FRAMES` + 1."""
    if _holds_dicom(file):
        return min(read_header(file).frames, MOST_FRAMES + 1)
    if first_bytes(file).startswith(MAGICS):
        return count_pages(file)
    with open_image(file) as image:
        if image.format == "GIF":
            return check_parts(file, read_contents(file))
        return min(getattr(image, "n_frames", 1), MOST_FRAMES + 1)


def decode_outside(ref: ImageRef, facts: ImageFacts, window: str, *, notes: list[str] | None = None) -> np.ndarray:
    """The pixels of an image that TensorFlow does not read, float32 (height, width, 3), RGB, 0–255.

    `window` is for DICOM, other images use `facts.levels`; contradictions of header and pixels are added to `notes`.
    """
    if facts.decoder == "dicom":
        return decode_dicom(ref, window, notes=notes)
    return decode_with_pillow(ref, levels=facts.levels)


def _holds_dicom(ref: ImageRef) -> bool:
    """Whether `ref` is DICOM by its first bytes, or by its suffix if they are of no known format."""
    part = as_part(ref)
    start = first_bytes(ref, PREAMBLE)
    other = any(start.lstrip().lower().startswith(magic.lower()) for magic in (*READERS, *NOT_IMAGES))
    other = other or format_by_content(start) is not None
    named = part.path.suffix.lower() in DICOM_SUFFIXES and not other
    return part.length is None and (is_dicom(start) or named)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 if missing or invalid; parsed here, as Pillow trusts the lengths in EXIF."""
    if "exif" not in image.info:
        return 1
    value = _exif_orientation(image.info["exif"])
    if value is None:
        text = image.info.get("XML:com.adobe.xmp") or image.info.get("xmp") or b""
        found = re.search(rb'tiff:Orientation(?:="|>)([0-9])', text.encode() if isinstance(text, str) else text)
        value = int(found[1]) if found else 1
    return value if 1 <= value <= 8 else 1


def _exif_orientation(exif: bytes) -> int | None:
    while exif.startswith(b"Exif\0\0"):
        exif = exif[6:]
    order, value = "<" if exif.startswith(b"II") else ">", None
    if exif[:2] not in (b"II", b"MM") or len(exif) < 8:
        return None
    whole_numbers = {3: "H", 4: "I", 8: "h", 9: "i"}
    (start,) = struct.unpack_from(f"{order}I", exif, 4)
    (count,) = struct.unpack(f"{order}H", exif[start : start + 2].rjust(2, b"\0"))
    entries = exif[start + 2 : start + 2 + 12 * count]
    for tag, kind, values, data in struct.iter_unpack(f"{order}HHI4s", entries[: len(entries) // 12 * 12]):
        if tag == 274 and kind in whole_numbers and values == 1:
            (value,) = struct.unpack_from(order + whole_numbers[kind], data)
    return value
