"""How well a network does while it learns: figures on held-out images every so many steps.

Test images are looked at here and never decide anything: not the best epoch, not when to stop.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

COLUMNS = ("step", "epoch", "split", "loss", "auc")
"""Of `curve.csv`, before one `auc_<class>` for each class."""


@dataclass(frozen=True)
class HeldOut:
    """A set of images that a network is watched on.

    Attributes:
        split: "val" or "test".
        batches: Gives its batches.
        auc: Exact AUC of probabilities (images, classes), main and by class; None where undefined.
    """

    split: str
    batches: Callable[[], Any]
    auc: Callable[[np.ndarray], tuple[float | None, dict[str, float | None]]]


def curve_rows(
    predict: Callable[[Any], tuple[np.ndarray, float]], watched: Sequence[HeldOut], *, step: int, epoch: int
) -> list[dict[str, Any]]:
    """A row for each watched set; `predict` gives probabilities and mean loss of its batches."""
    rows = []
    for held_out in watched:
        probabilities, loss = predict(held_out.batches())
        auc, by_class = held_out.auc(probabilities)
        row = {"step": step, "epoch": epoch, "split": held_out.split, "loss": loss, "auc": auc}
        rows.append(row | {f"auc_{name}": value for name, value in by_class.items()})
    return rows


def steps_to(rows: Sequence[dict[str, Any]], threshold: float, *, split: str = "test") -> int | None:
    """The first step whose AUC on `split` reaches `threshold`; None if it never does.

    Args:
        rows: Of `curve.csv`, in order; values may be text.
        threshold: AUC, 0 to 1.
        split: "val" or "test".

    References:
        Raghu et al. 2019, Transfusion (arXiv 1902.07208), Figure 7.
    """
    reached = (row for row in rows if row["split"] == split and row["auc"] not in (None, ""))
    return next((int(row["step"]) for row in reached if float(row["auc"]) >= threshold), None)
