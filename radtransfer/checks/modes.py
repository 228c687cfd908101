"""How images are stored: mixed_modes (note, or warning across classes), orientation (note), header (warning)."""

from collections import Counter
from collections.abc import Iterator

from radtransfer.checks.evidence import Evidence, Finding, counted, shortened

_FEW = 20
"""Images of a mode below which that it belongs to one class may be chance."""


def check(evidence: Evidence) -> Iterator[Finding]:
    """A finding for each mode but the commonest, for images that are turned, and for headers that the pixels deny."""
    records = evidence.records
    modes = Counter(records[row].mode for row in evidence.readable)
    (usual, most), *others = modes.most_common() or [("", 0)]
    for mode, count in others:
        rows = [row for row in evidence.readable if records[row].mode == mode]
        labels = sorted({evidence.labels[row] for row in rows}) if count >= _FEW else []
        message = f"{counted(count, 'image')} stored as {mode}, {most} as {usual}"
        if len(labels) == 1 and len(evidence.table.classes) > 1:
            message += f"; all are {labels[0]}, which a network may learn instead"
        yield Finding("mixed_modes", "warning" if len(labels) == 1 else "note", message, evidence.files(rows))
    turned = [row for row in evidence.readable if records[row].facts.orientation != 1]
    if turned:
        tags = shortened((str(records[row].facts.orientation) for row in turned), 8)
        message = f"{counted(len(turned), 'image')} turned by EXIF orientation ({tags})"
        yield Finding("orientation", "note", message, evidence.files(turned))
    disagreeing: dict[str, list[int]] = {}
    for row in evidence.readable:
        for note in records[row].facts.notes:
            disagreeing.setdefault(note, []).append(row)
    for note, rows in disagreeing.items():
        message = f"header and pixels of {counted(len(rows), 'image')} disagree: {note}"
        yield Finding("header", "warning", message, evidence.files(rows))
