"""Decode every image of a data set once before training, and cache the result while the files do not change."""

import contextlib
import json
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from radtransfer.config.schema import ImageSettings
from radtransfer.data.image_files import unchanged_key
from radtransfer.data.table import ImageTable
from radtransfer.errors import BadImageError, DataError, RadtransferError
from radtransfer.files import atomic_write, printable, writing
from radtransfer.images.formats import ImageFacts, decode_outside, inspect_image, kind_of_jpeg, stored_values
from radtransfer.images.refs import SIGNED_SIXTEEN_BITS, SIXTEEN_BITS, ImageRef, parse_window, read_contents, span
from radtransfer.process import Progress, in_parallel, require_keras
from radtransfer.runs.cache import cache_folder, cache_note
from radtransfer.runs.folder import write_text

_VERSION = 4  # increase when the checks or the cached facts change
_MOST = 100  # cached data sets


def read_check_cache(
    refs: Sequence[ImageRef | None], reading: ImageSettings
) -> tuple[tuple[ImageFacts, ...], list[list[int]]] | None:
    """The cached facts and sets of nearly identical images, if all images were readable and none has changed."""
    file = _cache_file(refs, reading)
    if file is None:
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        rows = ([tuple(value) if isinstance(value, list) else value for value in row] for row in found["facts"])
        facts = tuple(ImageFacts(*row) for row in rows)
        identical = found["near_identical"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    with contextlib.suppress(OSError):
        file.touch()
    return facts, identical


def write_check_cache(
    refs: Sequence[ImageRef], reading: ImageSettings, facts: Sequence[ImageFacts], identical: Sequence[Sequence[int]]
) -> str | None:
    """Cache the facts and the sets of nearly identical images; returns a note if that fails."""
    file = _cache_file(refs, reading)
    if file is None:
        return None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        rows = [list(asdict(fact).values()) for fact in facts]
        with atomic_write(file) as part:
            part.write_text(json.dumps({"facts": rows, "near_identical": identical}), encoding="utf-8")
        cached = sorted(file.parent.glob("*.json"), key=lambda item: item.stat().st_mtime)
        for old in cached[:-_MOST]:
            old.unlink(missing_ok=True)
    except (OSError, RadtransferError) as error:
        return cache_note(error)
    return None


def _cache_file(refs: Sequence[ImageRef | None], reading: ImageSettings) -> Path | None:
    """The cache file for these images; None if one is missing."""
    if None in refs:
        return None
    with contextlib.suppress(OSError):
        key = unchanged_key(refs, f"{_VERSION} {reading.window} {reading.fundus_crop}")
        return cache_folder() / "checked" / f"{key}.json"


class BadImage(NamedTuple):
    """An image that cannot be read: its path in the table, and the reason."""

    path: str
    reason: str


@dataclass(frozen=True)
class CheckedImages:
    """The readable and the unreadable images of a table."""

    table: ImageTable  # readable images
    facts: tuple[ImageFacts, ...]  # in the order of `table`
    bad: tuple[BadImage, ...]
    near_identical: Sequence[Sequence[int]] = ()  # sets of rows of `table`


def check_images(
    table: ImageTable,
    *,
    workers: int,
    on_bad_image: Literal["error", "skip"],
    report_file: Path | None,
    reading: ImageSettings | None = None,
    progress: Progress | None = None,
) -> CheckedImages:
    """Decode every image once in `workers` threads, unless all were readable before and no file has changed.

    Unreadable images raise DataError, or are skipped with `on_bad_image="skip"` if others are left; `report_file` gets
    a line of path, tab and reason for each, and is removed if there are none.
    """
    progress, reading = progress or Progress(), reading or ImageSettings()
    known = read_check_cache(table.files, reading)
    if known is not None:
        _report([], report_file)
        progress.note(f"all {len(table)} images were checked before, and no file has changed since")
        return CheckedImages(table, known[0], (), known[1])
    require_keras()  # images are decoded by TensorFlow, in threads

    def examine(ref: ImageRef | None) -> tuple | str:
        try:
            return "not found" if ref is None else examine_image(ref, reading)
        except BadImageError as error:
            return error.reason

    findings = []
    with closing(in_parallel(examine, table.files, workers=workers)) as batches:
        for batch in batches:
            findings += batch
            progress.count("images checked", len(findings), len(table))
    bad = [BadImage(path, found) for path, found in zip(table.paths, findings, strict=True) if isinstance(found, str)]
    _report(bad, report_file)
    if bad and (on_bad_image == "error" or len(bad) == len(table)):
        raise DataError(_message(bad, len(table), report_file))
    if bad:
        where = f"; see {report_file}" if report_file else ""
        progress.note(f"{len(bad)} of {len(table)} images cannot be read and are skipped{where}")
    good = [found for found in findings if not isinstance(found, str)]
    facts = tuple(found[0] for found in good)
    contradictions = Counter(note for fact in facts for note in fact.notes)
    notes = [
        f"header and pixels contradict each other in {count} of {len(findings)} images: {note}"
        for note, count in contradictions.items()
    ]
    spans: dict[tuple[float, float], list[tuple[float, float]]] = {}
    for fact, values, _ in good:
        if values is not None:
            spans.setdefault(fact.levels, []).append(values)
    for (first, last), values in spans.items():
        low, high = min(low for low, _ in values), max(high for _, high in values)
        if high - low < 65536 // 8:  # probably 12-bit data
            notes.append(
                f"the {len(values)} 16-bit images use only the values {low:g} to {high:g} of {first:.0f} to "
                f"{last:.0f}, so they have little contrast; use --window minmax or --window CENTRE,WIDTH"
            )
    for note in notes:
        progress.note(note)
    identical = near_identical([found[2] for found in good])
    if not bad and not notes and (note := write_check_cache(table.files, reading, facts, identical)):
        progress.note(note)
    readable = np.array([not isinstance(found, str) for found in findings])
    return CheckedImages(table.select(readable) if bad else table, facts, tuple(bad), identical)


def _report(bad: Sequence[BadImage], report_file: Path | None) -> None:
    if report_file is None:
        return
    if bad:
        with writing(report_file):
            report_file.parent.mkdir(parents=True, exist_ok=True)
        write_text(report_file, "".join(f"{printable(image.path)}\t{printable(image.reason)}\n" for image in bad))
    else:
        report_file.unlink(missing_ok=True)


def _message(bad: Sequence[BadImage], total: int, report_file: Path | None) -> str:
    limit = 3 if report_file else 20
    shown = ", ".join(f"{image.path!r} ({image.reason})" for image in bad[:limit])
    more = ", …" if len(bad) > limit else ""
    full = f" Full list: {report_file}." if report_file else ""
    missing = sum(image.reason == "not found" for image in bad)
    found = "Correct their paths, or give their folder with --image-root"
    advice = "Repair or remove them" if missing < len(bad) else found
    some_missing = f" {missing} were not found: is --image-root right?" if 0 < missing < len(bad) else ""
    skip = ", or skip them with --on-bad-image skip" if len(bad) < total else ""
    return f"{len(bad)} of {total} images cannot be read: {shown}{more}.{full}{some_missing} {advice}{skip}."


SIDE = 64  # of the miniature, pixels
CORRELATION = 0.98  # of nearly identical miniatures, at least
MOST = 100_000  # images above which pairs are not compared (a few minutes on two cores, 0.4 GB)
_LEAST_RANGE = 16  # a smaller range of a miniature of 8 bits is nearly constant
_CHUNK = 512


def miniature(pixels: np.ndarray) -> np.ndarray | None:
    """The grayscale miniature, uint8 (64, 64), of an image (height, width, 3); None if it is nearly constant."""
    how = Image.Resampling.BOX if min(pixels.shape[:2]) >= SIDE else Image.Resampling.BILINEAR
    if pixels.dtype == np.uint8:
        small = np.asarray(Image.fromarray(pixels).convert("L").resize((SIDE, SIDE), how))
        return small if int(small.max()) - int(small.min()) >= _LEAST_RANGE else None
    grey = Image.fromarray(pixels.mean(axis=-1, dtype="float32"))
    small = np.asarray(grey.resize((SIDE, SIDE), how))
    low, span = float(small.min()), float(np.ptp(small))
    return ((small - low) * (255 / span)).astype(np.uint8) if 0 < span < np.inf else None


def near_identical(miniatures: Sequence[np.ndarray | None]) -> list[list[int]]:
    """Connected sets of two or more indices of nearly identical images, each sorted.

    Means over blocks of 8×8 pixels, which bound the correlation, exclude most pairs first.
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


_SIDE = 256  # longer side of the reduced image, pixels
_DARK = 0.15  # the background is below this fraction of the bright level
_LEAST = 0.2  # smallest fraction of the image for the disc


def retina_box(pixels: np.ndarray) -> tuple[int, int, int, int] | None:
    """Top, left, height and width of the disc of a fundus photograph; None without a dark background around it.

    The disc is the largest connected area brighter than 15 % of the 90th percentile. `pixels` is (height, width, 3).
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


def examine_images(refs: Sequence[ImageRef], reading: ImageSettings) -> tuple[ImageFacts, ...]:
    """The facts of checked images, decoded only if the settings need it; BadImageError if one cannot be read."""
    facts = tuple(map(inspect_image, refs))
    if reading.fundus_crop or any(fact.deep for fact in facts):
        require_keras()
        return tuple(examine_image(ref, reading)[0] for ref in refs)
    return facts


def read_pixels(
    ref: ImageRef, facts: ImageFacts, *, window: str = "auto", ratio: int = 1, notes: list[str] | None = None
) -> np.ndarray:
    """The pixels of an image by the decoder of training, before EXIF rotation.

    A JPEG is decoded at 1/ratio of its size (1, 2, 4 or 8). `window` is the setting `images.window`; contradictions
    between header and pixels are added to `notes`.

    Returns:
        (height, width, 3), RGB: uint8; uint16 for a 16-bit PNG; float32, 0–255, for formats not read by TensorFlow.
    """
    if facts.decoder == "pixels":
        return np.frombuffer(image_contents(ref), np.uint8).reshape(facts.height, facts.width, 3)
    if facts.decoder not in ("jpeg", "png8", "png16"):
        return decode_outside(ref, facts, window, notes=notes)
    import tensorflow as tf

    data = image_contents(ref)
    # TensorFlow rejects such a file too, but its JPEG library prints to the terminal.
    if facts.decoder == "jpeg" and b"\xff\xd9" not in data:
        raise BadImageError(ref, "truncated")
    try:
        if facts.decoder == "jpeg":
            return tf.io.decode_jpeg(data, channels=3, ratio=ratio).numpy()
        return tf.io.decode_png(data, channels=3, dtype=tf.uint16 if facts.decoder == "png16" else tf.uint8).numpy()
    except tf.errors.InvalidArgumentError as error:
        end = b"\xff\xd9" if facts.decoder == "jpeg" else b"IEND\xaeB`\x82"
        whole = data.rstrip(b"\0").endswith(end)
        raise BadImageError(ref, kind_of_jpeg(ref) or ("damaged" if whole else "truncated")) from error


def decode_checked(ref: ImageRef, facts: ImageFacts, *, window: str, ratio: int = 1) -> tuple[ImageFacts, np.ndarray]:
    """The facts with notes, and the pixels (`stored_values` of deep images); BadImageError if damaged."""
    notes: list[str] = []
    if facts.deep and facts.decoder == "pillow":
        pixels = stored_values(ref)
    else:
        pixels = read_pixels(ref, facts, window=window, ratio=ratio, notes=notes)
    if pixels.shape != (-(-facts.height // ratio), -(-facts.width // ratio), 3):
        raise BadImageError(ref, f"damaged: {pixels.shape} pixels, its header says {facts.width}×{facts.height}")
    return replace(facts, notes=tuple(notes)), pixels


def examine_image(
    ref: ImageRef, reading: ImageSettings
) -> tuple[ImageFacts, tuple[float, float] | None, np.ndarray | None]:
    """Decode an image once (a JPEG at reduced size, which still reads the whole file).

    Returns the facts, the smallest and largest value of a 16-bit image used at full range, and the miniature. Raises
    BadImageError if it cannot be read.
    """
    facts = inspect_image(ref)
    ratio = 1
    if facts.decoder == "jpeg":  # large enough for the miniature; at 1/8 for the disc
        ratios = [ratio for ratio in (1, 2, 4, 8) if ratio == 1 or min(facts.height, facts.width) >= ratio * SIDE]
        ratio = 8 if reading.fundus_crop else ratios[-1]
    (facts, pixels), values = decode_checked(ref, facts, window=reading.window, ratio=ratio), None
    if facts.deep and facts.decoder in ("pillow", "png16"):
        values = float(pixels.min()), float(pixels.max())
        # By default the range of the format, or of the values if that is larger.
        low, high = facts.levels
        auto = facts.levels if low <= values[0] and values[1] <= high else span(*values)
        facts = replace(facts, levels=parse_window(reading.window).levels(*values, auto=auto))
    if reading.fundus_crop and (box := retina_box(pixels)):
        top, left, height, width = (ratio * value for value in box)  # in pixels of the whole
        facts = replace(facts, disc=(top, left, min(height, facts.height - top), min(width, facts.width - left)))
    noted = reading.window == "auto" and facts.levels in (SIXTEEN_BITS, SIGNED_SIXTEEN_BITS)
    return facts, values if noted else None, miniature(pixels)


def image_contents(ref: ImageRef) -> bytes:
    """The bytes of an image."""
    try:
        return read_contents(ref)
    except OSError as error:
        raise BadImageError(ref, f"cannot be read ({error.strerror})") from None
