"""Synthetic Gabor filters for the first convolution."""

import math
from typing import Any

import keras
import numpy as np

from radtransfer.initializers.numpy_initializer import NumpyInitializer

FREQUENCIES = (0.08, 0.16, 0.25, 0.32)
"""Cycles per pixel of the picture before it is resized."""

SIGMA = 2.0
"""Standard deviation of the envelope, in pixels of that picture."""

REACH = 3.0
"""The picture extends this many standard deviations from its centre."""

RESIZED, CROPPED = 10, 7
"""Sides in pixels: a picture is resized to the one, and its centre cut out to the other."""


@keras.saving.register_keras_serializable(package="radtransfer")
class Gabor(NumpyInitializer):
    """Grey Gabor filters of every orientation, the same on all input channels.

    For a 7×7 kernel with 64 filters this is the paper's construction: 16 angles k/16·π at each of the frequencies
    0.08, 0.16, 0.25 and 0.32, σ = 2, ordered by frequency, then angle. Each picture

        exp(−(x² + y²) / 2σ²) · cos(2π · frequency · (x cos θ + y sin θ)),   |x|, |y| ≤ ⌈3σ · max(|cos θ|, |sin θ|)⌉

    is 11×11 or 13×13, is resized to 10×10, and its centre, from pixel (10 − 7) // 2 on, is the filter. One factor
    for all filters then sets the standard deviation of the whole kernel.

    * Another number of filters takes more or fewer angles, evenly over half a turn. Where it is no multiple
      of four, the lower frequencies take one angle more.
    * A smaller kernel is a smaller cut from the same 10×10 picture: its frequencies per pixel stay as they
      are, which resizing would push beyond what pixels can show.
    * A larger kernel, with a longer side of k pixels, magnifies everything by k/7: σ and the 10×10 grow, the
      frequencies fall, so that the filter shows the same picture in more pixels. A picture that is no larger
      than the grown 10×10 is not resized, as in the paper.

    Differs from the paper's listing, in which the crop stands in the branch that does not resize, so that it
    would return uncropped 10×10 pictures; the text and Figure 21 have 7×7 filters. Differs from
    scikit-image's `resize` by leaving out the smoothing before it, which in a 7×7 kernel would mix in the
    neighbouring pixel with a weight of 2·10⁻¹⁰, and from `gabor_kernel` by its constant factor 1/(2πσ²).

    Args:
        scale: Standard deviation of the kernel over all its values, above 0; that of the pretrained first
            convolution makes the two comparable. None for that of He-normal, √(2 / fan-in).

    Raises:
        ValueError: `scale` is out of range; when called, the tensor is no kernel of a 2-D convolution.

    References:
        Raghu et al. 2019, Transfusion (arXiv 1902.07208), Appendix F.3, Figures 8 and 21.
        He et al. 2015, Delving Deep into Rectifiers (arXiv 1502.01852), section 2.2: the default scale.
    """

    def __init__(self, scale: float | None = None):
        if scale is not None and not (math.isfinite(scale) and scale > 0):
            raise ValueError(
                f"Expected a standard deviation above 0 as scale, or None. Received: {scale}. "
                "Give that of the pretrained kernel."
            )
        self.scale = None if scale is None else float(scale)

    def values(self, shape: tuple[int, ...]) -> np.ndarray:
        if len(shape) != 4 or min(shape) < 1:
            raise ValueError(
                "Expected the shape of a 2-D convolution kernel, (height, width, channels, filters). "
                f"Received: {shape}. Gabor filters suit the first convolution of a network."
            )
        height, width, channels, filters = shape
        planes = gabor_planes(height, width, filters)
        if planes.std() == 0:
            raise ValueError(f"Expected a kernel of at least two values per channel. Received: {shape}.")
        scale = math.sqrt(2 / (height * width * channels)) if self.scale is None else self.scale
        return np.repeat(planes[:, :, None] * (scale / planes.std()), channels, axis=2)

    def get_config(self) -> dict[str, Any]:
        return {"scale": self.scale}


def gabor_planes(height: int, width: int, filters: int) -> np.ndarray:
    """Gabor filters before scaling: float64, (height, width, filters), at most 1."""
    magnification = max(1.0, max(height, width) / CROPPED)
    side = round(RESIZED * magnification)
    pictures = (
        _gabor(frequency / magnification, angle, SIGMA * magnification)
        for frequency, angle in _frequencies_and_angles(filters)
    )
    shrunk = (_resized(picture, side) if len(picture) > side else picture for picture in pictures)
    return np.stack([_centre(picture, height, width) for picture in shrunk], axis=-1)


def _frequencies_and_angles(filters: int) -> list[tuple[float, float]]:
    each, left = divmod(filters, len(FREQUENCIES))
    angles = [each + (position < left) for position in range(len(FREQUENCIES))]
    return [
        (frequency, step / count * math.pi)
        for frequency, count in zip(FREQUENCIES, angles, strict=True)
        for step in range(count)
    ]


def _gabor(frequency: float, angle: float, sigma: float) -> np.ndarray:
    cos, sin = math.cos(angle), math.sin(angle)
    radius = math.ceil(REACH * sigma * max(abs(cos), abs(sin)))
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    envelope = np.exp(-(x**2 + y**2) / (2 * sigma**2))
    return envelope * np.cos(2 * math.pi * frequency * (x * cos + y * sin))


def _resized(picture: np.ndarray, side: int) -> np.ndarray:
    """A square picture made smaller, each new pixel interpolated linearly at its centre."""
    size = len(picture)
    centres = (np.arange(side) + 0.5) * size / side - 0.5
    weights = np.maximum(0, 1 - np.abs(centres[:, None] - np.arange(size)))
    return weights @ picture @ weights.T


def _centre(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    top, left = (len(picture) - height) // 2, (len(picture) - width) // 2
    return picture[top : top + height, left : left + width]
