"""The plan of a run before its first step: lines for the user, `run.json`, the initialized network, estimated cost."""

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
from radtransfer.pretrained.any_network import code_record
from radtransfer.pretrained.match import PretrainedWeights
from radtransfer.process import Progress, keras_defaults, versions
from radtransfer.reports.figures import save_figure
from radtransfer.reports.layer_figures import draw_filters
from radtransfer.runs.folder import atomic_write, run_folder
from radtransfer.training.context import TrainingContext
from radtransfer.training.prepare import RunInputs, find_weights_and_scale, load_weights, prepare
from radtransfer.training.step import STATISTICS_IMAGES, Learner, trainable_batch_norms
from radtransfer.transfer.initialize import initialize_weights
from radtransfer.transfer.plan import TransferPlan, build_plan
from radtransfer.transfer.spec import transfer_spec


def plan_lines(context: TrainingContext, out: Path | None) -> dict[str, str]:
    """A title and text for each aspect of the run."""
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
    """The short plan block: six lines, and one more for several devices."""
    config, training, plan = context.config, context.config.training, context.plan
    size, parameters = config.model.image_size, context.classifier.model.count_params()
    by_init = groupby(plan.groups, key=lambda group: group.init)
    inits = [(name, list(groups)[-1].stage) for name, groups in by_init]
    init = ", then ".join([*(f"{name} through {stage}" for name, stage in inits[:-1]), inits[-1][0]])
    frozen = [group.stage for group in plan.groups if not group.trains]
    trains = f"{', '.join(dict.fromkeys(frozen))} frozen" if frozen else "everything trains"
    trains = "only the head trains" if len(frozen) == len(plan.groups) else trains
    lines = {
        "data": _data_line(context, counts=False),
        "split": _folds_line(context, short=True),
        "network": f"{context.backbone.name}, {parameters:,} parameters, {size}×{size} pixels, "
        f"input scaled as {context.network['preprocessing']}",
        "start": f"{config.model.weights}, scheme {plan.scheme}{'' if init == 'random' else f': {init}'}",
        "training": f"{trains}; {training.optimizer} {training.learning_rate:g}, batch {training.batch_size}, "
        f"at most {training.epochs} epochs, {context.device.name.partition(',')[0]}",
    }
    replicas = context.coordinator.describe(training, batch_norm=False)
    lines |= {"replicas": replicas.split("\n")[0]} if replicas else {}
    return lines if out is None else lines | {"output": str(out)}


def run_record(context: TrainingContext) -> dict[str, Any]:
    """The entries of `run.json` that say how the run is made."""
    config, device, table, pretrained = context.config, context.device, context.table, context.pretrained
    # table_sha256: path, label, patient, and the split in each fold.
    lines = ["\t".join(row) for row in zip(table.paths, table.labels, table.groups, strict=True)]
    lines += [",".join(fold.split) for fold in context.folds]
    # images_sha256: the images used, in the order of `folds.csv`.
    rows = dict.fromkeys(row for fold in context.folds for row in np.flatnonzero(fold.split != "").tolist())
    try:
        images_sha256 = images_digest((table.files[row] for row in rows), workers=device.workers)
    except OSError as error:
        raise DataError(f"{error.filename} can no longer be read: {error.strerror}. Restore it.") from None
    return {
        "versions": versions(),
        "seed": config.seed,
        "device": device.name,
        "precision": device.precision,
        "jit": device.jit,
        "onednn": device.onednn,
        "replicas": context.coordinator.record(),
        "backbone": context.backbone.name,
        **({"options": dict(context.backbone.options)} if context.backbone.options else {}),
        **({"code": code} if (code := code_record(context.backbone.name)) else {}),
        "image_size": config.model.image_size,
        "head": context.classifier.activation,
        "weights": {
            "source": config.model.weights,
            "file": None if pretrained is None else str(pretrained.source.file),
            "sha256": None if pretrained is None else pretrained.sha256,
            "preprocessing": None if pretrained is None else pretrained.preprocessing,
            "preprocessing_from": None if pretrained is None else pretrained.preprocessing_origin,
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
    """The plan as a table of its stages; `head` is a classifier, whose last layer is added."""
    through = f" through {plan.last_transferred_stage}" if plan.last_transferred_stage else ""
    phases = ", the head alone first" if plan.head_first else ""
    batch_norm = f", batch norm {plan.batch_norm}" if plan.uses_batch_norm else ""
    rows: list[tuple[Any, ...]] = [
        (group.stage, len(group.layers), group.parameters, group.init, group.trains, group.width)
        for group in plan.groups
    ]
    if head is not None:
        rows.append(("head", 1, head.get_layer("head").count_params(), "random", True, 1))
    lines = [
        f"{plan.scheme}{through}{batch_norm}{phases}",
        f"{'stage':<8}{'layers':>7}{'parameters':>12}  {'starts from':<13}{'trains':<7}{'width':>6}",
    ]
    for stage, layers, parameters, init, trains, width in rows:
        lines.append(f"{stage:<8}{layers:>7}{parameters:>12,}  {init:<13}{'yes' if trains else 'no':<7}{width:>6g}")
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
    disc = f", cropped to the fundus disc ({discs} of {len(facts)})" if config.images.fundus_crop else ""
    done = {"stretch": "stretched", "pad": "padded", "crop": "cropped"}[config.images.aspect]
    square = f"{config.model.image_size}×{config.model.image_size}"
    cached = {"none": "", "ram": "; cached in memory", "disk": "; cached on disk"}[config.system.cache]
    return f"{sizes[0][0]}×{sizes[0][1]}{largest} pixels{disc}, {done} to {square}{cached}"


def _folds_line(context: TrainingContext, *, short: bool) -> str:
    table, sizes = context.table, [Counter(fold.split.tolist()) for fold in context.folds]
    mean = "/".join(str(round(np.mean([size[split] for size in sizes]))) for split in ("train", "val", "test"))
    count, numbers = context.fold_count, ", ".join(str(fold.number) for fold in context.folds)
    kind = "by image" if table.patients is None else "by patient" if short else "patient-grouped"
    kind = "as given" if table.splits is not None else kind if short else f"{kind}, stratified"
    if short:
        chosen = f"{count} fold{'s' * (count > 1)}" if len(sizes) == count else f"fold {numbers} of {count}"
    else:
        chosen = f"{count}" if len(sizes) == count else f"{numbers} of {count}"
    return f"{chosen}, {kind}; train/val/test ≈ {mean} images"


def _weights_line(pretrained: PretrainedWeights | None) -> str:
    if pretrained is None:
        return "random"
    source, count = pretrained.source, len(pretrained.layers)
    extra = f", {len(pretrained.extra)} ignored (head)" if pretrained.extra else ""
    terms = f"; {source.terms}" if source.terms else ""
    loaded = f"{count} layers loaded, {pretrained.changed} changed{extra}"
    return f"{source.given}  sha256 {pretrained.sha256[:12]}…  {loaded}{terms}"


def _input_origin(context: TrainingContext) -> str:
    if context.config.model.preprocessing != "auto":
        return "as set"
    if context.pretrained is None:
        return "for random weights"
    if context.pretrained.preprocessing_origin == "assumed":
        return "assumed from the network, as the file does not say; check with `radtransfer weights check`"
    return f"from the weights' {context.pretrained.preprocessing_origin}"


@dataclass(frozen=True)
class PlannedNetwork:
    """A network before its first step, with every weight of `model` set."""

    backbone: Backbone
    plan: TransferPlan
    model: keras.Model
    pretrained: PretrainedWeights | None  # None for random weights


@keras_defaults()
def plan_network(
    config: Config, *, classes: int | None = None, notify: Callable[[str], None] = lambda _: None
) -> PlannedNetwork:
    """Build the network and its transfer plan, load the weights and set every tensor.

    With `classes`, the network has its preprocessing and a softmax head; without, it is the pooled backbone, which
    takes preprocessed images. Raises ConfigError or WeightsError.
    """
    settings, backbone = config.model, BACKBONES[config.model.backbone]
    spec = transfer_spec(config.transfer, backbone, weights=settings.weights != "random")
    source, preprocessing = find_weights_and_scale(settings, backbone, notify)
    backbone = source.network(backbone.name) if source else backbone
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
    initialize_weights(model, plan, None if pretrained is None else pretrained.layers, seed=config.seed)
    return PlannedNetwork(backbone, plan, model, pretrained)


def save_planned(network: PlannedNetwork, path: Path) -> None:
    """Save the Keras model; ConfigError if `path` exists or does not end in .keras."""
    if path.suffix != ".keras" or path.exists():
        raise ConfigError(f"--out: expected a new file that ends in .keras. Received: {path}.")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as part:
            network.model.save(part)


def save_filters(network: PlannedNetwork, path: Path) -> None:
    """Draw the filters of the first convolution and the weight histograms by stage, beside the pretrained ones."""
    found = [kernel for kernel in convolution_kernels(network.model) if kernel[0] in network.plan.layers]
    source = network.pretrained.layers if network.pretrained else {}
    if not found:
        raise ConfigError(f"{network.backbone.name} has no 2-D convolution, so there are no filters to draw.")
    kernels = [(layer, kernel.numpy()) for layer, _, kernel in found]
    pretrained = [(layer, source[layer][index]) for layer, index, _ in found if layer in source]
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
    """The estimated cost of a run on this machine without early stopping."""

    images: int
    folds: int
    steps_per_epoch: int
    first_step_seconds: float  # with tracing; once
    step_seconds: float  # every further step, with decoding in parallel
    epoch_seconds: float
    total_hours: float
    peak_memory_mb: float | None  # of this process so far; None if unknown


@keras_defaults()
def dry_run(
    config: Config, *, name: str | None = None, progress: Progress | None = None, inputs: RunInputs | None = None
) -> Estimate:
    """Do everything that `finetune` does up to its first steps, without a run folder; raises the same errors."""
    progress = progress or Progress()
    if config.system.distribute != "none":
        progress.note("the estimate assumes that one device does all the work")
        config = changed_config(config, {"system.distribute": "none"})
    out = run_folder(config, name=name, reuse=False)
    if (out / "run.json").exists():
        progress.note(f"{out} already contains a run: training will need --resume, --overwrite or another --out")
    context = prepare(config, report_file=out / "bad_images.txt", progress=progress, inputs=inputs)
    progress.plan(plan_lines(context, None), short_plan(context, None))

    def batches(images: int) -> int:
        return math.ceil(images / config.training.batch_size)

    fold = context.folds[0]
    context.initialize(fold)
    data = context.fold_data(fold, context.batches)
    batch = next(iter(data.epoch(1)))
    statistics_batches = batches(min(len(data.training), STATISTICS_IMAGES))
    decoding = _seconds(lambda: list(data.statistics_epoch())) / statistics_batches
    evaluated = batches(len(context.rows(fold, "val"))) + (statistics_batches if context.learner.averages else 0)
    once, epochs = 0.0, []
    for learner in context.learners:
        context.reset(learner, fold)
        features, first, step, evaluation = time_learner(learner, batch, decoding, batches=batches(len(context.table)))
        once += features + first
        epochs.append(data.steps * step + evaluated * evaluation)
    tests = batches(len(context.rows(fold, "test"))) * evaluation
    training = (sum(epochs) * config.training.epochs + tests) * len(context.folds)
    peak = None
    with suppress(ImportError):  # Windows
        import resource

        unit = 1e6 if sys.platform == "darwin" else 1e3  # ru_maxrss is in bytes on macOS, in kilobytes elsewhere
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


def time_learner(
    learner: Learner, batch: tuple[tf.Tensor, tf.Tensor, tf.Tensor], decoding: float, *, batches: int
) -> tuple[float, float, float, float]:
    """Seconds for caching the features of all images, the first step, a later step, and evaluating a batch.

    `decoding` is the seconds to decode a batch, `batches` the number of batches of all images.
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
    # Images are decoded during the previous step, so the slower of the two counts.
    return once, first, max(step, decoding), max(validation, decoding)


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
