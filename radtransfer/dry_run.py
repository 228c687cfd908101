"""Check everything a run needs, do one batch, and say what the whole will cost."""

import statistics
import sys
import time
from dataclasses import dataclass

import tensorflow as tf

from radtransfer.batch_norm import IMAGES
from radtransfer.config import changed_config
from radtransfer.environment import keras_defaults
from radtransfer.initialization import start
from radtransfer.learner import Learner
from radtransfer.plan_block import plan_lines
from radtransfer.preparation import RunInputs, prepare
from radtransfer.progress import Progress
from radtransfer.runs import run_folder
from radtransfer.settings import Config

_STEPS = 3


@dataclass(frozen=True)
class Estimate:
    """About what a run will cost on this machine; early stopping makes it shorter.

    Attributes:
        images: Readable images.
        folds: To train.
        steps_per_epoch: Training steps of the first fold.
        first_step_seconds: The first step, tracing included; paid once.
        step_seconds: Every further step, its images decoded meanwhile.
        epoch_seconds: An epoch with its validation.
        total_hours: All folds, epochs and tests.
        peak_memory_mb: Of this process so far, in megabytes; None where the system does not tell.
    """

    images: int
    folds: int
    steps_per_epoch: int
    first_step_seconds: float
    step_seconds: float
    epoch_seconds: float
    total_hours: float
    peak_memory_mb: float | None


@keras_defaults()
def dry_run(
    config: Config, *, name: str | None = None, progress: Progress | None = None, inputs: RunInputs | None = None
) -> Estimate:
    """Everything `finetune` does up to its first steps, without a run folder; `inputs` as there.

    Raises:
        RadtransferError: Whatever `finetune` would raise before training.
    """
    progress = progress or Progress()
    if config.system.distribute != "none":
        progress.note("the estimate is of one device that does the work of all")
        config = changed_config(config, {"system.distribute": "none"})
    out = run_folder(config, name=name, reuse=False)
    if (out / "run.json").exists():
        progress.note(f"{out} holds a run already: --resume, --overwrite or another --out will be needed")
    experiment = prepare(config, report_file=out / "bad_images.txt", progress=progress, inputs=inputs)
    progress.plan(plan_lines(experiment, None))
    fold = experiment.folds[0]
    start(experiment.classifier.model, experiment.plan, experiment.starting_weights, seed=experiment.fold_seed(fold))
    data, size = experiment.fold_data(fold, experiment.batches), config.training.batch_size
    batch = next(iter(data.epoch(1)))
    plain = -(-min(data.images, IMAGES) // size)
    decoding = _seconds(lambda: list(data.plain())) / plain
    checked = -(-len(experiment.rows(fold, "val")) // size) + (plain if experiment.learner.averages else 0)
    phases = []
    for learner in filter(None, (experiment.head_learner, experiment.learner)):
        learner.reset(experiment.class_weights(fold))
        phases.append(_measured(learner, batch, decoding, batches=-(-len(experiment.table) // size)))
    epochs = [data.steps * phase.step + checked * phase.validation for phase in phases]
    tests = -(-len(experiment.rows(fold, "test")) // size) * phases[-1].validation
    training = (sum(epochs) * config.training.epochs + tests) * len(experiment.folds)
    return Estimate(
        images=len(experiment.table),
        folds=len(experiment.folds),
        steps_per_epoch=data.steps,
        first_step_seconds=round(phases[-1].first, 2),
        step_seconds=round(phases[-1].step, 4),
        epoch_seconds=round(epochs[-1], 1),
        total_hours=round((sum(phase.once + phase.first for phase in phases) + training) / 3600, 5),
        peak_memory_mb=_peak_memory(),
    )


@dataclass(frozen=True)
class _Phase:
    """Seconds that one learner takes: the head's alone, or the one that trains what the plan trains.

    Attributes:
        once: For the features of all images, if they are kept.
        first: The first step, tracing included.
        step: Every further one.
        validation: A batch of validation images.
    """

    once: float
    first: float
    step: float
    validation: float


def _measured(
    learner: Learner, batch: tuple[tf.Tensor, tf.Tensor, tf.Tensor], decoding: float, *, batches: int
) -> _Phase:
    """Time `learner` on one batch, of which decoding takes `decoding` seconds; all images are `batches` of them."""
    (inputs, targets, weights), once = batch, 0.0
    if learner.from_features:
        inputs, seconds = _features(learner, inputs)
        once, decoding = max(seconds, decoding) * batches, 0.0
    first = _seconds(lambda: learner.train(inputs, targets, weights).numpy())
    step = statistics.median(_seconds(lambda: learner.train(inputs, targets, weights).numpy()) for _ in range(_STEPS))
    learner.evaluate(inputs, targets)
    validation = _seconds(lambda: learner.evaluate(inputs, targets)[1].numpy())
    # Images are decoded while the step before is computed: the slower of the two sets the pace.
    return _Phase(once, first, max(step, decoding), max(validation, decoding))


def _features(learner: Learner, images: tf.Tensor) -> tuple[list[tf.Tensor], float]:
    """What the frozen trunk makes of a batch, and the seconds it takes."""
    trunk = learner.cut.traced_features
    trunk(images)
    started = time.perf_counter()
    features = [tf.constant(x.numpy(), tf.float32) for x in trunk(images)]
    return features, time.perf_counter() - started


def _seconds(work) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _peak_memory() -> float | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1e6 if sys.platform == "darwin" else 1e3  # bytes there, kilobytes elsewhere
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit)
