"""What the images that a network was trained on looked like, if its input was prepared in a given way.

The first convolution is linear, so the moving mean of the batch norm after it tells the mean colour of the training
images, and the moving variance their contrast: in the scale of the network. Each preprocessing mode translates both
into grey levels; a wrong one gives images that cannot be, or that are unlike any.
"""

from dataclasses import dataclass

import numpy as np

_COLOUR_SPREAD = 0.15
"""Expected difference between the mean of a colour and mean grey, over datasets; fractions of white."""


@dataclass(frozen=True)
class StemStatistics:
    """What the first batch norm holds, and what it is given in one mode.

    Attributes:
        stored_mean: (channels,), of the file.
        stored_variance: (channels,), of the file, the layer's epsilon added.
        black: (channels,), the mean given for a black image.
        gain: (channels, 3), what each colour, RGB, adds to it at full brightness.
        variance: (channels,), given for the user's images, the layer's epsilon added.
        pixel_variance: Of the user's images, over pixels and images, mean of the colours; fractions of white.
    """

    stored_mean: np.ndarray
    stored_variance: np.ndarray
    black: np.ndarray
    gain: np.ndarray
    variance: np.ndarray
    pixel_variance: float


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


def training_images(stem: StemStatistics) -> TrainingImages:
    """The images whose statistics `stem` stored, in the mode that it was given."""
    colour, error = _mean_colour(stem)
    contrast, contrast_error = _contrast(stem)
    return TrainingImages(colour, error, contrast, contrast_error)


def _mean_colour(stem: StemStatistics) -> tuple[np.ndarray, np.ndarray]:
    """Least squares over the channels, with a weak prior that colours are alike where the filters do not tell."""
    deviation = np.sqrt(stem.stored_variance)
    design = stem.gain / deviation[:, np.newaxis]
    wanted = (stem.stored_mean - stem.black) / deviation
    grey = np.ones((3, 3)) / 3
    prior = (np.eye(3) - grey) / _COLOUR_SPREAD**2 + grey * 1e-9
    solve = lambda noise: np.linalg.inv(design.T @ design / noise + prior)  # noqa: E731
    free = np.linalg.lstsq(design, wanted, rcond=None)[0]
    noise = max(float(np.mean((wanted - design @ free) ** 2)) * len(wanted) / max(len(wanted) - 3, 1), 1e-4)
    covariance = solve(noise)
    return covariance @ (design.T @ wanted) / noise, covariance


def _contrast(stem: StemStatistics) -> tuple[float, float]:
    """From the channels that see brightness rather than fine detail, whose share differs from domain to domain."""
    ratio = 0.5 * np.log(stem.stored_variance / stem.variance)
    # 0 for a filter that only averages, more negative the more it cancels what is even.
    detail = 0.5 * np.log(np.maximum(stem.gain.sum(axis=1) ** 2 * stem.pixel_variance / stem.variance, 1e-6))
    detail = np.minimum(detail, 0.0)
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
    return float(np.sqrt(stem.pixel_variance) * np.exp(coefficients[0])), float(np.sqrt(inverse[0, 0]))
