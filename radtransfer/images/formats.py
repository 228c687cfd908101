"""Images on disk: what their headers say, and who reads those that TensorFlow does not."""

import re
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from radtransfer.images.dicom import DICOM_SUFFIXES, PREAMBLE, decode_dicom, is_dicom, read_header
from radtransfer.images.files import MOST_FRAMES, check_parts, format_by_content
from radtransfer.images.pillow import (
    NOT_IMAGES,
    READERS,
    check_size,
    decode_with_pillow,
    first_bytes,
    is_deep,
    levels_of,
    open_image,
)
from radtransfer.images.refs import SIXTEEN_BITS, FilePart, ImagePlace, as_part, read_contents
from radtransfer.images.tiff import MAGICS, TiffValues, count_pages

_ORIENTATION_TAG, _WHOLE = 0x0112, {3: "H", 4: "I", 8: "h", 9: "i"}
"""And the types of whole numbers in EXIF."""


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """How one image is stored.

    Attributes:
        decoder: What reads it in training: "jpeg", "png8" and "png16" are TensorFlow's, "pixels" are plain bytes,
            "pillow" is `decode_with_pillow` (with tifffile where Pillow is wrong), "dicom" is `decode_dicom`.
        height: Pixels, as decoded, before `orientation` is applied.
        width: Pixels, likewise.
        orientation: EXIF, 1–8: how the decoded image has yet to be turned.
        deep: Whether a value has more than 8 bits.
        levels: The values of an image of more than 8 bits that become 0 and 255; DICOM has its own.
        disc: Top, left, height and width of what is seen of it, before `orientation`; None: everything.
        inverted: Whether the smallest value of an image of more than 8 bits is white; `levels` are from before that.
        notes: In what header and pixels disagree, and how it is read; known once it was decoded.
    """

    decoder: str
    height: int
    width: int
    orientation: int = 1
    deep: bool = False
    levels: tuple[float, float] = SIXTEEN_BITS
    disc: tuple[int, int, int, int] | None = None
    inverted: bool = False
    notes: tuple[str, ...] = ()


def inspect_image(place: ImagePlace) -> ImageFacts:
    """What the header of an image says; the pixels are not read.

    Raises:
        BadImageError: Empty, not an image, damaged, or above `PIXEL_LIMIT`.
    """
    if isinstance(place, FilePart) and place.pixels is not None:
        return ImageFacts("pixels", *place.pixels)
    if _holds_dicom(place):
        header = read_header(place)
        check_size(place, header.height, header.width)
        return ImageFacts("dicom", header.height, header.width, deep=header.bits > 8)
    with open_image(place) as image:
        height, width = image.height, image.width
        if isinstance(image, TiffValues):
            decoder, orientation, inverted = "pillow", image.orientation, image.deep and image.inverted
        else:
            decoder, orientation, inverted = _decoder(image, place), _orientation(image), False
        deep = decoder == "png16" or is_deep(image)
        levels = levels_of(image) if deep and decoder == "pillow" else SIXTEEN_BITS
        facts = ImageFacts(decoder, height, width, orientation, deep, levels, inverted=inverted)
    check_size(place, height, width)
    return facts


def count_frames(file: Path) -> int:
    """How many images `file` holds: frames of a DICOM file or a GIF, pages of a TIFF.

    Of more than `MOST_FRAMES`, one more than these: a small file can announce any number.

    Raises:
        BadImageError: It is not an image, or damaged.
    """
    if _holds_dicom(file):
        return min(read_header(file).frames, MOST_FRAMES + 1)
    if first_bytes(file).startswith(MAGICS):
        return count_pages(file)
    with open_image(file) as image:
        if image.format == "GIF":
            return check_parts(file, read_contents(file))
        return min(getattr(image, "n_frames", 1), MOST_FRAMES + 1)


def decode_outside(place: ImagePlace, facts: ImageFacts, window: str, *, notes: list[str] | None = None) -> np.ndarray:
    """The pixels of an image that TensorFlow does not read, float32 (height, width, 3), RGB, 0–255.

    Args:
        place: Where it lies.
        facts: From `inspect_image`.
        window: The setting `images.window`, for DICOM; other images have their `facts.levels`.
        notes: Gets in what header and pixels disagree.

    Raises:
        BadImageError: Damaged.
    """
    if facts.decoder == "dicom":
        return decode_dicom(place, window, notes=notes)
    return decode_with_pillow(place, levels=facts.levels)


def _holds_dicom(place: ImagePlace) -> bool:
    """Whether `place` is DICOM by its first bytes, or by its name where these say nothing."""
    part = as_part(place)
    start = first_bytes(place, PREAMBLE)
    other = any(start.lstrip().lower().startswith(magic.lower()) for magic in (*READERS, *NOT_IMAGES))
    other = other or format_by_content(start) is not None
    named = part.path.suffix.lower() in DICOM_SUFFIXES and not other
    return part.length is None and (is_dicom(start) or named)


def _decoder(image: Image.Image, place: ImagePlace) -> str:
    if isinstance(place, FilePart) and place.frame:
        return "pillow"
    if image.format == "PNG":
        return "png16" if first_bytes(place)[24] == 16 else "png8"
    # TensorFlow reads CMYK with its colours inverted.
    return "jpeg" if image.format == "JPEG" and image.mode in ("L", "RGB") else "pillow"


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1 where there is none or none that means anything."""
    # TIFF images Pillow turns itself. It reads all of EXIF, and for each entry as much as that announces.
    if "exif" not in image.info:
        return 1
    value = _exif_orientation(image.info["exif"])
    if value is None:
        text = image.info.get("XML:com.adobe.xmp") or image.info.get("xmp") or b""
        found = re.search(rb'tiff:Orientation(?:="|>)([0-9])', text.encode() if isinstance(text, str) else text)
        value = int(found[1]) if found else 1
    return value if 1 <= value <= 8 else 1


def _exif_orientation(exif: bytes) -> int | None:
    """Tag 274 in the first directory of `exif`."""
    while exif.startswith(b"Exif\0\0"):
        exif = exif[6:]
    order, value = "<" if exif.startswith(b"II") else ">", None
    if exif[:2] not in (b"II", b"MM") or len(exif) < 8:
        return None
    (start,) = struct.unpack_from(f"{order}I", exif, 4)
    (count,) = struct.unpack(f"{order}H", exif[start : start + 2].rjust(2, b"\0"))
    entries = exif[start + 2 : start + 2 + 12 * count]
    for tag, kind, values, data in struct.iter_unpack(f"{order}HHI4s", entries[: len(entries) // 12 * 12]):
        if tag == _ORIENTATION_TAG and kind in _WHOLE and values == 1:
            (value,) = struct.unpack_from(order + _WHOLE[kind], data)
    return value
