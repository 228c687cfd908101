"""Where in an image the reasons for a decision lie, in two ways that share nothing but the network.

References:
    Selvaraju et al. 2017, Grad-CAM (arXiv 1610.02391), equations 1 and 2.
    Zeiler, Fergus 2014, Visualizing and Understanding Convolutional Networks (arXiv 1311.2901), section 4.2: occlusion.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from radtransfer.explanations.verdicts import Decision

if TYPE_CHECKING:
    from radtransfer.explanations.scored_network import ScoredNetwork

_AT_ONCE = 8
"""Images of one backward pass."""

_COPIES = 32
"""Occluded copies of one forward pass."""


def class_maps(network: "ScoredNetwork", images: np.ndarray, decisions: Sequence[Decision]) -> np.ndarray:
    """Grad-CAM before its ReLU: float32 (images, height, width) of the layer; what is above 0 speaks for the decision.

    Each channel of the layer, weighted with the mean over positions of the score's gradient, summed.
    Differs from Selvaraju et al. in the score: log odds, see `ScoredNetwork`.

    Args:
        network: Of which the map is drawn.
        images: float32 (images, size, size, 3), RGB, 0–255.
        decisions: One for each image.
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
    """By how much a decision's score falls where a square of the image is covered: float32 (images, cells, cells).

    Each of `cells` × `cells` squares in turn is given the image's mean colour.

    Args:
        network: As for `class_maps`; its layer plays no part.
        images: Likewise.
        decisions: Likewise.
        cells: Squares along a side.
        count: Hears how many images are done.
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
    """Maps averaged, or where they are coarser interpolated, onto another grid: float32 (images, height, width)."""
    import tensorflow as tf

    return tf.image.resize(maps[..., np.newaxis], grid, antialias=True).numpy()[..., 0]


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    """Spearman's, of two maps of one shape; None where one of them is the same everywhere."""
    from scipy.stats import rankdata

    ranks = [rankdata(values.ravel()) for values in (a, b)]
    if any(np.ptp(values) == 0 for values in ranks):
        return None
    return float(np.corrcoef(*ranks)[0, 1])


def median(values: Sequence[float | None]) -> float | None:
    """Of those that are defined; None where there is none."""
    defined = [value for value in values if value is not None]
    return float(np.median(defined)) if defined else None
