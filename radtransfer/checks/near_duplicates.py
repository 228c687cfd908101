"""Images that look alike in two splits or with two labels: near_duplicate (warning).

Two images look alike if the difference hashes of their miniatures differ in at most two of 64 bits, and the miniatures
by at most `DIFFERENCE` on average. On the 780 breast ultrasound images of BUSI the hash alone finds 114 pairs, of which
the seven across classes and the eight least alike were looked at: each shows one lesion, marked or cropped otherwise.
The second condition keeps 111 of them. Among 600 synthetic fundus photographs, which resemble each other far more, the
hash alone finds 11 pairs of different patients, both conditions none.

References:
    Krawetz 2013, Kind of Like That, hackerfactor.com (the hash: is each pixel brighter than its left neighbour?).
    Al-Dhabyani et al. 2020, Dataset of breast ultrasound images, Data in Brief 28.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np

from radtransfer.checks.duplicates import linked, same_images_or_files
from radtransfer.checks.evidence import Evidence, Finding, counted

BITS = 2
"""In which the hashes may differ."""

DIFFERENCE = 3.5
"""Mean absolute difference of the miniatures, of 255, up to which images look alike."""

_BANDS = 4

# Each band takes its bits from every row and column, so that a black half, as many images have, leaves all bands
# something to differ in.
_SPREAD = np.arange(64) * 27 % 64


def check(evidence: Evidence) -> Iterator[Finding]:
    """A finding for each set of images that look alike and are not all one image."""
    rows = [row for row in evidence.readable if evidence.records[row].look is not None]
    same = {row: number for number, found in enumerate(same_images_or_files(evidence), start=1) for row in found}
    pairs = similar_pairs([evidence.records[row].look for row in rows])
    for found in linked((rows[member], pair) for pair in pairs for member in pair):
        if len({same.get(row, -row) for row in found}) == 1:
            continue
        labels, crossed = evidence.contradiction(found), evidence.crossed(found)
        where = [f"in {crossed}"] if crossed else []
        where += [labels] if labels else []
        if where:
            files = evidence.files(found)
            alike = f"{counted(len(files), 'image')} that look alike"
            yield Finding("near_duplicate", "warning", f"{alike}, {'; '.join(where)}; are they one patient?", files)


def similar_pairs(looks: Sequence[np.ndarray]) -> list[tuple[int, int]]:
    """Pairs of miniatures that look alike, as many as it takes to join all those that hang together.

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
