"""How images are stored: mixed_modes (note; warning where it tells a class), orientation (note), header (warning)."""

from collections import Counter
from collections.abc import Iterator

from radtransfer.checks.evidence import Evidence, Finding, counted, shortened

_FEW = 20
"""Images of a mode below which that it belongs to one class may be chance."""

_SHARE = 0.2
"""By which the shares of a mode in two classes differ where it tells something of the class."""


def check(evidence: Evidence) -> Iterator[Finding]:
    """A finding for each mode but the commonest, for images that are turned, and for headers that the pixels deny."""
    records = evidence.records
    modes = Counter(records[row].mode for row in evidence.readable)
    (usual, most), *others = modes.most_common() or [("", 0)]
    by_class = evidence.class_modes
    totals = {name: sum(found.values()) for name, found in by_class.items()}
    for mode, count in others:
        rows = [row for row in evidence.readable if records[row].mode == mode]
        message = f"{counted(count, 'image')} stored as {mode}, {most} as {usual}"
        shares = {name: found.get(mode, 0) / totals[name] for name, found in by_class.items() if totals[name]}
        labels = {evidence.labels[row] for row in rows}
        tells = count >= _FEW and len(shares) > 1
        tells = tells and (len(labels) == 1 or max(shares.values()) - min(shares.values()) >= _SHARE)
        if tells:
            held = (f"{by_class[name].get(mode, 0)} of {totals[name]} {name}" for name in by_class)
            only = f"all {count} are {labels.pop()}; " if len(labels) == 1 else ""
            message += f": {only}it is {shortened(held, 6)}; possible shortcut: a network may learn the mode instead"
        yield Finding("mixed_modes", "warning" if tells else "note", message, evidence.files(rows))
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
