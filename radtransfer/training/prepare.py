"""Reads and checks everything that a run needs before training starts.

`read_inputs` checks all that needs no network, without TensorFlow, so that mistakes are reported at once.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from radtransfer.config.recipes import head_phase
from radtransfer.config.schema import Config, ModelSettings
from radtransfer.data.image_check import check_images
from radtransfer.data.labels import positive_class
from radtransfer.data.readers import read_table
from radtransfer.data.run_data import source_leaks
from radtransfer.data.splits import LEAK, Fold, assign_folds, copy_notes, fold_notes, near_identical_notes
from radtransfer.data.table import ImageTable, show_notes
from radtransfer.errors import ConfigError
from radtransfer.evaluation.metrics import exact_auc
from radtransfer.evaluation.scoring import Scoring
from radtransfer.images.preprocessing import RANDOM_PREPROCESSING
from radtransfer.models.backbone import Backbone
from radtransfer.pretrained.match import PretrainedWeights, load_pretrained
from radtransfer.pretrained.source import WeightSource, resolve_weights
from radtransfer.process import Progress, resolve_device
from radtransfer.training.losses import check_loss, class_weights
from radtransfer.training.names import check_batch_size, check_names
from radtransfer.transfer.spec import TransferSpec

if TYPE_CHECKING:
    import keras

    from radtransfer.training.context import ModelCache, TrainingContext
    from radtransfer.training.distributed import Coordinator


_NOTHING_FROZEN = (
    "--cache-features: expected a plan that freezes the first layers. Received: one that trains them, so no features "
    "can be cached. Add --freeze-to STAGE, or use a scheme that freezes."
)


@dataclass(frozen=True)
class RunInputs:
    """The inputs of a run, checked as far as possible without the network and without reading images."""

    backbone: Backbone
    spec: TransferSpec
    weights: WeightSource | None  # None for random weights
    preprocessing: str
    table: ImageTable
    scoring: Scoring
    folds: tuple[Fold, ...]
    activation: str


def read_inputs(config: Config, progress: Progress) -> RunInputs:
    """Look up every name, find the weights, read the table and draw the folds."""
    backbone, spec = check_names(config)
    if config.system.cache_features is True and not spec.freezes:
        raise ConfigError(_NOTHING_FROZEN)
    weights, preprocessing = find_weights_and_scale(config.model, backbone, progress.note)
    backbone = weights.network(backbone.name) if weights else backbone
    table = read_table(config.data, progress=progress)
    show_notes(table.notes, progress)
    class_weights(config.training.class_weights, table.targets, classes=table.classes, task=table.task)
    grade = table.positive_from if config.data.positive_from is None else config.data.positive_from
    scoring = Scoring(table.task, table.classes, grade, positive_class=positive_class(table, config.data))
    folds = assign_folds(table, config.splits, seed=config.seed, allow_leakage=config.data.allow_leakage)
    activation = config.model.head
    if table.task == "multilabel" and activation == "softmax":
        raise ConfigError("--head softmax needs one label per image; this table has several. Use sigmoid or auto.")
    if activation == "auto":
        activation = "sigmoid" if table.task == "multilabel" else "softmax"
    check_loss(config.training.loss, activation=activation)
    return RunInputs(backbone, spec, weights, preprocessing, table, scoring, folds, activation)


def prepare(
    config: Config,
    *,
    report_file: Path | None,
    progress: Progress,
    inputs: RunInputs | None = None,
    models: "ModelCache | None" = None,
    coordinator: "Coordinator | None" = None,
) -> "TrainingContext":
    """Read and check everything, images last; unreadable ones are listed in `report_file`.

    Raises ConfigError, WeightsError or DataError for what cannot be used.
    """
    inputs = inputs or read_inputs(config, progress)
    # These modules import TensorFlow.
    from radtransfer.images.pipeline import make_batches
    from radtransfer.training.context import ModelCache, TrainingContext
    from radtransfer.training.distributed import Coordinator
    from radtransfer.transfer.plan import build_plan

    backbone, table, folds, training = inputs.backbone, inputs.table, inputs.folds, config.training
    coordinator, models, device = coordinator or Coordinator(), models or ModelCache(), resolve_device(config.system)
    check_batch_size(training.batch_size, coordinator.count)
    trained = ModelCache(coordinator=coordinator) if coordinator.distributed else models
    network = {
        "classes": len(table.classes),
        "image_size": config.model.image_size,
        "activation": inputs.activation,
        "dropout": config.model.dropout,
        "preprocessing": inputs.preprocessing,
        "widths": inputs.spec.widths,
    }
    classifier = trained.classifier(backbone, **network, precision=device.precision)
    plan = build_plan(inputs.spec, classifier.backbone, backbone)
    pretrained = load_weights(
        inputs.weights, config.model, backbone, inputs.spec.widths, progress.note, model=classifier.backbone
    )
    cache_features = config.system.cache_features
    if cache_features == "auto":
        cache_features = training.augmentation == "none" and not coordinator.distributed
    options = {"jit": device.jit, "from_features": cache_features}
    head_learner = None
    if plan.head_first:
        head_learner = trained.learner(classifier, head_phase(training), frozen=plan.layers, **options)
    learner = trained.learner(classifier, training, frozen=plan.frozen, **options)
    cached = [item for item in (head_learner, learner) if item is not None and item.from_features]
    if config.system.cache_features is True and not cached:
        raise ConfigError(_NOTHING_FROZEN)
    if cached and training.augmentation != "none":
        progress.note(f"the features of the frozen layers are cached, so augmentation {training.augmentation} is off")
    checked = check_images(
        table,
        workers=device.workers,
        on_bad_image=config.data.on_bad_image,
        report_file=report_file,
        reading=config.images,
        progress=progress,
    )
    table = checked.table
    if checked.bad:
        folds = assign_folds(table, config.splits, seed=config.seed, allow_leakage=config.data.allow_leakage)
    splits = [(fold.number, fold.split) for fold in folds]
    notes = (
        *fold_notes(table, config.splits, folds, folds_given="splits.folds" in config.given),
        *copy_notes(table, splits, workers=device.workers),
        *near_identical_notes(table, splits, checked.near_identical),
        *source_leaks(config.model.weights, table, folds),
    )
    undefined = []
    for fold in folds if training.monitor == "auc" else ():
        targets = table.targets[fold.split == "val"]
        if exact_auc(targets, np.nan_to_num(targets), inputs.scoring) is None:
            undefined.append(f"fold {fold.number}: validation AUC is undefined; validation loss picks the best epoch")
    for note in (*notes, *undefined, *plan.notes()):
        (progress.warning if note.startswith(LEAK) else progress.note)(note)
    return TrainingContext(
        config=config,
        backbone=backbone,
        device=device,
        table=replace(table, notes=(*table.notes, *notes)),
        folds=folds,
        scoring=inputs.scoring,
        pretrained=pretrained,
        plan=plan,
        network=network,
        models=models,
        coordinator=coordinator,
        classifier=classifier,
        learner=learner,
        head_learner=head_learner,
        batches=make_batches(
            table.paths,
            table.files,
            checked.facts,
            table.targets,
            image_size=config.model.image_size,
            reading=config.images,
            batch_size=training.batch_size,
            workers=device.workers,
            augmentation=training.augmentation,
        ),
    )


def find_weights_and_scale(
    model: ModelSettings, backbone: Backbone, notify: Callable[[str], None]
) -> tuple[WeightSource | None, str]:
    """The source of the weights, None for random ones, and the preprocessing; `notify` gets surprising choices."""
    if model.weights == "random" and backbone.pretrained:
        notify(f"{backbone.name} starts from random weights; for pretrained ones give --weights imagenet or a file")
    source = resolve_weights(model.weights, backbone=backbone.name)
    own = None if source is None else source.preprocessing_for(backbone.name)[0]
    if model.preprocessing == "auto":
        return source, own or RANDOM_PREPROCESSING
    if own not in (None, model.preprocessing):
        notify(f"the weights were trained with preprocessing {own}, but {model.preprocessing} is set and used")
    return source, model.preprocessing


def load_weights(
    source: WeightSource | None,
    settings: ModelSettings,
    backbone: Backbone,
    widths: Mapping[str, float],
    notify: Callable[[str], None],
    *,
    model: "keras.Model | None" = None,
) -> PretrainedWeights | None:
    """The pretrained weights for the network at full width; WeightsError if they cannot be used.

    `model` is the network itself, if it was built before; used only at full width.
    """
    if source is None:
        return None
    if model is None or any(width < 1 for width in widths.values()):
        from radtransfer.models.architecture import build_architecture

        model = build_architecture(backbone, image_size=settings.image_size)
    return load_pretrained(
        source, backbone=backbone.name, model=model, notify=notify, ignore_lambda=settings.ignore_lambda
    )
