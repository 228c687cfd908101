"""Image files: what their headers say, and how Pillow reads those that TensorFlow does not.

To add a format, add its first bytes and its reader to `_READERS`.
"""

import io
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from radtransfer.dicom import DICOM_SUFFIXES, PREAMBLE, decode_dicom, is_dicom, read_header
from radtransfer.errors import BadImageError
from radtransfer.image_place import FilePart, ImagePlace, as_part, read_contents

PIXEL_LIMIT = 200_000_000
"""Larger images are refused from their header alone: a small file can unpack to any size."""

# Not `Image.open`: it also tries formats that start other programs, and warns from 89 megapixels on.
_READERS = {
    b"\x89PNG\r\n\x1a\n": PngImagePlugin.PngImageFile,
    b"\xff\xd8\xff": JpegImagePlugin.JpegImageFile,
    b"BM": BmpImagePlugin.BmpImageFile,
    b"GIF8": GifImagePlugin.GifImageFile,
    b"II*\0": TiffImagePlugin.TiffImageFile,
    b"MM\0*": TiffImagePlugin.TiffImageFile,
    b"RIFF": WebPImagePlugin.WebPImageFile,
    **{b"P%d" % number: PpmImagePlugin.PpmImageFile for number in range(1, 7)},
}

_NOT_IMAGES = {
    b"<!doctype html": "an HTML page, not an image; download it again",
    b"<html": "an HTML page, not an image; download it again",
    b"version https://git-lfs": "a Git LFS pointer, not an image; run `git lfs pull`",
}

_ORIENTATION_TAG = 0x0112


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """How one image is stored.

    Attributes:
        decoder: What reads it in training: "jpeg", "png8" and "png16" are TensorFlow's, "pixels" are plain bytes,
            "pillow" is `decode_with_pillow`, "dicom" is `decode_dicom`.
        height: Pixels, as decoded, before `orientation` is applied.
        width: Pixels, likewise.
        orientation: EXIF, 1–8: how the decoded image has yet to be turned.
        deep: Whether a value has more than 8 bits.
        levels: The values of a 16-bit image that become 0 and 255.
        disc: Top, left, height and width of what is seen of it, before `orientation`; None: everything.
    """

    decoder: str
    height: int
    width: int
    orientation: int = 1
    deep: bool = False
    levels: tuple[float, float] = (0.0, 65535.0)
    disc: tuple[int, int, int, int] | None = None


def inspect_image(place: ImagePlace) -> ImageFacts:
    """What the header of an image says; the pixels are not read.

    Raises:
        BadImageError: Empty, not an image, damaged, or above `PIXEL_LIMIT`.
    """
    if isinstance(place, FilePart) and place.pixels is not None:
        return ImageFacts("pixels", *place.pixels)
    if _holds_dicom(place):
        header = read_header(as_part(place).path)
        check_size(place, header.height, header.width)
        return ImageFacts("dicom", header.height, header.width, deep=header.bits > 8)
    with _opened(place) as image:
        width, height = image.size
        decoder = _decoder(image, place)
        facts = ImageFacts(decoder, height, width, _orientation(image), deep=decoder == "png16" or _is_deep(image))
    check_size(place, height, width)
    return facts


def check_size(place: ImagePlace, height: int, width: int) -> None:
    """See that an image has pixels, and not too many of them.

    Raises:
        BadImageError: It has none, or more than `PIXEL_LIMIT`.
    """
    if width * height > PIXEL_LIMIT:
        limit = f"the limit of {PIXEL_LIMIT // 1_000_000} megapixels"
        raise BadImageError(place, f"its {width}×{height} pixels are above {limit}; store it smaller")
    if not width * height:
        raise BadImageError(place, f"it has no pixels ({width}×{height})")


def count_frames(file: Path) -> int:
    """How many images `file` holds: frames of a DICOM file or a GIF, pages of a TIFF.

    Raises:
        BadImageError: It is not an image, or damaged.
    """
    if _holds_dicom(file):
        return read_header(file).frames
    with _opened(file) as image:
        try:
            return getattr(image, "n_frames", 1)
        except Exception as error:  # as in `decode_with_pillow`
            raise BadImageError(file, f"damaged or truncated ({error})") from error


def decode_outside(place: ImagePlace, facts: ImageFacts, window: str) -> np.ndarray:
    """The pixels of an image that TensorFlow does not read, float32 (height, width, 3), RGB, 0–255.

    Args:
        place: Where it lies.
        facts: From `inspect_image`.
        window: The setting `images.window`, for DICOM; other images have their `facts.levels`.

    Raises:
        BadImageError: Damaged.
    """
    if facts.decoder == "dicom":
        return decode_dicom(place, window)
    return decode_with_pillow(place, levels=facts.levels)


def decode_with_pillow(place: ImagePlace, *, levels: tuple[float, float] = (0.0, 65535.0)) -> np.ndarray:
    """The pixels of an image as they are stored, float32 (height, width, 3), RGB, 0–255, not turned by EXIF.

    Grey is repeated, transparency dropped. Grey of 16 or 32 bits becomes 0–255 as `levels` say, clipped there; floats
    are taken as they are.

    Raises:
        BadImageError: Not an image, damaged, or not finite numbers.
    """
    with _opened(place) as image:
        try:
            pixels = _pixels(image, levels)
        # Pillow raises what it meets in a damaged file: SyntaxError, IndexError, zlib.error and more.
        except Exception as error:
            raise BadImageError(place, f"damaged or truncated ({error})") from error
    if not np.isfinite(pixels).all():
        raise BadImageError(place, "it holds values that are not finite numbers")
    return pixels


def _holds_dicom(place: ImagePlace) -> bool:
    """Whether `place` is DICOM by its first bytes, or by its name where these say nothing."""
    part = as_part(place)
    start = first_bytes(place, PREAMBLE)
    other = any(start.lstrip().lower().startswith(magic.lower()) for magic in (*_READERS, *_NOT_IMAGES))
    named = part.path.suffix.lower() in DICOM_SUFFIXES and not other
    return part.length is None and (is_dicom(start) or named)


def _opened(place: ImagePlace) -> Image.Image:
    """The image, its header read and its pixels not."""
    start = first_bytes(place)
    reader = next((reader for magic, reader in _READERS.items() if start.startswith(magic)), None)
    if reader is None:
        known = (words for magic, words in _NOT_IMAGES.items() if start.lstrip().lower().startswith(magic))
        raise BadImageError(place, next(known, "not an image of a known format"))
    part = as_part(place)
    try:
        image = reader(str(part.path) if part.length is None else io.BytesIO(read_contents(part)))
    except Exception as error:  # as in `decode_with_pillow`
        raise BadImageError(place, f"damaged or truncated in its header ({error})") from error
    try:
        image.seek(part.frame)
    except Exception as error:
        image.close()
        raise BadImageError(place, f"it has no frame {part.frame + 1}, or is damaged ({error})") from error
    return image


def first_bytes(place: ImagePlace, count: int = 64) -> bytes:
    """The beginning of an image's bytes.

    Raises:
        BadImageError: There are none, or they may not be read.
    """
    part = as_part(place)
    try:
        with part.path.open("rb") as file:
            file.seek(part.offset)
            start = file.read(count if part.length is None else min(count, part.length))
    except FileNotFoundError:
        raise BadImageError(place, "not found") from None
    except OSError as error:
        raise BadImageError(place, f"cannot be opened ({error.strerror})") from None
    if not start:
        raise BadImageError(place, "an empty file")
    return start


def _decoder(image: Image.Image, place: ImagePlace) -> str:
    if isinstance(place, FilePart) and place.frame:
        return "pillow"
    if image.format == "PNG":
        return "png16" if first_bytes(place)[24] == 16 else "png8"
    # TensorFlow reads CMYK with its colours inverted.
    return "jpeg" if image.format == "JPEG" and image.mode in ("L", "RGB") else "pillow"


def _is_deep(image: Image.Image) -> bool:
    """Whether a value has more than 8 bits."""
    return image.mode == "F" or image.mode.startswith("I")


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1 where there is none or none that means anything."""
    # `getexif` of a PNG without EXIF reads all its pixels in search of one; TIFF images Pillow turns itself.
    if "exif" not in image.info:
        return 1
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except (SyntaxError, ValueError, TypeError, KeyError, OSError, struct.error):
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _pixels(image: Image.Image, levels: tuple[float, float]) -> np.ndarray:
    if _is_deep(image):
        grey = np.asarray(image).astype("float32")
        if image.mode != "F":
            low, high = levels
            grey = np.clip((grey - low) * (255.0 / (high - low)), 0.0, 255.0)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in ("P", "PA"):
        # A palette entry may carry transparency, which a direct conversion warns about.
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB")).astype("float32")
