"""Which network a weights file is for, by trying: it is the one whose every layer finds its weights."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from radtransfer.backbones import BACKBONES
from radtransfer.weight_formats.matching import (
    Match,
    Target,
    match_targets,
    weighted_layers,
    with_any_channels,
)
from radtransfer.weight_formats.weight_file import WeightFile

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
    from radtransfer.backbones.architecture import build_architecture

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
