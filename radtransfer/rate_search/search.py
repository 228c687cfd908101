"""Trains a network for a few hundred steps with a rising learning rate, and forgets it."""

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from radtransfer.config import changed_config
from radtransfer.environment import keras_defaults
from radtransfer.errors import TrainingError
from radtransfer.experiment import Experiment
from radtransfer.figures.loss_by_rate import draw_loss_by_rate
from radtransfer.figures.style import save_figure
from radtransfer.initialization import start
from radtransfer.plan_block import plan_lines
from radtransfer.preparation import RunInputs, prepare
from radtransfer.progress import Progress
from radtransfer.rate_search.rule import CAVEAT, FILES, Suggestion, checked_width, diverged, suggest, sweep
from radtransfer.result_folder import check_new, whole_folder
from radtransfer.runs import write_json, write_rows
from radtransfer.settings import Config
from radtransfer.training import memory_errors


@dataclass(frozen=True)
class RateSearch:
    """What a search found.

    Attributes:
        rates: Of each step.
        losses: Mean training loss of each step's images, dropout and augmentation included.
        diverged: Whether the loss left before the last rate; the steps end there.
        suggestion: What follows.
    """

    rates: np.ndarray
    losses: np.ndarray
    diverged: bool
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
    """Train on the first fold's training images, from the start that the settings give, and leave no run behind.

    Args:
        config: Of the run; its learning rate, schedule and epochs do not matter.
        low: First learning rate.
        high: Last one.
        steps: In between, if the loss does not leave before.
        out: Gets `rates.csv`, `rates.json` and the figure; unreadable images are listed there as well.
        overwrite: Whether an earlier search in `out` may be replaced.
        progress: Hears what happens.
        inputs: From `read_inputs` of these settings, if it was called already.

    Raises:
        ConfigError: The rates cannot be used; or as `finetune` before training, like all others.
        RunError: `out` is a run or a file, no folder can be made there, or it holds a search already.
        TrainingError: The loss leaves within the first decade.
    """
    progress, width = progress or Progress(), checked_width(low, high, steps)
    check_new(out, FILES, overwrite=overwrite)
    # What is kept for later runs is left alone, and the images of a few hundred steps need no second reading.
    elsewhere = {"system.cache": "none", "system.cache_features": False, "system.distribute": "none", "track": ()}
    config = changed_config(config, elsewhere)
    experiment = prepare(config, report_file=out / "bad_images.txt", progress=progress, inputs=inputs)
    training, images = config.training, f"the training images of fold {experiment.folds[0].number}"
    line = f"{training.optimizer}, batch {training.batch_size}, augmentation {training.augmentation}, learning rate "
    line += f"{low:g} to {high:g} in {steps} steps on {images}, seed {config.seed}"
    progress.plan({**plan_lines(experiment, None), "train": line})
    if experiment.head_learner is not None:
        progress.note("the head does not train alone first here: the rate is that of everything")
    rates = sweep(low, high, steps)
    with memory_errors(config.training):
        losses, left = _train(experiment, rates, width, progress)
    kept = losses[:-1] if left and not math.isfinite(losses[-1]) else losses
    if len(kept) < width:
        raise TrainingError(f"The loss left after {len(losses)} steps, at {rates[len(losses) - 1]:.2g}. Lower --from.")
    rates, values = rates[: len(kept)], np.array(kept)
    return RateSearch(rates, values, left, suggest(rates, values, width=width))


def write_search(search: RateSearch, out: Path) -> list[Path]:
    """Write `FILES`, all or none.

    Raises:
        DiskError, RunError: As `whole_folder`.
    """
    slopes = ("" if math.isnan(slope) else slope for slope in search.suggestion.slopes.tolist())
    rows = zip(range(1, len(search.rates) + 1), search.rates.tolist(), search.losses.tolist(), slopes, strict=True)
    table, values, *pictures = FILES
    found = search.suggestion
    figure = draw_loss_by_rate(search.rates, search.losses, steepest=found.steepest, upper=found.upper)
    with whole_folder(out, FILES, last=values) as folder:
        write_rows(folder / table, ("step", "learning_rate", "loss", "slope_per_decade"), rows)
        write_json(folder / values, search.to_dict())
        for picture in pictures:
            save_figure(figure, folder / picture)
    return [out / name for name in FILES]


def _train(experiment: Experiment, rates: np.ndarray, width: int, progress: Progress) -> tuple[list[float], bool]:
    """The loss of each step, and whether it left."""
    fold, learner = experiment.folds[0], experiment.learner
    start(experiment.classifier.model, experiment.plan, experiment.starting_weights, seed=experiment.fold_seed(fold))
    learner.reset(experiment.class_weights(fold))
    learner.seed_epoch(experiment.fold_seed(fold))
    count, losses = partial(progress.count, "steps"), []
    for batch in _batches(experiment, len(rates)):
        learner.optimizer.learning_rate = float(rates[len(losses)])
        losses.append(float(learner.train(*batch)) / float(batch[2].numpy().sum()))
        count(len(losses), len(rates))
        if diverged(losses, width):
            return losses, True
    return losses, False


def _batches(experiment: Experiment, steps: int):
    """`steps` training batches, through as many epochs as they take."""
    data = experiment.fold_data(experiment.folds[0], experiment.batches)
    epoch = 0
    while steps > 0:
        epoch += 1
        for batch in data.epoch(epoch):
            if steps == 0:
                return
            yield batch
            steps -= 1
