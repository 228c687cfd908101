"""Fit one fold: epochs, exact validation, best epoch, early stopping, and a checkpoint after every epoch.

Every epoch is a pure function of the weights it starts from, the seed, the fold and its number, so that a killed
run goes on to the very result of an uninterrupted one.

What one fold trains and validates on, whatever its batches hold: images, or kept features of them.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from radtransfer.config.schema import TrainingSettings
from radtransfer.errors import OutOfMemoryError, TrainingError
from radtransfer.process import EpochReporter, derive_seed
from radtransfer.runs.folder import write_rows
from radtransfer.training.batch_norm import judged_network, reestimate_statistics, trainable_batch_norms
from radtransfer.training.checkpoint import load_checkpoint, save_checkpoint
from radtransfer.training.curve import HeldOut, curve_rows
from radtransfer.training.step import Evaluator, Learner, learning_rate

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
        accuracy: Their accuracy.
        watched: What the curve is drawn on.
    """

    epoch: Callable[[int], Batches]
    plain: Callable[[], Batches]
    validation: Callable[[], Batches]
    steps: int
    images: int
    auc: Callable[[np.ndarray], float | None]
    accuracy: Callable[[np.ndarray], float | None]
    watched: Sequence[HeldOut] = ()


HISTORY = ("epoch", "step", "learning_rate", "loss", "val_loss", "val_auc", "val_accuracy")
"""The columns of `history.csv`."""

_LOOK = 100
"""Steps after which an epoch looks whether its loss is still a number: a look waits for the device."""


@dataclass
class FitState:
    """How far a fold has come; what a checkpoint keeps beside the weights.

    Attributes:
        epoch: The last finished one; 0 before the first.
        best_epoch: The one that `best` is the score of.
        best: Of the best epoch, larger is better; compared in order, so that the second breaks ties of the first.
        waited: Epochs since the best.
        stopped: Whether patience ran out.
        reestimated: Whether batch-norm statistics were re-estimated for the best epoch.
        seconds: Spent on training and validation.
        history: The rows of `history.csv`.
        curve: The rows of `curve.csv`.
    """

    epoch: int = 0
    best_epoch: int = 0
    best: list[float] | None = None
    waited: int = 0
    stopped: bool = False
    reestimated: bool = False
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
    reporter: EpochReporter,
) -> FitState:
    """Train until the last epoch or until patience runs out; leave the best epoch's weights in the network.

    Continues from the checkpoint in `folder` where there is one. `settled_after` is the number of steps up to which
    batch-norm statistics are re-estimated before each validation. Where weights are averaged, the averages are
    validated, watched and kept, with statistics of their own; the weights that train go on beside them.

    Raises:
        TrainingError: The loss is no longer a number.
        RunError: The checkpoint is damaged, or of another network.
    """
    state, averaging = _continue_from(learner, folder), bool(learner.averages)
    settled = math.inf if averaging else settled_after
    while state.epoch < settings.epochs and not state.stopped:
        started = time.monotonic()
        watch = _watcher(learner, data, settings, state)
        inner = partial(watch, judged=lambda step: judged_network(learner, data.plain() if step < settled else None))
        row = _run_epoch(learner, data, settings, epoch=state.epoch + 1, seed=seed, reporter=reporter, watch=inner)
        reestimated = row["step"] < settled and bool(trainable_batch_norms(learner.classifier.model))
        if reestimated and not averaging:
            reestimate_statistics(learner, data.plain())
        with judged_network(learner, data.plain() if averaging else None):
            watch(row["step"], row["epoch"])
            row |= _validate(learner, data, row, folder)
            _judge(state, row, settings, reestimated=reestimated)
            state.seconds += time.monotonic() - started
            if learner.is_chief:
                _save_best(learner, state, folder)
        if learner.is_chief:
            _save(learner, state, folder)
        reporter.epoch(row, best=state.best_epoch == row["epoch"], seconds=time.monotonic() - started)
    best, _ = learner.from_chief(lambda: load_checkpoint(folder / "best.npz"))
    learner.classifier.model.set_weights(best)
    return state


def predict(evaluator: Evaluator, batches: Batches) -> tuple[np.ndarray, float]:
    """Probabilities of the rows that count, float32 (images, classes), and their mean loss."""
    found = []
    for images, targets, weights in batches:
        # Nothing waits for a result here, so that a device computes while the next batch is fetched.
        found.append((*evaluator.evaluate(images, targets), weights))
    parts, total, count = [], 0.0, 0
    for probabilities, losses, weights in evaluator.whole(found):
        counts = weights.numpy() > 0
        parts.append(probabilities.numpy()[counts])
        total += float(losses.numpy()[counts].sum(dtype=np.float64))
        count += int(counts.sum())
    return np.concatenate(parts), total / count


@contextmanager
def memory_errors(settings: TrainingSettings) -> Iterator[None]:
    """Turns running out of memory, of the device or of the machine, into an error that says what helps."""
    try:
        yield
    except (tf.errors.ResourceExhaustedError, MemoryError):
        raise OutOfMemoryError(
            f"Out of memory at batch size {settings.batch_size}. Try --batch-size {max(settings.batch_size // 2, 1)}, "
            "a smaller --image-size, or --precision mixed_bfloat16 on a GPU."
        ) from None


def _continue_from(learner: Learner, folder: Path) -> FitState:
    file = folder / "checkpoint.npz"
    saved = learner.from_chief(lambda: load_checkpoint(file) if file.exists() else None)
    if saved is None:
        return FitState()
    arrays, record = saved
    learner.restore(arrays)
    return FitState(**record)


def _run_epoch(
    learner: Learner,
    data: FoldData,
    settings: TrainingSettings,
    *,
    epoch: int,
    seed: int,
    reporter: EpochReporter,
    watch: Callable[[int, int], None],
) -> dict[str, Any]:
    learner.seed_epoch(derive_seed(seed, "dropout", epoch))
    total, step, rate = 0.0, (epoch - 1) * data.steps, 0.0
    for done, batch in enumerate(data.epoch(epoch), start=1):
        rate = learning_rate(settings, step=step, steps_per_epoch=data.steps)
        learner.optimizer.learning_rate = rate
        total += learner.train(*batch)
        step += 1
        if done % _LOOK == 0 and not math.isfinite(total):
            break  # validation says what it means
        if done < data.steps:  # the last step is watched after the epoch, whose end has statistics of its own
            watch(step, epoch)
        reporter.step(epoch, done, data.steps)
    return {"epoch": epoch, "step": step, "learning_rate": rate, "loss": float(total) / data.images}


def _watcher(learner: Learner, data: FoldData, settings: TrainingSettings, state: FitState) -> Callable[..., None]:
    """Adds to the curve when a step asks for it, and leaves the network as it was."""

    def watch(step: int, epoch: int, judged: Callable[[int], AbstractContextManager] = nullcontext) -> None:
        if settings.eval_every is None or step % settings.eval_every:
            return
        with judged(step):
            state.curve += curve_rows(lambda batches: predict(learner, batches), data.watched, step=step, epoch=epoch)

    return watch


def _validate(learner: Learner, data: FoldData, row: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The validation columns of a row of the history."""
    _check_finite(row["loss"], row, folder)
    probabilities, loss = predict(learner, data.validation())
    _check_finite(loss, row, folder)
    figures = {"val_loss": loss, "val_auc": data.auc(probabilities), "val_accuracy": data.accuracy(probabilities)}
    return learner.from_chief(lambda: ([], figures))[1]


def _check_finite(loss: float, row: dict[str, Any], folder: Path) -> None:
    if math.isfinite(loss):
        return
    good = folder / "checkpoint.npz"
    last = (
        f" The last good checkpoint, of epoch {row['epoch'] - 1}, is {good}."
        if good.is_file()
        else " No epoch was finished before it."
    )
    raise TrainingError(
        f"The loss became {loss} in {folder.name}, epoch {row['epoch']} (learning rate {row['learning_rate']:.3g}). "
        f"Lower --learning-rate, or warm up with --set training.warmup_epochs=1.{last}"
    )


def _judge(state: FitState, row: dict[str, Any], settings: TrainingSettings, *, reestimated: bool) -> None:
    """Is this the best epoch so far? A tie in AUC or accuracy goes to the lower loss."""
    state.epoch = row["epoch"]
    state.history.append(row)
    monitored = None if settings.monitor == "loss" else row[f"val_{settings.monitor}"]
    score = [-row["val_loss"]] if monitored is None else [monitored, -row["val_loss"]]
    if state.best is None or score > state.best:
        state.best_epoch, state.best, state.waited, state.reestimated = row["epoch"], score, 0, reestimated
        return
    state.waited += 1
    state.stopped = settings.patience is not None and state.waited >= settings.patience


def _save_best(learner: Learner, state: FitState, folder: Path) -> None:
    if state.best_epoch == state.epoch:
        weights = (np.array(variable) for variable in learner.classifier.model.weights)
        save_checkpoint(folder / "best.npz", weights, {})


def _save(learner: Learner, state: FitState, folder: Path) -> None:
    """After the best weights history and checkpoint: a kill in between repeats the epoch and writes the same."""
    write_rows(folder / "history.csv", HISTORY, ([row[name] for name in HISTORY] for row in state.history))
    if state.curve:
        write_rows(folder / "curve.csv", list(state.curve[0]), (row.values() for row in state.curve))
    save_checkpoint(folder / "checkpoint.npz", learner.state(), asdict(state))
