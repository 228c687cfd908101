"""Which layers of two networks are compared, and at which positions and channels."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from radtransfer.backbones.backbone import Backbone
from radtransfer.backbones.stages import resolve_layer
from radtransfer.comparisons.sampling import SAMPLINGS, Grid, sample_channels
from radtransfer.errors import ConfigError, UnknownNameError
from radtransfer.seeds import derive_seed

if TYPE_CHECKING:
    import keras

    from radtransfer.comparisons.activations import FeatureMaps, Reading
    from radtransfer.comparisons.draws import PairedReadings

CHANNELS = ("auto", "paired", "independent", "all")
"""The same channels in both networks where they have as many; the same; others in each; every one."""

_NOT_MAPS = ("InputLayer", "Rescaling", "Normalization", "ZeroPadding2D", "Dropout", "Reshape")


@dataclass(frozen=True)
class LayerPair:
    """Two layers that are compared: a name for both, and what each is called in its network."""

    name: str
    a: str
    b: str


@dataclass(frozen=True)
class Sampling:
    """How rows and channels are drawn.

    Attributes:
        rows: Per layer, or as many as there are positions.
        dims: Channels per layer, or as many as there are.
        repeats: How often both are drawn.
        sampling: Key of `SAMPLINGS`.
        channels: One of `CHANNELS`.
        seed: Of everything drawn.
    """

    rows: int = 10_000
    dims: int = 64
    repeats: int = 5
    sampling: str = "spread"
    channels: str = "auto"
    seed: int = 0

    def dims_of(self, width: int) -> int:
        """How many of a layer's channels are read."""
        return width if self.channels == "all" else min(self.dims, width)

    def seed_of(self, repeat: int) -> int:
        """The seed of draw number `repeat`, from 0."""
        return derive_seed(self.seed, "draw", repeat)


def layer_pairs(
    a: "keras.Model", b: "keras.Model", cards: tuple[Backbone | None, Backbone | None], layers: Sequence[str]
) -> tuple[LayerPair, ...]:
    """The layers that `layers` means.

    Args:
        a: One network.
        b: The other.
        cards: Their backbones, where known.
        layers: "stages", "all" (every feature map that both have under one name), or names of stages or layers.

    Raises:
        ConfigError: No layers, stages of an unknown backbone, or nothing that both have.
        UnknownNameError: A name that is neither a stage nor a layer.
    """
    if not layers:
        raise ConfigError("Expected --layers stages, all or names. Received none.")
    if tuple(layers) == ("stages",):
        return _stages(cards)
    if tuple(layers) == ("all",):
        names = {layer.name for layer in b.layers}
        found = [layer.name for layer in a.layers if layer.name in names and _has_map(layer)]
        if not found:
            raise ConfigError("The networks have no feature map of one name. Use --layers stages.")
        return tuple(LayerPair(name, name, name) for name in found)
    return tuple(LayerPair(name, _resolved(a, cards[0], name), _resolved(b, cards[1], name)) for name in layers)


def unequal_widths(
    a: "FeatureMaps", b: "FeatureMaps", pairs: Sequence[LayerPair], sampling: Sampling
) -> dict[str, str]:
    """Name of each pair whose channels cannot be the same, though `sampling` wants them to be, and why."""
    widths = {pair.name: (a.width(pair.a), b.width(pair.b)) for pair in pairs if sampling.channels == "paired"}
    return {
        name: f"{name}: --channels paired takes the same channels of both layers; received {mine} and {its} channels. "
        "Use --channels independent or all."
        for name, (mine, its) in widths.items()
        if mine != its
    }


def paired_readings(
    a: "FeatureMaps", b: "FeatureMaps", pairs: Sequence[LayerPair], *, images: int, sampling: Sampling, repeat: int
) -> "list[PairedReadings]":
    """One draw for the pairs, a value for each grid that pairs have in common."""
    grids: dict[Grid, list[LayerPair]] = defaultdict(list)
    for pair in pairs:
        grids[common_grid(a.grid(pair.a), b.grid(pair.b))].append(pair)
    readings = []
    for grid, members in grids.items():
        mine = {pair.name: _reading(a, pair.a, sampling, repeat, "a") for pair in members}
        its = {pair.name: _reading(b, pair.b, sampling, repeat, "b") for pair in members}
        readings.append(_at_positions(grid, mine, its, images, sampling, repeat))
    return readings


def crossed_readings(
    a: "FeatureMaps", b: "FeatureMaps", pairs: Sequence[LayerPair], *, images: int, sampling: Sampling, repeat: int
) -> "list[PairedReadings]":
    """One draw for every layer of A against every layer of B, a value for each pair of grids.

    A pair of layers is read as if it alone were compared.
    """
    mine = _by_grid(a, {pair.name: pair.a for pair in pairs})
    its = _by_grid(b, {pair.name: pair.b for pair in pairs})
    return [
        _at_positions(
            common_grid(grid_a, grid_b),
            {name: _reading(a, layer, sampling, repeat, "a") for name, layer in layers_a.items()},
            {name: _reading(b, layer, sampling, repeat, "b") for name, layer in layers_b.items()},
            images,
            sampling,
            repeat,
        )
        for grid_a, layers_a in mine.items()
        for grid_b, layers_b in its.items()
    ]


def common_grid(a: Grid, b: Grid) -> Grid:
    """The finest grid that is not finer than either map."""
    return min(a[0], b[0]), min(a[1], b[1])


def _at_positions(
    grid: Grid,
    mine: "Mapping[str, Reading]",
    its: "Mapping[str, Reading]",
    images: int,
    sampling: Sampling,
    repeat: int,
) -> "PairedReadings":
    from radtransfer.comparisons.draws import PairedReadings

    rng = np.random.default_rng(derive_seed(sampling.seed_of(repeat), "positions", *grid))
    positions = SAMPLINGS[sampling.sampling](grid, images=images, rows=sampling.rows, rng=rng)
    return PairedReadings(positions, mine, its)


def _reading(maps: "FeatureMaps", layer: str, sampling: Sampling, repeat: int, side: str) -> "Reading":
    from radtransfer.comparisons.activations import Reading

    width, seed = maps.width(layer), sampling.seed_of(repeat)
    side = side if sampling.channels == "independent" else ""
    return Reading(layer, sample_channels(width, sampling.dims_of(width), seed=seed, side=side))


def _by_grid(maps: "FeatureMaps", layers: Mapping[str, str]) -> dict[Grid, dict[str, str]]:
    found: dict[Grid, dict[str, str]] = defaultdict(dict)
    for name, layer in layers.items():
        found[maps.grid(layer)][name] = layer
    return found


def _stages(cards: tuple[Backbone | None, Backbone | None]) -> tuple[LayerPair, ...]:
    if None in cards:
        raise ConfigError("A network of an unknown backbone has no stages. Give --layers all or names of layers.")
    a, b = cards
    return tuple(LayerPair(stage, end, b.stages[stage]) for stage, end in a.stages.items() if stage in b.stages)


def _resolved(model: "keras.Model", card: Backbone | None, name: str) -> str:
    if card is not None:
        return resolve_layer(model, card, name)
    known = [layer.name for layer in model.layers]
    if name not in known:
        raise UnknownNameError("layer", name, known)
    return name


def _has_map(layer: "keras.Layer") -> bool:
    shape = getattr(layer.output, "shape", ())
    return len(shape) == 4 and type(layer).__name__ not in _NOT_MAPS
