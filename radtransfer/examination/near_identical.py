"""Nearly the same image in two files: resized, stored anew, brighter, with other contrast, or seen in a mirror.

Two images are nearly identical if the miniatures of 64×64 grey pixels, one of them mirrored or not, correlate with
r ≥ 0.98. Of the 780 breast ultrasound images of BUSI 101 pairs are; the six of two classes were looked at, and each
shows one scan. Of 3,000 synthetic fundus photographs of 96 px, discs of one kind on black, no two are (r ≤ 0.975); of
1,000 drawn at 48 px ten are, so images that are smaller than their miniature may be taken for one.
What is cropped by 1 % at each edge is found in every second case, cropped by more, turned or inverted hardly ever.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

SIDE = 64
"""Of the miniature, pixels."""

CORRELATION = 0.98

MOST = 100_000
"""Images of which all pairs are compared: a few minutes on two cores, and 0.4 GB. Of more, none are."""

_LEAST_RANGE = 16
"""A miniature of 8 bits whose values span less shows nothing, and would look like any other such."""

_CHUNK = 512


def miniature(pixels: np.ndarray) -> np.ndarray | None:
    """The miniature of an image, (height, width, 3), as uint8 (64, 64); None where there is hardly anything in it."""
    how = Image.Resampling.BOX if min(pixels.shape[:2]) >= SIDE else Image.Resampling.BILINEAR
    if pixels.dtype == np.uint8:
        small = np.asarray(Image.fromarray(pixels).convert("L").resize((SIDE, SIDE), how))
        return small if int(small.max()) - int(small.min()) >= _LEAST_RANGE else None
    grey = Image.fromarray(pixels.mean(axis=-1, dtype="float32"))
    small = np.asarray(grey.resize((SIDE, SIDE), how))
    low, span = float(small.min()), float(np.ptp(small))
    return ((small - low) * (255 / span)).astype(np.uint8) if 0 < span < np.inf else None


def near_identical(miniatures: Sequence[np.ndarray | None]) -> list[list[int]]:
    """Sets of two or more numbers of images that hang together by being nearly identical, each sorted.

    Means over blocks of 8×8 pixels tell most pairs apart: where they differ too much, so do the miniatures.
    """
    known = np.array([number for number, small in enumerate(miniatures) if small is not None], int)
    if not 2 <= len(known) <= MOST:
        return []
    images = np.stack([miniatures[number] for number in known]).reshape(len(known), -1)
    means = images.mean(axis=1, dtype="float32")[:, None]
    norms = np.array([np.linalg.norm(image - mean) for image, mean in zip(images, means, strict=True)])[:, None]
    blocks = images.reshape(-1, 8, 8, 8, 8).mean(axis=(2, 4), dtype="float32").reshape(-1, 64)
    blocks = ((blocks - means) * 8 / norms).astype("float32")
    mirrored = blocks.reshape(-1, 8, 8)[:, :, ::-1].reshape(-1, 64)
    # |p − q|² ≤ |u − v|² = 2 (1 − r) for projections p, q of unit vectors u, v; here − |p − q|² / 2 is one product.
    half, ones = -(blocks**2).sum(axis=1, keepdims=True) / 2, np.ones((len(known), 1), "float32")
    others = np.concatenate([blocks, half, ones], axis=1).T
    sets = np.arange(len(known))
    for start in range(0, len(known), _CHUNK):
        for side, step in ((blocks, 1), (mirrored, -1)):
            chunk = np.concatenate([side, ones, half], axis=1)[start : start + _CHUNK]
            near, which = np.nonzero(chunk @ others[:, start:] >= CORRELATION - 1 - 1e-4)
            rows, firsts = np.unique(near, return_index=True)
            for row, found in zip(rows.tolist(), np.split(start + which, firsts[1:]), strict=False):
                image = start + row
                found = found[(found > image) & (sets[found] != sets[image])]
                if len(found):
                    unit = (images[image].reshape(SIDE, SIDE)[:, ::step].ravel() - means[image]) / norms[image]
                    same = found[images[found] @ unit / norms[found, 0] >= CORRELATION]
                    sets[np.isin(sets, sets[same])] = sets[image]
    order = np.argsort(sets, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(sets[order])) + 1)
    return sorted(known[group].tolist() for group in groups if len(group) > 1)
