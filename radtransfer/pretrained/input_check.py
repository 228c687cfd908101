"""`radtransfer weights check`: infers the preprocessing that the weights in a file were trained with.

Each mode is applied to the user's images, and the inputs of the batch-norm layers are compared with their stored
statistics.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from radtransfer.config.schema import Config
from radtransfer.data.image_check import check_images
from radtransfer.data.image_list import read_images
from radtransfer.data.pictures import chosen_rows
from radtransfer.data.table import ImageTable
from radtransfer.errors import ConfigError
from radtransfer.images.preprocessing import MODES, preprocess
from radtransfer.models.backbone import BACKBONES
from radtransfer.pretrained.input_scale import (
    LayerFit,
    ModeEvidence,
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
from radtransfer.pretrained.match import assign, match_network
from radtransfer.pretrained.read import read_weight_file
from radtransfer.pretrained.source import Certainty, find_weights
from radtransfer.process import Progress, keras_defaults, usable_cores

if TYPE_CHECKING:
    import keras

_MIN_IMAGES = 8
"""Minimum number of images."""

_BATCH = 8
_OF_TRANSFORMERS = ("clip", "rad_dino")
"""Modes that no network with batch norm was trained with; "clip" is nearly equal to "torch"."""

_SAMPLES = 100
"""Bootstrap samples of the images."""

_GREY = 0.5
"""Maximum mean difference between the colors of a pixel, of 255, in gray images, which may have a colored mark."""


@dataclass(frozen=True)
class ScaleCheck:
    """The result for one network and one set of images."""

    images: int
    grey: bool
    brightness: float  # mean, fraction of white
    contrast: float  # standard deviation over pixels and images, fraction of white
    layers: int  # batch-norm layers compared
    all_layers: int  # trained batch-norm layers
    modes: tuple[ModeEvidence, ...]  # the most probable first; one entry for modes that are equal on these images
    verdict: Verdict


@dataclass(frozen=True)
class FileCheck:
    """The result for a weights file, and the preprocessing that radtransfer would use."""

    file: str
    backbone: str
    image_size: int
    used: str
    used_sure: Certainty
    check: ScaleCheck


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
    """Infer the preprocessing that weights expect, from images of the user.

    `weights` is a file, a name from `radtransfer weights list`, or RUN[/fold_K]. At most `images` images are used, and
    `layers` batch-norm layers are compared, starting at the stem. Of `config`, only `data`, `images`,
    `model.image_size` and the seed matter.
    """
    progress = progress or Progress()
    if backbone is not None:
        BACKBONES.check(backbone)
    source = find_weights(weights, backbone=backbone)
    table = read_images(config.data, progress=progress)
    file = read_weight_file(source.file, ignore_lambda=ignore_lambda)
    if file.lambdas:
        progress.note(file.lambda_note)
    size = config.model.image_size
    with keras_defaults():
        from radtransfer.models.architecture import build_architecture

        name, match = match_network(file, backbone)
        model = build_architecture(name, image_size=size, pooling=None)
        assign(model, match.arrays)
        used, sure = source.preprocessing_for(name)
        pictures = _pictures(table, config, images, progress)
        found = check_network(model, pictures, layers=layers, seed=config.seed, progress=progress)
    return FileCheck(str(source.file), name, size, used, sure, found)


def check_network(
    model: "keras.Model", images: np.ndarray, *, layers: int = 12, seed: int = 0, progress: Progress | None = None
) -> ScaleCheck:
    """Infer the mode that `model`, a backbone without preprocessing, was trained with.

    `images` are float32 (images, size, size, 3), RGB, 0–255; the first `layers` batch-norm layers are compared.
    """
    from keras.layers import BatchNormalization

    norms = [layer for layer in model.layers if isinstance(layer, BatchNormalization)]
    # An untrained layer has means 0 and variances 1.
    trained = [
        norm
        for norm in norms
        if np.any(_numbers(norm.moving_mean) != 0) and np.any(_numbers(norm.moving_variance) != 1)
    ]
    scaled = images.astype(float) / 255
    contrast = float(np.sqrt(scaled.var(axis=(0, 1, 2)).mean()))
    grey = bool(np.ptp(images, axis=-1).mean() <= _GREY)
    if trained:
        modes, verdict = _compared(model, trained[:layers], images, contrast, grey, seed, progress or Progress())
    else:
        reason = (
            "Its batch-norm layers have means of 0 and variances of 1: they were never trained."
            if norms
            else f"{model.name} has no batch-norm layers, so the file has no statistics of its training images."
        )
        modes, verdict = (), Verdict("undecided", (), reason)
    return ScaleCheck(
        images=len(images),
        grey=grey,
        brightness=float(scaled.mean((0, 1, 2)).mean()),
        contrast=contrast,
        layers=len(trained[:layers]),
        all_layers=len(trained),
        modes=modes,
        verdict=verdict,
    )


def _compared(
    model: "keras.Model",
    norms: Sequence["keras.layers.BatchNormalization"],
    images: np.ndarray,
    contrast: float,
    grey: bool,
    seed: int,
    progress: Progress,
) -> tuple[tuple[ModeEvidence, ...], Verdict]:
    import keras

    stem = _moments_of(keras.Model(model.input, [norms[0].input]))
    network = _moments_of(keras.Model(model.input, [norm.input for norm in norms]))
    stored = [(_numbers(norm.moving_mean), _numbers(norm.moving_variance) + norm.epsilon) for norm in norms]
    weights = bootstrap_weights(len(images), _SAMPLES, seed)
    scaled = images.astype(float) / 255
    colour = scaled.mean((0, 1, 2))
    _, pixels = sample_moments(scaled.mean((1, 2)), np.square(scaled).mean((1, 2)), weights)
    # For gray images, modes that differ only in the order of the colors are equal.
    by_input: dict[tuple, list[str]] = {}
    for name, spec in MODES.items():
        if name in _OF_TRANSFORMERS:
            continue
        by_input.setdefault((spec.scale, spec.mean, spec.std, None if grey else spec.order), []).append(name)
    groups = list(by_input.values())
    evidence, implied, fits = [], [], []
    for done, group in enumerate(groups):
        before, total = done * len(images), len(groups) * len(images)
        inputs = _layer_inputs(network, images, group[0], progress, before=before, total=total)
        given = [
            sample_moments(mean, square, weights, epsilon=float(norm.epsilon))
            for norm, (mean, square) in zip(norms, inputs, strict=True)
        ]
        fit = tuple(
            layer_fit(norm.name, *statistics, moments)
            for norm, statistics, moments in zip(norms, stored, given, strict=True)
        )
        for mode in group:
            response = _stem_response(stem, images.shape[1], mode)
            if response is None:
                reason = "The input of the first batch norm is not a linear function of the image."
                return (), Verdict("undecided", (), reason)
            samples = [
                training_images(*stored[0], *response, variance, float(pixel.mean()))
                for variance, pixel in zip(given[0][1], pixels, strict=True)
            ]
            # The network input for full red, green and blue.
            scale = 255 * MODES[mode].scale / np.array(MODES[mode].std)
            scale = scale[::-1] if MODES[mode].order == "BGR" else scale
            evidence.append([log_evidence(sample, colour, contrast, scale) for sample in samples])
            implied.append(samples[0])
            fits.append(fit)
    names = [mode for group in groups for mode in group]
    found = _evidence(groups, names, probabilities(np.array(evidence).T), implied, fits)
    return found, decide(found)


def _moments_of(model: "keras.Model") -> Callable:
    """A function of images and mode: mean and mean square over positions of each output, (images, channels)."""
    import tensorflow as tf

    @tf.function(reduce_retracing=True)
    def moments(images: tf.Tensor) -> list[tuple[tf.Tensor, tf.Tensor]]:
        outputs = model(images, training=False)
        outputs = list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]
        return [(tf.reduce_mean(x, (1, 2)), tf.reduce_mean(tf.square(x), (1, 2))) for x in outputs]

    return lambda given, mode: [
        [part.numpy() for part in pair] for pair in moments(preprocess(tf.constant(given), mode))
    ]


def _layer_inputs(
    network: Callable, images: np.ndarray, mode: str, progress: Progress, *, before: int, total: int
) -> list[list[np.ndarray]]:
    """Mean and mean square of the inputs of each layer, float64 (images, channels)."""
    parts = []
    for start in range(0, len(images), _BATCH):
        batch = images[start : start + _BATCH]
        missing = _BATCH - len(batch)  # padded, as a batch of another size would be traced again
        filled = np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)]) if missing else batch
        parts.append([[part[: len(batch)] for part in pair] for pair in network(filled, mode)])
        progress.count("images compared", before + start + len(batch), total)
    return [
        [np.concatenate([part[layer][kind] for part in parts]).astype(float) for kind in (0, 1)]
        for layer in range(len(parts[0]))
    ]


def _stem_response(stem: Callable, size: int, mode: str) -> tuple[np.ndarray, np.ndarray] | None:
    """The first layer's output for a black image, (channels,), and its increase by full colors, (channels, 3).

    None unless the output for a white image is their sum.
    """
    colours = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]], np.float32) * 255
    ((means, _),) = stem(np.broadcast_to(colours[:, np.newaxis, np.newaxis], (5, size, size, 3)), mode)
    black, *primaries, white = means.astype(float)
    gain = np.stack(primaries, axis=1) - black[:, np.newaxis]
    rest = np.abs(black + gain.sum(axis=1) - white).max()
    return (black, gain) if rest <= 1e-2 * np.abs(means).max() + 1e-6 else None


def _evidence(
    groups: Sequence[Sequence[str]],
    names: Sequence[str],
    shares: np.ndarray,
    implied: Sequence[TrainingImages],
    fits: Sequence[tuple[LayerFit, ...]],
) -> tuple[ModeEvidence, ...]:
    misfits = np.array([[layer.misfit for layer in fit] for fit in fits])
    best = misfits <= misfits.min(axis=0)
    found = []
    for group in groups:
        indices = [names.index(mode) for mode in group]
        first = max(indices, key=lambda index: shares[0, index])
        total = shares[:, indices].sum(axis=1)
        low, high = np.quantile(total[1:], (0.05, 0.95))
        found.append(
            ModeEvidence(
                mode=names[first],
                same_as=tuple(names[index] for index in indices if index != first),
                probability=float(total[1:].mean()),
                low=float(low),
                high=float(high),
                training=implied[first],
                possible=possible(implied[first]),
                layers=fits[first],
                best_at=int(best[first].sum()),
            )
        )
    return tuple(sorted(found, key=lambda item: -item.probability))


def _pictures(table: ImageTable, config: Config, images: int, progress: Progress) -> np.ndarray:
    """The resized images before preprocessing, float32 (images, size, size, 3), RGB, 0–255."""
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
    if len(checked.table) < _MIN_IMAGES:
        raise ConfigError(
            f"weights check: expected at least {_MIN_IMAGES} readable images. Received: {len(checked.table)}."
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
    (batch,) = batches.in_order()
    return batch[0].numpy()


def _numbers(variable: "keras.Variable") -> np.ndarray:
    import keras

    return keras.ops.convert_to_numpy(variable).astype(float)
