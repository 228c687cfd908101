"""Which mode the weights expect, or that it cannot be told."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from radtransfer.input_scale.layer_fit import LayerFit
from radtransfer.input_scale.training_images import TrainingImages

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
