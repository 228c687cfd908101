"""One pass over all images that remembers of each what the checks ask for, and no pixels.

The decoder is the one that training uses, at full size: two files are the same image when their pixels are.
"""

import hashlib
import re
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from PIL import Image

from radtransfer.data.image_check import image_contents, miniature, read_pixels
from radtransfer.data.table import ImageTable
from radtransfer.errors import BadImageError
from radtransfer.images.formats import ImageFacts, inspect_image
from radtransfer.images.pillow import open_image, stored_values
from radtransfer.images.refs import (
    FilePart,
    ImagePlace,
)
from radtransfer.images.tiff import TiffValues
from radtransfer.process import Progress, in_parallel, require_keras

LOOK = (8, 9)
"""Rows and columns of grey values by which images are compared."""

_MODES = {
    "1": "black and white",
    "L": "grey",
    "LA": "grey with alpha",
    "P": "palette",
    "PA": "palette",
    "RGB": "RGB",
    "RGBA": "RGB with alpha",
}

_REASONS = {
    r"not found|a dangling link": "missing",
    r"an empty file": "empty_file",
    r"an HTML page|a Git LFS pointer|a git-annex pointer|the path of a link|not an? ": "not_an_image",
    r"its .* are above": "too_large",
    r"cannot be |a DICOM file, which|its |.*which is not read": "unreadable",
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
        mode: How it is coloured: "RGB", "grey", "16-bit grey", "signed 16-bit RGB", "float grey", "DICOM", ….
        contents: Hash of its bytes; b"" for one of several frames of a file.
        pixels: Hash of its pixels at full size, upright or not.
        look: Grey values of 8 rows and 9 columns, uint8; None where there is hardly anything in it.
        miniature: By which nearly identical images are found, uint8 (64, 64); None likewise.
        low: Least pixel value before any window, in 0–255 of what its format has; outside it for floats and 32 bits
            that leave their range.
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
    miniature: np.ndarray | None = None
    low: float = 0.0
    high: float = 0.0
    spread: float = 0.0

    @property
    def deep_integers(self) -> bool:
        """Whether the values are whole numbers of more than 8 bits, without the window that DICOM has in its header."""
        return "-bit " in self.mode

    @property
    def floats(self) -> bool:
        """Whether the values are 0–255 already."""
        return self.mode.startswith("float ")


def survey_images(table: ImageTable, *, workers: int, window: str, progress: Progress) -> tuple[ImageRecord, ...]:
    """Decode every image once.

    Args:
        table: The images.
        workers: Images decoded at the same time.
        window: The setting `images.window`.
        progress: Hears the count.
    """
    require_keras()  # images are decoded by TensorFlow, in threads
    records: list[ImageRecord] = []
    look = partial(survey_image, window=window)
    with closing(in_parallel(look, table.files, workers=workers)) as batches:
        for batch in batches:
            records += batch
            progress.count("images checked", len(records), len(table))
    return tuple(records)


def survey_image(place: ImagePlace | None, *, window: str = "auto") -> ImageRecord:
    """The record of one image; what cannot be read has a `problem`."""
    if place is None:
        return ImageRecord("missing", "not found")
    try:
        facts = inspect_image(place)
        stored = facts.deep and facts.decoder == "pillow"
        notes: list[str] = []
        pixels = stored_values(place) if stored else read_pixels(place, facts, window=window, notes=notes)
        if pixels.shape != (facts.height, facts.width, 3):
            raise BadImageError(place, f"damaged: {pixels.shape} pixels, its header says {facts.width}×{facts.height}")
        data = b"" if isinstance(place, FilePart) and place.length is None else image_contents(place)
        mode = _mode(place, facts)
    except BadImageError as error:
        kinds = (kind for pattern, kind in _REASONS.items() if re.match(pattern, error.reason))
        return ImageRecord(next(kinds, "corrupt"), error.reason)
    if facts.inverted:
        pixels = sum(facts.levels) - pixels
    pixels = _plain(pixels, facts.levels if facts.deep and "-bit " in mode else (0.0, 255.0))
    low, high = float(pixels.min()), float(pixels.max())
    digest = hashlib.blake2b(f"{pixels.shape} {pixels.dtype} {facts.orientation} ".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels))
    step = 1 + max(pixels.shape) // 256
    return ImageRecord(
        facts=replace(facts, notes=tuple(notes)),
        mode=mode,
        contents=hashlib.blake2b(data, digest_size=16).digest() if data else b"",
        pixels=digest.digest(),
        look=_look(pixels, low, high),
        miniature=miniature(pixels),
        low=255 - high if facts.inverted else low,
        high=255 - low if facts.inverted else high,
        spread=float(pixels[::step, ::step].std(dtype=np.float64)),
    )


def _plain(pixels: np.ndarray, levels: tuple[float, float]) -> np.ndarray:
    """The pixels in one form whatever the decoder: uint8 where that loses nothing, else float32, `levels` as 0–255."""
    if pixels.dtype == np.uint8:
        return pixels
    low, high = levels
    if levels != (0.0, 255.0):
        pixels = (pixels.astype("float32") - np.float32(low)) * np.float32(255.0 / (high - low))
    pixels = pixels.astype("float32", copy=False)
    if pixels.min() < 0 or pixels.max() > 255 or (pixels != np.rint(pixels)).any():
        return pixels
    return pixels.astype(np.uint8)


def _look(pixels: np.ndarray, low: float, high: float) -> np.ndarray | None:
    """Grey values of the image made small; None where they are nearly one: any two such images look alike."""
    if pixels.dtype != np.uint8:
        pixels = ((pixels - low) * (255.0 / max(high - low, 1e-9))).astype(np.uint8)
    grey = Image.fromarray(pixels).convert("L").resize(LOOK[::-1], Image.Resampling.BOX)
    look = np.asarray(grey)
    return look if int(look.max()) - int(look.min()) >= 16 else None


def _mode(place: ImagePlace, facts: ImageFacts) -> str:
    if facts.decoder in ("pixels", "dicom"):
        return {"pixels": "RGB", "dicom": "DICOM"}[facts.decoder]
    with open_image(place) as image:
        mode = image.mode
        if isinstance(image, TiffValues):
            return mode
    if facts.deep:
        return "16-bit grey" if mode.startswith("I") or mode == "L" else "16-bit RGB"
    return _MODES.get(mode, mode)
