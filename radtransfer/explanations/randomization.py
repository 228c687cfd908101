"""Whether maps depend on what a network has learned: the same maps of the same network with its weights redrawn.

A map that stays as it was with random weights shows edges of the image, not reasons of the network.

References:
    Adebayo et al. 2018, Sanity Checks for Saliency Maps (arXiv 1810.03292), section 3: cascading randomization.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from radtransfer.backbones.stages import HEAD, layer_stages
from radtransfer.explanations.maps import class_maps, median, rank_correlation
from radtransfer.explanations.verdicts import Decision

if TYPE_CHECKING:
    import keras

    from radtransfer.explanations.scored_network import ScoredNetwork

PASSED = 0.5
"""Largest rank correlation, all weights redrawn, with which maps are said to depend on the weights."""

FEWEST = 4
"""Images below which the median says nothing."""


@dataclass(frozen=True)
class Randomized:
    """One step of the cascade.

    Attributes:
        what: Which weights are random: "head", "+ stage4", …
        correlation: Median over images of the rank correlation with the maps of the trained network, before the ReLU;
            None where no map has a rank.
    """

    what: str
    correlation: float | None


def depend_on_weights(found: Sequence[Randomized], *, images: int) -> bool | None:
    """Whether the maps depend on the weights; None where that cannot be told: too few images, or maps without ranks.

    Args:
        found: The cascade.
        images: How many it was computed on.
    """
    last = found[-1].correlation
    return None if last is None or images < FEWEST else abs(last) <= PASSED


def randomization_test(
    network: "ScoredNetwork",
    images: np.ndarray,
    decisions: Sequence[Decision],
    *,
    seed: int,
    count: Callable[[int, int], None] = lambda done, total: None,
) -> list[Randomized]:
    """The cascade from the head down; the last step has redrawn every weight. The network is left as it was.

    Args:
        network: Trained.
        images: As for `class_maps`.
        decisions: One for each image.
        seed: Of the weights that are drawn.
        count: Hears how many steps are done.
    """
    from radtransfer.initialization import draw_random

    model, trained = network.model, class_maps(network, images, decisions)
    learned = model.get_weights()
    try:
        draw_random(model, seed=seed)
        drawn = {layer.name: layer.get_weights() for layer in model.layers}
        model.set_weights(learned)
        found, steps = [], _steps(network)
        for number, (what, layers) in enumerate(steps.items(), start=1):
            for layer in layers:
                layer.set_weights(drawn[layer.name])
            maps = class_maps(network, images, decisions)
            correlations = [rank_correlation(a, b) for a, b in zip(trained, maps, strict=True)]
            found.append(Randomized(what, median(correlations)))
            count(number, len(steps))
    finally:
        model.set_weights(learned)
    return found


def _steps(network: "ScoredNetwork") -> "dict[str, list[keras.Layer]]":
    """The layers with weights that each step adds, from the output down."""
    layers = [layer for layer in network.model.layers if layer.weights]
    if network.card is None:
        return {"all weights": layers}
    stages = layer_stages(network.model, network.card)
    order = [HEAD, *reversed(network.card.stages)]
    steps = {stage: [layer for layer in layers if stages[layer.name] == stage] for stage in order}
    return {stage if stage == HEAD else f"+ {stage}": members for stage, members in steps.items() if members}
