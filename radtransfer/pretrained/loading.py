"""Gives a network the weights it starts from: complete, or not at all."""

import contextlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from radtransfer.backbones import BACKBONES
from radtransfer.environment import keras_defaults, keras_home
from radtransfer.errors import DiskError, WeightsError, WeightsMismatchError
from radtransfer.pretrained.recognition import mismatch
from radtransfer.pretrained.weight_sources import (
    Certainty,
    WeightSource,
    check_backbone,
    check_imagenet_exists,
    find_weights,
)
from radtransfer.system_errors import write_error
from radtransfer.weight_formats.matching import Match, match_layers

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class LoadReport:
    """What was found in the file.

    Attributes:
        matched: Layers of the network that have weights now.
        missing: Layers that have none; empty, since loading is complete or an error.
        extra: Layers of the file that are not the network's, such as a head.
        changed: How many matched layers had other values before.
        by: What the layers were matched by.
    """

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    changed: int
    by: Literal["name", "order"]


@dataclass(frozen=True)
class PretrainedWeights:
    """Weights for every layer of one backbone.

    Attributes:
        layers: Layer name to its arrays, float32, in the order of the layer's `weights`.
        source: What the user gave.
        file: Where they were read from.
        sha256: Of that file.
        preprocessing: Mode that they were trained with.
        preprocessing_sure: Known from the manifest's card, from the run, or assumed from the backbone.
        report: Which layers were found.
        terms: Of use, one line, where known.
    """

    layers: dict[str, tuple[np.ndarray, ...]] = field(repr=False)
    source: str
    file: Path
    sha256: str
    preprocessing: str
    preprocessing_sure: Certainty
    report: LoadReport = field(repr=False)
    terms: str | None = None


@keras_defaults()
def build_backbone(
    name: str,
    weights: str | None = None,
    image_size: int | None = 224,
    pooling: Literal["avg"] | None = "avg",
    channels: int = 3,
) -> "keras.Model":
    """A flat functional model without preprocessing and without head.

    Args:
        name: See `radtransfer backbones`.
        weights: None or "random"; "imagenet"; a name from `radtransfer weights list`; a Keras file,
            whose head is ignored; or a finished run, RUN or RUN/fold_K.
        image_size: In pixels; None for images of any size.
        pooling: "avg", or None for the feature map.
        channels: Of the input, which is float32 and already preprocessed.

    Raises:
        ConfigError: No such backbone, or the images are too small for it.
        WeightsError: The weights are not found, not usable, or another network's.
    """
    from radtransfer.backbones.architecture import build_architecture

    model = build_architecture(name, image_size=image_size, pooling=pooling, channels=channels)
    pretrained = load_pretrained(weights, backbone=name, model=model)
    if pretrained is not None:
        assign(model, pretrained)
    return model


@keras_defaults()
def load_pretrained(
    weights: str | Path | None,
    *,
    backbone: str,
    model: "keras.Model",
    notify: Callable[[str], None] | None = None,
    ignore_lambda: bool = False,
) -> PretrainedWeights | None:
    """The weights that `weights` means, arranged for `model`, which is left as it is.

    Args:
        weights: As for `build_backbone`; None and "random" give None.
        backbone: Name of the network.
        model: That network, flat; layers of the file that it lacks are ignored.
        notify: Hears one sentence before something is downloaded, and one of Lambda layers that were ignored.
        ignore_lambda: Take the weights of a file with Lambda layers too.

    Raises:
        WeightsError: Not found, not usable, not downloadable.
        WeightsMismatchError: They are another network's, or only part of this one's.
    """
    if weights is None or str(weights) == "random":
        return None
    check_imagenet_exists(str(weights), backbone)
    source = find_weights(str(weights), backbone=backbone)
    check_backbone(source, backbone)
    notify = notify or (lambda _: None)
    if not source.file.exists():
        _download(source, notify)
    from radtransfer.weight_formats.reading import read_weight_file, sha256_of

    file = read_weight_file(source.file, ignore_lambda=ignore_lambda)
    if file.lambdas:
        notify(file.lambda_note)
    match = match_layers(file, model)
    if not match.complete:
        raise WeightsMismatchError(mismatch(file, match, backbone=backbone, model=model))
    check_finite(match.arrays, source.file)
    preprocessing, sure = source.preprocessing_for(backbone)
    return PretrainedWeights(
        layers=match.arrays,
        source=str(weights),
        file=source.file,
        sha256=sha256_of(source.file),
        preprocessing=preprocessing,
        preprocessing_sure=sure,
        report=LoadReport(tuple(match.arrays), match.missing, match.extra, _changed(match, model), match.by),
        terms=source.terms,
    )


def assign(model: "keras.Model", pretrained: PretrainedWeights) -> None:
    """Set the layers of `model`, or of a classifier around it, frozen or not."""
    for name, arrays in pretrained.layers.items():
        model.get_layer(name).set_weights(arrays)


def _download(source: WeightSource, notify: Callable[[str], None]) -> None:
    """Let Keras fetch its own ImageNet weights into its cache, with its check of their hash."""
    application = BACKBONES[source.card.backbone].application if source.card and source.card.keras else None
    if application is None:
        raise WeightsError(f"{source.given} has no {source.file.name}: expected {source.file}.")
    from keras import applications

    notify(f"downloading {source.file.name} from {source.card.origin} to {source.file.parent}")
    try:
        keras_home().mkdir(parents=True, exist_ok=True)  # else Keras takes a folder in /tmp
        with contextlib.redirect_stdout(sys.stderr):  # Keras draws its progress bar on stdout
            getattr(applications, application)(weights="imagenet", include_top=False)
    except Exception as error:  # Keras raises a bare Exception when there is no network
        if isinstance(told := write_error(source.file, error), DiskError):
            raise told from error
        raise WeightsError(_not_downloaded(source, str(error))) from None
    if not source.file.exists():
        raise WeightsError(_not_downloaded(source, "Keras did not put it there"))


def _not_downloaded(source: WeightSource, reason: str) -> str:
    return (
        f"could not download {source.file.name} ({reason}). On a machine with network get "
        f"{source.card.origin}{source.file.name} and pass its path to --weights, or use --weights random."
    )


def check_finite(layers: Mapping[str, Sequence[np.ndarray]], path: Path) -> None:
    """Raises WeightsError if the layers that were read from `path` hold NaN or infinite values."""
    bad = [name for name, arrays in layers.items() if not all(map(_finite, arrays))]
    if bad:
        raise WeightsError(
            f"{path} holds values that are not finite in {len(bad)} layers (first: {bad[0]}): "
            "its training diverged or the file is damaged. Use another checkpoint."
        )


def _finite(array: np.ndarray) -> bool:
    return bool(np.isfinite(array).all())


def _changed(match: Match, model: "keras.Model") -> int:
    return sum(
        not all(map(np.array_equal, model.get_layer(name).get_weights(), arrays))
        for name, arrays in match.arrays.items()
    )
