"""Which preprocessing a pretrained network expects, read from its batch-norm statistics.

`radtransfer weights check`: from a file and a table of images to the mode that fits.

Which mode the weights expect, or that it cannot be told.

How well the images that a mode implies look like images: the evidence for the mode.

A network can have been trained on images of another kind than the user's, so that nothing has to agree exactly. What is
known beforehand about collections of images, and about the user's own, is written here as a density.

How far what a mode gives a batch-norm layer is from what the layer remembers.

What the images that a network was trained on looked like, if its input was prepared in a given way.

The first convolution is linear, so the moving mean of the batch norm after it tells the mean colour of the training
images, and the moving variance their contrast: in the scale of the network. Each preprocessing mode translates both
into grey levels; a wrong one gives images that cannot be, or that are unlike any.
"""

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from radtransfer.config.schema import Config
from radtransfer.data.image_check import check_images
from radtransfer.data.image_list import read_images
from radtransfer.data.pictures import chosen_rows
from radtransfer.errors import ConfigError, WeightsMismatchError
from radtransfer.models.backbone import BACKBONES
from radtransfer.pretrained.loading import assign, load_pretrained, recognize
from radtransfer.pretrained.read import read_weight_file
from radtransfer.pretrained.source import Certainty as Certainty_source
from radtransfer.pretrained.source import WeightSource, check_backbone, find_weights
from radtransfer.pretrained.weight_file import WeightFile
from radtransfer.process import Progress, keras_defaults, usable_cores

if TYPE_CHECKING:
    import keras

    from radtransfer.data.table import ImageTable
    from radtransfer.pretrained.input_check import ScaleCheck

FEWEST = 8
"""Images below which nothing is said about their statistics."""


@dataclass(frozen=True)
class FileCheck:
    """What was found about one file.

    Attributes:
        file: Its path.
        backbone: The network in it.
        image_size: Pixels.
        used: Mode that radtransfer uses for the file.
        used_sure: How that is known.
        check: The comparison.
    """

    file: str
    backbone: str
    image_size: int
    used: str
    used_sure: Certainty_source
    check: "ScaleCheck"


def check_weights(
    weights: str,
    config: Config,
    *,
    backbone: str | None = None,
    images: int = 48,
    layers: int = 12,
    ignore_lambda: bool = False,
    progress: Progress | None = None,
) -> FileCheck:
    """Which preprocessing the weights in a file expect, as seen on images of the user.

    Args:
        weights: A file, a name from `radtransfer weights list`, or RUN[/fold_K].
        config: Of which `data`, `images`, `model.image_size` and the seed count.
        backbone: Name of the network; None to recognize it.
        images: Most images to look at; classes take turns.
        layers: Batch-norm layers to compare, from the stem on.
        ignore_lambda: Take the weights of a file with Lambda layers too.
        progress: Hears the count, and of Lambda layers that were ignored.

    Raises:
        WeightsError: The file cannot be used, is none of the backbones, or takes images of other than three channels.
        DataError: The table cannot be used, or too few images can be read.
    """
    progress = progress or Progress()
    if backbone is not None:
        BACKBONES.check(backbone)
    source = find_weights(weights, backbone=backbone)
    if backbone is not None:
        check_backbone(source, backbone)
    table = read_images(config.data, progress=progress)
    file = read_weight_file(source.file, ignore_lambda=ignore_lambda)
    if file.lambdas:
        progress.note(file.lambda_note)
    with keras_defaults():
        from radtransfer.pretrained.input_check import check_network

        model = _network(source, file, backbone, config.model.image_size)
        used, sure = source.preprocessing_for(model.name)
        pictures = _pictures(table, config, images, progress)
        found = check_network(model, pictures, layers=layers, seed=config.seed, progress=progress)
    return FileCheck(str(source.file), model.name, config.model.image_size, used, sure, found)


def _network(source: WeightSource, file: WeightFile, backbone: str | None, image_size: int) -> "keras.Model":
    """The network of the file, with its weights."""
    from radtransfer.models.architecture import build_architecture

    if backbone is not None:
        model = build_architecture(backbone, image_size=image_size, pooling=None)
        given = str(source.file)
        assign(model, load_pretrained(given, backbone=backbone, model=model, ignore_lambda=bool(file.lambdas)))
        return model
    found = recognize(file)
    if found is None:
        raise WeightsMismatchError(
            f"{file.path} holds {len(file.layers)} weighted layers that are not those of a known backbone. "
            "Name the network with --backbone to see what is missing."
        )
    if found.channels != 3:
        raise WeightsMismatchError(
            f"{file.path} is for images of {found.channels} channels; preprocessing modes are for three."
        )
    model = build_architecture(found.backbone, image_size=image_size, pooling=None)
    for name, arrays in found.match.arrays.items():
        model.get_layer(name).set_weights(arrays)
    return model


def _pictures(table: "ImageTable", config: Config, images: int, progress: Progress) -> np.ndarray:
    """The images as the network sees them before preprocessing, float32 (images, size, size, 3), RGB, 0–255."""
    from radtransfer.images.pipeline import make_batches

    with tempfile.TemporaryDirectory() as folder:
        checked = check_images(
            table.select(chosen_rows(table, images, config.seed)),
            workers=usable_cores(),
            on_bad_image="skip",
            reading=config.images,
            report_file=Path(folder) / "bad_images.txt",
        )
    for image in checked.bad:
        progress.note(f"{image.path} cannot be read and is left out ({image.reason})")
    if len(checked.table) < FEWEST:
        raise ConfigError(
            f"weights check needs at least {FEWEST} images to know their statistics. Received: {len(checked.table)}."
        )
    batches = make_batches(
        checked.table.paths,
        checked.table.files,
        checked.facts,
        checked.table.targets,
        image_size=config.model.image_size,
        reading=config.images,
        batch_size=len(checked.table),
        workers=usable_cores(),
    )
    epoch = batches.in_order()
    (batch,) = epoch
    return batch[0].numpy()


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


SURE = 0.95
"""Probability from which a mode is said to fit."""

LIKELY = 0.75
"""Probability from which a mode is said to fit if it also fits most layers best."""

_MOST = 0.75
"""Of the layers."""

_FEWEST = 4
"""Layers that can speak for or against a mode."""

CONSIDERED = 0.02
"""Probability from which a mode is named beside others."""

Certainty = Literal["fits", "undecided", "none"]


@dataclass(frozen=True)
class ModeEvidence:
    """All there is to say about one mode.

    Attributes:
        mode: Its name.
        same_as: Modes that give the network the same input from these images.
        probability: That the weights were trained with it or with one of `same_as`, among the modes known here.
        low: 5th percentile of that probability over bootstrap samples of the images.
        high: 95th percentile.
        training: The training images that it implies.
        possible: Whether there can be such images.
        layers: How it fits each layer.
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
    """What to tell the user.

    Attributes:
        certainty: A mode fits, several may, or none does.
        modes: The one that fits, or those that may, best first.
        reason: One sentence.
    """

    certainty: Certainty
    modes: tuple[str, ...]
    reason: str


def probabilities(evidence: np.ndarray) -> np.ndarray:
    """Of each mode, from logarithms of the density (samples, modes), all modes alike beforehand."""
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
    if best.probability < SURE and not (best.probability >= LIKELY and _leads(best, _MOST)):
        return Verdict(
            "undecided",
            _named(modes),
            f"{' or '.join(_named(modes))}: the statistics of the first layer go with plausible training images "
            "in each.",
        )
    rival = _rival(modes)
    if rival is not None:
        return Verdict(
            "undecided",
            (best.mode, rival.mode),
            f"The first layer speaks for {best.mode}, but {rival.mode} fits {rival.best_at} of {layers} layers best.",
        )
    reason = (
        "The other modes imply training images unlike any."
        if best.probability >= SURE
        else f"The first layer speaks for it, and it fits {best.best_at} of {layers} layers best."
    )
    return Verdict("fits", (best.mode, *best.same_as), reason)


def _named(modes: Sequence[ModeEvidence]) -> tuple[str, ...]:
    """Those that together hold nearly all of the probability."""
    return tuple(mode for item in modes if item.probability >= CONSIDERED for mode in (item.mode, *item.same_as))


def _rival(modes: Sequence[ModeEvidence]) -> ModeEvidence | None:
    """Another mode that fits nearly all layers best."""
    return next((item for item in modes[1:] if _leads(item, 0.9)), None)


def _leads(mode: ModeEvidence, share: float) -> bool:
    return len(mode.layers) >= _FEWEST and mode.best_at >= share * len(mode.layers)


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
