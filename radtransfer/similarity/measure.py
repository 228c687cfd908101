"""What a measure of similarity is, and what it returns."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from radtransfer.errors import SimilarityError
from radtransfer.similarity.moments import LayerSums, PairSums

ROWS_PER_DIRECTION = 2
"""With fewer rows than this for each direction of x and y together, CCA finds likeness in noise."""


@dataclass(frozen=True, eq=False)
class Similarity:
    """How similar two layers are over some rows.

    Attributes:
        value: The similarity; 1 is identical.
        coefficients: Of CCA, descending, 0–1, float64; of Procrustes they add up to the value; else empty.
        rows: How many rows it was measured on.
        rank_x, rank_y: How many independent directions were compared.
        dead_x, dead_y: Indices of constant channels, which take no part.
        condition_x, condition_y: Largest over smallest singular value of the standardized rows, over the
            directions that were kept; above 1e5, sums alone give fewer than eight digits.
        chance: What `procrustes` gives of unrelated layers with as many rows and the same spectra; None of the other
            measures, whose chance follows from rows and ranks (`chance_cca`).
    """

    value: float
    coefficients: np.ndarray
    rows: int
    rank_x: int
    rank_y: int
    dead_x: tuple[int, ...]
    dead_y: tuple[int, ...]
    condition_x: float
    condition_y: float
    chance: float | None = None


@dataclass(frozen=True)
class Measure:
    """One kind of similarity.

    Attributes:
        title: As it is shown to users.
        of_rows: From x and y of shape (rows, channels), checked for enough rows.
        of_sums: From sums alone, unchecked; None for a measure that needs the rows.
        chance: The value to expect of unrelated layers, from rows, rank_x and rank_y; None if unknown.
        fits: Whether directions are fitted, so that `check_rows` applies.
        chance_of_sums: The same as `chance` where it depends on the layers' spectra; None where it does not.
    """

    title: str
    of_rows: Callable[[np.ndarray, np.ndarray], Similarity]
    of_sums: Callable[[PairSums], Similarity] | None = None
    chance: Callable[[int, int, int], float] | None = None
    fits: bool = True
    chance_of_sums: Callable[[PairSums], float] | None = None


def similarity_of(
    pair: PairSums,
    value: float,
    coefficients: np.ndarray | None = None,
    *,
    ranks: tuple[int, int] | None = None,
) -> Similarity:
    """The result for a pair whose value is known; ranks are those of the whitening unless given."""
    x, y = pair.x.whitening, pair.y.whitening
    return Similarity(
        float(value),
        np.empty(0) if coefficients is None else coefficients,
        pair.rows,
        *(ranks or (x.rank, y.rank)),
        pair.x.dead,
        pair.y.dead,
        x.condition,
        y.condition,
    )


def check_rows(result: Similarity, pair: PairSums) -> None:
    """See that there are enough rows for the directions that were fitted.

    Raises:
        SimilarityError: Too few; says how many would do.
    """
    directions = _directions(result.rank_x, pair.x) + _directions(result.rank_y, pair.y)
    if pair.rows < ROWS_PER_DIRECTION * directions:
        raise SimilarityError(
            f"{pair.x.name} and {pair.y.name}: expected at least {ROWS_PER_DIRECTION * directions} rows for "
            f"{directions} directions ({ROWS_PER_DIRECTION} rows each), received {pair.rows}. "
            f"Use {ROWS_PER_DIRECTION * directions} images (fewer with several positions each), sample fewer channels, "
            "or take debiased CKA."
        )


def _directions(rank: int, layer: LayerSums) -> int:
    """The rank, or the number of live channels where the rows were too few to tell the rank."""
    return rank if rank < layer.rows - 1 else int(layer.live.sum())
