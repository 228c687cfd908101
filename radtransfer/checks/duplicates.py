"""One image several times: contradictory_labels (error), leak (error), duplicate (warning).

Two rows are one image if they name one file or frame, or files of the same bytes, or of the same pixels. If its labels
differ one is wrong; in two splits of a fold, test figures are too high; otherwise it counts double. Frames of one file
are different images, of one patient.
"""

from collections.abc import Hashable, Iterable, Iterator

from radtransfer.checks.evidence import Evidence, Finding, counted
from radtransfer.splits.leaks import frame_identities, image_identities


def check(evidence: Evidence) -> Iterator[Finding]:
    """Up to two findings for each set of rows that are one image."""
    for rows in same_images(evidence):
        files = evidence.files(rows)
        one = "the image" if len(files) == 1 else f"{counted(len(files), 'file')} of the same image"
        labels, crossed = evidence.contradiction(rows), evidence.crossed(rows)
        if labels:
            yield Finding("contradictory_labels", "error", f"{one}, {labels}; correct or remove them", files)
        if crossed:
            yield Finding("leak", "error", f"{one} in {crossed}; keep one, or give all one patient", files)
        if not (labels or crossed) and len(files) > 1:
            yield Finding("duplicate", "warning", f"{one}, which counts {len(files)} times", files)
    yield from _frames_apart(evidence)


def same_images(evidence: Evidence) -> list[list[int]]:
    """Sets of two or more rows that are one image.

    Constant images are left to their own check: any two of one size and colour are the same.
    """
    return linked(_links(evidence, frame_identities(evidence.table)))


def same_images_or_files(evidence: Evidence) -> list[list[int]]:
    """The same, with the frames of one file taken for one image."""
    return linked(_links(evidence, image_identities(evidence.table)))


def _links(evidence: Evidence, identities: Iterable[Hashable]) -> Iterator[tuple[int, object]]:
    yield from enumerate(("file", identity) for identity in identities)
    for row in evidence.readable:
        record = evidence.records[row]
        if record.low < record.high:
            if record.contents:
                yield row, ("contents", record.contents)
            yield row, ("pixels", record.pixels)


def _frames_apart(evidence: Evidence) -> Iterator[Finding]:
    """A finding for each file of whose frames some stand in another split than others."""
    rows_of: dict[Hashable, dict[Hashable, list[int]]] = {}
    for row, (identity, frame) in enumerate(frame_identities(evidence.table)):
        rows_of.setdefault(identity, {}).setdefault(frame, []).append(row)
    for frames in rows_of.values():
        rows = sorted(row for found in frames.values() for row in found)
        if len(frames) > 1 and (crossed := evidence.crossed(rows)):
            yield Finding("leak", "error", f"frames of one file in {crossed}; keep them together", evidence.files(rows))


def linked(links: Iterable[tuple[int, object]]) -> list[list[int]]:
    """Sets of two or more rows that hang together by what they are linked to, each sorted."""
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
