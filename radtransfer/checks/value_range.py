"""Values that use little of their range, or leave it: range (warning)."""

import math
from collections.abc import Iterator

from radtransfer.checks.evidence import Evidence, Finding, counted

LEVELS = 32
"""Of 256, below which all images with more than 8 bits together use a fraction: 12-bit data, mostly."""


def check(evidence: Evidence) -> Iterator[Finding]:
    """A finding for all images of one range, and one each for floats outside 0–255 and floats from 0 to 1."""
    if evidence.window != "auto":
        return
    records = evidence.records
    deep: dict[tuple[float, float], list[int]] = {}
    for row in evidence.readable:
        if records[row].deep_integers:
            deep.setdefault(records[row].facts.levels, []).append(row)
    for (first, last), rows in deep.items():
        low, high = _span(evidence, rows)
        if high - low < LEVELS:
            unit, bits = (last - first) / 255, round(math.log2(last - first + 1))
            yield Finding(
                "range",
                "warning",
                f"{counted(len(rows), 'image')} of {bits} bits, of {first:.0f} to {last:.0f} "
                f"with values from {first + unit * low:.0f} to {first + unit * high:.0f} only, which leaves little "
                "contrast; give --window minmax or CENTRE,WIDTH",
                evidence.files(rows),
            )
    floats = [row for row in evidence.readable if records[row].floats]
    outside = [row for row in floats if records[row].low < 0 or records[row].high > 255]
    if outside:
        low, high = _span(evidence, outside)
        message = (
            f"{counted(len(outside), 'image')} of floats from {low:g} to {high:g}, outside 0 to 255, so each is "
            "stretched to its own extremes; give --window CENTRE,WIDTH"
        )
        yield Finding("range", "warning", message, evidence.files(outside))
    unit = [row for row in floats if records[row].low >= 0 and records[row].high <= 1]
    if unit:
        message = (
            f"{counted(len(unit), 'image')} of floats from 0 to 1, which count from 0 to 255 and are nearly black; "
            "give --window 0.5,1"
        )
        yield Finding("range", "warning", message, evidence.files(unit))


def _span(evidence: Evidence, rows: list[int]) -> tuple[float, float]:
    """The least and greatest value of some images; 0 where there are none."""
    records = [evidence.records[row] for row in rows]
    return min((r.low for r in records), default=0.0), max((r.high for r in records), default=0.0)
