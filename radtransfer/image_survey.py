"""One pass over all images that remembers of each what the checks ask for, and no pixels.

The decoder is the one that training uses, at full size: two files are the same image when their pixels are.
"""

import hashlib
import io
import re
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from radtransfer.datasets.image_table import ImageTable
from radtransfer.errors import BadImageError
from radtransfer.image_formats import ImageFacts, inspect_image
from radtransfer.image_place import FilePart, ImagePlace, as_part, read_contents
from radtransfer.images import read_pixels
from radtransfer.progress import Progress

LOOK = (8, 9)
"""Rows and columns of the miniature by which images are compared."""

_BATCH = 16
"""Images per task of a worker."""

_MODES = {
    "1": "black and white",
    "L": "grey",
    "LA": "grey with alpha",
    "P": "palette",
    "PA": "palette",
    "RGB": "RGB",
    "RGBA": "RGB with alpha",
    "I": "32-bit grey",
    "F": "float grey",
}

_REASONS = {
    r"not found": "missing",
    r"an empty file": "empty_file",
    r"an HTML page|a Git LFS pointer|not an? ": "not_an_image",
    r"its .* are above": "too_large",
    r"cannot be |a DICOM file, which|its ": "unreadable",
    r"truncated|.*(is truncated|Truncated|cut off)": "truncated",  # the middle two are Pillow's words
}
"""How the reason of a `BadImageError` begins, and the kind of finding that it is; any other is "corrupt"."""


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """What one image is like.

    Attributes:
        problem: Kind of finding that keeps it from being read, such as "truncated"; "" if it can be read, and only then
            the rest is known.
        reason: The same in words.
        facts: How it is stored.
        mode: How it is coloured: "RGB", "grey", "16-bit grey", …; "" where that is not known.
        contents: Hash of its bytes; b"" for one of several frames of a file.
        pixels: Hash of its pixels as training reads them, upright or not.
        look: Miniature in grey, uint8 (8, 9); None where there is hardly anything in it.
        low: Least pixel value, 0–255 for all that are not floats.
        high: Greatest.
        spread: Standard deviation of a sample of its pixels, in the same unit.
    """

    problem: str = ""
    reason: str = ""
    facts: ImageFacts | None = None
    mode: str = ""
    contents: bytes = b""
    pixels: bytes = b""
    look: np.ndarray | None = None
    low: float = 0.0
    high: float = 0.0
    spread: float = 0.0


def survey_images(table: ImageTable, *, workers: int, window: str, progress: Progress) -> tuple[ImageRecord, ...]:
    """Decode every image once.

    Args:
        table: The images.
        workers: Images decoded at the same time.
        window: The setting `images.window`.
        progress: Hears the count.
    """
    records: list[ImageRecord] = []
    with closing(_in_parallel(table.files, window, workers)) as batches:
        for batch in batches:
            records += batch
            progress.count("images checked", len(records), len(table))
    return tuple(records)


def _in_parallel(
    places: Sequence[ImagePlace | None], window: str, workers: int
) -> Generator[list[ImageRecord], None, None]:
    """The records in order; what has not begun is dropped when the caller stops."""
    batches = [places[start : start + _BATCH] for start in range(0, len(places), _BATCH)]
    executor = ThreadPoolExecutor(workers)
    try:
        yield from executor.map(lambda batch: [survey_image(place, window=window) for place in batch], batches)
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def survey_image(place: ImagePlace | None, *, window: str = "auto") -> ImageRecord:
    """The record of one image; what cannot be read has a `problem`."""
    if place is None:
        return ImageRecord("missing", "not found")
    try:
        facts = inspect_image(place)
        pixels = read_pixels(place, facts, window=window)
        if pixels.shape != (facts.height, facts.width, 3):
            raise BadImageError(place, f"damaged: {pixels.shape} pixels, its header says {facts.width}×{facts.height}")
    except BadImageError as error:
        return ImageRecord(_problem(error.reason), error.reason)
    data = b"" if isinstance(place, FilePart) and place.length is None else read_contents(place)
    pixels = _plain(pixels)
    low, high = float(pixels.min()), float(pixels.max())
    step = 1 + max(pixels.shape) // 256
    return ImageRecord(
        facts=facts,
        mode=_mode(facts, io.BytesIO(data) if data else as_part(place).path),
        contents=hashlib.blake2b(data, digest_size=16).digest() if data else b"",
        pixels=_pixel_hash(pixels, facts.orientation),
        look=_look(pixels, low, high),
        low=low,
        high=high,
        spread=float(pixels[::step, ::step].std()),
    )


def _problem(reason: str) -> str:
    return next((kind for pattern, kind in _REASONS.items() if re.match(pattern, reason)), "corrupt")


def _plain(pixels: np.ndarray) -> np.ndarray:
    """The pixels in one form whatever the decoder: uint8 where that loses nothing, else float32, 0–255."""
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.uint16:
        pixels = pixels.astype("float32") * np.float32(255.0 / 65535.0)
    if pixels.min() < 0 or pixels.max() > 255 or (pixels != np.rint(pixels)).any():
        return pixels
    return pixels.astype(np.uint8)


def _pixel_hash(pixels: np.ndarray, orientation: int) -> bytes:
    digest = hashlib.blake2b(f"{pixels.shape} {pixels.dtype} {orientation} ".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels))
    return digest.digest()


def _look(pixels: np.ndarray, low: float, high: float) -> np.ndarray | None:
    """The miniature; None where its grey values are nearly one, so that it would look like any other such image."""
    if pixels.dtype != np.uint8:
        pixels = ((pixels - low) * (255.0 / max(high - low, 1e-9))).astype(np.uint8)
    grey = Image.fromarray(pixels).convert("L").resize(LOOK[::-1], Image.Resampling.BOX)
    look = np.asarray(grey)
    return look if int(look.max()) - int(look.min()) >= 16 else None


def _mode(facts: ImageFacts, source: io.BytesIO | Path) -> str:
    if facts.decoder in ("pixels", "dicom"):
        return {"pixels": "RGB", "dicom": "DICOM"}[facts.decoder]
    # Above that many pixels Pillow warns.
    if facts.height * facts.width > 80_000_000:
        return ""
    try:
        with Image.open(source, formats=("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")) as image:
            mode = image.mode
    except Exception:  # a format that Pillow does not know
        return ""
    if facts.decoder == "png16":
        return "16-bit grey" if mode.startswith("I") or mode == "L" else "16-bit RGB"
    return "16-bit grey" if mode.startswith("I;") else _MODES.get(mode, mode)
