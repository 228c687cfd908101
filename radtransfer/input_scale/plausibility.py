"""How well the images that a mode implies look like images: the evidence for the mode.

A network can have been trained on images of another kind than the user's, so that nothing has to agree exactly. What is
known beforehand about collections of images, and about the user's own, is written here as a density.
"""

import math
from dataclasses import dataclass

import numpy as np

from radtransfer.input_scale.training_images import TrainingImages

ALIKE = 0.4
"""Probability, beforehand, that the training images were of the user's kind."""

_BRIGHTNESS, _BRIGHTNESS_SPREAD = 0.42, 0.18
"""Mean over collections of photographs, X-rays, ultrasound, CT and slides, and their spread; fractions of white."""

_FILLING, _FILLING_SPREAD = math.log(0.5), 0.25
"""Of the largest contrast that a mean brightness allows, how much collections have; natural logarithm."""

_WARMTH, _WARMTH_SPREAD = np.array([0.04, 0.04]), 0.08
"""Red minus green and green minus blue in collections of colour photographs."""

_DETAIL_ERROR = 0.15
"""Of the logarithm of a contrast, since the images' fineness differs."""

_LEAST_CONTRAST = 0.02
"""Of a collection with anything to see in it."""

_IMPOSSIBLE = -1e6


@dataclass(frozen=True)
class Collection:
    """The user's images: mean red, green and blue and standard deviation, fractions of white."""

    colour: np.ndarray
    contrast: float


def log_evidence(implied: TrainingImages, yours: Collection, scale: np.ndarray) -> float:
    """Natural logarithm of the density of what the stem stores, up to a constant that all modes share.

    Args:
        implied: By the mode.
        yours: The user's images.
        scale: (3,), how many units of the network full brightness is in the mode, red, green and blue.
    """
    return float(np.logaddexp(math.log(ALIKE) + _alike(implied, yours), math.log(1 - ALIKE) + _any(implied))) - float(
        np.log(scale).sum()
    )


def _alike(implied: TrainingImages, yours: Collection) -> float:
    covariance = implied.colour_error + np.eye(3) * (0.02 * implied.contrast) ** 2 + 0.04**2 * np.ones((3, 3))
    if not _is_grey(yours.colour):
        covariance = covariance + np.eye(3) * 0.03**2
    spread = math.hypot(implied.contrast_error, _DETAIL_ERROR)
    return _normal(implied.colour - yours.colour, covariance) + _log_normal(implied.contrast / yours.contrast, spread)


def _any(implied: TrainingImages) -> float:
    """Of images of any kind, grey or in colour."""
    brightness = implied.brightness
    if implied.contrast <= 0:
        return _IMPOSSIBLE
    inside = min(max(brightness, 0.01), 0.99)
    largest = math.sqrt(inside * (1 - inside))
    filling = math.log(implied.contrast / largest)
    spread = math.hypot(implied.contrast_error, _DETAIL_ERROR)
    # No collection has more contrast than black and white give: beyond it only an error of the estimate is left.
    excess = max(filling, 0.0)
    contrast = -0.5 * ((filling - _FILLING) / math.hypot(spread, _FILLING_SPREAD)) ** 2 - 0.5 * (excess / spread) ** 2
    contrast -= math.log(math.hypot(spread, _FILLING_SPREAD))
    contrast -= 0.5 * ((brightness - inside) / 0.03) ** 2
    return contrast + float(np.logaddexp(math.log(0.5) + _grey(implied), math.log(0.5) + _coloured(implied)))


def _grey(implied: TrainingImages) -> float:
    covariance = implied.colour_error + np.eye(3) * (0.02 * implied.contrast) ** 2
    covariance = covariance + _BRIGHTNESS_SPREAD**2 * np.ones((3, 3))
    return _normal(implied.colour - _BRIGHTNESS, covariance)


def _coloured(implied: TrainingImages) -> float:
    ordinary = _with_warmth(implied, _WARMTH, _WARMTH_SPREAD)
    tissue = _with_warmth(implied, 2 * _WARMTH, 0.2)
    return float(np.logaddexp(math.log(0.7) + ordinary, math.log(0.3) + tissue))


def _with_warmth(implied: TrainingImages, warmth: np.ndarray, spread: float) -> float:
    mean = _BRIGHTNESS + np.array([2 * warmth[0] + warmth[1], warmth[1] - warmth[0], -warmth[0] - 2 * warmth[1]]) / 3
    differences = np.array([[1.0, -1.0, 0.0], [0.0, 1.0, -1.0]])
    back = np.linalg.pinv(differences)
    covariance = back @ back.T * spread**2 + _BRIGHTNESS_SPREAD**2 * np.ones((3, 3)) + implied.colour_error
    return _normal(implied.colour - mean, covariance)


def _is_grey(colour: np.ndarray) -> bool:
    return float(np.ptp(colour)) < 0.004


def _normal(difference: np.ndarray, covariance: np.ndarray) -> float:
    _, logarithm = np.linalg.slogdet(covariance)
    return float(-0.5 * difference @ np.linalg.solve(covariance, difference) - 0.5 * logarithm)


def _log_normal(ratio: float, spread: float) -> float:
    return _IMPOSSIBLE if ratio <= 0 else -0.5 * (math.log(ratio) / spread) ** 2 - math.log(spread)


def possible(implied: TrainingImages) -> bool:
    """Whether there can be such images: not darker than black, brighter than white or of more than full contrast."""
    inside = 0.0 < implied.brightness < 1.0
    largest = math.sqrt(implied.brightness * (1 - implied.brightness)) if inside else 0.0
    spread = math.hypot(implied.contrast_error, _DETAIL_ERROR)
    return inside and largest * math.exp(2 * spread) > implied.contrast > _LEAST_CONTRAST
