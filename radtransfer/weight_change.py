"""How far the weights of a layer have moved."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from radtransfer.errors import WeightsError


@dataclass(frozen=True)
class WeightChange:
    """The way from the weights of one layer to those of the same layer in another network.

    Attributes:
        layer: Its name.
        kind: Its class in Keras.
        parameters: Numbers in it that train; moving statistics are left out.
        relative_change: Length of the difference over the length of the first; None where that is 0.
        cosine: Of the angle between both, -1–1; None where one is 0.
        norm_a, norm_b: Their lengths.
    """

    layer: str
    kind: str
    parameters: int
    relative_change: float | None
    cosine: float | None
    norm_a: float
    norm_b: float


def weight_change(layer: str, kind: str, a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> WeightChange:
    """The change from arrays `a` to arrays `b` of the same shapes, taken as one vector each.

    Raises:
        WeightsError: Values that are not finite.
    """
    x, y = (np.concatenate([np.ravel(array) for array in arrays]).astype(np.float64) for arrays in (a, b))
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise WeightsError(f"{layer} holds weights that are not finite: its training diverged. Use another checkpoint.")
    norms = float(np.linalg.norm(x)), float(np.linalg.norm(y))
    return WeightChange(
        layer,
        kind,
        x.size,
        float(np.linalg.norm(y - x)) / norms[0] if norms[0] else None,
        float(np.clip(x @ y / (norms[0] * norms[1]), -1, 1)) if all(norms) else None,
        *norms,
    )


def mean_change(changes: Sequence[WeightChange]) -> WeightChange:
    """The mean over folds of one layer's changes; None where it is not defined in one of them."""

    def mean(name: str) -> float | None:
        values = [getattr(change, name) for change in changes]
        return None if None in values else float(np.mean(values))

    names = ("relative_change", "cosine", "norm_a", "norm_b")
    return WeightChange(changes[0].layer, changes[0].kind, changes[0].parameters, *map(mean, names))
