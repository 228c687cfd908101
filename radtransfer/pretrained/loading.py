"""Gives a network the weights it starts from: complete, or not at all.

Which network a weights file is for, by trying: it is the one whose every layer finds its weights.
"""

import contextlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from radtransfer.errors import DiskError, WeightsError, WeightsMismatchError
from radtransfer.files import write_error
from radtransfer.models.backbone import BACKBONES
from radtransfer.pretrained.match import Match, Target, match_layers, match_targets, weighted_layers, with_any_channels
from radtransfer.pretrained.source import Certainty, WeightSource, check_backbone, check_imagenet_exists, find_weights
from radtransfer.pretrained.weight_file import WeightFile
from radtransfer.process import keras_defaults, keras_home

if TYPE_CHECKING:
    import keras

_MOST_TRIED = 6


@dataclass(frozen=True)
class Recognition:
    """A network that a file fits.

    Attributes:
        backbone: Its name.
        layers: Layers with weights that it has.
        channels: Of the images that the file's first convolution takes.
        match: The plan.
    """

    backbone: str
    layers: int
    channels: int
    match: Match = field(repr=False)


def recognize(file: WeightFile) -> Recognition | None:
    """The backbone whose layers `file` holds, all of them, or None."""
    # A file holds its backbone and perhaps a head: the largest backbones it has room for come first.
    # A stem for other than three channels changes the total by little.
    room = file.parameters * 1.01
    fitting = [card for card in BACKBONES.values() if card.parameters <= room]
    if not fitting:
        return None
    # Imported late: it brings TensorFlow.
    from radtransfer.models.architecture import build_architecture

    for card in sorted(fitting, key=lambda card: -card.parameters)[:_MOST_TRIED]:
        targets = weighted_layers(build_architecture(card, image_size=None, pooling=None))
        match = match_targets(file, with_any_channels(targets))
        if match.complete:
            return Recognition(card.name, len(targets), _channels(match, targets), match)
    return None


def mismatch(file: WeightFile, match: Match, *, backbone: str, model: "keras.Model") -> str:
    """What to tell the user about a file that lacks layers of `model`."""
    targets = weighted_layers(model)
    other_stem = match_targets(file, with_any_channels(targets))
    if other_stem.complete:
        return (
            f"{file.path.name} holds {backbone} for images of {_channels(other_stem, targets)} channels; "
            f"the network is built for {model.inputs[0].shape[-1]}. Use weights for as many channels."
        )
    holds = f"{file.path.name} holds {len(file.layers)} weighted layers"
    needs = f"--backbone is {backbone} ({len(targets)} weighted layers)"
    found = recognize(file)
    if found is not None:
        return f"{holds} (looks like {found.backbone}); {needs}. Use --backbone {found.backbone}."
    return (
        f"{holds} that are not those of a known backbone; {needs}. Nothing was loaded: {len(match.missing)} "
        f"layers find no weights of their name and shape, first {_described(targets, match.missing[0])}."
    )


def _channels(match: Match, targets: Sequence[Target]) -> int:
    """Input channels of the first convolution; three, as the network was built, where none sees the image."""
    kernels = (match.arrays[target.name][0] for target in targets)
    return next((kernel.shape[-2] for kernel in kernels if kernel.ndim == 4), 3)


def _described(targets: Sequence[Target], name: str) -> str:
    shapes = next(target.shapes for target in targets if target.name == name)
    return f"{name} ({', '.join(leaf + ' ' + '×'.join(map(str, shape)) for leaf, shape in shapes.items())})"


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
    from radtransfer.models.architecture import build_architecture

    model = build_architecture(name, image_size=image_size, pooling=pooling, channels=channels)
    pretrained = load_pretrained(weights, backbone=name, model=model)
    if pretrained is not None:
        assign(model, pretrained)
    return model


@keras_defaults()
def load_pretrained(
    weights: str | Path | WeightSource | None,
    *,
    backbone: str,
    model: "keras.Model",
    notify: Callable[[str], None] | None = None,
    ignore_lambda: bool = False,
) -> PretrainedWeights | None:
    """The weights that `weights` means, arranged for `model`, which is left as it is.

    Args:
        weights: As for `build_backbone`, or already resolved; None and "random" give None.
        backbone: Name of the network.
        model: That network, flat; layers of the file that it lacks are ignored.
        notify: Hears one sentence before something is downloaded, and one of Lambda layers that were ignored.
        ignore_lambda: Take the weights of a file with Lambda layers too.

    Raises:
        WeightsError: Not found, not usable, not downloadable.
        WeightsMismatchError: They are another network's, or only part of this one's.
    """
    if isinstance(weights, WeightSource):
        source = weights
    elif weights is None or str(weights) == "random":
        return None
    else:
        check_imagenet_exists(str(weights), backbone)
        source = find_weights(str(weights), backbone=backbone)
        check_backbone(source, backbone)
    notify = notify or (lambda _: None)
    if not source.file.exists():
        _download(source, notify)
    from radtransfer.pretrained.read import read_weight_file, sha256_of

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
        source=source.given,
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
