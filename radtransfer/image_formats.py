"""Image files: what their headers say, and how Pillow reads those that TensorFlow does not.

To add a format, add its first bytes and its reader to `_READERS`.
"""

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

from radtransfer.errors import BadImageError

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
        decoder: What reads it in training: "jpeg", "png8" and "png16" are TensorFlow's, "pillow" is
            `decode_with_pillow`.
        height: Pixels, as decoded, before `orientation` is applied.
        width: Pixels, likewise.
        orientation: EXIF, 1–8: how the decoded image has yet to be turned.
    """

    decoder: str
    height: int
    width: int
    orientation: int


def inspect_image(file: Path) -> ImageFacts:
    """What the header of `file` says; the pixels are not read.

    Raises:
        BadImageError: Empty, not an image, damaged, or above `PIXEL_LIMIT`.
    """
    with _open(file) as image:
        width, height = image.size
        decoder = _decoder(file, image)
        orientation = _orientation(image)
    if width * height > PIXEL_LIMIT:
        limit = f"the limit of {PIXEL_LIMIT // 1_000_000} megapixels"
        raise BadImageError(file, f"its {width}×{height} pixels are above {limit}; store it smaller")
    if not width * height:
        raise BadImageError(file, f"it has no pixels ({width}×{height})")
    return ImageFacts(decoder, height, width, orientation)


def decode_with_pillow(file: Path) -> np.ndarray:
    """The pixels of `file` as they are stored, float32 (height, width, 3), RGB, 0–255, not turned by EXIF.

    Grey is repeated, transparency dropped, of several frames the first is taken. 16-bit grey is divided by
    257 (65535 becomes 255) and so are 32-bit integers, never clipped; floats are taken as they are.

    Raises:
        BadImageError: Not an image, damaged, or not finite numbers.
    """
    with _open(file) as image:
        try:
            pixels = _pixels(image)
        # Pillow raises what it meets in a damaged file: SyntaxError, IndexError, zlib.error and more.
        except Exception as error:
            raise BadImageError(file, f"damaged or truncated ({error})") from error
    if not np.isfinite(pixels).all():
        raise BadImageError(file, "it holds values that are not finite numbers")
    return pixels


def _open(file: Path) -> Image.Image:
    """The image, its header read and its pixels not."""
    try:
        with file.open("rb") as handle:
            start = handle.read(64)
    except FileNotFoundError:
        raise BadImageError(file, "not found") from None
    except OSError as error:
        raise BadImageError(file, f"cannot be opened ({error.strerror})") from None
    if not start:
        raise BadImageError(file, "an empty file")
    reader = next((reader for magic, reader in _READERS.items() if start.startswith(magic)), None)
    if reader is None:
        known = (words for magic, words in _NOT_IMAGES.items() if start.lstrip().lower().startswith(magic))
        raise BadImageError(file, next(known, "not an image of a known format"))
    try:
        return reader(str(file))
    except Exception as error:  # as in `decode_with_pillow`
        raise BadImageError(file, f"damaged or truncated in its header ({error})") from error


def _decoder(file: Path, image: Image.Image) -> str:
    if image.format == "PNG":
        with file.open("rb") as handle:
            depth = handle.read(25)[24]
        return "png16" if depth == 16 else "png8"
    # TensorFlow reads CMYK with its colours inverted.
    return "jpeg" if image.format == "JPEG" and image.mode in ("L", "RGB") else "pillow"


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


def _pixels(image: Image.Image) -> np.ndarray:
    if image.mode == "F" or image.mode.startswith("I"):
        grey = np.asarray(image).astype("float32") / (1 if image.mode == "F" else 257)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in ("P", "PA"):
        # A palette entry may carry transparency, which a direct conversion warns about.
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB")).astype("float32")
