"""The disc of the retina in a fundus photograph, which stands before a dark background."""

import numpy as np

_SIDE = 256
"""Pixels of the longer side that are looked at."""

_DARK = 0.15
"""Of the bright level, a fraction: the background is below."""

_LEAST = 0.2
"""Of the image, a fraction: what is smaller is not the disc."""


def retina_box(pixels: np.ndarray) -> tuple[int, int, int, int] | None:
    """Top, left, height and width of the disc, or None where there is no dark background around one disc.

    The disc is the largest connected area brighter than 15 % of the image's bright level (its 90th percentile);
    text and reflections beside it do not count.

    Args:
        pixels: (height, width, 3), of any range.
    """
    from scipy import ndimage

    step = max(1, max(pixels.shape[:2]) // _SIDE)
    grey = pixels[::step, ::step].max(axis=-1).astype(np.float32)
    low, bright = np.percentile(grey, [1, 90])
    bright_area = ndimage.binary_opening(grey > low + _DARK * (bright - low), iterations=2)
    areas, count = ndimage.label(bright_area)
    if not count:
        return None
    largest = int(np.argmax(np.bincount(areas.ravel())[1:])) + 1
    rows, columns = ndimage.find_objects((areas == largest).astype(np.int32))[0]
    if (areas == largest).sum() < _LEAST * grey.size:
        return None
    top, left = max(0, (rows.start - 1) * step), max(0, (columns.start - 1) * step)
    bottom = min(pixels.shape[0], (rows.stop + 1) * step)
    right = min(pixels.shape[1], (columns.stop + 1) * step)
    box = (top, left, bottom - top, right - left)
    return None if box == (0, 0, *pixels.shape[:2]) else box
