"""Every image of a data set, decoded once before training by the decoder that training will use.

What is found out about one is in `image_examination.py`.
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from radtransfer.datasets.image_table import ImageTable
from radtransfer.environment import require_keras
from radtransfer.errors import BadImageError, DataError
from radtransfer.examination.checked_images import recall, remember
from radtransfer.examination.image_examination import examine_image
from radtransfer.examination.near_identical import near_identical
from radtransfer.image_formats import ImageFacts
from radtransfer.image_place import ImagePlace
from radtransfer.parallel import in_parallel
from radtransfer.progress import Progress
from radtransfer.runs import write_text
from radtransfer.safe_text import printable
from radtransfer.settings import ImageSettings
from radtransfer.system_errors import writing


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
