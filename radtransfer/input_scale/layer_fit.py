"""How far what a mode gives a batch-norm layer is from what the layer remembers."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class LayerFit:
    """One layer in one mode, each the median over the layer's channels.

    Attributes:
        layer: Its name.
        shift: Distance of the means, in standard deviations that the layer remembers.
        spread: Standard deviation given, over the one remembered; 1 is the same.
        misfit: Length of (shift, natural logarithm of spread), 0 is the same.
        misfit_error: Its standard error over the choice of images.
    """

    layer: str
    shift: float
    spread: float
    misfit: float
    misfit_error: float


Moments = tuple[np.ndarray, np.ndarray]
"""Mean and variance, (samples, channels); the first sample is all images, the others are bootstrap samples."""


def layer_fit(name: str, mean: np.ndarray, variance: np.ndarray, given: Moments) -> LayerFit:
    """Compare what layer `name` remembers, `mean` and `variance` (channels,), with what it is `given`."""
    given_mean, given_variance = given
    shift = np.abs(given_mean - mean) / np.sqrt(variance)
    spread = 0.5 * np.log(given_variance / variance)
    misfit = np.median(np.hypot(shift, spread), axis=1)
    return LayerFit(
        layer=name,
        shift=float(np.median(shift[0])),
        spread=float(np.exp(np.median(spread[0]))),
        misfit=float(misfit[0]),
        misfit_error=float(misfit[1:].std()),
    )


def sample_moments(mean: np.ndarray, square: np.ndarray, weights: np.ndarray, *, epsilon: float = 0.0) -> Moments:
    """Mean and variance over images and positions of each bootstrap sample, (samples, channels)."""
    average = weights @ mean
    return average, np.maximum(weights @ square - average**2, 0.0) + epsilon


def bootstrap_weights(images: int, samples: int, seed: int) -> np.ndarray:
    """(samples + 1, images): all images alike, then each sample's share of every image."""
    rng = np.random.Generator(np.random.PCG64(seed))
    counts = rng.multinomial(images, np.full(images, 1 / images), size=samples) / images
    return np.vstack([np.full(images, 1 / images), counts])
