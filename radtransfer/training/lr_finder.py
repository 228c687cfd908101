"""The learning-rate range test: a few hundred steps with a rising rate, and the rate that their losses suggest.

References:
    Smith 2017, Cyclical Learning Rates for Training Neural Networks (arXiv 1506.01186), section 3.3.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from radtransfer.config.load import changed_config
from radtransfer.config.schema import Config
from radtransfer.errors import ConfigError, TrainingError
from radtransfer.files import atomic_folder, check_new
from radtransfer.process import Progress, keras_defaults
from radtransfer.reports.figures import draw_loss_by_rate, save_figure
from radtransfer.runs.folder import write_json, write_rows
from radtransfer.training.prepare import RunInputs, prepare

if TYPE_CHECKING:  # it imports TensorFlow
    from radtransfer.training.context import TrainingContext

FILES = tuple(f"rates.{suffix}" for suffix in ("csv", "json", "png", "svg"))  # written by `write_search`

STEEPEST = "the middle of the decade over which a line fitted to the loss falls most steeply"
UPPER = "a tenth of the middle of the decade with the lowest mean loss"
CAVEAT = (
    "A starting point, not a result: it comes from one initialization, one order of the images and one batch size, and "
    "earlier rates have changed the loss. A lower rate may suit pretrained weights; compare a third and three times it "
    "in a study."
)

MIN_STANDARD_ERRORS = 4.0  # of the steepest slope below 0: in pure noise one of the decades often reaches 2

MIN_STEPS = 10  # in a decade, for a meaningful slope


@dataclass(frozen=True)
class Suggestion:
    """The suggested learning rate and the measurements behind it."""

    rate: float | None  # `steepest`, or `upper` where the loss fell early
    rule: str  # in words
    # The middle of the decade over which the loss falls most steeply; None if it never falls by more than noise.
    steepest: float | None
    slope: float  # change of the loss per decade at `steepest`
    certainty: float  # how many standard errors `slope` is below 0
    lowest: float  # the middle of the decade with the lowest mean loss; above it training gets worse
    upper: float  # a tenth of `lowest`
    # Whether `steepest` is below a tenth of `upper`: the loss fell at once from a high start, as with a random head,
    # which says little about rates.
    early: bool
    slopes: np.ndarray  # of the decade around each step; NaN near the ends


def steps_per_decade(low: float, high: float, steps: int) -> int:
    """Steps in which the rate grows tenfold, to the nearest odd number; ConfigError if too few or the range is bad."""
    if not low > 0 or not 10 * low <= high:
        raise ConfigError(f"Expected rates above 0, --to at least ten times --from. Received: {low:g} to {high:g}.")
    width = 2 * round((steps - 1) / math.log10(high / low) / 2) + 1
    if width < MIN_STEPS:
        needed = math.ceil(MIN_STEPS * math.log10(high / low)) + 2
        raise ConfigError(f"{steps} steps from {low:g} to {high:g} are too few: give --steps {needed} or more.")
    return width


def diverged(losses: Sequence[float], width: int) -> bool:
    """Whether the loss is NaN or infinite, or its mean over a quarter of a decade exceeds twice the lowest."""
    if not math.isfinite(losses[-1]):
        return True
    few = max(width // 4, 3)
    if len(losses) < 2 * few:
        return False
    means = np.convolve(losses, np.full(few, 1 / few), "valid")
    return bool(means[-1] > 2 * means.min() and means[-1] > means[0])


def suggest(rates: np.ndarray, losses: np.ndarray, *, width: int) -> Suggestion:
    """Apply the rule `STEEPEST`, or `UPPER` if the loss fell early.

    `rates` (log-spaced) and finite `losses` are those of each step; `width` is the odd number of steps in a decade.
    """
    x = np.log10(rates[:width]) - np.log10(rates[:width]).mean()
    windows = np.lib.stride_tricks.sliding_window_view(losses, width)
    slopes = windows @ x / (x @ x)
    rest = windows - windows.mean(axis=1, keepdims=True) - slopes[:, None] * x
    errors = np.sqrt((rest**2).sum(axis=1) / (width - 2) / (x @ x))
    place, half = int(slopes.argmin()), width // 2
    certainty = -slopes[place] / max(errors[place], np.finfo(float).tiny)
    steepest = float(rates[place + half]) if certainty > MIN_STANDARD_ERRORS else None
    lowest = float(rates[int(windows.mean(axis=1).argmin()) + half])
    upper = lowest / 10
    early = steepest is not None and steepest < upper / 10
    return Suggestion(
        rate=upper if early else steepest,
        rule=UPPER if early else STEEPEST,
        steepest=steepest,
        slope=float(slopes[place]),
        certainty=float(certainty),
        lowest=lowest,
        upper=upper,
        early=early,
        slopes=np.concatenate([np.full(half, np.nan), slopes, np.full(half, np.nan)]),
    )


@dataclass(frozen=True)
class RateSearch:
    """The result of a search."""

    rates: np.ndarray
    losses: np.ndarray  # mean training loss of each step, with dropout and augmentation
    diverged: bool  # whether the search stopped because the loss diverged
    suggestion: Suggestion

    def to_dict(self) -> dict[str, Any]:
        found = self.suggestion
        return {
            "suggested": found.rate,
            "rule": found.rule,
            "steepest_at": found.steepest,
            "slope": found.slope,
            "standard_errors_below_0": found.certainty,
            "lowest_loss_at": found.lowest,
            "upper": found.upper,
            "fell_early": found.early,
            "diverged_at": float(self.rates[-1]) if self.diverged else None,
            "steps": len(self.rates),
            "caveat": CAVEAT,
        }


@keras_defaults()
def find_rate(
    config: Config,
    *,
    low: float,
    high: float,
    steps: int,
    out: Path,
    overwrite: bool = False,
    progress: Progress | None = None,
    inputs: RunInputs | None = None,
) -> RateSearch:
    """Train with a rising rate on the training images of the first fold; no run folder is written.

    The learning rate, schedule and epochs of `config` are ignored; `out` gets the list of unreadable images. Raises
    ConfigError for bad rates, TrainingError if the loss diverges within the first decade.
    """
    # These import TensorFlow, which is not needed to refuse a range of rates.
    from radtransfer.training.loop import memory_errors
    from radtransfer.training.plan import plan_lines, short_plan

    progress, width = progress or Progress(), steps_per_decade(low, high, steps)
    check_new(out, FILES, overwrite=overwrite)
    alone = {"system.cache": "none", "system.cache_features": False, "system.distribute": "none", "track": ()}
    config = changed_config(config, alone)
    context = prepare(config, report_file=out / "bad_images.txt", progress=progress, inputs=inputs)
    training, images = config.training, f"the training images of fold {context.folds[0].number}"
    line = f"{training.optimizer}, batch {training.batch_size}, augmentation {training.augmentation}, learning rate "
    line += f"{low:g} to {high:g} in {steps} steps on {images}, seed {config.seed}"
    progress.plan({**plan_lines(context, None), "train": line}, {**short_plan(context, None), "training": line})
    if context.head_learner is not None:
        progress.note("here the head does not train alone first: the rate is for all layers")
    rates = np.geomspace(low, high, steps)
    with memory_errors(training.batch_size):
        losses = _losses_by_rate(context, rates, width, progress)
    has_diverged, steps = diverged(losses, width), len(losses)
    finite = losses if math.isfinite(losses[-1]) else losses[:-1]
    if len(finite) < width:
        raise TrainingError(f"The loss diverged after {steps} steps, at rate {rates[steps - 1]:.2g}. Lower --from.")
    rates, values = rates[: len(finite)], np.array(finite)
    return RateSearch(rates, values, has_diverged, suggest(rates, values, width=width))


def write_search(search: RateSearch, out: Path) -> list[Path]:
    """Write all of `FILES`, or none."""
    slopes = ("" if math.isnan(slope) else slope for slope in search.suggestion.slopes.tolist())
    rows = zip(range(1, len(search.rates) + 1), search.rates.tolist(), search.losses.tolist(), slopes, strict=True)
    table, values, *pictures = FILES
    found = search.suggestion
    figure = draw_loss_by_rate(search.rates, search.losses, steepest=found.steepest, upper=found.upper)
    with atomic_folder(out, FILES, last=values) as folder:
        write_rows(folder / table, ("step", "learning_rate", "loss", "slope_per_decade"), rows)
        write_json(folder / values, search.to_dict())
        for picture in pictures:
            save_figure(figure, folder / picture)
    return [out / name for name in FILES]


def _losses_by_rate(context: "TrainingContext", rates: np.ndarray, width: int, progress: Progress) -> list[float]:
    fold, learner, losses = context.folds[0], context.learner, []
    context.initialize(fold)
    context.reset(learner, fold)
    learner.seed_epoch(context.seed(fold))
    data = context.fold_data(fold, context.batches)
    batches = itertools.chain.from_iterable(map(data.epoch, itertools.count(1)))
    for rate, batch in zip(rates, batches, strict=False):
        learner.optimizer.learning_rate = float(rate)
        losses.append(float(learner.train(*batch)) / float(batch[2].numpy().sum()))
        progress.count("steps", len(losses), len(rates))
        if diverged(losses, width):
            break
    return losses
