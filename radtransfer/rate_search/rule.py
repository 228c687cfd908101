"""What the losses of a learning-rate range test suggest.

References:
    Smith 2017, Cyclical Learning Rates for Training Neural Networks (arXiv 1506.01186), section 3.3.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from radtransfer.errors import ConfigError

FILES = tuple(f"rates.{suffix}" for suffix in ("csv", "json", "png", "svg"))
"""What a search writes."""

STEEPEST = "the middle of the decade over which a line fitted to the loss falls most steeply"
UPPER = "a tenth of the middle of the decade with the lowest mean loss"
CAVEAT = (
    "A place to begin and no result: one start, one order of the images, one batch size, and a loss that the rates "
    "before have changed. Pretrained weights may suffer below it; compare a third of it and three times it in a study."
)

SURE = 4.0
"""Standard errors that the steepest slope must lie below 0: in noise alone one of the decades is often at 2."""

FEWEST = 10
"""Steps in a decade, below which a slope means little."""


@dataclass(frozen=True)
class Suggestion:
    """What the losses suggest.

    Attributes:
        steepest: The rate in the middle of the decade over which the loss falls most steeply; None if it falls nowhere
            by more than its noise.
        slope: Change of the loss in a decade, where it falls most steeply.
        certainty: How many of its standard errors that is below 0.
        lowest: The rate in the middle of the decade with the lowest mean loss; above it training gets worse.
        upper: A tenth of that, which leaves room for it: the other suggestion in use.
        early: Whether `steepest` lies below a tenth of `upper`: the loss fell at once because it began high, as that of
            a random head does, which says little about rates.
        rate: The learning rate to begin with: `steepest`, or `upper` where it fell early.
        slopes: Of the decade around each step; NaN near the ends.
    """

    steepest: float | None
    slope: float
    certainty: float
    lowest: float
    slopes: np.ndarray

    @property
    def upper(self) -> float:
        return self.lowest / 10

    @property
    def early(self) -> bool:
        return self.steepest is not None and self.steepest < self.upper / 10

    @property
    def rate(self) -> float | None:
        return self.upper if self.early else self.steepest

    @property
    def rule(self) -> str:
        """Where `rate` comes from."""
        return UPPER if self.early else STEEPEST


def checked_width(low: float, high: float, steps: int) -> int:
    """`decade`, of rates and steps that say something.

    Raises:
        ConfigError: They do not.
    """
    if not low > 0 or not 10 * low <= high:
        raise ConfigError(f"Expected rates above 0, --to at least ten times --from. Received: {low:g} to {high:g}.")
    width = decade(low, high, steps)
    if width < FEWEST:
        needed = math.ceil(FEWEST * math.log10(high / low)) + 2
        raise ConfigError(f"{steps} steps from {low:g} to {high:g} are too few: give --steps {needed} or more.")
    return width


def sweep(low: float, high: float, steps: int) -> np.ndarray:
    """`steps` rates from `low` to `high`, each the same multiple of the one before."""
    return np.geomspace(low, high, steps)


def decade(low: float, high: float, steps: int) -> int:
    """Steps in which the rate grows tenfold, to the nearest odd number."""
    return 2 * round((steps - 1) / math.log10(high / low) / 2) + 1


def diverged(losses: Sequence[float], width: int) -> bool:
    """Whether the loss has left: it is no number, or its mean over a quarter of a decade is beyond twice the lowest."""
    if not math.isfinite(losses[-1]):
        return True
    few = max(width // 4, 3)
    if len(losses) < 2 * few:
        return False
    means = np.convolve(losses, np.full(few, 1 / few), "valid")
    return bool(means[-1] > 2 * means.min() and means[-1] > means[0])


def suggest(rates: np.ndarray, losses: np.ndarray, *, width: int) -> Suggestion:
    """Apply `STEEPEST`, and `UPPER` where the loss only began high.

    Args:
        rates: Of each step, equally spaced in their logarithms.
        losses: Of each step, finite; at least `width`.
        width: Steps in a decade, odd.
    """
    x = np.log10(rates[:width]) - np.log10(rates[:width]).mean()
    windows = np.lib.stride_tricks.sliding_window_view(losses, width)
    slopes = windows @ x / (x @ x)
    rest = windows - windows.mean(axis=1, keepdims=True) - slopes[:, None] * x
    errors = np.sqrt((rest**2).sum(axis=1) / (width - 2) / (x @ x))
    steepest, half = int(slopes.argmin()), width // 2
    certainty = -slopes[steepest] / max(errors[steepest], np.finfo(float).tiny)
    return Suggestion(
        steepest=float(rates[steepest + half]) if certainty > SURE else None,
        slope=float(slopes[steepest]),
        certainty=float(certainty),
        lowest=float(rates[int(windows.mean(axis=1).argmin()) + half]),
        slopes=np.concatenate([np.full(half, np.nan), slopes, np.full(half, np.nan)]),
    )
