"""The checks of a data set; `radtransfer data check` runs all `CHECKS`.

Every image is decoded once at full size by the decoder of training (`survey_images`). A check is a function of these
records and the table and yields findings; it reads no file. To add one, write it here and add it to `CHECKS`. Its
docstring starts with the kinds of its findings and their severity.
"""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import combinations
from typing import Literal

import numpy as np
from PIL import Image

from radtransfer.data.image_check import MOST, decode_checked, image_contents, miniature, near_identical
from radtransfer.data.labels import listed
from radtransfer.data.splits import Fold, frame_identities, image_identities, opposite_rows
from radtransfer.data.table import ImageTable
from radtransfer.errors import BadImageError
from radtransfer.images.formats import ImageFacts, inspect_image, open_image
from radtransfer.images.refs import FilePart, ImageRef
from radtransfer.images.tiff import TiffValues
from radtransfer.process import Progress, in_parallel, require_keras

GRID = (8, 9)  # rows and columns of the grayscale miniature for difference hashes

_MODES = {"1": "black and white", "L": "grey", "LA": "grey with alpha", "P": "palette", "PA": "palette"}
_MODES |= {"RGBA": "RGB with alpha"}

_REASONS = {
    r"not found|a dangling link": "missing",
    r"an empty file": "empty_file",
    r"an HTML page|a Git LFS pointer|a git-annex pointer|the path of a link|not an? ": "not_an_image",
    r"its .* are above": "too_large",
    r"cannot be |a DICOM file, which|its |.*which is not read": "unreadable",
    r"truncated|.*(is truncated|Truncated|truncated before)": "truncated",  # the middle two are Pillow's words
}
"""Pattern of the reason of a `BadImageError` to kind of finding; any other is "corrupt"."""


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """What the checks need to know of one image; the rest is set only without a `problem`."""

    problem: str = ""  # kind of finding if it cannot be read
    reason: str = ""  # the problem in words
    facts: ImageFacts | None = None
    mode: str = ""  # "RGB", "grey", "16-bit grey", "signed 16-bit RGB", "float grey", "DICOM", …
    contents: bytes = b""  # hash of its bytes; b"" for one of several frames of a file
    pixels: bytes = b""  # hash of its pixels at full size, before EXIF rotation
    grid: np.ndarray | None = None  # grayscale, uint8 (8, 9); None if nearly constant
    miniature: np.ndarray | None = None  # grayscale, uint8 (64, 64), for near-identical images; None if nearly constant
    low: float = 0.0  # smallest pixel value before windowing, with the range of the format as 0–255
    high: float = 0.0  # largest
    spread: float = 0.0  # standard deviation of a sample of the pixels, same unit

    @property
    def deep_integers(self) -> bool:
        """Whether the values are integers of more than 8 bits, DICOM excluded."""
        return "-bit " in self.mode

    @property
    def floats(self) -> bool:
        """Whether the values are floats, used as 0–255."""
        return self.mode.startswith("float ")


def survey_images(table: ImageTable, *, workers: int, window: str, progress: Progress) -> tuple[ImageRecord, ...]:
    """Decode every image once with `workers` threads; `window` is the setting `images.window`."""
    require_keras()  # images are decoded by TensorFlow, in threads
    records: list[ImageRecord] = []
    survey = partial(survey_image, window=window)
    with closing(in_parallel(survey, table.files, workers=workers)) as batches:
        for batch in batches:
            records += batch
            progress.count("images checked", len(records), len(table))
    return tuple(records)


def survey_image(ref: ImageRef | None, *, window: str = "auto") -> ImageRecord:
    """The record of one image; one that cannot be read has a `problem`."""
    if ref is None:
        return ImageRecord("missing", "not found")
    try:
        facts, pixels = decode_checked(ref, inspect_image(ref), window=window)
        data = b"" if isinstance(ref, FilePart) and ref.length is None else image_contents(ref)
        mode = _mode(ref, facts)
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
    grey = pixels
    if pixels.dtype != np.uint8:
        grey = ((pixels - low) * (255.0 / max(high - low, 1e-9))).astype(np.uint8)
    grid = np.asarray(Image.fromarray(grey).convert("L").resize(GRID[::-1], Image.Resampling.BOX))
    if int(grid.max()) - int(grid.min()) < 16:  # nearly constant images are all similar
        grid = None
    return ImageRecord(
        facts=facts,
        mode=mode,
        contents=hashlib.blake2b(data, digest_size=16).digest() if data else b"",
        pixels=digest.digest(),
        grid=grid,
        miniature=miniature(pixels),
        low=255 - high if facts.inverted else low,
        high=255 - low if facts.inverted else high,
        spread=float(pixels[::step, ::step].std(dtype=np.float64)),
    )


def _plain(pixels: np.ndarray, levels: tuple[float, float]) -> np.ndarray:
    """The pixels as uint8 if that is lossless, else float32, with `levels` as 0–255."""
    if pixels.dtype == np.uint8:
        return pixels
    low, high = levels
    if levels != (0.0, 255.0):
        pixels = (pixels.astype("float32") - np.float32(low)) * np.float32(255.0 / (high - low))
    pixels = pixels.astype("float32", copy=False)
    if pixels.min() < 0 or pixels.max() > 255 or (pixels != np.rint(pixels)).any():
        return pixels
    return pixels.astype(np.uint8)


def _mode(ref: ImageRef, facts: ImageFacts) -> str:
    if facts.decoder in ("pixels", "dicom"):
        return {"pixels": "RGB", "dicom": "DICOM"}[facts.decoder]
    with open_image(ref) as image:
        mode = image.mode
        if isinstance(image, TiffValues):
            return mode
    if facts.deep:
        return "16-bit grey" if mode.startswith("I") or mode == "L" else "16-bit RGB"
    return _MODES.get(mode, mode)


# An error makes results invalid or stops training, a warning may make them misleading.
SEVERITIES = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """A result of a check."""

    kind: str  # such as "leak"
    severity: Literal["error", "warning", "note"]  # one of `SEVERITIES`
    message: str  # one sentence with numbers
    files: tuple[str, ...] = ()  # paths of the images concerned; none: the whole data set
    patients: tuple[str, ...] = ()  # patients concerned


Findings = Iterator[Finding]


@dataclass(frozen=True, eq=False)
class Evidence:
    """What checks look at."""

    table: ImageTable
    records: Sequence[ImageRecord]  # in the order of `table`
    folds: Sequence[Fold]  # as in training; none if they cannot be drawn
    image_size: int  # pixels
    skip_bad: bool = False  # whether training skips unreadable images
    window: str = "auto"
    positive_from: int | None = None  # lowest positive grade

    @cached_property
    def readable(self) -> list[int]:
        return [row for row, record in enumerate(self.records) if not record.problem]

    @cached_property
    def row_of(self) -> dict[str, int]:
        return {path: row for row, path in enumerate(self.table.paths)}

    @cached_property
    def labels(self) -> tuple[str, ...]:
        return self.table.labels

    @cached_property
    def class_modes(self) -> dict[str, dict[str, int]]:
        """Class or label to number of images per mode, the most common mode first."""
        modes = np.array([record.mode for record in self.records], dtype=object)
        order = [mode for mode, _ in Counter(modes[self.readable].tolist()).most_common()]
        return {
            name: {mode: int(((modes == mode) & (column == 1)).sum()) for mode in order}
            for name, column in zip(self.table.classes, self.table.targets.T, strict=True)
        }

    def files(self, rows: Iterable[int]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.table.paths[row] for row in rows))

    def values(self, rows: Sequence[int]) -> tuple[float, float]:
        """The smallest and largest pixel value of some images."""
        return min(self.records[row].low for row in rows), max(self.records[row].high for row in rows)

    def crossed(self, rows: Sequence[int]) -> str:
        """The splits and folds of rows that are in several splits of one fold, in words; else ""."""
        found: dict[str, list[int]] = {}
        for fold in self.folds:
            splits = set(fold.split[list(rows)])
            names = [name for name in ("train", "val", "test") if name in splits]
            if len(names) > 1:
                found.setdefault(" and ".join(names), []).append(fold.number)
        return "; ".join(
            f"{names} of fold{'s' * (len(numbers) > 1)} {listed(map(str, numbers), 6)}"
            for names, numbers in found.items()
        )

    def contradiction(self, rows: Sequence[int]) -> str:
        """How the labels of copies of one image contradict each other, in words; else ""."""
        targets = self.table.targets[list(rows)]
        clashing = ((targets == 0).any(axis=0) & (targets == 1).any(axis=0)).nonzero()[0]
        if not clashing.size:
            return ""
        names = listed((self.table.classes[column] for column in clashing), 6)
        return f"with and without the label {names}" if self.table.task == "multilabel" else f"labelled {names}"


def counted(number: int, what: str) -> str:
    """A number and its noun: 1 image, 2 images."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def unreadable(evidence: Evidence) -> Findings:
    """Missing, empty_file, not_an_image, truncated, corrupt, too_large, unreadable: errors, or warnings if skipped."""
    severity = "warning" if evidence.skip_bad else "error"
    for path, record in zip(evidence.table.paths, evidence.records, strict=True):
        if record.problem:
            yield Finding(record.problem, severity, record.reason, (path,))


def duplicates(evidence: Evidence) -> Findings:
    """Contradictory_labels (error), leak (error), duplicate (warning): the same file or frame, bytes, or pixels.

    Frames of one file are different images of one patient.
    """
    identities = frame_identities(evidence.table)
    for rows in _same_images(evidence, identities):
        files = evidence.files(rows)
        same = "the image" if len(files) == 1 else f"{counted(len(files), 'file')} of the same image"
        labels, crossed = evidence.contradiction(rows), evidence.crossed(rows)
        if labels:
            yield Finding("contradictory_labels", "error", f"{same}, {labels}; correct or remove them", files)
        if crossed:
            yield Finding("leak", "error", f"{same} in {crossed}; keep one, or give all the same patient", files)
        if not (labels or crossed) and len(files) > 1:
            yield Finding("duplicate", "warning", f"{same}, which counts {len(files)} times", files)
    rows_of: dict[Hashable, list[int]] = {}
    for row, (file, _) in enumerate(identities):
        rows_of.setdefault(file, []).append(row)
    for rows in rows_of.values():
        if len({identities[row] for row in rows}) > 1 and (crossed := evidence.crossed(rows)):
            yield Finding("leak", "error", f"frames of one file in {crossed}; keep them together", evidence.files(rows))


def _same_images(evidence: Evidence, identities: Iterable[Hashable]) -> list[list[int]]:
    """Sets of two or more rows with the same image, by `identities`, bytes or pixels; constant images do not count."""
    links = [(row, ("file", identity)) for row, identity in enumerate(identities)]
    for row in evidence.readable:
        record = evidence.records[row]
        if record.low < record.high:
            links += [(row, ("contents", record.contents))] if record.contents else []
            links.append((row, ("pixels", record.pixels)))
    return linked(links)


def linked(links: Iterable[tuple[int, object]]) -> list[list[int]]:
    """Connected sets of two or more rows, each sorted; `links` are (row, key) pairs."""
    above: dict[object, object] = {}

    def root(item: object) -> object:
        while above.setdefault(item, item) != item:
            above[item] = item = above[above[item]]
        return item

    links = list(links)
    for row, key in links:
        above[root(row)] = root((key,))
    sets: dict[object, list[int]] = {}
    for row in sorted({row for row, _ in links}):
        sets.setdefault(root(row), []).append(row)
    return [rows for rows in sets.values() if len(rows) > 1]


def patients(evidence: Evidence) -> Findings:
    """Leak (error) for each patient in two splits of a fold, no_patients (warning) if unknown."""
    table = evidence.table
    if table.patients is None:
        message = "patients are unknown, so images of one patient may be in both train and test; "
        yield Finding("no_patients", "warning", message + r"give --patient-column or --patient-regex '^(\d+)_'")
    if table.patients is None or table.splits is None:  # folds are drawn by patient
        return
    rows_of: dict[str, list[int]] = {}
    for row, key in enumerate(table.patient_keys):
        rows_of.setdefault(key, []).append(row)
    for rows in rows_of.values():
        if crossed := evidence.crossed(rows):
            names = tuple(dict.fromkeys(table.patients[row] for row in rows))
            message = f"patient {listed(names, 3)} in {crossed}"
            yield Finding("leak", "error", message, evidence.files(rows), names)


FEW = 5  # fewer patients of a class in a test set make its AUC unreliable
RATIO = 10  # largest to smallest class, from which imbalance is noted
UNEVEN = 1.5  # largest to smallest training set, above which folds are not comparable


def classes(evidence: Evidence) -> Findings:
    """One_class (error; warning in val and test), few_patients, uneven_folds (warnings), imbalance (note)."""
    table = evidence.table
    known = [column[~np.isnan(column)] for column in table.targets.T]
    if not any(len(values) and values.min() < values.max() for values in known):
        yield Finding("one_class", "error", f"all images have the same labels: {listed(table.classes, 3)}")
        return
    counts = (table.targets == 1).sum(axis=0)
    if table.task != "multilabel" and counts.max() >= RATIO * counts.min():
        most, least = table.classes[counts.argmax()], table.classes[counts.argmin()]
        message = f"{counts.max()} images of {most} and {counts.min()} of {least}; consider --class-weights balanced"
        yield Finding("imbalance", "note", message)
    sizes = {fold.number: int((fold.split == "train").sum()) for fold in evidence.folds}
    if sizes and max(sizes.values()) > UNEVEN * min(sizes.values()):
        most, least = max(sizes, key=sizes.get), min(sizes, key=sizes.get)
        message = (
            f"fold {most} trains on {counted(sizes[most], 'image')}, fold {least} on {sizes[least]}: the folds are not "
            "comparable, so their mean and standard deviation are misleading; balance them"
        )
        yield Finding("uneven_folds", "warning", message)
    scored = _scored_targets(evidence)
    columns = np.stack(list(scored.values()), axis=1)
    for fold in evidence.folds:
        for name in ("val", "test"):
            targets = columns[fold.split == name]
            if not ((targets == 1).any(axis=0) & (targets == 0).any(axis=0)).any():
                message = f"{name} of fold {fold.number} has images of at most one class: its AUC is undefined"
                yield Finding("one_class", "warning", message)
    what = "image" if table.patients is None else "patient"
    groups = np.unique(np.array(table.patient_keys or table.paths, dtype=object), return_inverse=True)[1]
    for name, column in scored.items():
        sizes = {fold.number: len(np.unique(groups[(fold.split == "test") & (column == 1)])) for fold in evidence.folds}
        if sizes and min(sizes.values()) < FEW:
            fold = min(sizes, key=sizes.get)
            found = counted(sizes[fold], what)
            message = f"the test set of fold {fold} has only {found} of {name}: its AUC is unreliable"
            yield Finding("few_patients", "warning", message)


def _scored_targets(evidence: Evidence) -> dict[str, np.ndarray]:
    """Targets of the AUCs by name: the classes, or grades on both sides of `positive_from`."""
    table, limit = evidence.table, evidence.positive_from
    if limit is None or table.task == "multilabel" or not all(re.fullmatch(r"[+-]?\d+", n) for n in table.classes):
        return dict(zip(table.classes, table.targets.T, strict=True))
    reached = table.targets[:, [int(name) >= limit for name in table.classes]].any(axis=1)
    return {f"grade ≥ {limit}": reached * 1.0, f"grade < {limit}": ~reached * 1.0}


NEARLY_CONSTANT = 8  # of 256 levels: a smaller range of values is nearly constant
LEAST_SPREAD = 1.0  # levels: so is a smaller standard deviation


def constant(evidence: Evidence) -> Findings:
    """Constant (error), nearly_constant (warning); more than 8 bits are checked by `value_range`."""
    for row in evidence.readable:
        record, files = evidence.records[row], (evidence.table.paths[row],)
        if record.low == record.high:
            yield Finding("constant", "error", f"all pixels are {record.low:g}; remove the image", files)
        elif record.floats or record.deep_integers:
            continue
        elif record.high - record.low < NEARLY_CONSTANT or record.spread < LEAST_SPREAD:
            span = f"values from {record.low:g} to {record.high:g}, SD {record.spread:.2g}"
            yield Finding("nearly_constant", "warning", f"{span}; inspect the image", files)


BITS = 2  # largest distance between difference hashes of similar images
DIFFERENCE = 3.5  # largest mean absolute difference between their grids, of 255


def near_duplicates(evidence: Evidence) -> Findings:
    """Near_duplicate (error or warning): similar images with different labels or in two splits.

    An error if they are nearly identical (`image_check.near_identical`), in two splits, and have opposite labels; else
    a warning. Images are also similar if their difference hashes differ in at most two of 64 bits and their grids by at
    most `DIFFERENCE`: this finds copies with drawn marks (37 more pairs in BUSI), and seven false pairs among 3,000
    synthetic fundus photographs.

    References:
        Krawetz 2013, Kind of Like That, hackerfactor.com (difference hash).
        Al-Dhabyani et al. 2020, Dataset of breast ultrasound images, Data in Brief 28.
    """
    rows = [row for row in evidence.readable if evidence.records[row].grid is not None]
    same = enumerate(_same_images(evidence, image_identities(evidence.table)), start=1)
    same = {row: number for number, found in same for row in found}
    identical = near_identical([record.miniature for record in evidence.records])
    targets, splits = evidence.table.targets, [fold.split for fold in evidence.folds]
    opposite = {
        row for found in identical if any(opposite_rows(targets, split, found) for split in splits) for row in found
    }
    links = [
        (rows[member], pair) for pair in similar_pairs([evidence.records[row].grid for row in rows]) for member in pair
    ]
    links += [(row, number) for number, found in enumerate(identical) for row in found]
    for found in linked(links):
        if len({same.get(row, -row) for row in found}) == 1:
            continue
        labels, crossed = evidence.contradiction(found), evidence.crossed(found)
        where = "; ".join(filter(None, (labels, f"in {crossed}" if crossed else "")))
        if not where:
            continue
        files = evidence.files(found)
        severity, similar, advice = "warning", "look similar", "are they from one patient?"
        if not opposite.isdisjoint(found):
            severity, similar, advice = "error", "are nearly identical", "correct the labels, or keep one"
        message = f"{counted(len(files), 'image')} that {similar}, {where}; {advice}"
        yield Finding("near_duplicate", severity, message, files)
    if len(evidence.readable) > MOST:
        yield Finding("near_duplicate", "note", f"more than {MOST:,} images: nearly identical images were not searched")


def similar_pairs(grids: Sequence[np.ndarray]) -> list[tuple[int, int]]:
    """Pairs of similar grids (8, 9), enough to connect every set of similar images.

    Hashes that differ in two bits have at least two equal bands of four; only such images are compared.
    """
    if len(grids) < 2:
        return []
    images = np.stack(grids).astype(np.int16)
    brighter = (images[:, :, 1:] > images[:, :, :-1]).reshape(len(images), 64)
    # Each band has bits from every row and column, so that a black half does not make bands equal.
    hashes = np.packbits(brighter[:, np.arange(64) * 27 % 64], axis=1)
    bands = np.ascontiguousarray(hashes).view(np.uint16).astype(np.int64)
    found: set[tuple[int, int]] = set()
    for first, second in combinations(range(4), 2):
        key = bands[:, first] << 16 | bands[:, second]
        order = np.argsort(key, kind="stable")
        for bucket in np.split(order, np.flatnonzero(np.diff(key[order])) + 1):
            found.update(_joining_pairs(bucket, hashes, images))
    return sorted(found)


def _joining_pairs(bucket: np.ndarray, hashes: np.ndarray, images: np.ndarray) -> Iterator[tuple[int, int]]:
    """The pairs within `bucket`; connected images are not compared again."""
    left = bucket
    while len(left) > 1:
        waiting, left = [int(left[0])], left[1:]
        while waiting and len(left):
            row = waiting.pop()
            near = np.bitwise_count(hashes[left] ^ hashes[row]).sum(axis=1) <= BITS
            near[near] = np.abs(images[left[near]] - images[row]).mean(axis=(1, 2)) <= DIFFERENCE
            joined, left = left[near].tolist(), left[~near]
            yield from ((min(row, other), max(row, other)) for other in joined)
            waiting += joined


LEAST_LEVELS = 32  # of 256: a smaller range of deep images has little contrast (12-bit data)


def value_range(evidence: Evidence) -> Findings:
    """Range (warning): values that use little of the range of their format, or exceed it."""
    if evidence.window != "auto":
        return
    records = evidence.records
    deep: dict[tuple[float, float], list[int]] = {}
    for row in evidence.readable:
        if records[row].deep_integers:
            deep.setdefault(records[row].facts.levels, []).append(row)
    for (first, last), rows in deep.items():
        low, high = evidence.values(rows)
        if high - low < LEAST_LEVELS:
            unit, bits = (last - first) / 255, round(math.log2(last - first + 1))
            message = (
                f"{counted(len(rows), 'image')} of {bits} bits, of {first:.0f} to {last:.0f} "
                f"with values from {first + unit * low:.0f} to {first + unit * high:.0f} only, which gives little "
                "contrast; use --window minmax or CENTRE,WIDTH"
            )
            yield Finding("range", "warning", message, evidence.files(rows))
    floats = [row for row in evidence.readable if records[row].floats]
    if outside := [row for row in floats if records[row].low < 0 or records[row].high > 255]:
        low, high = evidence.values(outside)
        message = (
            f"{counted(len(outside), 'image')} of floats from {low:g} to {high:g}, outside 0 to 255, so each is "
            "scaled to its own extremes; use --window CENTRE,WIDTH"
        )
        yield Finding("range", "warning", message, evidence.files(outside))
    if unit := [row for row in floats if records[row].low >= 0 and records[row].high <= 1]:
        message = (
            f"{counted(len(unit), 'image')} of floats from 0 to 1, which are nearly black on the scale 0 to 255; "
            "use --window 0.5,1"
        )
        yield Finding("range", "warning", message, evidence.files(unit))


AREA = 8  # factor to the median area above which a size is unusual
ASPECT = 2  # factor to the median aspect ratio


def sizes(evidence: Evidence) -> Findings:
    """Small_image (note): below the input size; unusual_size (note): far from the median."""
    rows, size = evidence.readable, evidence.image_size
    if not rows:
        return
    facts = [evidence.records[row].facts for row in rows]
    # EXIF orientations from 5 swap height and width.
    sides = np.array([(f.width, f.height) if f.orientation > 4 else (f.height, f.width) for f in facts], float)
    if small := [row for row, pair in zip(rows, sides, strict=True) if pair.min() < size]:
        message = (
            f"{len(small)} of {counted(len(rows), 'image')} smaller than the input of {size} px (--image-size) are "
            f"enlarged; the smallest side has {sides.min():.0f} px"
        )
        yield Finding("small_image", "note", message, evidence.files(small))
    areas, aspects = np.log(sides.prod(axis=1)), np.log(sides[:, 1] / sides[:, 0])
    far = np.abs(areas - np.median(areas)) > np.log(AREA)
    far |= np.abs(aspects - np.median(aspects)) > np.log(ASPECT)
    if far.any():
        height, width = np.median(sides, axis=0)
        message = f"{counted(int(far.sum()), 'image')} of a size or shape far from the median {width:.0f}×{height:.0f}"
        yield Finding("unusual_size", "note", message, evidence.files(np.array(rows)[far].tolist()))


FEW_OF_A_MODE = 20  # with fewer images of a mode, its association with a class may be chance
SHARE = 0.2  # difference between the shares of a mode in two classes that makes it a shortcut


def modes(evidence: Evidence) -> Findings:
    """Mixed_modes (note; warning if associated with a class), orientation (note), header (warning)."""
    records = evidence.records
    (usual, most), *others = Counter(records[row].mode for row in evidence.readable).most_common() or [("", 0)]
    by_class = evidence.class_modes
    totals = {name: sum(found.values()) for name, found in by_class.items()}
    for mode, count in others:
        rows = [row for row in evidence.readable if records[row].mode == mode]
        message = f"{counted(count, 'image')} stored as {mode}, {most} as {usual}"
        shares = [found.get(mode, 0) / totals[name] for name, found in by_class.items() if totals[name]]
        labels = {evidence.labels[row] for row in rows}
        shortcut = count >= FEW_OF_A_MODE and len(shares) > 1
        shortcut = shortcut and (len(labels) == 1 or max(shares) - min(shares) >= SHARE)
        if shortcut:
            parts = (f"{by_class[name].get(mode, 0)} of {totals[name]} {name}" for name in by_class)
            only = f"all {count} are {labels.pop()}; " if len(labels) == 1 else ""
            message += f": {only}{listed(parts, 6)}; possible shortcut (confounder)"
        yield Finding("mixed_modes", "warning" if shortcut else "note", message, evidence.files(rows))
    if turned := [row for row in evidence.readable if records[row].facts.orientation != 1]:
        tags = listed(dict.fromkeys(str(records[row].facts.orientation) for row in turned), 8)
        message = f"{counted(len(turned), 'image')} rotated by EXIF orientation ({tags})"
        yield Finding("orientation", "note", message, evidence.files(turned))
    disagreeing: dict[str, list[int]] = {}
    for row in evidence.readable:
        for note in records[row].facts.notes:
            disagreeing.setdefault(note, []).append(row)
    for note, rows in disagreeing.items():
        message = f"header and pixels of {counted(len(rows), 'image')} contradict each other: {note}"
        yield Finding("header", "warning", message, evidence.files(rows))


CHECKS: tuple[Callable[[Evidence], Findings], ...] = (
    *(unreadable, duplicates, patients, classes, constant, near_duplicates, value_range, sizes, modes),
)
