"""Compares a file's batch-norm statistics with what each preprocessing mode makes of the user's images.

What each preprocessing mode makes of the user's images at the batch-norm layers of a network.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from radtransfer.images.preprocessing import MODES, preprocess
from radtransfer.pretrained.input_scale import (
    Collection,
    LayerFit,
    ModeEvidence,
    StemStatistics,
    TrainingImages,
    Verdict,
    bootstrap_weights,
    decide,
    layer_fit,
    log_evidence,
    possible,
    probabilities,
    sample_moments,
    training_images,
)
from radtransfer.process import Progress

_BATCH = 8


@dataclass(frozen=True)
class StoredStatistics:
    """What one batch-norm layer remembers of its training.

    Attributes:
        name: Of the layer.
        mean: (channels,).
        variance: (channels,), the layer's epsilon added.
        epsilon: Of the layer.
    """

    name: str
    mean: np.ndarray
    variance: np.ndarray
    epsilon: float


@dataclass(frozen=True)
class ImageMoments:
    """What enters one layer, image by image.

    Attributes:
        mean: (images, channels), over positions.
        square: (images, channels), mean of the squares.
    """

    mean: np.ndarray
    square: np.ndarray


@dataclass(frozen=True)
class StemResponse:
    """What the first layer's channels are given for images of one colour.

    Attributes:
        black: (channels,).
        gain: (channels, 3), what red, green and blue at full brightness add.
        linear: Whether a white image gives the sum of these.
    """

    black: np.ndarray
    gain: np.ndarray
    linear: bool


def batch_norm_layers(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    """Those that were trained, in the model's order; a layer that still holds means 0 and variances 1 was not."""
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    return [layer for layer in layers if _trained(layer)]


def stored_statistics(layers: Sequence[keras.layers.BatchNormalization]) -> list[StoredStatistics]:
    """What `layers` hold, float64."""
    return [
        StoredStatistics(
            layer.name,
            _numbers(layer.moving_mean),
            _numbers(layer.moving_variance) + layer.epsilon,
            float(layer.epsilon),
        )
        for layer in layers
    ]


class Probe:
    """A network, looked at where its batch-norm layers take their input, at inference."""

    def __init__(self, model: keras.Model, layers: Sequence[keras.layers.BatchNormalization]):
        self._stem = _moments_of(keras.Model(model.input, [layers[0].input]))
        self._all = _moments_of(keras.Model(model.input, [layer.input for layer in layers]))

    def moments(self, images: np.ndarray, mode: str, *, heard: Callable[[int], None]) -> list[ImageMoments]:
        """What enters each layer.

        Args:
            images: float32 (images, height, width, 3), RGB, 0–255.
            mode: Key of `MODES`.
            heard: Told of each batch how many images it had.
        """
        parts = []
        for start in range(0, len(images), _BATCH):
            batch = images[start : start + _BATCH]
            missing = _BATCH - len(batch)  # a batch of another size would be traced anew
            filled = np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)]) if missing else batch
            given = self._all(preprocess(tf.constant(filled), mode))
            parts.append([[part.numpy()[: len(batch)] for part in pair] for pair in given])
            heard(len(batch))
        return [
            ImageMoments(*(np.concatenate([part[layer][kind] for part in parts]).astype(float) for kind in (0, 1)))
            for layer in range(len(parts[0]))
        ]

    def stem_response(self, size: int, mode: str) -> StemResponse:
        """What images of `size` pixels in black, red, green, blue and white give in `mode`."""
        colours = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]], np.float32) * 255
        images = np.broadcast_to(colours[:, np.newaxis, np.newaxis], (5, size, size, 3))
        ((means, _),) = self._stem(preprocess(tf.constant(images), mode))
        black, *primaries, white = means.numpy().astype(float)
        gain = np.stack(primaries, axis=1) - black[:, np.newaxis]
        rest = np.abs(black + gain.sum(axis=1) - white).max()
        return StemResponse(black, gain, linear=bool(rest <= 1e-2 * np.abs(means).max() + 1e-6))


def mode_scale(mode: str) -> np.ndarray:
    """(3,): how many units of the network full brightness is, for red, green and blue."""
    card = MODES[mode]
    scale = 255 * card.scale / np.array(card.std)
    return scale[::-1] if card.order == "BGR" else scale


def _moments_of(model: keras.Model) -> Callable:
    @tf.function(reduce_retracing=True)
    def moments(images: tf.Tensor) -> list[tuple[tf.Tensor, tf.Tensor]]:
        outputs = model(images, training=False)
        outputs = list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]
        return [(tf.reduce_mean(x, (1, 2)), tf.reduce_mean(tf.square(x), (1, 2))) for x in outputs]

    return moments


def _trained(layer: keras.layers.BatchNormalization) -> bool:
    return bool(np.any(_numbers(layer.moving_mean) != 0) and np.any(_numbers(layer.moving_variance) != 1))


def _numbers(variable: keras.Variable) -> np.ndarray:
    return keras.ops.convert_to_numpy(variable).astype(float)


SAMPLES = 100
"""Bootstrap samples of the images."""

GREY = 0.5
"""Mean difference between a pixel's colours up to which images count as grey, of 255; some carry a coloured mark."""


@dataclass(frozen=True)
class ScaleCheck:
    """The result for one network and one set of images.

    Attributes:
        images: How many were looked at.
        grey: Whether all of them are grey.
        brightness: Their mean, fraction of white.
        contrast: Their standard deviation over pixels and images, fraction of white.
        layers: Batch-norm layers compared, from the stem on.
        all_layers: Batch-norm layers of the network that were trained.
        modes: The most probable first; one entry for modes that are the same for these images.
        verdict: What follows.
    """

    images: int
    grey: bool
    brightness: float
    contrast: float
    layers: int
    all_layers: int
    modes: tuple[ModeEvidence, ...]
    verdict: Verdict


def check_network(
    model: keras.Model, images: np.ndarray, *, layers: int = 12, seed: int = 0, progress: Progress | None = None
) -> ScaleCheck:
    """Which mode the statistics that `model` stores were collected with.

    Args:
        model: A backbone that takes preprocessed images, with the weights in question.
        images: float32 (images, size, size, 3), RGB, 0–255.
        layers: Batch-norm layers to compare, from the stem on.
        seed: Of the bootstrap.
        progress: Hears the count of images.
    """
    trained = batch_norm_layers(model)
    yours = _collection(images)
    grey = bool(np.ptp(images, axis=-1).mean() <= GREY)
    modes: tuple[ModeEvidence, ...] = ()
    verdict = _without_statistics(model)
    if trained:
        modes, verdict = _compared(model, trained[:layers], images, yours, grey, seed, progress or Progress())
    return ScaleCheck(
        images=len(images),
        grey=grey,
        brightness=float(yours.colour.mean()),
        contrast=yours.contrast,
        layers=len(trained[:layers]),
        all_layers=len(trained),
        modes=modes,
        verdict=verdict,
    )


def _compared(
    model: keras.Model,
    layers: Sequence[keras.layers.BatchNormalization],
    images: np.ndarray,
    yours: Collection,
    grey: bool,
    seed: int,
    progress: Progress,
) -> tuple[tuple[ModeEvidence, ...], Verdict]:
    probe, stored = Probe(model, layers), stored_statistics(layers)
    weights = bootstrap_weights(len(images), SAMPLES, seed)
    groups, size = _groups(grey), images.shape[1]
    evidence, implied, fits = [], [], []
    for done, group in enumerate(groups):
        mode = group[0]
        before = done * len(images)
        given = _heard(probe, images, mode, progress, before, len(groups) * len(images))
        implied_by_sample = {
            other: _implied(probe, stored[0], given[0], images, other, size, weights) for other in group
        }
        if any(found is None for found in implied_by_sample.values()):
            return (), Verdict(
                "undecided", (), "What the first batch norm is given is not a linear function of the image."
            )
        evidence += [
            [log_evidence(item, yours, mode_scale(other)) for item in implied_by_sample[other]] for other in group
        ]
        implied += [implied_by_sample[other][0] for other in group]
        fits += [_fits(stored, given, weights)] * len(group)
    names = [mode for group in groups for mode in group]
    found = _evidence(groups, names, probabilities(np.array(evidence).T), implied, fits)
    return found, decide(found)


def _heard(
    probe: Probe, images: np.ndarray, mode: str, progress: Progress, before: int, total: int
) -> list[ImageMoments]:
    seen = before

    def heard(batch: int) -> None:
        nonlocal seen
        seen += batch
        progress.count("images compared", seen, total)

    return probe.moments(images, mode, heard=heard)


def _groups(grey: bool) -> list[tuple[str, ...]]:
    """The modes; together those that the order of the colours alone tells apart, where the images are grey."""
    groups: dict[tuple, list[str]] = {}
    for name, card in MODES.items():
        key = (card.scale, card.mean, card.std, None if grey else card.order)
        groups.setdefault(key, []).append(name)
    return [tuple(names) for names in groups.values()]


def _implied(
    probe: Probe,
    stem: StoredStatistics,
    given: ImageMoments,
    images: np.ndarray,
    mode: str,
    size: int,
    weights: np.ndarray,
) -> list[TrainingImages] | None:
    """The training images under `mode`, from all images and from each bootstrap sample of them."""
    response: StemResponse = probe.stem_response(size, mode)
    if not response.linear:
        return None
    _, variance = sample_moments(given.mean, given.square, weights, epsilon=stem.epsilon)
    scaled = images.astype(float) / 255
    _, pixels = sample_moments(scaled.mean((1, 2)), np.square(scaled).mean((1, 2)), weights)
    return [
        training_images(
            StemStatistics(stem.mean, stem.variance, response.black, response.gain, sample, float(pixel.mean()))
        )
        for sample, pixel in zip(variance, pixels, strict=True)
    ]


def _fits(
    stored: Sequence[StoredStatistics], given: Sequence[ImageMoments], weights: np.ndarray
) -> tuple[LayerFit, ...]:
    return tuple(
        layer_fit(
            layer.name,
            layer.mean,
            layer.variance,
            sample_moments(moments.mean, moments.square, weights, epsilon=layer.epsilon),
        )
        for layer, moments in zip(stored, given, strict=True)
    )


def _evidence(
    groups: Sequence[tuple[str, ...]],
    names: Sequence[str],
    shares: np.ndarray,
    implied: Sequence[TrainingImages],
    fits: Sequence[tuple[LayerFit, ...]],
) -> tuple[ModeEvidence, ...]:
    misfits = np.array([[layer.misfit for layer in fit] for fit in fits])
    best = misfits <= misfits.min(axis=0)
    found = []
    for group in groups:
        places = [names.index(mode) for mode in group]
        first = max(places, key=lambda place: shares[0, place])
        together = shares[:, places].sum(axis=1)
        low, high = np.quantile(together[1:], (0.05, 0.95))
        found.append(
            ModeEvidence(
                mode=names[first],
                same_as=tuple(names[place] for place in places if place != first),
                probability=float(together[1:].mean()),
                low=float(low),
                high=float(high),
                training=implied[first],
                possible=possible(implied[first]),
                layers=fits[first],
                best_at=int(best[first].sum()),
            )
        )
    return tuple(sorted(found, key=lambda item: -item.probability))


def _collection(images: np.ndarray) -> Collection:
    scaled = images.astype(float) / 255
    return Collection(scaled.mean((0, 1, 2)), float(np.sqrt(scaled.var(axis=(0, 1, 2)).mean())))


def _without_statistics(model: keras.Model) -> Verdict:
    has_layers = any(isinstance(layer, keras.layers.BatchNormalization) for layer in model.layers)
    reason = (
        "Its batch-norm layers hold means of 0 and variances of 1: they were never trained."
        if has_layers
        else f"{model.name} has no batch-norm layers, so the file remembers nothing of its images."
    )
    return Verdict("undecided", (), reason)
