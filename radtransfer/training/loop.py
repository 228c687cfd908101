"""Trains one fold: epochs, validation, best epoch, early stopping, and a checkpoint after every epoch.

Every epoch is a pure function of the weights before it, the seed, the fold and its number, so that a killed run
resumes to exactly the result of an uninterrupted one.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from radtransfer.config.schema import TrainingSettings
from radtransfer.data.splits import Fold
from radtransfer.errors import OutOfMemoryError, TrainingError
from radtransfer.evaluation.metrics import accuracy, curve_figures, exact_auc
from radtransfer.evaluation.scoring import Scoring
from radtransfer.images.pipeline import Batches, epoch_order
from radtransfer.process import EpochReporter, derive_seed
from radtransfer.runs.folder import write_rows
from radtransfer.training.checkpoint import load_checkpoint, save_checkpoint
from radtransfer.training.distributed import Coordinator
from radtransfer.training.step import (
    STATISTICS_IMAGES,
    Evaluator,
    Learner,
    evaluation_mode,
    learning_rate,
    reestimate_statistics,
    trainable_batch_norms,
)
from radtransfer.transfer.frozen import FeatureBatches, UncachedFeatures

HISTORY = ("epoch", "step", "learning_rate", "loss", "val_loss", "val_auc", "val_accuracy")
"""The columns of `history.csv`."""

_LOGS = ("learning_rate", "loss", "val_loss", "val_auc", "val_accuracy")
"""The logs that Keras callbacks get at the end of an epoch."""

_CHECK_EVERY = 100  # steps between checks that the loss is finite; each check waits for the device

Epoch = Iterable[tuple[tf.Tensor, tf.Tensor, tf.Tensor]]
"""Batches (images, targets, weights) of one fixed shape; rows of weight 0 are padding."""


@dataclass(frozen=True)
class FoldData:
    """The training and validation data of one fold: images or features."""

    batches: Batches | FeatureBatches | UncachedFeatures
    targets: np.ndarray  # float32 (images, classes); NaN where unknown
    fold: Fold
    scoring: Scoring
    batch_size: int

    @cached_property
    def training(self) -> np.ndarray:
        return np.flatnonzero(self.fold.split == "train")

    @property
    def steps(self) -> int:
        return -(-len(self.training) // self.batch_size)

    def epoch(self, epoch: int) -> Epoch:
        """The training batches of an epoch (from 1), shuffled and augmented."""
        return self.batches.shuffled(epoch, rows=self.training, seed=self.fold.seed, fold=self.fold.number)

    def statistics_epoch(self) -> Epoch:
        """Some training images without augmentation, for batch-norm statistics; drawn as epoch 0."""
        order = epoch_order(len(self.training), seed=self.fold.seed, fold=self.fold.number, epoch=0)
        return self.batches.in_order(self.training[order[:STATISTICS_IMAGES]])

    def held_out(self, split: str) -> tuple[Epoch, np.ndarray]:
        rows = np.flatnonzero(self.fold.split == split)
        return self.batches.in_order(rows), self.targets[rows]


@dataclass
class FitState:
    """The progress of a fold; stored in the checkpoint beside the weights."""

    epoch: int = 0  # the last finished epoch, from 1
    best_epoch: int = 0
    best: list[float] | None = None  # scores of the best epoch, larger is better; later ones break ties
    waited: int = 0  # epochs since the best
    stopped: bool = False
    reestimated: bool = False  # whether batch-norm statistics were re-estimated in the best epoch
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    curve: list[dict[str, Any]] = field(default_factory=list)


def fit(
    learner: Learner,
    data: FoldData,
    settings: TrainingSettings,
    *,
    seed: int,
    folder: Path,
    settled_after: int,
    coordinator: Coordinator,
    reporter: EpochReporter,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> FitState:
    """Train until the last epoch or until patience runs out; leave the weights of the best epoch in the network.

    Resumes from the checkpoint in `folder`, if there is one. Batch-norm statistics are re-estimated before each
    validation up to step `settled_after`. With averaged weights (EMA), the averages are validated and saved, with
    statistics of their own. `callbacks` are called at the beginning and end of training and of epochs, and may set
    `model.stop_training`.
    """
    file, state, averaging = folder / "checkpoint.npz", FitState(), bool(learner.averages)
    settled = math.inf if averaging else settled_after
    checkpoint = coordinator.from_chief(lambda: load_checkpoint(file) if file.exists() else None)
    if checkpoint is not None:
        learner.restore(checkpoint[0])
        state = FitState(**checkpoint[1])

    def on_curve(step: int) -> bool:
        return settings.eval_every is not None and step % settings.eval_every == 0

    def record_within_epoch(step: int, epoch: int) -> None:
        if on_curve(step):
            with evaluation_mode(learner, data.statistics_epoch() if step < settled else None):
                state.curve.extend(_curve_rows(learner, data, coordinator, step, epoch))

    model = learner.classifier.model
    model.stop_training = False
    listeners = keras.callbacks.CallbackList(list(callbacks), model=model, epochs=settings.epochs, steps=data.steps)
    listeners.on_train_begin()
    while state.epoch < settings.epochs and not state.stopped:
        listeners.on_epoch_begin(state.epoch)
        started = time.monotonic()
        row = _train_epoch(
            learner, data, settings, state.epoch + 1, seed=seed, reporter=reporter, after_step=record_within_epoch
        )
        reestimated = row["step"] < settled and bool(trainable_batch_norms(model))
        if reestimated and not averaging:
            reestimate_statistics(learner, data.statistics_epoch())
        with evaluation_mode(learner, data.statistics_epoch() if averaging else None):
            if on_curve(row["step"]):
                state.curve.extend(_curve_rows(learner, data, coordinator, row["step"], row["epoch"]))
            check_finite(row["loss"], row, folder)
            batches, targets = data.held_out("val")
            probabilities, loss = predict(learner, batches, coordinator)
            check_finite(loss, row, folder)
            validation = {"val_loss": loss, "val_auc": exact_auc(targets, probabilities, data.scoring)}
            validation["val_accuracy"] = accuracy(targets, probabilities, data.scoring)
            row |= coordinator.broadcast(validation)
            update_best(state, row, settings, reestimated=reestimated)
            state.seconds += time.monotonic() - started
            if coordinator.is_chief and state.best_epoch == state.epoch:
                save_checkpoint(folder / "best.npz", (np.array(variable) for variable in model.weights), {})
        listeners.on_epoch_end(row["epoch"] - 1, {name: row[name] for name in _LOGS})
        state.stopped = state.stopped or model.stop_training
        if coordinator.is_chief:  # after best.npz: a run killed in between repeats the epoch with the same result
            write_rows(folder / "history.csv", HISTORY, ([row[name] for name in HISTORY] for row in state.history))
            if state.curve:
                write_rows(folder / "curve.csv", list(state.curve[0]), (row.values() for row in state.curve))
            save_checkpoint(file, learner.state(), asdict(state))
        reporter.epoch(row, best=state.best_epoch == row["epoch"], seconds=time.monotonic() - started)
    best, _ = coordinator.from_chief(lambda: load_checkpoint(folder / "best.npz"))
    model.set_weights(best)
    listeners.on_train_end()
    return state


def predict(evaluator: Evaluator, batches: Epoch, coordinator: Coordinator | None = None) -> tuple[np.ndarray, float]:
    """Probabilities, float32 (images, classes), without padding, and the mean loss.

    With a coordinator, `batches` are the part of this worker, and the results those of all workers.
    """
    # No result is read in this loop, so that the device computes while the next batch is fetched.
    results = [(*evaluator.evaluate(images, targets), weights) for images, targets, weights in batches]
    parts, total, count = [], 0.0, 0
    for probabilities, losses, weights in coordinator.gather(results) if coordinator else results:
        counts = weights.numpy() > 0
        parts.append(probabilities.numpy()[counts])
        total += float(losses.numpy()[counts].sum(dtype=np.float64))
        count += int(counts.sum())
    return np.concatenate(parts), total / count


def update_best(state: FitState, row: dict[str, Any], settings: TrainingSettings, *, reestimated: bool) -> None:
    """Add an epoch to the history and update best epoch and patience; the lower loss breaks ties."""
    state.epoch = row["epoch"]
    state.history.append(row)
    monitored = None if settings.monitor == "loss" else row[f"val_{settings.monitor}"]
    score = [-row["val_loss"]] if monitored is None else [monitored, -row["val_loss"]]
    if state.best is None or score > state.best:
        state.best_epoch, state.best, state.waited, state.reestimated = row["epoch"], score, 0, reestimated
        return
    state.waited += 1
    state.stopped = settings.patience is not None and state.waited >= settings.patience


@contextmanager
def memory_errors(batch_size: int) -> Iterator[None]:
    """Turn running out of memory, on the device or the machine, into an error that says what helps."""
    try:
        yield
    except (tf.errors.ResourceExhaustedError, MemoryError):
        raise OutOfMemoryError(
            f"Out of memory at batch size {batch_size}. Try --batch-size {max(batch_size // 2, 1)}, "
            "a smaller --image-size, or --precision mixed_bfloat16 on a GPU."
        ) from None


def _train_epoch(
    learner: Learner,
    data: FoldData,
    settings: TrainingSettings,
    epoch: int,
    *,
    seed: int,
    reporter: EpochReporter,
    after_step: Callable[[int, int], None],
) -> dict[str, Any]:
    learner.seed_epoch(derive_seed(seed, "dropout", epoch))
    total, step, rate = 0.0, (epoch - 1) * data.steps, 0.0
    for done, batch in enumerate(data.epoch(epoch), start=1):
        rate = learning_rate(settings, step=step, steps_per_epoch=data.steps)
        learner.optimizer.learning_rate = rate
        total += learner.train(*batch)
        step += 1
        if done % _CHECK_EVERY == 0 and not math.isfinite(total):
            break  # `fit` raises the error
        if done < data.steps:  # `fit` records the last step, after re-estimating the statistics
            after_step(step, epoch)
        reporter.step(epoch, done, data.steps)
    return {"epoch": epoch, "step": step, "learning_rate": rate, "loss": float(total) / len(data.training)}


def _curve_rows(
    learner: Learner, data: FoldData, coordinator: Coordinator, step: int, epoch: int
) -> Iterator[dict[str, Any]]:
    """The rows of `curve.csv`; test scores are recorded only, and decide neither the best epoch nor when to stop."""
    for split in ("val", "test"):
        batches, targets = data.held_out(split)
        probabilities, loss = predict(learner, batches, coordinator)
        auc, by_class = curve_figures(targets, probabilities, scoring=data.scoring)
        row = {"step": step, "epoch": epoch, "split": split, "loss": loss, "auc": auc}
        yield row | {f"auc_{name}": value for name, value in by_class.items()}


def check_finite(loss: float, row: dict[str, Any], folder: Path) -> None:
    """Raise TrainingError, which names the last good checkpoint, if the loss is NaN or infinite."""
    if math.isfinite(loss):
        return
    good, last = folder / "checkpoint.npz", " No epoch was finished before it."
    if good.is_file():
        last = f" The last good checkpoint, of epoch {row['epoch'] - 1}, is {good}."
    raise TrainingError(
        f"The loss became {loss} in {folder.name}, epoch {row['epoch']} (learning rate {row['learning_rate']:.3g}). "
        f"Lower --learning-rate, or warm up with --set training.warmup_epochs=1.{last}"
    )
