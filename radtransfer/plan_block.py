"""What a run is about to do: as lines for the user, and as the record in `run.json`."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

import keras
import numpy as np

from radtransfer.batch_norm import trainable_batch_norms
from radtransfer.device import Device, versions
from radtransfer.distribution.replicas import Replicas
from radtransfer.experiment import Experiment
from radtransfer.preprocessing import MODES
from radtransfer.settings import Config
from radtransfer.splits.folds import fold_count
from radtransfer.transfer import TransferPlan


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
