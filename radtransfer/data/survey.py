"""Opening every image before training, and what is wrong with those that cannot be used.

One pass over all images that remembers of each what the checks ask for, and no pixels.

The decoder is the one that training uses, at full size: two files are the same image when their pixels are.

One image, decoded once before training by the decoder that training will use: what has to be known about it.

Nearly the same image in two files: resized, stored anew, brighter, with other contrast, or seen in a mirror.

Two images are nearly identical if the miniatures of 64×64 grey pixels, one of them mirrored or not, correlate with
r ≥ 0.98. Of the 780 breast ultrasound images of BUSI 101 pairs are; the six of two classes were looked at, and each
shows one scan. Of 3,000 synthetic fundus photographs of 96 px, discs of one kind on black, no two are (r ≤ 0.975); of
1,000 drawn at 48 px ten are, so images that are smaller than their miniature may be taken for one.
What is cropped by 1 % at each edge is found in every second case, cropped by more, turned or inverted hardly ever.

The disc of the retina in a fundus photograph, which stands before a dark background.
"""

import hashlib
import re
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from PIL import Image

from radtransfer.config.schema import ImageSettings
from radtransfer.data.table import ImageTable
from radtransfer.errors import BadImageError
from radtransfer.images.formats import ImageFacts, decode_outside, inspect_image
from radtransfer.images.pillow import kind_of_jpeg, open_image, stored_values
from radtransfer.images.refs import (
    SIGNED_SIXTEEN_BITS,
    SIXTEEN_BITS,
    FilePart,
    ImagePlace,
    parse_window,
    read_contents,
    span,
)
from radtransfer.images.tiff import TiffValues
from radtransfer.process import Progress, in_parallel, require_keras

SIDE = 64
"""Of the miniature, pixels."""

CORRELATION = 0.98

MOST = 100_000
"""Images of which all pairs are compared: a few minutes on two cores, and 0.4 GB. Of more, none are."""

_LEAST_RANGE = 16
"""A miniature of 8 bits whose values span less shows nothing, and would look like any other such."""

_CHUNK = 512


def miniature(pixels: np.ndarray) -> np.ndarray | None:
    """The miniature of an image, (height, width, 3), as uint8 (64, 64); None where there is hardly anything in it."""
    how = Image.Resampling.BOX if min(pixels.shape[:2]) >= SIDE else Image.Resampling.BILINEAR
    if pixels.dtype == np.uint8:
        small = np.asarray(Image.fromarray(pixels).convert("L").resize((SIDE, SIDE), how))
        return small if int(small.max()) - int(small.min()) >= _LEAST_RANGE else None
    grey = Image.fromarray(pixels.mean(axis=-1, dtype="float32"))
    small = np.asarray(grey.resize((SIDE, SIDE), how))
    low, span = float(small.min()), float(np.ptp(small))
    return ((small - low) * (255 / span)).astype(np.uint8) if 0 < span < np.inf else None


def near_identical(miniatures: Sequence[np.ndarray | None]) -> list[list[int]]:
    """Sets of two or more numbers of images that hang together by being nearly identical, each sorted.

    Means over blocks of 8×8 pixels tell most pairs apart: where they differ too much, so do the miniatures.
    """
    known = np.array([number for number, small in enumerate(miniatures) if small is not None], int)
    if not 2 <= len(known) <= MOST:
        return []
    images = np.stack([miniatures[number] for number in known]).reshape(len(known), -1)
    means = images.mean(axis=1, dtype="float32")[:, None]
    norms = np.array([np.linalg.norm(image - mean) for image, mean in zip(images, means, strict=True)])[:, None]
    blocks = images.reshape(-1, 8, 8, 8, 8).mean(axis=(2, 4), dtype="float32").reshape(-1, 64)
    blocks = ((blocks - means) * 8 / norms).astype("float32")
    mirrored = blocks.reshape(-1, 8, 8)[:, :, ::-1].reshape(-1, 64)
    # |p − q|² ≤ |u − v|² = 2 (1 − r) for projections p, q of unit vectors u, v; here − |p − q|² / 2 is one product.
    half, ones = -(blocks**2).sum(axis=1, keepdims=True) / 2, np.ones((len(known), 1), "float32")
    others = np.concatenate([blocks, half, ones], axis=1).T
    sets = np.arange(len(known))
    for start in range(0, len(known), _CHUNK):
        for side, step in ((blocks, 1), (mirrored, -1)):
            chunk = np.concatenate([side, ones, half], axis=1)[start : start + _CHUNK]
            near, which = np.nonzero(chunk @ others[:, start:] >= CORRELATION - 1 - 1e-4)
            rows, firsts = np.unique(near, return_index=True)
            for row, found in zip(rows.tolist(), np.split(start + which, firsts[1:]), strict=False):
                image = start + row
                found = found[(found > image) & (sets[found] != sets[image])]
                if len(found):
                    unit = (images[image].reshape(SIDE, SIDE)[:, ::step].ravel() - means[image]) / norms[image]
                    same = found[images[found] @ unit / norms[found, 0] >= CORRELATION]
                    sets[np.isin(sets, sets[same])] = sets[image]
    order = np.argsort(sets, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(sets[order])) + 1)
    return sorted(known[group].tolist() for group in groups if len(group) > 1)


_SIDE = 256
"""Pixels of the longer side that are looked at."""

_DARK = 0.15
"""Of the bright level, a fraction: the background is below."""

_LEAST = 0.2
"""Of the image, a fraction: what is smaller is not the disc."""


def retina_box(pixels: np.ndarray) -> tuple[int, int, int, int] | None:
    """Top, left, height and width of the disc, or None where there is no dark background around one disc.

    The disc is the largest connected area brighter than 15 % of the image's bright level (its 90th percentile);
    text and reflections beside it do not count.

    Args:
        pixels: (height, width, 3), of any range.
    """
    from scipy import ndimage

    step = max(1, max(pixels.shape[:2]) // _SIDE)
    grey = pixels[::step, ::step].max(axis=-1).astype(np.float32)
    low, bright = np.percentile(grey, [1, 90])
    bright_area = ndimage.binary_opening(grey > low + _DARK * (bright - low), iterations=2)
    areas, count = ndimage.label(bright_area)
    if not count:
        return None
    largest = int(np.argmax(np.bincount(areas.ravel())[1:])) + 1
    rows, columns = ndimage.find_objects((areas == largest).astype(np.int32))[0]
    if (areas == largest).sum() < _LEAST * grey.size:
        return None
    top, left = max(0, (rows.start - 1) * step), max(0, (columns.start - 1) * step)
    bottom = min(pixels.shape[0], (rows.stop + 1) * step)
    right = min(pixels.shape[1], (columns.stop + 1) * step)
    box = (top, left, bottom - top, right - left)
    return None if box == (0, 0, *pixels.shape[:2]) else box


def examine_images(places: Sequence[ImagePlace], reading: ImageSettings) -> tuple[ImageFacts, ...]:
    """How images that were checked before are stored; they are decoded only where the way of reading asks for it.

    Raises:
        BadImageError: One cannot be read.
    """
    facts = tuple(map(inspect_image, places))
    if reading.fundus_crop or any(fact.deep for fact in facts):
        require_keras()
        return tuple(examine_image(place, reading)[0] for place in places)
    return facts


def read_pixels(
    place: ImagePlace, facts: ImageFacts, *, window: str = "auto", ratio: int = 1, notes: list[str] | None = None
) -> np.ndarray:
    """The pixels of an image by the decoder that training uses, not turned.

    Args:
        place: Where it lies.
        facts: From `inspect_image`.
        window: The setting `images.window`.
        ratio: A JPEG is decoded at 1/ratio of its size: 1, 2, 4 or 8.
        notes: Gets in what header and pixels disagree.

    Returns:
        (height, width, 3), RGB: uint8; uint16 for a 16-bit PNG; float32, 0–255, for what TensorFlow does not read.

    Raises:
        BadImageError: Damaged or truncated.
    """
    if facts.decoder == "pixels":
        return np.frombuffer(image_contents(place), np.uint8).reshape(facts.height, facts.width, 3)
    if facts.decoder not in ("jpeg", "png8", "png16"):
        return decode_outside(place, facts, window, notes=notes)
    import tensorflow as tf

    data = image_contents(place)
    # TensorFlow refuses such a file too, but its JPEG library then writes to the terminal.
    if facts.decoder == "jpeg" and b"\xff\xd9" not in data:
        raise BadImageError(place, "truncated")
    try:
        if facts.decoder == "jpeg":
            return tf.io.decode_jpeg(data, channels=3, ratio=ratio).numpy()
        return tf.io.decode_png(data, channels=3, dtype=tf.uint16 if facts.decoder == "png16" else tf.uint8).numpy()
    except tf.errors.InvalidArgumentError as error:
        end = b"\xff\xd9" if facts.decoder == "jpeg" else b"IEND\xaeB`\x82"
        whole = data.rstrip(b"\0").endswith(end)
        raise BadImageError(place, kind_of_jpeg(place) or ("damaged" if whole else "truncated")) from error


def examine_image(
    place: ImagePlace, reading: ImageSettings
) -> tuple[ImageFacts, tuple[float, float] | None, np.ndarray | None]:
    """The facts of an image that is decoded once; a JPEG at an eighth, which reads all of the file as well.

    Returns:
        The facts, the smallest and largest value of an image that is taken at the full range of 16 bits, and the
        miniature by which nearly identical images are found.

    Raises:
        BadImageError: It cannot be read.
    """
    facts = inspect_image(place)
    ratio = 1
    if facts.decoder == "jpeg":  # the miniature needs its pixels; a disc is looked for in an eighth, whatever the size
        ratio = (
            8
            if reading.fundus_crop
            else max(r for r in (8, 4, 2, 1) if r == 1 or min(facts.height, facts.width) >= r * SIDE)
        )
    stored = facts.deep and facts.decoder == "pillow"
    notes: list[str] = []
    pixels = (
        stored_values(place) if stored else read_pixels(place, facts, window=reading.window, ratio=ratio, notes=notes)
    )
    if pixels.shape != (-(-facts.height // ratio), -(-facts.width // ratio), 3):
        raise BadImageError(place, f"damaged: {pixels.shape} pixels, its header says {facts.width}×{facts.height}")
    facts, values = replace(facts, notes=tuple(notes)), None
    if stored or facts.decoder == "png16":
        values = float(pixels.min()), float(pixels.max())
        facts = replace(facts, levels=_levels(facts, values, reading))
    if reading.fundus_crop and (box := retina_box(pixels)):
        facts = replace(facts, disc=_whole_box(box, ratio, facts))
    noted = reading.window == "auto" and facts.levels in (SIXTEEN_BITS, SIGNED_SIXTEEN_BITS)
    return facts, values if noted else None, miniature(pixels)


def _levels(facts: ImageFacts, values: tuple[float, float], reading: ImageSettings) -> tuple[float, float]:
    """What becomes 0 and 255; by itself what the format has, or all that is there where it is more."""
    low, high = facts.levels
    auto = facts.levels if low <= values[0] and values[1] <= high else span(*values)
    return parse_window(reading.window).levels(*values, auto=auto)


def _whole_box(box: tuple[int, int, int, int], ratio: int, facts: ImageFacts) -> tuple[int, int, int, int]:
    """A box in an image decoded at 1/ratio, in pixels of the whole."""
    top, left, height, width = (ratio * value for value in box)
    return top, left, min(height, facts.height - top), min(width, facts.width - left)


def image_contents(place: ImagePlace) -> bytes:
    """The bytes of an image.

    Raises:
        BadImageError: They cannot be read, or not any more.
    """
    try:
        return read_contents(place)
    except OSError as error:
        raise BadImageError(place, f"cannot be read ({error.strerror})") from None


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
        return ImageRecord(_problem(error.reason), error.reason)
    if facts.inverted:
        pixels = sum(facts.levels) - pixels
    pixels = _plain(pixels, facts.levels if facts.deep and "-bit " in mode else (0.0, 255.0))
    low, high = float(pixels.min()), float(pixels.max())
    step = 1 + max(pixels.shape) // 256
    return ImageRecord(
        facts=replace(facts, notes=tuple(notes)),
        mode=mode,
        contents=hashlib.blake2b(data, digest_size=16).digest() if data else b"",
        pixels=_pixel_hash(pixels, facts.orientation),
        look=_look(pixels, low, high),
        miniature=miniature(pixels),
        low=255 - high if facts.inverted else low,
        high=255 - low if facts.inverted else high,
        spread=float(pixels[::step, ::step].std(dtype=np.float64)),
    )


def _problem(reason: str) -> str:
    return next((kind for pattern, kind in _REASONS.items() if re.match(pattern, reason)), "corrupt")


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


def _pixel_hash(pixels: np.ndarray, orientation: int) -> bytes:
    digest = hashlib.blake2b(f"{pixels.shape} {pixels.dtype} {orientation} ".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels))
    return digest.digest()


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
