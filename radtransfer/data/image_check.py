"""Every image of a data set, decoded once before training by the decoder that training will use.

What is found out about one is in `image_examination.py`.

What was found in the images of a data set before: files that have not changed are not decoded again.

Whether images and labels are still those that a run was made of.
"""

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from radtransfer.config.schema import DataSettings, ImageSettings
from radtransfer.data.readers import read_table
from radtransfer.data.survey import examine_image, near_identical
from radtransfer.data.table import ImageTable
from radtransfer.errors import BadImageError, DataError, RadtransferError
from radtransfer.files import printable, writing
from radtransfer.images.formats import ImageFacts
from radtransfer.images.refs import ImagePlace, as_part, file_of
from radtransfer.process import Progress, in_parallel, require_keras
from radtransfer.runs.cache import cache_folder, cache_note
from radtransfer.runs.folder import read_folds, read_run, write_text

_VERSION = 4
"""Raised whenever more is found out about an image, or more is objected to."""

_MOST = 100
"""Data sets that are remembered."""


def recall(
    places: Sequence[ImagePlace | None], reading: ImageSettings
) -> tuple[tuple[ImageFacts, ...], list[list[int]]] | None:
    """What was remembered of these images, if all of them were found good before and none has changed since."""
    file = _file(places, reading)
    if file is None:
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        facts, alike = tuple(_facts(row) for row in found["facts"]), found["near_identical"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    with contextlib.suppress(OSError):
        file.touch()
    return facts, alike


def remember(
    places: Sequence[ImagePlace], reading: ImageSettings, facts: Sequence[ImageFacts], alike: Sequence[Sequence[int]]
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


def _file(places: Sequence[ImagePlace | None], reading: ImageSettings) -> Path | None:
    """Named after every file's place, number, size and times; None where one is missing."""
    digest = hashlib.sha256(f"{_VERSION} {reading.window} {reading.fundus_crop}".encode())
    for place in places:
        if place is None:
            return None
        try:
            status = as_part(place).path.stat()
        except OSError:
            return None
        times = f"{status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
        digest.update(f"{place} {times}\n".encode())
    return cache_folder() / "checked" / f"{digest.hexdigest()[:32]}.json"


def _facts(row: list) -> ImageFacts:
    return ImageFacts(*(tuple(value) if isinstance(value, list) else value for value in row))


@dataclass(frozen=True)
class BadImage:
    """An image that cannot be read: its path in the table, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class CheckedImages:
    """The images that can be read, and those that cannot.

    Attributes:
        table: The readable images.
        facts: How each of them is stored, in the order of `table`.
        bad: The others.
        near_identical: Sets of rows of `table` whose images are nearly identical.
    """

    table: ImageTable
    facts: tuple[ImageFacts, ...]
    bad: tuple[BadImage, ...]
    near_identical: Sequence[Sequence[int]] = ()


@dataclass(frozen=True, slots=True)
class _Finding:
    """What was found in one image: its facts or the reason, the 16-bit values it spans, if any, and its miniature."""

    facts: ImageFacts | None
    reason: str = ""
    values: tuple[float, float] | None = None
    miniature: np.ndarray | None = None


def check_images(
    table: ImageTable,
    *,
    workers: int,
    on_bad_image: Literal["error", "skip"],
    report_file: Path | None,
    reading: ImageSettings | None = None,
    progress: Progress | None = None,
) -> CheckedImages:
    """Decode every image once; find all that are missing, empty, corrupt, truncated or too large.

    Images that were all found good before are not decoded again as long as no file has changed.

    Args:
        table: The images.
        workers: Images decoded at the same time.
        on_bad_image: Raise, or go on without them and say so.
        reading: How they are read; default: stretched.
        report_file: Gets a line of path, tab and reason for each bad image; removed if there are none. None for
            no such file.
        progress: Hears the count and what was noticed.

    Raises:
        DataError: There are bad images and they are not to be skipped, or no image is left.
    """
    progress, reading = progress or Progress(), reading or ImageSettings()
    known = recall(table.files, reading)
    if known is not None:
        _report([], report_file)
        progress.note(f"all {len(table)} images were checked before, and no file has changed since")
        return CheckedImages(table, known[0], (), known[1])
    require_keras()  # images are decoded by TensorFlow, in threads
    findings = []
    look = partial(_check, reading=reading)
    with closing(in_parallel(look, table.files, workers=workers)) as batches:
        for batch in batches:
            findings += batch
            progress.count("images checked", len(findings), len(table))
    bad = [
        BadImage(path, finding.reason)
        for path, finding in zip(table.paths, findings, strict=True)
        if finding.facts is None
    ]
    _report(bad, report_file)
    if bad and (on_bad_image == "error" or len(bad) == len(table)):
        raise DataError(_message(bad, len(table), report_file))
    if bad:
        where = f"; see {report_file}" if report_file else ""
        progress.note(f"{len(bad)} of {len(table)} images cannot be read and are left out{where}")
    notes = [*_disagreements(findings), *_unused_depth(findings)]
    for note in notes:
        progress.note(note)
    readable = np.array([finding.facts is not None for finding in findings])
    facts = tuple(finding.facts for finding in findings if finding.facts is not None)
    alike = near_identical([finding.miniature for finding in findings if finding.facts is not None])
    if not bad and not notes:
        note = remember(table.files, reading, facts, alike)
        if note:
            progress.note(note)
    return CheckedImages(table.select(readable) if bad else table, facts, tuple(bad), alike)


def _check(place: ImagePlace | None, reading: ImageSettings) -> _Finding:
    if place is None:
        return _Finding(None, "not found")
    try:
        facts, values, small = examine_image(place, reading)
    except BadImageError as error:
        return _Finding(None, error.reason)
    return _Finding(facts, values=values, miniature=small)


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


def _disagreements(findings: Sequence[_Finding]) -> list[str]:
    """A note for each way in which the headers of images disagree with their pixels."""
    counts = Counter(note for finding in findings if finding.facts for note in finding.facts.notes)
    return [
        f"header and pixels disagree in {count} of {len(findings)} images: {note}" for note, count in counts.items()
    ]


def _unused_depth(findings: Sequence[_Finding]) -> list[str]:
    """A note where all 16-bit images together use less than an eighth of their range: 12-bit data, mostly."""
    spans: dict[tuple[float, float], list[tuple[float, float]]] = {}
    for finding in findings:
        if finding.facts is not None and finding.values is not None:
            spans.setdefault(finding.facts.levels, []).append(finding.values)
    notes = []
    for (first, last), values in spans.items():
        low, high = min(span[0] for span in values), max(span[1] for span in values)
        if high - low < 65536 // 8:
            notes.append(
                f"the {len(values)} 16-bit images use only the values {low:g} to {high:g} of {first:.0f} to "
                f"{last:.0f}, so they have little contrast; --window minmax or --window CENTRE,WIDTH gives them more"
            )
    return notes


def images_digest(places: Iterable[ImagePlace | None], *, workers: int) -> str:
    """SHA-256 of the bytes of all image files in turn, each once: 64 hexadecimal digits.

    Files whose place, number, size and times are those of an earlier call are not read again.

    Raises:
        OSError: One cannot be read.
    """
    files = list(dict.fromkeys(file_of(place) for place in places if place is not None))
    known = _known(files)
    with contextlib.suppress(OSError):
        return known.read_text(encoding="ascii")
    digest = hashlib.sha256()
    for batch in in_parallel(_digest, files, workers=workers):
        digest.update(b"".join(batch))
    found = digest.hexdigest()
    with contextlib.suppress(OSError, RadtransferError):  # a cache that cannot be written keeps nothing
        known.parent.mkdir(parents=True, exist_ok=True)
        write_text(known, found)
    return found


def data_changes(run: Path, data: DataSettings, *, workers: int = 2) -> list[str]:
    """A sentence for each way in which the data of a finished run, or one that goes on, is not what it was.

    Nothing is said where the data is not there any more, or cannot be read: nothing is known of it then.

    Args:
        run: The run folder.
        data: Where its images come from, as its `config.yaml` says.
        workers: Files read at the same time.

    Raises:
        RunError: The run's own files are not as they were written.
    """
    if not (run / "folds.csv").is_file():
        return []
    rows, before = read_folds(run), read_run(run).get("images_sha256")
    try:
        table = read_table(data)
        changes = list(_row_changes(rows, table))
        if not changes and before is not None:
            places = dict(zip(table.paths, table.files, strict=True))
            paths = dict.fromkeys(row["path"] for row in rows)
            if images_digest((places[path] for path in paths), workers=workers) != before:
                changes.append("image files have other contents than when it was made")
    except (RadtransferError, OSError, KeyError):
        return []
    return [f"the data of {run} has changed: {change}. Its figures are of the data as it was" for change in changes]


def _row_changes(rows: Sequence[dict[str, str]], table: ImageTable) -> Iterable[str]:
    patients = table.patients or ("",) * len(table)
    now = dict(zip(table.paths, zip(table.labels, patients, strict=True), strict=True))
    then = {row["path"]: (row["label"], row["patient"]) for row in rows}
    gone = [path for path in then if path not in now]
    if gone:
        yield f"{len(gone)} of its images are not in the table any more, such as {gone[0]!r}"
    for place, what in enumerate(("label", "patient")):
        other = [path for path in then if path in now and then[path][place] != now[path][place]]
        if other:
            path = other[0]
            was, is_now = then[path][place], now[path][place]
            yield f"the {what} of {len(other)} images, such as {path!r}: {was!r}, now {is_now!r}"


def _digest(file: Path) -> bytes:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").digest()


def _known(files: Sequence[Path]) -> Path:
    """Where the digest of these files, as they are, is kept."""
    digest = hashlib.sha256()
    for file in files:
        status = file.stat()
        times = f"{status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
        digest.update(f"{file} {times}\n".encode())
    return cache_folder() / "contents" / f"{digest.hexdigest()[:32]}.txt"
