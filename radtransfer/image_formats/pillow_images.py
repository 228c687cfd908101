"""Image files that Pillow reads: opened by their first bytes, and their values.

To add a format, add its first bytes and its reader to `READERS`.
"""

import errno
import io
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
from radtransfer.image_formats.unread_formats import START, why_unread
from radtransfer.image_place import ImagePlace, as_part, read_contents
from radtransfer.intensity_window import SIXTEEN_BITS, scaled

# Not `Image.open`: it also tries formats that start other programs, and warns from 89 megapixels on.
READERS = {
    b"\x89PNG\r\n\x1a\n": PngImagePlugin.PngImageFile,
    b"\xff\xd8\xff": JpegImagePlugin.JpegImageFile,
    b"BM": BmpImagePlugin.BmpImageFile,
    b"GIF8": GifImagePlugin.GifImageFile,
    b"II*\0": TiffImagePlugin.TiffImageFile,
    b"MM\0*": TiffImagePlugin.TiffImageFile,
    b"RIFF": WebPImagePlugin.WebPImageFile,
    **{b"P%d" % number: PpmImagePlugin.PpmImageFile for number in range(1, 7)},
}

NOT_IMAGES = {
    b"<!doctype html": "an HTML page, not an image; download it again",
    b"<html": "an HTML page, not an image; download it again",
    b"version https://git-lfs": "a Git LFS pointer, not an image; run `git lfs pull`",
    b"/annex/objects/": "a git-annex pointer, not an image; run `datalad get` or `git annex get`",
    b".git/annex/objects/": "a git-annex pointer, not an image; run `datalad get` or `git annex get`",
    b"../": "the path of a link, not an image; check the repository out where links are allowed",
}


def open_image(place: ImagePlace) -> Image.Image:
    """The image, its header read and its pixels not.

    Raises:
        BadImageError: Empty, not an image of a known format, or damaged in its header.
    """
    start = first_bytes(place)
    reader = next((reader for magic, reader in READERS.items() if start.startswith(magic)), None)
    if reader is None or (start.startswith(b"RIFF") and start[8:12] == b"AVI "):
        raise BadImageError(place, _why_not_image(place))
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


def _why_not_image(place: ImagePlace) -> str:
    start, name = first_bytes(place, START), as_part(place).path.name
    known = (words for magic, words in NOT_IMAGES.items() if start.lstrip().lower().startswith(magic))
    return next(known, why_unread(start, name) or "not an image of a known format")


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
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):
            raise BadImageError(place, why_missing(part.path)) from None
        raise BadImageError(place, f"cannot be opened ({error.strerror})") from None
    if not start:
        raise BadImageError(place, "an empty file")
    return start


def why_missing(path: Path) -> str:
    """Why there is no file at `path`: there is nothing, or a link that leads nowhere."""
    if not path.is_symlink():
        return "not found"
    target = str(path.readlink())
    if "annex/objects" in target.replace("\\", "/"):
        return f"a dangling link, its file {target} is not there; run `datalad get` or `git annex get`"
    return f"a dangling link, its file {target} is not there; bring it back, or correct the link"


def decode_with_pillow(place: ImagePlace, *, levels: tuple[float, float] | None = None) -> np.ndarray:
    """The pixels of an image as they are stored, float32 (height, width, 3), RGB, 0–255, not turned by EXIF.

    Grey is repeated, transparency dropped. Values of more than 8 bits become 0–255 as `levels` say, clipped there;
    without levels 16 bits are divided by 257 and floats taken as they are.

    Raises:
        BadImageError: Not an image, damaged, or not finite numbers.
    """
    values, deep = _values(place)
    if not deep or (levels is None and deep == "F"):
        return values
    return scaled(values, levels or SIXTEEN_BITS)


def stored_values(place: ImagePlace) -> np.ndarray:
    """The values of an image of more than 8 bits, which Pillow reads, float32 (height, width, 3), as they are stored.

    Raises:
        BadImageError: Damaged, or not finite numbers.
    """
    return _values(place)[0]


def _values(place: ImagePlace) -> tuple[np.ndarray, str | None]:
    """The stored values, float32 (height, width, 3), and the mode of the image if it has more than 8 bits."""
    with open_image(place) as image:
        deep = image.mode if is_deep(image) else None
        try:
            pixels = _pixels(image)
        # Pillow raises what it meets in a damaged file: SyntaxError, IndexError, zlib.error and more.
        except Exception as error:
            raise BadImageError(place, f"damaged or truncated ({error})") from error
    if not np.isfinite(pixels).all():
        raise BadImageError(place, "it holds values that are not finite numbers")
    return pixels, deep


def is_deep(image: Image.Image) -> bool:
    """Whether a value has more than 8 bits."""
    return image.mode == "F" or image.mode.startswith("I")


def _pixels(image: Image.Image) -> np.ndarray:
    if is_deep(image):
        return np.repeat(np.asarray(image).astype("float32")[:, :, None], 3, axis=2)
    if image.mode in ("P", "PA"):
        # A palette entry may carry transparency, which a direct conversion warns about.
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB")).astype("float32")
