"""Sizes: small_image (note) below what the network sees, unusual_size (note) beside all others."""

from collections.abc import Iterator

import numpy as np

from radtransfer.checks.evidence import Evidence, Finding, counted

AREA = 8
"""Times the median area, or its inverse, from which on a size is unusual."""

ASPECT = 2
"""The same of width by height: squares of such images are distorted unlike the others."""


def check(evidence: Evidence) -> Iterator[Finding]:
    """A finding of each kind, for all images together."""
    rows = evidence.readable
    if not rows:
        return
    facts = [evidence.records[row].facts for row in rows]
    # Orientations from 5 on are turned by a quarter.
    sides = np.array([(f.width, f.height) if f.orientation > 4 else (f.height, f.width) for f in facts], float)
    size = evidence.image_size
    small = [row for row, pair in zip(rows, sides, strict=True) if pair.min() < size]
    if small:
        message = (
            f"{len(small)} of {counted(len(rows), 'image')} smaller than the {size} px that the network would see "
            f"(--image-size), so they are enlarged; the smallest side has {sides.min():.0f}"
        )
        yield Finding("small_image", "note", message, evidence.files(small))
    areas, aspects = np.log(sides.prod(axis=1)), np.log(sides[:, 1] / sides[:, 0])
    far = np.abs(areas - np.median(areas)) > np.log(AREA)
    far |= np.abs(aspects - np.median(aspects)) > np.log(ASPECT)
    if far.any():
        median = np.median(sides, axis=0)
        message = (
            f"{counted(int(far.sum()), 'image')} of a size or shape far from the usual {median[1]:.0f}×{median[0]:.0f}"
        )
        yield Finding("unusual_size", "note", message, evidence.files(np.array(rows)[far].tolist()))
