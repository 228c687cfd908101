"""Which preprocessing a pretrained network expects, or that it cannot be told: the statistics of `weights check`.

The first convolution is linear, so the moving mean of the batch norm after it tells the mean colour of the training
images, and the moving variance their contrast: in the scale of the network. Each preprocessing mode translates both
into grey levels; a wrong one gives images that cannot be, or that are unlike any. A network can have been trained on
images of another kind than the user's, so that nothing has to agree exactly: what is known beforehand about collections
of images, and about the user's own, is written here as a density.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

_COLOUR_SPREAD = 0.15
"""Expected difference between the mean of a colour and mean grey, over datasets; fractions of white."""


_SURE = 0.95
"""Probability from which a mode is said to fit."""

_LIKELY = 0.75
"""Probability from which a mode is said to fit if it also fits most layers best."""

_MOST = 0.75
"""Of the layers."""

_FEWEST = 4
"""Layers that can speak for or against a mode."""

_CONSIDERED = 0.02
"""Probability from which a mode is named beside others."""

_ALIKE = 0.4
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

Moments = tuple[np.ndarray, np.ndarray]
"""Mean and variance, (samples, channels); the first sample is all images, the others are bootstrap samples."""


@dataclass(frozen=True)
class LayerFit:
    """One layer in one mode, each the median over the layer's channels.

    Attributes:
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


@dataclass(frozen=True)
class TrainingImages:
    """What the training images must have looked like.

    Attributes:
        colour: Mean red, green and blue, fractions of white.
        colour_error: (3, 3), covariance of their error.
        contrast: Standard deviation of their pixels, fraction of white.
        contrast_error: Standard error of its logarithm.
    """

    colour: np.ndarray
    colour_error: np.ndarray
    contrast: float
    contrast_error: float

    @property
    def brightness(self) -> float:
        return float(self.colour.mean())


@dataclass(frozen=True)
class ModeEvidence:
    """All there is to say about one mode.

    Attributes:
        same_as: Modes that give the network the same input from these images.
        probability: That the weights were trained with it or with one of `same_as`, among the modes known here.
        low: 5th percentile of that probability over bootstrap samples of the images.
        high: 95th percentile.
        best_at: At how many layers no mode fits better.
    """

    mode: str
    same_as: tuple[str, ...]
    probability: float
    low: float
    high: float
    training: TrainingImages
    possible: bool
    layers: tuple[LayerFit, ...]
    best_at: int


@dataclass(frozen=True)
class Verdict:
    """What to tell the user: the mode that fits, or those that may, best first, and the reason in one sentence."""

    certainty: Literal["fits", "undecided", "none"]
    modes: tuple[str, ...]
    reason: str


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


def training_images(
    mean: np.ndarray,
    variance: np.ndarray,
    black: np.ndarray,
    gain: np.ndarray,
    given: np.ndarray,
    pixel_variance: float,
) -> TrainingImages:
    """The images whose statistics the first batch norm holds, if they came in the mode that it is given here.

    Args:
        mean: (channels,), of the file.
        variance: (channels,), of the file, the layer's epsilon added.
        black: (channels,), the mean given for a black image.
        gain: (channels, 3), what each colour, RGB, adds to it at full brightness.
        given: (channels,), variance given for the user's images, the layer's epsilon added.
        pixel_variance: Of the user's images, over pixels and images, mean of the colours; fractions of white.
    """
    deviation = np.sqrt(variance)
    colour, error = _mean_colour(gain / deviation[:, np.newaxis], (mean - black) / deviation)
    ratio = 0.5 * np.log(variance / given)
    # 0 for a filter that only averages, more negative the more it cancels what is even.
    detail = 0.5 * np.log(np.maximum(gain.sum(axis=1) ** 2 * pixel_variance / given, 1e-6))
    contrast, contrast_error = _contrast(ratio, np.minimum(detail, 0.0))
    return TrainingImages(colour, error, float(np.sqrt(pixel_variance) * np.exp(contrast)), contrast_error)


def log_evidence(implied: TrainingImages, yours: np.ndarray, contrast: float, scale: np.ndarray) -> float:
    """Natural logarithm of the density of what the stem stores, up to a constant that all modes share.

    `yours` (3,) and `contrast` are the mean colour and standard deviation of the user's images, fractions of white;
    `scale` (3,) is how many units of the network full brightness is in the mode, for red, green and blue.
    """
    alike = math.log(_ALIKE) + _alike(implied, yours, contrast)
    return float(np.logaddexp(alike, math.log(1 - _ALIKE) + _any(implied))) - float(np.log(scale).sum())


def possible(implied: TrainingImages) -> bool:
    """Whether there can be such images: not darker than black, brighter than white or of more than full contrast."""
    inside = 0.0 < implied.brightness < 1.0
    largest = math.sqrt(implied.brightness * (1 - implied.brightness)) if inside else 0.0
    spread = math.hypot(implied.contrast_error, _DETAIL_ERROR)
    return inside and largest * math.exp(2 * spread) > implied.contrast > _LEAST_CONTRAST


def probabilities(evidence: np.ndarray) -> np.ndarray:
    """Of each mode, from logarithms of the density (samples, modes); the prior is uniform."""
    shares = np.exp(evidence - evidence.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def decide(modes: Sequence[ModeEvidence]) -> Verdict:
    """Weigh `modes`, the most probable first."""
    best = modes[0]
    layers = len(best.layers)
    if not any(evidence.possible for evidence in modes):
        return Verdict(
            "none",
            (),
            "Under no mode could the training images have looked as the first layer remembers them: the weights were "
            "trained with another input scale, or their batch-norm statistics are not those of their training.",
        )
    if not best.possible:
        return Verdict("undecided", _named(modes), "The most probable mode implies training images that cannot be.")
    if best.probability < _SURE and not (best.probability >= _LIKELY and _leads(best, _MOST)):
        return Verdict(
            "undecided",
            _named(modes),
            f"{' or '.join(_named(modes))}: the statistics of the first layer go with plausible training images "
            "in each.",
        )
    rival = next((item for item in modes[1:] if _leads(item, 0.9)), None)
    if rival is not None:
        return Verdict(
            "undecided",
            (best.mode, rival.mode),
            f"The first layer speaks for {best.mode}, but {rival.mode} fits {rival.best_at} of {layers} layers best.",
        )
    reason = (
        "The other modes imply training images unlike any."
        if best.probability >= _SURE
        else f"The first layer speaks for it, and it fits {best.best_at} of {layers} layers best."
    )
    return Verdict("fits", (best.mode, *best.same_as), reason)


def _named(modes: Sequence[ModeEvidence]) -> tuple[str, ...]:
    return tuple(mode for item in modes if item.probability >= _CONSIDERED for mode in (item.mode, *item.same_as))


def _leads(mode: ModeEvidence, share: float) -> bool:
    return len(mode.layers) >= _FEWEST and mode.best_at >= share * len(mode.layers)


def _mean_colour(design: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least squares over the channels, with a weak prior that colours are alike where the filters do not tell."""
    grey = np.ones((3, 3)) / 3
    prior = (np.eye(3) - grey) / _COLOUR_SPREAD**2 + grey * 1e-9
    solve = lambda noise: np.linalg.inv(design.T @ design / noise + prior)  # noqa: E731
    free = np.linalg.lstsq(design, wanted, rcond=None)[0]
    noise = max(float(np.mean((wanted - design @ free) ** 2)) * len(wanted) / max(len(wanted) - 3, 1), 1e-4)
    covariance = solve(noise)
    return covariance @ (design.T @ wanted) / noise, covariance


def _contrast(ratio: np.ndarray, detail: np.ndarray) -> tuple[float, float]:
    """Logarithm of the contrast over the user's, and its error.

    From the channels that see brightness rather than fine detail, whose share differs from domain to domain.
    """
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


def _alike(implied: TrainingImages, yours: np.ndarray, contrast: float) -> float:
    covariance = implied.colour_error + np.eye(3) * (0.02 * implied.contrast) ** 2 + 0.04**2 * np.ones((3, 3))
    if float(np.ptp(yours)) >= 0.004:  # not grey
        covariance = covariance + np.eye(3) * 0.03**2
    spread = math.hypot(implied.contrast_error, _DETAIL_ERROR)
    colour, ratio = _normal(implied.colour - yours, covariance), implied.contrast / contrast
    return colour + (_IMPOSSIBLE if ratio <= 0 else -0.5 * (math.log(ratio) / spread) ** 2 - math.log(spread))


def _any(implied: TrainingImages) -> float:
    """The density of images of any kind, grey or in colour."""
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
