"""Maps laid over images: colours of a perceptually uniform map, the more opaque the higher.

A white line encloses half of the peak and more.
"""

import base64
import io

import numpy as np
from PIL import Image

SIDE = 288
"""Of a picture, pixels."""

COLORS = "inferno"
"""Of matplotlib; its lightness rises evenly, so that it reads in grey and with every kind of colour vision."""

_LOWEST, _OPACITY = 0.3, 0.7
"""Where in the colours a map begins, and how opaque its peak is, fractions."""

_GAP = 8


def picture(image: np.ndarray) -> np.ndarray:
    """An image as the network gets it, uint8 (SIDE, SIDE, 3).

    Args:
        image: float32 (size, size, 3), RGB, 0–255.
    """
    pixels = Image.fromarray(np.clip(np.rint(image), 0, 255).astype(np.uint8))
    return np.asarray(pixels.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A map over a picture, uint8 (SIDE, SIDE, 3); what is not above 0 leaves the picture as it is, in grey.

    Args:
        image: From `picture`.
        heat: float (height, width); its own largest value is the end of the colours.
    """
    import matplotlib

    strength = _enlarged(heat)
    grey = np.asarray(Image.fromarray(image).convert("L"), np.float32)[..., np.newaxis].repeat(3, axis=2)
    colors = 255 * matplotlib.colormaps[COLORS](_LOWEST + (1 - _LOWEST) * strength)[..., :3]
    opacity = _OPACITY * strength[..., np.newaxis]
    mixed = (1 - opacity) * grey + opacity * colors
    mixed[_outline(strength > 0.5)] = 255
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


def color_stops(count: int = 9) -> list[str]:
    """The colours from 0 to the peak, as CSS writes them."""
    import matplotlib

    colors = matplotlib.colormaps[COLORS](np.linspace(_LOWEST, 1, count))[:, :3]
    return ["#" + "".join(f"{round(255 * value):02x}" for value in color) for color in colors]


def side_by_side(pictures: list[np.ndarray]) -> Image.Image:
    """Pictures in a row, on white."""
    width = len(pictures) * (SIDE + _GAP) - _GAP
    row = np.full((SIDE, width, 3), 255, np.uint8)
    for place, one in enumerate(pictures):
        row[:, place * (SIDE + _GAP) : place * (SIDE + _GAP) + SIDE] = one
    return Image.fromarray(row)


def data_uri(pixels: np.ndarray) -> str:
    """A picture inside a page."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def _enlarged(heat: np.ndarray) -> np.ndarray:
    """A map from 0 to 1, float32 (SIDE, SIDE); all 0 where nothing is above 0."""
    heat = np.maximum(heat, 0).astype(np.float32)
    if heat.max() > 0:
        heat = heat / heat.max()
    return np.clip(np.asarray(Image.fromarray(heat).resize((SIDE, SIDE), Image.Resampling.BILINEAR)), 0, 1)


def _outline(area: np.ndarray) -> np.ndarray:
    """The outermost pixels of an area."""
    inner = np.pad(area, 1)
    inner = inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
    return area & ~inner
