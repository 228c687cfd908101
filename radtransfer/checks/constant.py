"""Images in which there is nothing: constant (error), nearly_constant (warning).

A label on an image without content cannot be learnt, and any figure that counts it is wrong about it.
"""

from collections.abc import Iterator

from radtransfer.checks.evidence import Evidence, Finding

LEVELS = 8
"""An image whose values span fewer of the 256 levels is nearly constant."""

SPREAD = 1.0
"""And so is one whose values, in levels, have a smaller standard deviation: a speck on an empty field."""


def check(evidence: Evidence) -> Iterator[Finding]:
    """A finding for each image; those of more than 8 bits and with little range belong to `value_range`."""
    for row in evidence.readable:
        record, files = evidence.records[row], (evidence.table.paths[row],)
        if record.low == record.high:
            yield Finding("constant", "error", f"every pixel is {record.low:g}; remove the image", files)
        elif record.floats or record.deep_integers:
            continue
        elif record.high - record.low < LEVELS or record.spread < SPREAD:
            span = f"its values lie from {record.low:g} to {record.high:g}, sd {record.spread:.2g}"
            yield Finding("nearly_constant", "warning", f"{span}; look at it", files)
