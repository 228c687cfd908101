"""What a run is about to do: as lines for the user, and as the record in `run.json`.

A network as a transfer plan starts it, without data and without training.

Check everything a run needs, do one batch, and say what the whole will cost.
"""

import math
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from radtransfer.config.load import changed_config
from radtransfer.config.schema import Config
from radtransfer.data.splits import fold_count
from radtransfer.errors import ConfigError
from radtransfer.files import writing
from radtransfer.images.preprocessing import MODES
from radtransfer.models.architecture import build_architecture
from radtransfer.models.backbone import BACKBONES, Backbone
from radtransfer.models.classifier import build_classifier
from radtransfer.models.layers import convolution_kernels
from radtransfer.pretrained.loading import PretrainedWeights
from radtransfer.process import Device, Progress, keras_defaults, versions
from radtransfer.reports.figures import save_figure
from radtransfer.reports.layer_figures import draw_filters
from radtransfer.runs.folder import run_folder, whole_file
from radtransfer.training.batch_norm import IMAGES, trainable_batch_norms
from radtransfer.training.context import Experiment
from radtransfer.training.distributed import Replicas
from radtransfer.training.names import has_weights
from radtransfer.training.prepare import RunInputs, load_for, prepare, preprocessing_for
from radtransfer.training.step import Learner
from radtransfer.transfer.initialize import start
from radtransfer.transfer.plan import TransferPlan, lay_out
from radtransfer.transfer.spec import outline_plan


def plan_lines(experiment: Experiment, out: Path | None) -> dict[str, str]:
    """A title and a line of text for each aspect of the run."""
    lines = {
        "data": _data_line(experiment),
        "images": _images_line(experiment),
        "folds": _folds_line(experiment),
        "network": _network_line(experiment),
        "weights": _weights_line(experiment),
        "plan": plan_text(experiment.plan, head=experiment.classifier.model),
        "input": _input_line(experiment),
        "train": _train_line(experiment.config),
        "system": _system_line(experiment.device),
    }
    if experiment.replicas is not None:
        lines["replicas"] = _replicas_text(experiment, experiment.replicas)
    return lines if out is None else lines | {"run": str(out)}


def run_record(experiment: Experiment) -> dict[str, Any]:
    """What `run.json` says of how a run was made."""
    pretrained, table = experiment.pretrained, experiment.table
    return {
        "versions": versions(),
        "seed": experiment.config.seed,
        "device": experiment.device.name,
        "precision": experiment.device.precision,
        "jit": experiment.device.jit,
        "onednn": experiment.device.onednn,
        "replicas": {} if experiment.replicas is None else experiment.replicas.record(),
        "backbone": experiment.card.name,
        "image_size": experiment.config.model.image_size,
        "head": experiment.classifier.activation,
        "weights": {
            "source": experiment.config.model.weights,
            "file": None if pretrained is None else str(pretrained.file),
            "sha256": None if pretrained is None else pretrained.sha256,
            "preprocessing": None if pretrained is None else pretrained.preprocessing,
            "preprocessing_from": None if pretrained is None else pretrained.preprocessing_sure,
        },
        "plan": experiment.plan.record(),
        "features_cached": any(learner.from_features for learner in experiment.learners),
        "weights_sha256": None if pretrained is None else pretrained.sha256,
        "preprocessing": experiment.preprocessing,
        "task": table.task,
        "classes": list(table.classes),
        "positive_from": experiment.scoring.positive_from,
        "positive_class": experiment.scoring.positive_class,
        "data": {"source": experiment.config.data.source, "images": len(table)},
        "table_sha256": experiment.table_sha256,
        "images_sha256": experiment.images_sha256,
        "batch_norm": {"reestimated_before_step": experiment.settled_after},
        "notes": list(table.notes),
    }


def _data_line(experiment: Experiment) -> str:
    table = experiment.table
    counts = np.nansum(table.targets == 1, axis=0).astype(int)
    classes = ", ".join(f"{name} {count}" for name, count in zip(table.classes, counts, strict=True))
    patients = "patients unknown" if table.patients is None else f"{len(set(table.patients))} patients"
    kind = "labels" if table.task == "multilabel" else "classes"
    grade, named = experiment.scoring.positive_from, experiment.scoring.positive_class
    positive = "" if named is None else f"; positive class {named}"
    positive = positive if grade is None else f"; AUC of {grade} or worse"
    return f"{len(table)} images, {patients}, {len(table.classes)} {kind} ({classes}){positive}"


def _images_line(experiment: Experiment) -> str:
    """How large the images are, and what becomes of them."""
    config, facts = experiment.config, experiment.batches.source.facts
    sizes = sorted({(fact.width, fact.height) for fact in facts}, key=math.prod)
    largest = f" to {sizes[-1][0]}×{sizes[-1][1]}" if len(sizes) > 1 else ""
    discs = sum(fact.disc is not None for fact in facts)
    disc = f", cut to the disc ({discs} of {len(facts)})" if config.images.fundus_crop else ""
    done = {"stretch": "stretched", "pad": "padded", "crop": "cropped"}[config.images.aspect]
    square, cache = f"{config.model.image_size}×{config.model.image_size}", config.system.cache
    kept = {"none": "", "ram": "; kept in memory", "disk": "; kept on disk"}[cache]
    return f"{sizes[0][0]}×{sizes[0][1]}{largest} pixels{disc}, {done} to {square}{kept}"


def _folds_line(experiment: Experiment) -> str:
    sizes = [Counter(fold.split.tolist()) for fold in experiment.folds]
    mean = [round(np.mean([size[split] for size in sizes])) for split in ("train", "val", "test")]
    drawn = "as given" if experiment.table.splits is not None else "patient-grouped, stratified"
    if experiment.table.patients is None and experiment.table.splits is None:
        drawn = "by image, stratified"
    count = fold_count(experiment.table, experiment.config.splits)
    chosen = "" if len(sizes) == count else f"{', '.join(str(fold.number) for fold in experiment.folds)} of "
    return f"{chosen}{count}, {drawn}; train/val/test ≈ {mean[0]}/{mean[1]}/{mean[2]} images"


def _network_line(experiment: Experiment) -> str:
    size, parameters = experiment.config.model.image_size, experiment.classifier.model.count_params()
    head = f"{experiment.classifier.activation} over {len(experiment.table.classes)}"
    return f"{experiment.card.name}, {parameters:,} parameters, {size}×{size}×3, {head}"


def _train_line(config: Config) -> str:
    training = config.training
    return (
        f"recipe {config.recipe}: {training.optimizer} {training.learning_rate:g} {training.schedule}, "
        f"{'' if training.ema_momentum is None else f'weights averaged ({training.ema_momentum:g}), '}"
        f"batch {training.batch_size}, ≤ {training.epochs} epochs, best validation {training.monitor}, "
        f"patience {training.patience or 'unlimited'}, augmentation {training.augmentation}, seed {config.seed}"
    )


def _system_line(device: Device) -> str:
    xla, onednn = ("on" if on else "off" for on in (device.jit, device.onednn))
    return f"{device.name}, {device.precision}, XLA {xla}, oneDNN {onednn}, {device.workers} decoding"


def _replicas_text(experiment: Experiment, replicas: Replicas) -> str:
    """How the work is spread, and what that means for the settings."""
    training = experiment.config.training
    size, where = training.batch_size // replicas.count, "on this machine"
    batch = f"batch {training.batch_size} of all together, {size} images a replica"
    if replicas.cluster is not None:
        where = (
            f"in {replicas.workers} workers, {replicas.local_count} each; this is {replicas.cluster.title}; "
            "worker 0 writes the run folder, the others nothing"
        )
        batch += f"; each worker reads its part of every batch, {size * replicas.local_count} images"
    lines = [
        f"{replicas.count} {where}",
        batch,
        f"learning rate {training.learning_rate:g} as given: it is that of all together and is not scaled",
    ]
    if trainable_batch_norms(experiment.classifier.model):
        lines.append(
            "batch norm sees the images of one replica at a time; its moving statistics are averaged over replicas "
            "after every step"
        )
    return "\n".join(lines)


def _input_line(experiment: Experiment) -> str:
    mode = MODES[experiment.preprocessing]
    return f"{mode.name}: {mode.description} ({_input_origin(experiment)})"


def _input_origin(experiment: Experiment) -> str:
    if experiment.config.model.preprocessing != "auto":
        return "as asked"
    if experiment.pretrained is None:
        return "for random weights"
    if experiment.pretrained.preprocessing_sure == "assumed":
        return "assumed from the network; the file does not say, `radtransfer weights check` may tell"
    return f"from the weights' {experiment.pretrained.preprocessing_sure}"


def plan_text(plan: TransferPlan, *, head: keras.Model | None = None) -> str:
    """The plan as a table of its stages; with the classifier it is part of as `head`, its last layer too."""
    through = f" through {plan.through}" if plan.through else ""
    phases = ", the head alone first" if plan.head_first else ""
    batch_norm = f", batch norm {plan.batch_norm}" if plan.uses_batch_norm else ""
    lines = [
        f"{plan.scheme}{through}{batch_norm}{phases}",
        f"{'stage':<8}{'layers':>7}{'parameters':>12}  {'starts from':<13}{'trains':<7}{'width':>6}",
    ]
    for part in plan.parts:
        trains = "yes" if part.trains else "no"
        sizes = f"{len(part.layers):>7}{part.parameters:>12,}"
        lines.append(f"{part.stage:<8}{sizes}  {part.starts_from:<13}{trains:<7}{part.width:>6g}")
    if head is not None:
        lines.append(f"{'head':<8}{1:>7}{head.get_layer('head').count_params():>12,}  {'random':<13}{'yes':<7}{1:>6g}")
    lines.append(f"{plan.trainable_parameters:,} of {plan.parameters:,} backbone parameters train")
    return "\n".join(lines)


def _weights_line(experiment: Experiment) -> str:
    pretrained = experiment.pretrained
    if pretrained is None:
        return "random"
    report = pretrained.report
    extra = f", {len(report.extra)} of the file left out (head)" if report.extra else ""
    terms = f"; {pretrained.terms}" if pretrained.terms else ""
    loaded = f"{len(report.matched)} layers loaded, {report.changed} changed{extra}"
    return f"{experiment.config.model.weights}  sha256 {pretrained.sha256[:12]}…  {loaded}{terms}"


@dataclass(frozen=True)
class PlannedNetwork:
    """A network before its first step.

    Attributes:
        card: Of the backbone.
        plan: What each layer starts from, and whether it trains.
        model: With every weight set.
        pretrained: The weights it starts from; None for random.
        preprocessing: The input scale that fits it; built into the model if it has a head.
    """

    card: Backbone
    plan: TransferPlan
    model: keras.Model
    pretrained: PretrainedWeights | None
    preprocessing: str

    @property
    def starting_weights(self) -> Mapping[str, tuple[np.ndarray, ...]] | None:
        """Layer name to its pretrained arrays."""
        return None if self.pretrained is None else self.pretrained.layers


@keras_defaults()
def plan_network(
    config: Config, *, classes: int | None = None, notify: Callable[[str], None] = lambda _: None
) -> PlannedNetwork:
    """Build the network, lay the plan out, load the weights and set every tensor.

    Args:
        config: Of which the sections `model` and `transfer`, and the seed, count.
        classes: With a number, the network has its preprocessing and a softmax head of that many classes; without,
            it is the backbone alone, pooled, for images that are already preprocessed.
        notify: Hears what is worth a note.

    Raises:
        ConfigError: The plan contradicts itself or does not fit the network.
        WeightsError: The weights cannot be used.
    """
    card = BACKBONES[config.model.backbone]
    outline = outline_plan(config.transfer, card, weights=has_weights(config))
    preprocessing = preprocessing_for(config, card, notify)
    model = _built(config, card, outline.widths, classes, preprocessing)
    plan = lay_out(outline, model, card)
    pretrained = load_for(config, card, outline.widths, notify)
    for note in plan.notes():
        notify(note)
    start(model, plan, None if pretrained is None else pretrained.layers, seed=config.seed)
    return PlannedNetwork(card, plan, model, pretrained, preprocessing)


def save_planned(network: PlannedNetwork, path: Path) -> None:
    """The model as plain Keras, whole or not at all.

    Raises:
        ConfigError: `path` exists, or does not end in .keras.
        DiskError, RunError: It cannot be written.
    """
    if path.suffix != ".keras" or path.exists():
        raise ConfigError(f"--out takes a new file that ends in .keras. Received: {path}.")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as part:
            network.model.save(part)


def save_filters(network: PlannedNetwork, path: Path) -> None:
    """The first convolution's filters and the weights' histograms by stage, beside the pretrained ones.

    Raises:
        ConfigError: `path` has no suffix of a figure.
        DiskError, RunError: It cannot be written.
    """
    found = [kernel for kernel in convolution_kernels(network.model) if kernel[0] in network.plan.layers]
    source = network.starting_weights or {}
    if not found:
        raise ConfigError(f"{network.card.name} has no 2-D convolution, so there are no filters to draw.")
    kernels = [(layer, kernel.numpy()) for layer, _, kernel in found]
    pretrained = [(layer, source[layer][place]) for layer, place, _ in found if layer in source]
    figure = draw_filters(
        kernels[0][1],
        _by_stage(kernels, network.plan),
        pretrained=_by_stage(pretrained, network.plan),
        title=f"{network.card.name}, {network.plan.scheme}",
    )
    with writing(path):
        save_figure(figure, path)


def _built(
    config: Config, card: Backbone, widths: Mapping[str, float], classes: int | None, preprocessing: str
) -> keras.Model:
    size = config.model.image_size
    if classes is None:
        return build_architecture(card, image_size=size, widths=widths)
    classifier = build_classifier(
        card,
        classes=classes,
        image_size=size,
        activation="softmax",
        dropout=config.model.dropout,
        preprocessing=preprocessing,
        widths=widths,
    )
    return classifier.model


def _by_stage(kernels: Sequence[tuple[str, np.ndarray]], plan: TransferPlan) -> dict[str, np.ndarray]:
    """All values of each stage's kernels."""
    stages = {layer: part.stage for part in plan.parts for layer in part.layers}
    values: dict[str, list[np.ndarray]] = {}
    for layer, kernel in kernels:
        values.setdefault(stages[layer], []).append(kernel.ravel())
    return {stage: np.concatenate(parts) for stage, parts in values.items()}


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
