"""Images that look alike: near_duplicate (error if nearly identical with opposite labels in two splits, else warning).

Nearly identical images (`examination/near_identical.py`) of opposite labels in two splits are an error: one label is
wrong, or one image trains and tests. In two splits with one label, or with two labels in one split, they are a warning.

A warning, too, are images whose difference hashes differ in at most two of 64 bits, and their 8×9 grey values by at
most `DIFFERENCE` on average. That finds copies with marks drawn in, which correlate less: 37 pairs of BUSI more. It is
no error, as among 3,000 synthetic fundus photographs it takes seven pairs of different patients for alike.

References:
    Krawetz 2013, Kind of Like That, hackerfactor.com (the hash: is each pixel brighter than its left neighbour?).
    Al-Dhabyani et al. 2020, Dataset of breast ultrasound images, Data in Brief 28.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np

from radtransfer.checks.duplicates import linked, same_images_or_files
from radtransfer.checks.evidence import Evidence, Finding, counted
from radtransfer.examination.near_identical import MOST, near_identical
from radtransfer.splits.leaks import opposite_rows

BITS = 2
"""In which the hashes may differ."""

DIFFERENCE = 3.5
"""Mean absolute difference of the grey values, of 255, up to which images look alike."""

_BANDS = 4

# Each band takes its bits from every row and column, so that a black half, as many images have, leaves all bands
# something to differ in.
_SPREAD = np.arange(64) * 27 % 64


def check(evidence: Evidence) -> Iterator[Finding]:
    """A finding for each set of images that look alike and are not all one image."""
    rows = [row for row in evidence.readable if evidence.records[row].look is not None]
    same = {row: number for number, found in enumerate(same_images_or_files(evidence), start=1) for row in found}
    identical = near_identical([record.miniature for record in evidence.records])
    targets, splits = evidence.table.targets, [fold.split for fold in evidence.folds]
    opposite = {
        row for found in identical if any(opposite_rows(targets, split, found) for split in splits) for row in found
    }
    links = [
        (rows[member], pair) for pair in similar_pairs([evidence.records[row].look for row in rows]) for member in pair
    ]
    links += [(row, number) for number, found in enumerate(identical) for row in found]
    for found in linked(links):
        if len({same.get(row, -row) for row in found}) == 1:
            continue
        labels, crossed = evidence.contradiction(found), evidence.crossed(found)
        where = "; ".join(filter(None, (labels, f"in {crossed}" if crossed else "")))
        if not where:
            continue
        files = evidence.files(found)
        if opposite.isdisjoint(found):
            message = f"{counted(len(files), 'image')} that look alike, {where}; are they one patient?"
            yield Finding("near_duplicate", "warning", message, files)
        else:
            message = (
                f"{counted(len(files), 'image')} that are nearly identical, {where}; correct the labels, or keep one"
            )
            yield Finding("near_duplicate", "error", message, files)
    if len(evidence.readable) > MOST:
        yield Finding("near_duplicate", "note", f"nearly identical images are looked for among {MOST:,} images at most")


def similar_pairs(looks: Sequence[np.ndarray]) -> list[tuple[int, int]]:
    """Pairs of 8×9 grey values that look alike, as many as it takes to join all those that hang together.

    Hashes that differ in two bits are equal in at least two of their four bands of 16 bits: only images that share two
    bands are compared.
    """
    if len(looks) < 2:
        return []
    images = np.stack(looks).astype(np.int16)
    brighter = (images[:, :, 1:] > images[:, :, :-1]).reshape(len(images), 64)
    hashes = np.packbits(brighter[:, _SPREAD], axis=1)
    bands = np.ascontiguousarray(hashes).view(np.uint16).astype(np.int64)
    found: set[tuple[int, int]] = set()
    for first, second in combinations(range(_BANDS), 2):
        key = bands[:, first] << 16 | bands[:, second]
        order = np.argsort(key, kind="stable")
        for bucket in np.split(order, np.flatnonzero(np.diff(key[order])) + 1):
            found.update(_joining_pairs(bucket, hashes, images))
    return sorted(found)


def _joining_pairs(bucket: np.ndarray, hashes: np.ndarray, images: np.ndarray) -> Iterator[tuple[int, int]]:
    """The pairs within `bucket`; whoever has been joined is not compared again, however many are alike."""
    left = bucket
    while len(left) > 1:
        waiting, left = [int(left[0])], left[1:]
        while waiting and len(left):
            row = waiting.pop()
            near = np.bitwise_count(hashes[left] ^ hashes[row]).sum(axis=1) <= BITS
            near[near] = np.abs(images[left[near]] - images[row]).mean(axis=(1, 2)) <= DIFFERENCE
            joined, left = left[near].tolist(), left[~near]
            yield from ((min(row, other), max(row, other)) for other in joined)
            waiting += joined
