"""Infers which preprocessing a pretrained network expects, from batch-norm statistics: the method of `weights check`.

The first convolution is linear, so the moving mean of the batch norm after it gives the mean color of the training
images, and the moving variance their contrast, both in the scale of the network. Each preprocessing mode translates
them into gray levels; a wrong mode implies impossible or implausible images. As the training images may differ from the
user's, prior knowledge about collections of images, and about the user's own, enters as a probability density.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

_COLOUR_SPREAD = 0.15
"""Expected difference between the mean of a color and mean gray, over datasets; fractions of white."""

_CERTAIN = 0.95
"""Probability from which a mode fits."""

_LIKELY, _MAJORITY = 0.75, 0.75
"""Probability from which a mode fits if it is also the best at this fraction of the layers."""

_MIN_LAYERS = 4
"""Number of layers from which their fit counts."""

_CONSIDERED = 0.02
"""Probability from which a mode is named among several."""

_SAME_KIND = 0.4
"""Prior probability that the training images were of the same kind as the user's."""

_BRIGHTNESS, _BRIGHTNESS_SPREAD = 0.42, 0.18
"""Brightness of collections of photographs, X-rays, ultrasound, CT and slides: mean, spread; fractions of white."""

_FILLING, _FILLING_SPREAD = math.log(0.5), 0.25
"""Contrast of collections relative to the maximum at their brightness: mean and spread of the natural logarithm."""

_WARMTH, _WARMTH_SPREAD = np.array([0.04, 0.04]), 0.08
"""Red minus green and green minus blue in collections of color photographs, and their spread."""

_DETAIL_ERROR = 0.15
"""Error of the logarithm of a contrast, as images differ in fine detail."""

_MIN_CONTRAST = 0.02
"""Minimum contrast of a collection of images."""

_IMPOSSIBLE = -1e6

Moments = tuple[np.ndarray, np.ndarray]
"""Mean and variance, (samples, channels); the first sample is all images, the others are bootstrap samples."""


@dataclass(frozen=True)
class LayerFit:
    """The fit of one layer in one mode; medians over the channels."""

    layer: str
    shift: float  # distance of the means, in stored standard deviations
    spread: float  # measured over stored standard deviation; 1 if equal
    misfit: float  # length of (shift, natural logarithm of spread); 0 if equal
    misfit_error: float  # standard error of `misfit` over the choice of images


@dataclass(frozen=True)
class TrainingImages:
    """The training images that the statistics imply."""

    colour: np.ndarray  # mean red, green and blue, fractions of white
    colour_error: np.ndarray  # covariance of their error, (3, 3)
    contrast: float  # standard deviation of the pixels, fraction of white
    contrast_error: float  # standard error of its logarithm

    @property
    def brightness(self) -> float:
        return float(self.colour.mean())


@dataclass(frozen=True)
class ModeEvidence:
    """The evidence for one mode."""

    mode: str
    same_as: tuple[str, ...]  # modes that give the network the same input from these images
    probability: float  # that the weights were trained with it or one of `same_as`, among the known modes
    low: float  # 5th and 95th percentile of the probability over bootstrap samples of the images
    high: float
    training: TrainingImages
    possible: bool
    layers: tuple[LayerFit, ...]
    best_at: int  # number of layers at which no mode fits better


@dataclass(frozen=True)
class Verdict:
    """The result: the mode that fits, or those that may, best first, and the reason in one sentence."""

    certainty: Literal["fits", "undecided", "none"]
    modes: tuple[str, ...]
    reason: str


def layer_fit(name: str, mean: np.ndarray, variance: np.ndarray, given: Moments) -> LayerFit:
    """Compare the stored statistics of layer `name`, `mean` and `variance` (channels,), with those of its input."""
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
    """(samples + 1, images): equal weights, then the weight of every image in each sample."""
    rng = np.random.Generator(np.random.PCG64(seed))
    counts = rng.multinomial(images, np.full(images, 1 / images), size=samples) / images
    return np.vstack([np.full(images, 1 / images), counts])


def training_images(
    mean: np.ndarray,
    variance: np.ndarray,
    black: np.ndarray,
    gain: np.ndarray,
    given: np.ndarray,
    pixel_variance: float,
) -> TrainingImages:
    """The training images that the first batch norm's statistics imply, if preprocessed in this mode.

    Args:
        mean: Stored in the file, (channels,).
        variance: Stored in the file, (channels,), plus the layer's epsilon.
        black: Mean input of the layer for a black image, (channels,).
        gain: Increase of that mean by full red, green and blue, (channels, 3).
        given: Variance of the input for the user's images, (channels,), plus the layer's epsilon.
        pixel_variance: Of the user's images, mean over the colors; fractions of white.
    """
    deviation = np.sqrt(variance)
    colour, error = _mean_colour(gain / deviation[:, np.newaxis], (mean - black) / deviation)
    ratio = 0.5 * np.log(variance / given)
    # 0 for a filter that only averages, more negative the more it responds to fine detail.
    detail = 0.5 * np.log(np.maximum(gain.sum(axis=1) ** 2 * pixel_variance / given, 1e-6))
    contrast, contrast_error = _contrast(ratio, np.minimum(detail, 0.0))
    return TrainingImages(colour, error, float(np.sqrt(pixel_variance) * np.exp(contrast)), contrast_error)


def log_evidence(implied: TrainingImages, yours: np.ndarray, contrast: float, scale: np.ndarray) -> float:
    """Natural logarithm of the density of the stored statistics, up to a constant that all modes share.

    `yours` (3,) and `contrast` are the mean color and standard deviation of the user's images, fractions of white;
    `scale` (3,) is the network input for full red, green and blue in the mode.
    """
    same = math.log(_SAME_KIND) + _density_of_same_kind(implied, yours, contrast)
    other = math.log(1 - _SAME_KIND) + _density_of_any_kind(implied)
    return float(np.logaddexp(same, other)) - float(np.log(scale).sum())


def possible(implied: TrainingImages) -> bool:
    """Whether such images can exist: between black and white, and with a possible contrast."""
    inside = 0.0 < implied.brightness < 1.0
    largest = math.sqrt(implied.brightness * (1 - implied.brightness)) if inside else 0.0
    spread = math.hypot(implied.contrast_error, _DETAIL_ERROR)
    return inside and largest * math.exp(2 * spread) > implied.contrast > _MIN_CONTRAST


def probabilities(evidence: np.ndarray) -> np.ndarray:
    """The probability of each mode, from logarithms of the density (samples, modes), with a uniform prior."""
    shares = np.exp(evidence - evidence.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def decide(modes: Sequence[ModeEvidence]) -> Verdict:
    """The verdict on `modes`, given the most probable first."""
    best = modes[0]
    layers = len(best.layers)
    if not any(evidence.possible for evidence in modes):
        return Verdict(
            "none",
            (),
            "Every mode implies impossible training images: the weights were trained with another input scale, or "
            "their batch-norm statistics were changed after training.",
        )
    if not best.possible:
        return Verdict("undecided", _named(modes), "The most probable mode implies impossible training images.")
    if best.probability < _CERTAIN and not (best.probability >= _LIKELY and _leads(best, _MAJORITY)):
        return Verdict(
            "undecided",
            _named(modes),
            f"{' or '.join(_named(modes))}: each implies plausible training images.",
        )
    rival = next((item for item in modes[1:] if _leads(item, 0.9)), None)
    if rival is not None:
        return Verdict(
            "undecided",
            (best.mode, rival.mode),
            f"The first layer favors {best.mode}, but {rival.mode} fits {rival.best_at} of {layers} layers best.",
        )
    reason = (
        "The other modes imply implausible training images."
        if best.probability >= _CERTAIN
        else f"The first layer favors it, and it fits {best.best_at} of {layers} layers best."
    )
    return Verdict("fits", (best.mode, *best.same_as), reason)


def _named(modes: Sequence[ModeEvidence]) -> tuple[str, ...]:
    return tuple(mode for item in modes if item.probability >= _CONSIDERED for mode in (item.mode, *item.same_as))


def _leads(mode: ModeEvidence, share: float) -> bool:
    return len(mode.layers) >= _MIN_LAYERS and mode.best_at >= share * len(mode.layers)


def _mean_colour(design: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean color and its covariance: least squares over the channels, with a weak prior for gray."""
    grey = np.ones((3, 3)) / 3
    prior = (np.eye(3) - grey) / _COLOUR_SPREAD**2 + grey * 1e-9
    solve = lambda noise: np.linalg.inv(design.T @ design / noise + prior)  # noqa: E731
    free = np.linalg.lstsq(design, wanted, rcond=None)[0]
    noise = max(float(np.mean((wanted - design @ free) ** 2)) * len(wanted) / max(len(wanted) - 3, 1), 1e-4)
    covariance = solve(noise)
    return covariance @ (design.T @ wanted) / noise, covariance


def _contrast(ratio: np.ndarray, detail: np.ndarray) -> tuple[float, float]:
    """The logarithm of the contrast over the user's, and its error, extrapolated to channels without fine detail."""
    design = np.column_stack([np.ones_like(detail), detail])
    prior = np.diag([1e-9, 1 / 0.3**2])
    weight = np.ones_like(ratio)
    for _ in range(10):
        scaled = design * weight[:, np.newaxis]
        inverse = np.linalg.inv(scaled.T @ design / 0.05 + prior)
        coefficients = inverse @ (scaled.T @ ratio) / 0.05
        rest = ratio - design @ coefficients
        width = max(1.4826 * float(np.median(np.abs(rest))), 0.02)
        weight = 1 / (1 + (rest / (2 * width)) ** 2)
    inverse = np.linalg.inv(design.T @ (design * weight[:, np.newaxis]) / width**2 + prior)
    return float(coefficients[0]), float(np.sqrt(inverse[0, 0]))


def _density_of_same_kind(implied: TrainingImages, yours: np.ndarray, contrast: float) -> float:
    """The logarithm of the density of images like the user's."""
    covariance = implied.colour_error + np.eye(3) * (0.02 * implied.contrast) ** 2 + 0.04**2 * np.ones((3, 3))
    if float(np.ptp(yours)) >= 0.004:  # not gray
        covariance = covariance + np.eye(3) * 0.03**2
    spread = math.hypot(implied.contrast_error, _DETAIL_ERROR)
    colour, ratio = _normal(implied.colour - yours, covariance), implied.contrast / contrast
    return colour + (_IMPOSSIBLE if ratio <= 0 else -0.5 * (math.log(ratio) / spread) ** 2 - math.log(spread))


def _density_of_any_kind(implied: TrainingImages) -> float:
    """The logarithm of the density of any images, in gray or color."""
    brightness = implied.brightness
    if implied.contrast <= 0:
        return _IMPOSSIBLE
    inside = min(max(brightness, 0.01), 0.99)
    largest = math.sqrt(inside * (1 - inside))
    filling = math.log(implied.contrast / largest)
    spread = math.hypot(implied.contrast_error, _DETAIL_ERROR)
    # A contrast beyond that of black and white can only be an error of the estimate.
    excess = max(filling, 0.0)
    contrast = -0.5 * ((filling - _FILLING) / math.hypot(spread, _FILLING_SPREAD)) ** 2 - 0.5 * (excess / spread) ** 2
    contrast -= math.log(math.hypot(spread, _FILLING_SPREAD))
    contrast -= 0.5 * ((brightness - inside) / 0.03) ** 2
    covariance = implied.colour_error + np.eye(3) * (0.02 * implied.contrast) ** 2
    covariance = covariance + _BRIGHTNESS_SPREAD**2 * np.ones((3, 3))
    grey = _normal(implied.colour - _BRIGHTNESS, covariance)
    back = np.linalg.pinv(np.array([[1.0, -1.0, 0.0], [0.0, 1.0, -1.0]]))
    coloured = []
    for warmth, spread in ((_WARMTH, _WARMTH_SPREAD), (2 * _WARMTH, 0.2)):  # photographs, and stained tissue
        shift = np.array([2 * warmth[0] + warmth[1], warmth[1] - warmth[0], -warmth[0] - 2 * warmth[1]]) / 3
        covariance = back @ back.T * spread**2 + _BRIGHTNESS_SPREAD**2 * np.ones((3, 3)) + implied.colour_error
        coloured.append(_normal(implied.colour - (_BRIGHTNESS + shift), covariance))
    colour = float(np.logaddexp(math.log(0.7) + coloured[0], math.log(0.3) + coloured[1]))
    return contrast + float(np.logaddexp(math.log(0.5) + grey, math.log(0.5) + colour))


def _normal(difference: np.ndarray, covariance: np.ndarray) -> float:
    _, logarithm = np.linalg.slogdet(covariance)
    return float(-0.5 * difference @ np.linalg.solve(covariance, difference) - 0.5 * logarithm)
