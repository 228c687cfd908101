"""Every image of a data set, decoded once before training by the decoder that training will use.

What was found is kept: files that have not changed are not decoded again.
"""

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
from radtransfer.files import printable, writing
from radtransfer.images.formats import ImageFacts, decode_outside, inspect_image, kind_of_jpeg, stored_values
from radtransfer.images.refs import SIGNED_SIXTEEN_BITS, SIXTEEN_BITS, ImageRef, parse_window, read_contents, span
from radtransfer.process import Progress, in_parallel, require_keras
from radtransfer.runs.cache import cache_folder, cache_note
from radtransfer.runs.folder import write_text

_VERSION = 4  # raised whenever more is found out about an image, or more is objected to
_MOST = 100  # data sets that are remembered


def recall(
    places: Sequence[ImageRef | None], reading: ImageSettings
) -> tuple[tuple[ImageFacts, ...], list[list[int]]] | None:
    """What was remembered of these images, if all of them were found good before and none has changed since."""
    file = _file(places, reading)
    if file is None:
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        rows = ([tuple(value) if isinstance(value, list) else value for value in row] for row in found["facts"])
        facts, alike = tuple(ImageFacts(*row) for row in rows), found["near_identical"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    with contextlib.suppress(OSError):
        file.touch()
    return facts, alike


def remember(
    places: Sequence[ImageRef], reading: ImageSettings, facts: Sequence[ImageFacts], alike: Sequence[Sequence[int]]
) -> str | None:
    """Keep the facts and the sets of nearly identical images; gives what is to be said where they cannot be kept."""
    file = _file(places, reading)
    if file is None:
        return None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        rows = [list(asdict(fact).values()) for fact in facts]
        write_text(file, json.dumps({"facts": rows, "near_identical": alike}))
        kept = sorted(file.parent.glob("*.json"), key=lambda item: item.stat().st_mtime)
        for old in kept[:-_MOST]:
            old.unlink(missing_ok=True)
    except (OSError, RadtransferError) as error:
        return cache_note(error)
    return None


def _file(places: Sequence[ImageRef | None], reading: ImageSettings) -> Path | None:
    """Where the facts of these files are kept; None where one is missing."""
    if None in places:
        return None
    with contextlib.suppress(OSError):
        key = unchanged_key(places, f"{_VERSION} {reading.window} {reading.fundus_crop}")
        return cache_folder() / "checked" / f"{key}.json"


class BadImage(NamedTuple):
    """An image that cannot be read: its path in the table, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class CheckedImages:
    """The images that can be read, and those that cannot."""

    table: ImageTable  # the readable images
    facts: tuple[ImageFacts, ...]  # how each of them is stored, in the order of `table`
    bad: tuple[BadImage, ...]  # the others
    near_identical: Sequence[Sequence[int]] = ()  # sets of rows of `table` whose images are nearly identical


def check_images(
    table: ImageTable,
    *,
    workers: int,
    on_bad_image: Literal["error", "skip"],
    report_file: Path | None,
    reading: ImageSettings | None = None,
    progress: Progress | None = None,
) -> CheckedImages:
    """Decode every image once, `workers` at a time; find all that are missing, empty, corrupt, truncated or too large.

    Images that were all found good before are not decoded again as long as no file has changed. Bad ones raise
    DataError, or are left out if `on_bad_image` is "skip" and others are left; `report_file` gets a line of path, tab
    and reason for each, and is removed if there are none.
    """
    progress, reading = progress or Progress(), reading or ImageSettings()
    known = recall(table.files, reading)
    if known is not None:
        _report([], report_file)
        progress.note(f"all {len(table)} images were checked before, and no file has changed since")
        return CheckedImages(table, known[0], (), known[1])
    require_keras()  # images are decoded by TensorFlow, in threads

    def examine(place: ImageRef | None) -> tuple | str:
        try:
            return "not found" if place is None else examine_image(place, reading)
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
        progress.note(f"{len(bad)} of {len(table)} images cannot be read and are left out{where}")
    good = [found for found in findings if not isinstance(found, str)]
    facts = tuple(found[0] for found in good)
    disagreeing = Counter(note for fact in facts for note in fact.notes)
    notes = [
        f"header and pixels disagree in {count} of {len(findings)} images: {n}" for n, count in disagreeing.items()
    ]
    spans: dict[tuple[float, float], list[tuple[float, float]]] = {}
    for fact, values, _ in good:
        if values is not None:
            spans.setdefault(fact.levels, []).append(values)
    for (first, last), values in spans.items():
        low, high = min(least for least, _ in values), max(greatest for _, greatest in values)
        if high - low < 65536 // 8:  # 12-bit data, mostly
            notes.append(
                f"the {len(values)} 16-bit images use only the values {low:g} to {high:g} of {first:.0f} to "
                f"{last:.0f}, so they have little contrast; --window minmax or --window CENTRE,WIDTH gives them more"
            )
    for note in notes:
        progress.note(note)
    alike = near_identical([found[2] for found in good])
    if not bad and not notes and (note := remember(table.files, reading, facts, alike)):
        progress.note(note)
    readable = np.array([not isinstance(found, str) for found in findings])
    return CheckedImages(table.select(readable) if bad else table, facts, tuple(bad), alike)


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
    skip = ", or go on without them with --on-bad-image skip" if len(bad) < total else ""
    return f"{len(bad)} of {total} images cannot be read: {shown}{more}.{full}{some_missing} {advice}{skip}."


SIDE = 64  # of the miniature, pixels


CORRELATION = 0.98


MOST = 100_000  # images of which all pairs are compared: a few minutes on two cores, and 0.4 GB. Of more, none are
_LEAST_RANGE = 16  # a miniature of 8 bits whose values span less shows nothing, and would look like any other such


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


_SIDE = 256  # pixels of the longer side that are looked at
_DARK = 0.15  # of the bright level, a fraction: the background is below
_LEAST = 0.2  # of the image, a fraction: what is smaller is not the disc


def retina_box(pixels: np.ndarray) -> tuple[int, int, int, int] | None:
    """Top, left, height and width of the disc, or None where there is no dark background around one disc.

    The disc is the largest connected area brighter than 15 % of the image's bright level (its 90th percentile);
    text and reflections beside it do not count. `pixels` are (height, width, 3), of any range.
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


def examine_images(places: Sequence[ImageRef], reading: ImageSettings) -> tuple[ImageFacts, ...]:
    """How images that were checked before are stored; they are decoded only where the way of reading asks for it.

    Raises BadImageError if one cannot be read.
    """
    facts = tuple(map(inspect_image, places))
    if reading.fundus_crop or any(fact.deep for fact in facts):
        require_keras()
        return tuple(examine_image(place, reading)[0] for place in places)
    return facts


def read_pixels(
    place: ImageRef, facts: ImageFacts, *, window: str = "auto", ratio: int = 1, notes: list[str] | None = None
) -> np.ndarray:
    """The pixels of an image by the decoder that training uses, not turned.

    A JPEG is decoded at 1/ratio of its size: 1, 2, 4 or 8. `window` is the setting `images.window`; `notes` gets what
    header and pixels disagree in.

    Returns:
        (height, width, 3), RGB: uint8; uint16 for a 16-bit PNG; float32, 0–255, for what TensorFlow does not read.
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
    place: ImageRef, reading: ImageSettings
) -> tuple[ImageFacts, tuple[float, float] | None, np.ndarray | None]:
    """The facts of an image that is decoded once; a JPEG at an eighth, which reads all of the file as well.

    Returns:
        The facts, the smallest and largest value of an image that is taken at the full range of 16 bits, and the
        miniature by which nearly identical images are found. Raises BadImageError if it cannot be read.
    """
    facts = inspect_image(place)
    ratio = 1
    if facts.decoder == "jpeg":  # the miniature needs its pixels; a disc is looked for in an eighth, whatever the size
        ratios = [ratio for ratio in (1, 2, 4, 8) if ratio == 1 or min(facts.height, facts.width) >= ratio * SIDE]
        ratio = 8 if reading.fundus_crop else ratios[-1]
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
        # What becomes 0 and 255: by itself what the format has, or all that is there where it is more.
        low, high = facts.levels
        auto = facts.levels if low <= values[0] and values[1] <= high else span(*values)
        facts = replace(facts, levels=parse_window(reading.window).levels(*values, auto=auto))
    if reading.fundus_crop and (box := retina_box(pixels)):
        top, left, height, width = (ratio * value for value in box)  # in pixels of the whole
        facts = replace(facts, disc=(top, left, min(height, facts.height - top), min(width, facts.width - left)))
    noted = reading.window == "auto" and facts.levels in (SIXTEEN_BITS, SIGNED_SIXTEEN_BITS)
    return facts, values if noted else None, miniature(pixels)


def image_contents(place: ImageRef) -> bytes:
    """The bytes of an image."""
    try:
        return read_contents(place)
    except OSError as error:
        raise BadImageError(place, f"cannot be read ({error.strerror})") from None
