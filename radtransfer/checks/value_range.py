"""Values that use little of their range, or leave it: range (warning)."""

from collections.abc import Iterator

from radtransfer.checks.evidence import Evidence, Finding, counted

DEEP = ("16-bit grey", "16-bit RGB", "32-bit grey", "float grey")
"""Modes of more than 8 bits whose values are taken as they are; DICOM has a window in its header."""

LEVELS = 32
"""Of 256, below which all images with more than 8 bits together use a fraction: 12-bit data, mostly."""


def check(evidence: Evidence) -> Iterator[Finding]:
    """A finding for all images of more than 8 bits, and one each for floats outside 0–255 and floats from 0 to 1."""
    records = evidence.records
    floats = [row for row in evidence.readable if records[row].mode == "float grey"]
    deep = [row for row in evidence.readable if records[row].mode in DEEP and records[row].mode != "float grey"]
    low, high = _span(evidence, deep)
    if deep and evidence.window == "auto" and high - low < LEVELS:
        yield Finding(
            "range",
            "warning",
            f"{counted(len(deep), 'image')} of 16 bits, of 0 to 65535 with values from {257 * low:.0f} to "
            f"{257 * high:.0f} only, which leaves little contrast; give --window minmax or CENTRE,WIDTH",
            evidence.files(deep),
        )
    outside = [row for row in floats if records[row].low < 0 or records[row].high > 255]
    if outside:
        low, high = _span(evidence, outside)
        message = (
            f"{counted(len(outside), 'image')} of floats from {low:g} to {high:g}, expected 0 to 255; rescale them"
        )
        yield Finding("range", "warning", message, evidence.files(outside))
    unit = [row for row in floats if records[row].low >= 0 and records[row].high <= 1]
    if unit:
        message = f"{counted(len(unit), 'image')} of floats from 0 to 1, expected 0 to 255: nearly black; rescale them"
        yield Finding("range", "warning", message, evidence.files(unit))


def _span(evidence: Evidence, rows: list[int]) -> tuple[float, float]:
    """The least and greatest value of some images; 0 where there are none."""
    records = [evidence.records[row] for row in rows]
    return min((r.low for r in records), default=0.0), max((r.high for r in records), default=0.0)
