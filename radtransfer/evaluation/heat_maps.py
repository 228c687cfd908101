"""Predictions with Grad-CAM and occlusion maps, and a test whether the maps depend on the trained weights.

A map that does not change with random weights shows edges of the image, not the reasons of the network.

References:
    Selvaraju et al. 2017, Grad-CAM (arXiv 1610.02391), equations 1 and 2.
    Zeiler, Fergus 2014, Visualizing and Understanding Convolutional Networks (arXiv 1311.2901), section 4.2: occlusion.
    Adebayo et al. 2018, Sanity Checks for Saliency Maps (arXiv 1810.03292), section 3: cascading randomization.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from radtransfer.models.backbone import HEAD, layer_stages

if TYPE_CHECKING:
    from radtransfer.evaluation.scored_network import ScoredNetwork

FINE = 7  # A map with fewer positions per side is coarse: most networks have 7 at their usual image size
PASSED = 0.5  # maps depend on the weights if their rank correlation with the maps of random weights is at most this
FEWEST = 4  # with fewer images, the median correlation is not interpreted

_AT_ONCE, _COPIES = 8, 32
"""Images of one backward pass; occluded copies of one forward pass."""


def coarse_map_note(network: "ScoredNetwork") -> str | None:
    """A note if the map is coarser than 7×7, with a stage that has a finer map; else None."""
    if min(network.grid) >= FINE:
        return None
    (height, width), size, stage = network.grid, network.image_size, finer_stage(network)
    pixels = round(size / min(network.grid))
    finer = "a network of larger images has a finer map"
    if stage is not None:
        finer = "--layer {} has {}×{}".format(stage, *network.stage_grids[stage])
    return (
        f"a map of {height}×{width} positions is coarse: one position covers {pixels}×{pixels} of the {size}×{size} "
        f"pixels; {finer}"
    )


def finer_stage(network: "ScoredNetwork") -> str | None:
    """The last stage with a fine map, else the one with the finest; None if no stage has a finer map than the layer."""
    finer = {stage: grid for stage, grid in network.stage_grids.items() if min(grid) > min(network.grid)}
    fine = [stage for stage, grid in finer.items() if min(grid) >= FINE]
    return fine[-1] if fine else max(finer, key=lambda stage: min(finer[stage]), default=None)


@dataclass(frozen=True)
class Decision:
    """The explained statement: class number `output` is present, or absent."""

    output: int
    present: bool = True


@dataclass(frozen=True)
class Verdict:
    """The prediction for one image."""

    row: int  # of the image
    name: str  # a class, or "not" and a label
    decision: Decision
    probability: float  # of the prediction
    truth: str  # the labels of the image; empty if unknown
    wrong: bool | None  # None if unknown


def single_label_verdicts(probabilities: np.ndarray, truth: np.ndarray | None, classes: Sequence[str]) -> list[Verdict]:
    """The class with the largest output of each image; a single output is the probability of the second class.

    `truth` is float (images, classes), 0 or 1, NaN if unknown; None without labels.
    """
    alone = probabilities.shape[1] == 1
    each = np.concatenate([1 - probabilities, probabilities], axis=1) if alone else probabilities
    found = []
    for row, (values, chosen) in enumerate(zip(each, each.argmax(axis=1), strict=True)):
        decision = Decision(0, present=bool(chosen)) if alone else Decision(int(chosen))
        known = truth is not None and not np.isnan(truth[row]).any()
        labels = _label_text(truth[row], classes) if known else ""
        wrong = bool(truth[row][chosen] < 0.5) if known else None
        found.append(Verdict(row, classes[chosen], decision, float(values[chosen]), labels, wrong))
    return found


def multi_label_verdicts(probabilities: np.ndarray, truth: np.ndarray | None, classes: Sequence[str]) -> list[Verdict]:
    """The label with the largest error for each image; without known labels, the one with the largest probability."""
    found = []
    for row, values in enumerate(probabilities):
        known = np.full(len(classes), np.nan) if truth is None else truth[row]
        if np.isnan(known).all():
            label, wrong = int(values.argmax()), None
        else:
            label = int(np.nanargmax(np.abs(values - known)))
            wrong = bool((values[label] > 0.5) != (known[label] > 0.5))
        present = bool(values[label] > 0.5)
        name = classes[label] if present else f"not {classes[label]}"
        probability = float(values[label] if present else 1 - values[label])
        labels = "" if np.isnan(known).all() else _label_text(known, classes) or "none of the labels"
        found.append(Verdict(row, name, Decision(label, present), probability, labels, wrong))
    return found


def confident_mistakes_first(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Mistakes, most confident first; then images without labels and correct predictions, least confident first."""

    def key(verdict: Verdict) -> tuple:
        if verdict.wrong:
            return 0, -verdict.probability, verdict.row
        return 1 if verdict.wrong is None else 2, verdict.probability, verdict.row

    return sorted(verdicts, key=key)


def _label_text(row: np.ndarray, classes: Sequence[str]) -> str:
    return "; ".join(name for name, value in zip(classes, row, strict=True) if value > 0.5)


def class_maps(network: "ScoredNetwork", images: np.ndarray, decisions: Sequence[Decision]) -> np.ndarray:
    """Grad-CAM before its ReLU, float32 (images, height, width): positive values support the decision.

    The sum over channels of the layer, weighted by the mean gradient of the score. Differs from Selvaraju et al. in the
    score: log odds, see `ScoredNetwork`. Images are float32 (images, size, size, 3), RGB, 0–255.
    """
    found = []
    for start in range(0, len(images), _AT_ONCE):
        stop = start + _AT_ONCE
        maps, gradients = network.gradients(images[start:stop], decisions[start:stop])
        weights = gradients.mean(axis=(1, 2), keepdims=True)
        found.append((maps * weights).sum(axis=-1))
    return np.concatenate(found)


def occlusion_maps(
    network: "ScoredNetwork",
    images: np.ndarray,
    decisions: Sequence[Decision],
    *,
    cells: int,
    count: Callable[[int, int], None] = lambda done, total: None,
) -> np.ndarray:
    """How much the score falls when one of `cells` × `cells` squares is covered with the mean color of the image.

    float32 (images, cells, cells).
    """
    edges = np.linspace(0, images.shape[1], cells + 1).astype(int)
    found = []
    for number, (image, decision) in enumerate(zip(images, decisions, strict=True), start=1):
        (whole,) = network.scores(network.logits(image[np.newaxis]), [decision])
        copies = np.repeat(image[np.newaxis], cells**2, axis=0)
        for place, copy in enumerate(copies):
            row, column = divmod(place, cells)
            copy[edges[row] : edges[row + 1], edges[column] : edges[column + 1]] = image.mean(axis=(0, 1))
        logits = np.concatenate([network.logits(copies[i : i + _COPIES]) for i in range(0, len(copies), _COPIES)])
        found.append(whole - network.scores(logits, [decision] * len(copies)).reshape(cells, cells))
        count(number, len(images))
    return np.stack(found)


def on_grid(maps: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Maps resampled to another grid (averaged or interpolated), float32 (images, height, width)."""
    import tensorflow as tf

    return tf.image.resize(maps[..., np.newaxis], grid, antialias=True).numpy()[..., 0]


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    """Spearman's correlation of two maps of one shape; None if one is constant."""
    from scipy.stats import rankdata

    ranks = [rankdata(values.ravel()) for values in (a, b)]
    if any(np.ptp(values) == 0 for values in ranks):
        return None
    return float(np.corrcoef(*ranks)[0, 1])


def median(values: Sequence[float | None]) -> float | None:
    """The median of the values that are not None; None if there are none."""
    defined = [value for value in values if value is not None]
    return float(np.median(defined)) if defined else None


@dataclass(frozen=True)
class Randomized:
    """One step of cascading randomization."""

    what: str  # which weights are random: "head", "+ stage4", …
    correlation: float | None  # median over images, with the maps of the trained network before the ReLU


def depend_on_weights(found: Sequence[Randomized], *, images: int) -> bool | None:
    """Whether the maps depend on the weights; None if the images are too few or the maps are constant."""
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
    """Cascading randomization from the head down to all weights. The network is restored afterwards."""
    from radtransfer.transfer.initialize import draw_random

    model, trained = network.model, class_maps(network, images, decisions)
    learned = model.get_weights()
    try:
        draw_random(model, seed=seed)
        drawn = {layer.name: layer.get_weights() for layer in model.layers}
        model.set_weights(learned)
        layers = [layer for layer in model.layers if layer.weights]
        steps = {"all weights": layers}
        if network.spec is not None:
            stages = layer_stages(model, network.spec)
            order = {stage: HEAD if stage == HEAD else f"+ {stage}" for stage in (HEAD, *reversed(network.spec.stages))}
            steps = {what: [layer for layer in layers if stages[layer.name] == stage] for stage, what in order.items()}
            steps = {what: members for what, members in steps.items() if members}
        found = []
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
