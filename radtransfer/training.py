"""Fit one fold: epochs, exact validation, best epoch, early stopping, and a checkpoint after every epoch.

Every epoch is a pure function of the weights it starts from, the seed, the fold and its number, so that a killed
run goes on to the very result of an uninterrupted one.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from radtransfer.batch_norm import reestimate_statistics
from radtransfer.checkpoint import load_checkpoint, save_checkpoint
from radtransfer.errors import TrainingError
from radtransfer.learner import Learner
from radtransfer.progress import EpochReporter
from radtransfer.runs import write_rows
from radtransfer.schedule import learning_rate
from radtransfer.seeds import derive_seed
from radtransfer.settings import TrainingSettings

HISTORY = ("epoch", "step", "learning_rate", "loss", "val_loss", "val_auc")
"""The columns of `history.csv`."""

Batches = Iterable[tuple[tf.Tensor, tf.Tensor, tf.Tensor]]
"""(images, targets, weights) of one fixed shape; a row of weight 0 only fills the batch."""


@dataclass(frozen=True)
class FoldData:
    """What one fold trains and validates on.

    Attributes:
        epoch: The training batches of an epoch (from 1), shuffled and augmented for it.
        plain: Some training images as they are, for batch-norm statistics.
        validation: The validation batches, in table order.
        steps: Batches in an epoch.
        images: Training images.
        auc: Exact AUC of validation probabilities (images, classes); None where it is not defined.
    """

    epoch: Callable[[int], Batches]
    plain: Callable[[], Batches]
    validation: Callable[[], Batches]
    steps: int
    images: int
    auc: Callable[[np.ndarray], float | None]


@dataclass
class Progression:
    """How far a fold has come; what a checkpoint keeps beside the weights."""

    epoch: int = 0
    best_epoch: int = 0
    best_auc: float | None = None
    best_loss: float | None = None
    waited: int = 0
    stopped: bool = False
    reestimated: bool = False
    history: list[dict[str, Any]] = field(default_factory=list)


def fit(
    learner: Learner,
    data: FoldData,
    settings: TrainingSettings,
    *,
    seed: int,
    folder: Path,
    settled_after: int,
    reporter: EpochReporter,
) -> Progression:
    """Train until the last epoch or until patience runs out; leave the best epoch's weights in the learner.

    Continues from the checkpoint in `folder` where there is one. `settled_after` is the number of steps up to which
    batch-norm statistics are re-estimated before each validation.

    Raises:
        TrainingError: The loss is no longer a number, or memory ran out.
        RunError: The checkpoint is damaged.
    """
    progression = _continue_from(learner, folder)
    while progression.epoch < settings.epochs and not progression.stopped:
        row = _run_epoch(learner, data, settings, epoch=progression.epoch + 1, seed=seed, reporter=reporter)
        _check_finite(row["loss"], row, folder)
        progression.reestimated = row["step"] < settled_after
        if progression.reestimated:
            reestimate_statistics(learner, data.plain())
        probabilities, row["val_loss"] = predict(learner, data.validation())
        _check_finite(row["val_loss"], row, folder)
        row["val_auc"] = data.auc(probabilities)
        _judge(progression, row, settings)
        if progression.best_epoch == row["epoch"]:
            save_checkpoint(
                folder / "best.npz",
                learner.state(),
                {"epoch": row["epoch"], "reestimated": progression.reestimated},
            )
        write_rows(
            folder / "history.csv",
            HISTORY,
            ([line[name] for name in HISTORY] for line in progression.history),
        )
        save_checkpoint(folder / "checkpoint.npz", learner.state(), asdict(progression))
        reporter.epoch(row, best=progression.best_epoch == row["epoch"])
    best, record = load_checkpoint(folder / "best.npz")
    learner.restore(best)
    progression.reestimated = record["reestimated"]
    return progression


def predict(learner: Learner, batches: Batches) -> tuple[np.ndarray, float]:
    """Probabilities of the rows that count, float32 (images, classes), and their mean loss."""
    parts, total, count = [], 0.0, 0
    for images, targets, weights in batches:
        probabilities, losses = learner.evaluate(images, targets)
        counts = weights.numpy() > 0
        parts.append(probabilities.numpy()[counts])
        total += float(losses.numpy()[counts].sum(dtype=np.float64))
        count += int(counts.sum())
    return np.concatenate(parts), total / count


def _continue_from(learner: Learner, folder: Path) -> Progression:
    if not (folder / "checkpoint.npz").exists():
        return Progression()
    arrays, record = load_checkpoint(folder / "checkpoint.npz")
    learner.restore(arrays)
    return Progression(**record)


def _run_epoch(
    learner: Learner,
    data: FoldData,
    settings: TrainingSettings,
    *,
    epoch: int,
    seed: int,
    reporter: EpochReporter,
) -> dict[str, Any]:
    learner.seed_epoch(derive_seed(seed, "dropout", epoch))
    total, step, rate = 0.0, (epoch - 1) * data.steps, 0.0
    try:
        for done, batch in enumerate(data.epoch(epoch), start=1):
            rate = learning_rate(settings, step=step, steps_per_epoch=data.steps)
            learner.optimizer.learning_rate = rate
            total += learner.train(*batch)
            step += 1
            reporter.step(epoch, done, data.steps)
    except (tf.errors.ResourceExhaustedError, MemoryError):
        raise TrainingError(
            f"Out of memory at batch size {settings.batch_size}. Try --batch-size {max(settings.batch_size // 2, 1)}, a smaller "
            "--image-size, or --precision mixed_bfloat16 on a GPU."
        ) from None
    return {"epoch": epoch, "step": step, "learning_rate": rate, "loss": float(total) / data.images}


def _check_finite(value: float, row: dict[str, Any], folder: Path) -> None:
    if not math.isfinite(value):
        last = (
            f" The last good state, of epoch {row['epoch'] - 1}, is in {folder}." if row["epoch"] > 1 else ""
        )
        raise TrainingError(
            f"The loss became {value} in {folder.name}, epoch {row['epoch']} (learning rate {row['learning_rate']:.3g}). "
            f"Lower --learning-rate, or warm up with --set training.warmup_epochs=1.{last}"
        )


def _judge(progression: Progression, row: dict[str, Any], settings: TrainingSettings) -> None:
    """Is this the best epoch so far? A tie in AUC goes to the lower loss."""
    progression.epoch = row["epoch"]
    progression.history.append(row)
    auc, loss = row["val_auc"], row["val_loss"]
    by_auc = settings.monitor == "auc" and auc is not None
    if progression.best_loss is None or _key(auc, loss, by_auc) > _key(
        progression.best_auc, progression.best_loss, by_auc
    ):
        progression.best_epoch, progression.best_auc, progression.best_loss = row["epoch"], auc, loss
        progression.waited = 0
        return
    progression.waited += 1
    progression.stopped = settings.patience is not None and progression.waited >= settings.patience


def _key(auc: float | None, loss: float | None, by_auc: bool) -> tuple[float, ...]:
    return (auc, -loss) if by_auc else (-loss,)
