"""One image several times: contradictory_labels (error), leak (error), duplicate (warning).

Two rows are one image if they name one file, or files of the same bytes, or of the same pixels. If its labels differ
one is wrong; in two splits of a fold, test figures are too high; otherwise it counts double.
"""

from collections.abc import Iterable, Iterator

from radtransfer.checks.evidence import Evidence, Finding, counted
from radtransfer.leaks import image_identities


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


def same_images(evidence: Evidence) -> list[list[int]]:
    """Sets of two or more rows that are one image.

    Constant images are left to their own check: any two of one size and colour are the same.
    """
    links = list(enumerate(("file", identity) for identity in image_identities(evidence.table)))
    for row in evidence.readable:
        record = evidence.records[row]
        if record.low < record.high:
            links += [(row, ("contents", record.contents))] if record.contents else []
            links.append((row, ("pixels", record.pixels)))
    return linked(links)


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
