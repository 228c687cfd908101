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
"""Pixels from which an image is averaged by area where it is made smaller."""


@dataclass(frozen=True, slots=True)
class Framing:
    """How one stored image, before it is turned upright, becomes a picture.

    Attributes:
        top: First row that is seen, in pixels as decoded.
        left: First column, likewise.
        height: Rows that are seen.
        width: Columns.
        ratio: A JPEG is decoded at 1/ratio of its size; `top` to `width` count these pixels.
        rows: Height after the resize, pixels.
        columns: Width after it.
        by_area: Whether the resize averages areas. Otherwise it is bilinear and antialiased: sharper by a trace, and
            slower. Both average over every pixel, so that a small lesion is never skipped.
    """

    top: int
    left: int
    height: int
    width: int
    ratio: int
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
    first_row, last_row = _span(top, height, facts.height, ratio)
    first_column, last_column = _span(left, width, facts.width, ratio)
    height, width = last_row - first_row, last_column - first_column
    shrinks = rows <= height and columns <= width
    return Framing(first_row, first_column, height, width, ratio, rows, columns, by_area=large and shrinks)


def _ratio(height: int, width: int, rows: int, columns: int, *, large: bool) -> int:
    """The smallest decoding that still has a pixel for each of the result, or two in small images.

    The decoder's own averaging is coarser than the resize; in a small image, which is decoded soon, more is left
    to the resize.
    """
    spare = 1 if large else 2
    fitting = [ratio for ratio in JPEG_RATIOS if height >= spare * rows * ratio and width >= spare * columns * ratio]
    return max(fitting, default=1)


def _span(start: int, length: int, whole: int, ratio: int) -> tuple[int, int]:
    """First pixel and end in the decoding at 1/ratio; the last pixel of an image may be a part of one."""
    end = start + length
    return round(start / ratio), -(-whole // ratio) if end == whole else max(
        round(end / ratio), round(start / ratio) + 1
    )
