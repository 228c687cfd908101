"""Which part of a stored image is seen, and how large it becomes.

    stored image -> (the retina's disc) -> (its central square) -> resized -> turned -> (padded) -> square

Arithmetic on sizes that are known before an image is decoded, so that no more is decoded than is seen.
"""

from dataclasses import dataclass
from typing import Literal

from radtransfer.image_formats import ImageFacts

JPEG_RATIOS = (1, 2, 4, 8)
"""Sizes at which a JPEG can be decoded, as divisors."""

LARGE = 1_000_000
"""Pixels from which an image is large."""

FACTOR = 3
"""Up to how much smaller averaging by area makes a side: beyond, it aliases, and saves no time."""

DISPLACED = 0.0008
"""Of a side, by which averaging by area may displace an edge: it knows whole pixels only."""


@dataclass(frozen=True, slots=True)
class Framing:
    """How one stored image, before it is turned upright, becomes a picture.

    Attributes:
        top: First row that is decoded, in pixels as decoded.
        left: First column, likewise.
        height: Rows that are decoded.
        width: Columns.
        ratio: A JPEG is decoded at 1/ratio of its size; `top` to `width` count these pixels.
        seen: Top, left, height and width of what is seen of them: at 1/ratio an edge may lie within a pixel.
        rows: Height after the resize, pixels.
        columns: Width after it.
        by_area: Whether the resize averages areas, of whole pixels. Otherwise it is bilinear and antialiased: slower,
            and exact to parts of a pixel. Both average over every pixel, so that a small lesion is never skipped.
    """

    top: int
    left: int
    height: int
    width: int
    ratio: int
    seen: tuple[float, float, float, float]
    rows: int
    columns: int
    by_area: bool

    @property
    def resizes(self) -> bool:
        """Whether the size changes after decoding."""
        return (self.rows, self.columns) != (self.height, self.width)


def frame_image(facts: ImageFacts, *, size: int, aspect: Literal["stretch", "pad", "crop"]) -> Framing:
    """The framing of an image that is to fill, or to fit into, a square of `size` pixels."""
    top, left, height, width = facts.disc or (0, 0, facts.height, facts.width)
    rows = columns = size
    if aspect == "crop":
        side = min(height, width)
        top, left, height, width = top + (height - side) // 2, left + (width - side) // 2, side, side
    elif aspect == "pad":
        rows, columns = (max(1, round(size * side / max(height, width))) for side in (height, width))
    large = height * width > LARGE
    ratio = _ratio(height, width, rows, columns, large=large) if facts.decoder == "jpeg" else 1
    first_row, decoded_rows = _covering(top, height, ratio)
    first_column, decoded_columns = _covering(left, width, ratio)
    seen = top / ratio - first_row, left / ratio - first_column, height / ratio, width / ratio
    sides = ((seen[0], seen[2], decoded_rows, rows), (seen[1], seen[3], decoded_columns, columns))
    by_area = large and all(_fits_area(*side) for side in sides)
    return Framing(first_row, first_column, decoded_rows, decoded_columns, ratio, seen, rows, columns, by_area=by_area)


def _ratio(height: int, width: int, rows: int, columns: int, *, large: bool) -> int:
    """The smallest decoding that still has a pixel for each of the result, or two in small images.

    The decoder's own averaging is coarser than the resize; in a small image, which is decoded soon, more is left
    to the resize.
    """
    spare = 1 if large else 2
    fitting = [ratio for ratio in JPEG_RATIOS if height >= spare * rows * ratio and width >= spare * columns * ratio]
    return max(fitting, default=1)


def _covering(start: int, length: int, ratio: int) -> tuple[int, int]:
    """First pixel, and how many, of the decoding at 1/ratio that hold everything from `start` on."""
    first = start // ratio
    return first, -(-(start + length) // ratio) - first


def _fits_area(start: float, length: float, decoded: int, pixels: int) -> bool:
    """Whether `decoded` pixels averaged by area are near to what is seen of them, becoming `pixels`."""
    displaced = max(start, decoded - start - length) / decoded
    return pixels <= decoded <= FACTOR * pixels and displaced <= DISPLACED
