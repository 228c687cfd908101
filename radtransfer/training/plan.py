"""What a run is about to do: as lines for the user, as a record, as an initialized network, and what it will cost."""

import hashlib
import math
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from radtransfer.config.load import changed_config
from radtransfer.config.schema import Config
from radtransfer.data.run_data import images_digest
from radtransfer.errors import ConfigError, DataError
from radtransfer.files import writing
from radtransfer.images.preprocessing import MODES
from radtransfer.models.architecture import build_architecture
from radtransfer.models.backbone import BACKBONES, Backbone
from radtransfer.models.classifier import build_classifier
from radtransfer.models.layers import convolution_kernels
from radtransfer.pretrained.match import PretrainedWeights
from radtransfer.process import Progress, keras_defaults, versions
from radtransfer.reports.figures import save_figure
from radtransfer.reports.layer_figures import draw_filters
from radtransfer.runs.folder import atomic_write, run_folder
from radtransfer.training.context import TrainingContext
from radtransfer.training.prepare import RunInputs, find_weights_and_scale, load_weights, prepare
from radtransfer.training.step import IMAGES, Learner, trainable_batch_norms
from radtransfer.transfer.initialize import start
from radtransfer.transfer.plan import TransferPlan, build_plan
from radtransfer.transfer.spec import transfer_spec


def plan_lines(context: TrainingContext, out: Path | None) -> dict[str, str]:
    """A title and a line of text for each aspect of the run."""
    config, device, training = context.config, context.device, context.config.training
    model, size = context.classifier.model, context.config.model.image_size
    xla, onednn = ("on" if on else "off" for on in (device.jit, device.onednn))
    mode = MODES[context.network["preprocessing"]]
    lines = {
        "data": _data_line(context, counts=True),
        "images": _images_line(context),
        "folds": _folds_line(context, short=False),
        "network": f"{context.backbone.name}, {model.count_params():,} parameters, {size}×{size}×3, "
        f"{context.classifier.activation} over {len(context.table.classes)}",
        "weights": _weights_line(context.pretrained),
        "plan": plan_text(context.plan, head=model),
        "input": f"{mode.name}: {mode.description} ({_input_origin(context)})",
        "train": f"recipe {config.recipe}: {training.optimizer} {training.learning_rate:g} {training.schedule}, "
        f"{'' if training.ema_momentum is None else f'weights averaged ({training.ema_momentum:g}), '}"
        f"batch {training.batch_size}, ≤ {training.epochs} epochs, best validation {training.monitor}, "
        f"patience {training.patience or 'unlimited'}, augmentation {training.augmentation}, seed {config.seed}",
        "system": f"{device.name}, {device.precision}, XLA {xla}, oneDNN {onednn}, {device.workers} decoding",
    }
    replicas = context.coordinator.describe(training, batch_norm=bool(trainable_batch_norms(model)))
    lines |= {"replicas": replicas} if replicas else {}
    return lines if out is None else lines | {"run": str(out)}


def short_plan(context: TrainingContext, out: Path | None) -> dict[str, str]:
    """The plan block in six lines, and one more on several devices: what a user looks at before every run."""
    config, training, plan = context.config, context.config.training, context.plan
    size, parameters = config.model.image_size, context.classifier.model.count_params()
    by_start = groupby(plan.groups, key=lambda group: group.starts_from)
    starts = [(name, list(groups)[-1].stage) for name, groups in by_start]
    started = ", then ".join([*(f"{name} through {stage}" for name, stage in starts[:-1]), starts[-1][0]])
    frozen = [group.stage for group in plan.groups if not group.trains]
    trains = f"{', '.join(dict.fromkeys(frozen))} frozen" if frozen else "everything trains"
    trains = "only the head trains" if len(frozen) == len(plan.groups) else trains
    lines = {
        "data": _data_line(context, counts=False),
        "split": _folds_line(context, short=True),
        "network": f"{context.backbone.name}, {parameters:,} parameters, {size}×{size} pixels, "
        f"input scaled as {context.network['preprocessing']}",
        "start": f"{config.model.weights}, scheme {plan.scheme}{'' if started == 'random' else f': {started}'}",
        "training": f"{trains}; {training.optimizer} {training.learning_rate:g}, batch {training.batch_size}, "
        f"at most {training.epochs} epochs, {context.device.name.partition(',')[0]}",
    }
    replicas = context.coordinator.describe(training, batch_norm=False)
    lines |= {"replicas": replicas.split("\n")[0]} if replicas else {}
    return lines if out is None else lines | {"output": str(out)}


def run_record(context: TrainingContext) -> dict[str, Any]:
    """What `run.json` says of how a run was made."""
    config, device, table, pretrained = context.config, context.device, context.table, context.pretrained
    # Of the rows: path, label, patient and split of each image in each fold.
    lines = ["\t".join(row) for row in zip(table.paths, table.labels, table.groups, strict=True)]
    lines += [",".join(fold.split) for fold in context.folds]
    # Of the files of the images that take part, in the order of `folds.csv`.
    rows = dict.fromkeys(row for fold in context.folds for row in np.flatnonzero(fold.split != "").tolist())
    try:
        images_sha256 = images_digest((table.files[row] for row in rows), workers=device.workers)
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read any more: {error.strerror}. Restore it.") from None
    return {
        "versions": versions(),
        "seed": config.seed,
        "device": device.name,
        "precision": device.precision,
        "jit": device.jit,
        "onednn": device.onednn,
        "replicas": context.coordinator.record(),
        "backbone": context.backbone.name,
        "image_size": config.model.image_size,
        "head": context.classifier.activation,
        "weights": {
            "source": config.model.weights,
            "file": None if pretrained is None else str(pretrained.source.file),
            "sha256": None if pretrained is None else pretrained.sha256,
            "preprocessing": None if pretrained is None else pretrained.preprocessing,
            "preprocessing_from": None if pretrained is None else pretrained.preprocessing_sure,
        },
        "plan": context.plan.record(),
        "features_cached": any(learner.from_features for learner in context.learners),
        "weights_sha256": None if pretrained is None else pretrained.sha256,
        "preprocessing": context.network["preprocessing"],
        "task": table.task,
        "classes": list(table.classes),
        "positive_from": context.scoring.positive_from,
        "positive_class": context.scoring.positive_class,
        "data": {"source": config.data.source, "images": len(table)},
        "table_sha256": hashlib.sha256("\n".join(lines).encode()).hexdigest(),
        "images_sha256": images_sha256,
        "batch_norm": {"reestimated_before_step": context.settled_after},
        "notes": list(table.notes),
    }


def plan_text(plan: TransferPlan, *, head: keras.Model | None = None) -> str:
    """The plan as a table of its stages; with the classifier it is part of as `head`, its last layer too."""
    through = f" through {plan.through}" if plan.through else ""
    phases = ", the head alone first" if plan.head_first else ""
    batch_norm = f", batch norm {plan.batch_norm}" if plan.uses_batch_norm else ""
    lines = [
        f"{plan.scheme}{through}{batch_norm}{phases}",
        f"{'stage':<8}{'layers':>7}{'parameters':>12}  {'starts from':<13}{'trains':<7}{'width':>6}",
    ]
    for group in plan.groups:
        trains = "yes" if group.trains else "no"
        sizes = f"{len(group.layers):>7}{group.parameters:>12,}"
        lines.append(f"{group.stage:<8}{sizes}  {group.starts_from:<13}{trains:<7}{group.width:>6g}")
    if head is not None:
        lines.append(f"{'head':<8}{1:>7}{head.get_layer('head').count_params():>12,}  {'random':<13}{'yes':<7}{1:>6g}")
    lines.append(f"{plan.trainable_parameters:,} of {plan.parameters:,} backbone parameters train")
    return "\n".join(lines)


def _data_line(context: TrainingContext, *, counts: bool) -> str:
    table = context.table
    images = np.nansum(table.targets == 1, axis=0).astype(int)
    classes = ", ".join(f"{name} {count}" for name, count in zip(table.classes, images, strict=True))
    patients = "patients unknown" if table.patients is None else f"{len(set(table.patients))} patients"
    kind = "labels" if table.task == "multilabel" else "classes"
    grade, named = context.scoring.positive_from, context.scoring.positive_class
    positive = "" if named is None else f"; positive class {named}"
    positive = positive if grade is None else f"; AUC for grade ≥ {grade}"
    return f"{len(table)} images, {patients}, {len(table.classes)} {kind}{f' ({classes})' if counts else ''}{positive}"


def _images_line(context: TrainingContext) -> str:
    config, facts = context.config, context.batches.source.facts
    sizes = sorted({(fact.width, fact.height) for fact in facts}, key=math.prod)
    largest = f" to {sizes[-1][0]}×{sizes[-1][1]}" if len(sizes) > 1 else ""
    discs = sum(fact.disc is not None for fact in facts)
    disc = f", cut to the disc ({discs} of {len(facts)})" if config.images.fundus_crop else ""
    done = {"stretch": "stretched", "pad": "padded", "crop": "cropped"}[config.images.aspect]
    square = f"{config.model.image_size}×{config.model.image_size}"
    cached = {"none": "", "ram": "; kept in memory", "disk": "; kept on disk"}[config.system.cache]
    return f"{sizes[0][0]}×{sizes[0][1]}{largest} pixels{disc}, {done} to {square}{cached}"


def _folds_line(context: TrainingContext, *, short: bool) -> str:
    table, sizes = context.table, [Counter(fold.split.tolist()) for fold in context.folds]
    mean = "/".join(str(round(np.mean([size[split] for size in sizes]))) for split in ("train", "val", "test"))
    count, numbers = context.fold_count, ", ".join(str(fold.number) for fold in context.folds)
    drawn = "by image" if table.patients is None else "by patient" if short else "patient-grouped"
    drawn = "as given" if table.splits is not None else drawn if short else f"{drawn}, stratified"
    if short:
        chosen = f"{count} fold{'s' * (count > 1)}" if len(sizes) == count else f"fold {numbers} of {count}"
    else:
        chosen = f"{count}" if len(sizes) == count else f"{numbers} of {count}"
    return f"{chosen}, {drawn}; train/val/test ≈ {mean} images"


def _weights_line(pretrained: PretrainedWeights | None) -> str:
    if pretrained is None:
        return "random"
    source, count = pretrained.source, len(pretrained.layers)
    extra = f", {len(pretrained.extra)} of the file left out (head)" if pretrained.extra else ""
    terms = f"; {source.terms}" if source.terms else ""
    loaded = f"{count} layers loaded, {pretrained.changed} changed{extra}"
    return f"{source.given}  sha256 {pretrained.sha256[:12]}…  {loaded}{terms}"


def _input_origin(context: TrainingContext) -> str:
    if context.config.model.preprocessing != "auto":
        return "as asked"
    if context.pretrained is None:
        return "for random weights"
    if context.pretrained.preprocessing_sure == "assumed":
        return "assumed from the network; the file does not say, `radtransfer weights check` may tell"
    return f"from the weights' {context.pretrained.preprocessing_sure}"


@dataclass(frozen=True)
class PlannedNetwork:
    """A network before its first step: every weight of `model` is set as `plan` says, from `pretrained` if any."""

    backbone: Backbone
    plan: TransferPlan
    model: keras.Model
    pretrained: PretrainedWeights | None


@keras_defaults()
def plan_network(
    config: Config, *, classes: int | None = None, notify: Callable[[str], None] = lambda _: None
) -> PlannedNetwork:
    """Build the network, plan it, load the weights and set every tensor.

    With `classes`, the network has its preprocessing and a softmax head of that many classes; without, it is the
    backbone alone, pooled, for images that are already preprocessed. ConfigError: The plan contradicts itself or does
    not fit the network. WeightsError: The weights cannot be used.
    """
    settings, backbone = config.model, BACKBONES[config.model.backbone]
    spec = transfer_spec(config.transfer, backbone, weights=settings.weights != "random")
    source, preprocessing = find_weights_and_scale(settings, backbone, notify)
    if classes is None:
        model = build_architecture(backbone, image_size=settings.image_size, widths=spec.widths)
    else:
        model = build_classifier(
            backbone,
            classes=classes,
            image_size=settings.image_size,
            activation="softmax",
            dropout=settings.dropout,
            preprocessing=preprocessing,
            widths=spec.widths,
        ).model
    plan = build_plan(spec, model, backbone)
    pretrained = load_weights(source, settings, backbone, spec.widths, notify)
    for note in plan.notes():
        notify(note)
    start(model, plan, None if pretrained is None else pretrained.layers, seed=config.seed)
    return PlannedNetwork(backbone, plan, model, pretrained)


def save_planned(network: PlannedNetwork, path: Path) -> None:
    """The model as plain Keras, whole or not at all; ConfigError if `path` exists, or does not end in .keras."""
    if path.suffix != ".keras" or path.exists():
        raise ConfigError(f"--out takes a new file that ends in .keras. Received: {path}.")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as part:
            network.model.save(part)


def save_filters(network: PlannedNetwork, path: Path) -> None:
    """The first convolution's filters and the weights' histograms by stage, beside the pretrained ones."""
    found = [kernel for kernel in convolution_kernels(network.model) if kernel[0] in network.plan.layers]
    source = network.pretrained.layers if network.pretrained else {}
    if not found:
        raise ConfigError(f"{network.backbone.name} has no 2-D convolution, so there are no filters to draw.")
    kernels = [(layer, kernel.numpy()) for layer, _, kernel in found]
    pretrained = [(layer, source[layer][place]) for layer, place, _ in found if layer in source]
    figure = draw_filters(
        kernels[0][1],
        _by_stage(kernels, network.plan),
        pretrained=_by_stage(pretrained, network.plan),
        title=f"{network.backbone.name}, {network.plan.scheme}",
    )
    with writing(path):
        save_figure(figure, path)


def _by_stage(kernels: Sequence[tuple[str, np.ndarray]], plan: TransferPlan) -> dict[str, np.ndarray]:
    stages = {layer: group.stage for group in plan.groups for layer in group.layers}
    values: dict[str, list[np.ndarray]] = {}
    for layer, kernel in kernels:
        values.setdefault(stages[layer], []).append(kernel.ravel())
    return {stage: np.concatenate(arrays) for stage, arrays in values.items()}


@dataclass(frozen=True)
class Estimate:
    """About what a run will cost on this machine; early stopping makes it shorter."""

    images: int
    folds: int
    steps_per_epoch: int
    first_step_seconds: float  # the first step, tracing included; paid once
    step_seconds: float  # every further step, its images decoded meanwhile
    epoch_seconds: float
    total_hours: float
    peak_memory_mb: float | None  # of this process so far, in megabytes; None where the system does not tell


@keras_defaults()
def dry_run(
    config: Config, *, name: str | None = None, progress: Progress | None = None, inputs: RunInputs | None = None
) -> Estimate:
    """Everything `finetune` does up to its first steps, without a run folder; it raises the same errors."""
    progress = progress or Progress()
    if config.system.distribute != "none":
        progress.note("the estimate is of one device that does the work of all")
        config = changed_config(config, {"system.distribute": "none"})
    out = run_folder(config, name=name, reuse=False)
    if (out / "run.json").exists():
        progress.note(f"{out} holds a run already: --resume, --overwrite or another --out will be needed")
    context = prepare(config, report_file=out / "bad_images.txt", progress=progress, inputs=inputs)
    progress.plan(plan_lines(context, None), short_plan(context, None))
    fold, size = context.folds[0], config.training.batch_size
    context.start(fold)
    data = context.fold_data(fold, context.batches)
    batch = next(iter(data.epoch(1)))
    plain = _batches(min(len(data.training), IMAGES), size)
    decoding = _seconds(lambda: list(data.plain())) / plain
    checked = _batches(len(context.rows(fold, "val")), size) + (plain if context.learner.averages else 0)
    once, epochs, all_batches = 0.0, [], _batches(len(context.table), size)
    for learner in context.learners:
        context.reset(learner, fold)
        features, first, step, validation = time_learner(learner, batch, decoding, batches=all_batches)
        once += features + first
        epochs.append(data.steps * step + checked * validation)
    tests = _batches(len(context.rows(fold, "test")), size) * validation
    training = (sum(epochs) * config.training.epochs + tests) * len(context.folds)
    peak = None
    with suppress(ImportError):  # Windows
        import resource

        unit = 1e6 if sys.platform == "darwin" else 1e3  # bytes there, kilobytes elsewhere
        peak = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit)
    return Estimate(
        images=len(context.table),
        folds=len(context.folds),
        steps_per_epoch=data.steps,
        first_step_seconds=round(first, 2),
        step_seconds=round(step, 4),
        epoch_seconds=round(epochs[-1], 1),
        total_hours=round((once + training) / 3600, 5),
        peak_memory_mb=peak,
    )


def _batches(images: int, size: int) -> int:
    return -(-images // size)


def time_learner(
    learner: Learner, batch: tuple[tf.Tensor, tf.Tensor, tf.Tensor], decoding: float, *, batches: int
) -> tuple[float, float, float, float]:
    """Seconds that `learner` takes: for the cached features of all images, the first step, another, a validation batch.

    Decoding a batch takes `decoding` seconds; all images are `batches` of them.
    """
    (inputs, targets, weights), once = batch, 0.0
    if learner.from_features:
        trunk = learner.cut.traced_features
        trunk(inputs)
        started = time.perf_counter()
        inputs = [tf.constant(x.numpy(), tf.float32) for x in trunk(inputs)]
        once, decoding = max(time.perf_counter() - started, decoding) * batches, 0.0
    first = _seconds(lambda: learner.train(inputs, targets, weights).numpy())
    step = statistics.median(_seconds(lambda: learner.train(inputs, targets, weights).numpy()) for _ in range(3))
    learner.evaluate(inputs, targets)
    validation = _seconds(lambda: learner.evaluate(inputs, targets)[1].numpy())
    # Images are decoded while the step before is computed: the slower of the two sets the pace.
    return once, first, max(step, decoding), max(validation, decoding)


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
