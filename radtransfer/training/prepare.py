"""Reads and checks everything that a run needs, before hours are spent on it.

What needs no network comes first, in `read_inputs`, and imports no TensorFlow: a mistake is told at once.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from radtransfer.config.recipes import head_phase
from radtransfer.config.schema import Config, TrainingSettings
from radtransfer.data.image_check import CheckedImages, check_images
from radtransfer.data.labels import positive_class
from radtransfer.data.readers import read_table
from radtransfer.data.run_data import source_leaks
from radtransfer.data.splits import LEAK, Fold, assign_folds, copy_notes, fold_notes, near_identical_notes
from radtransfer.data.table import ImageTable, tell_notes
from radtransfer.errors import ConfigError
from radtransfer.evaluation.metrics import exact_auc
from radtransfer.evaluation.scoring import Scoring
from radtransfer.images.preprocessing import RANDOM_PREPROCESSING
from radtransfer.models.backbone import Backbone
from radtransfer.pretrained.match import PretrainedWeights, load_pretrained
from radtransfer.pretrained.source import WeightSource, resolve_weights
from radtransfer.process import Device, Progress, resolve_device
from radtransfer.training.losses import check_loss, class_weights
from radtransfer.training.names import check_batch_size, check_names, has_weights
from radtransfer.transfer.spec import Outline

if TYPE_CHECKING:
    import keras

    from radtransfer.images.pipeline import Batches
    from radtransfer.models.classifier import Classifier
    from radtransfer.training.context import Experiment, Networks
    from radtransfer.training.distributed import Replicas
    from radtransfer.training.step import Learner
    from radtransfer.transfer.plan import TransferPlan


_NOTHING_FROZEN = (
    "--cache-features: the plan freezes nothing from the first layer on, so there is nothing to keep. "
    "Add --freeze-to STAGE or a scheme that freezes."
)


@dataclass(frozen=True)
class RunInputs:
    """What a run is given, read and checked as far as that needs no network.

    Attributes:
        card: The backbone's card.
        outline: Of the transfer plan.
        table: Every image, none of them looked into.
        scoring: Which questions the outputs answer.
        source: Of the weights; None for random ones.
        folds: Who trains, validates and tests where.
        preprocessing: The resolved mode.
        activation: Of the head.
    """

    card: Backbone
    outline: Outline
    source: WeightSource | None
    table: ImageTable
    scoring: Scoring
    folds: tuple[Fold, ...]
    preprocessing: str
    activation: str


def read_inputs(config: Config, progress: Progress) -> RunInputs:
    """Look up every name, find the weights, read the table and draw the folds.

    Raises:
        ConfigError: A setting names what does not exist, or does not fit the others.
        WeightsError: The weights are not found, or known to be another network's.
        DataError: The images, labels or splits cannot be used.
    """
    card, outline = check_names(config)
    if config.system.cache_features is True and not outline.freezes:
        raise ConfigError(_NOTHING_FROZEN)
    source = resolve_weights(config.model.weights, backbone=card.name)
    preprocessing = preprocessing_for(config, card, source, progress.note)
    table, scoring = _read_table(config, progress)
    return RunInputs(
        card, outline, source, table, scoring, _folds(config, table), preprocessing, _activation(config, table)
    )


def prepare(
    config: Config,
    *,
    report_file: Path | None,
    progress: Progress,
    inputs: RunInputs | None = None,
    networks: "Networks | None" = None,
    replicas: "Replicas | None" = None,
) -> "Experiment":
    """Read and check everything, cheapest first; images are decoded last.

    Args:
        config: The settings.
        report_file: Where unreadable images are listed; None for nowhere.
        progress: Hears what is found.
        inputs: From `read_inputs` of these settings, if it was called already.
        networks: Those of earlier runs in this process, if any is to be taken over.
        replicas: Those that train, if they are several.

    Raises:
        ConfigError: A setting names what does not exist, or does not fit the others.
        WeightsError: The weights cannot be used.
        DataError: The images, labels or splits cannot be used.
    """
    inputs = inputs or read_inputs(config, progress)
    # The modules that need TensorFlow.
    from radtransfer.training.context import Experiment, Networks, make_classifier
    from radtransfer.transfer.plan import lay_out

    card, outline, table, folds = inputs.card, inputs.outline, inputs.table, inputs.folds
    device = resolve_device(config.system)
    if replicas is not None:
        check_batch_size(config.training.batch_size, replicas.count)
    networks = networks or Networks()
    trained = networks if replicas is None else Networks(replicas=replicas)
    classifier = make_classifier(
        trained,
        config,
        card,
        table,
        widths=outline.widths,
        activation=inputs.activation,
        preprocessing=inputs.preprocessing,
        precision=device.precision,
    )
    plan = lay_out(outline, classifier.backbone, card)
    pretrained = load_for(config, card, inputs.source, outline.widths, progress.note, model=classifier.backbone)
    learner, head_learner = _learners(config, trained, classifier, plan, device, progress)
    checked = check_images(
        table,
        workers=device.workers,
        on_bad_image=config.data.on_bad_image,
        report_file=report_file,
        reading=config.images,
        progress=progress,
    )
    if checked.bad:
        folds = _folds(config, checked.table)
    splits = [(fold.number, fold.split) for fold in folds]
    notes = (
        *fold_notes(checked.table, config.splits, folds, folds_given="splits.folds" in config.given),
        *copy_notes(checked.table, splits, workers=device.workers),
        *near_identical_notes(checked.table, splits, checked.near_identical),
        *source_leaks(config.model.weights, checked.table, folds),
    )
    for note in (*notes, *_monitor_notes(config, checked.table, folds, inputs.scoring), *plan.notes()):
        (progress.warning if note.startswith(LEAK) else progress.note)(note)
    return Experiment(
        config=config,
        card=card,
        device=device,
        table=replace(checked.table, notes=(*checked.table.notes, *notes)),
        folds=folds,
        scoring=inputs.scoring,
        pretrained=pretrained,
        plan=plan,
        preprocessing=inputs.preprocessing,
        networks=networks,
        replicas=replicas,
        classifier=classifier,
        learner=learner,
        head_learner=head_learner,
        batches=_batches(config, checked, device),
    )


def _read_table(config: Config, progress: Progress) -> tuple[ImageTable, Scoring]:
    """The table, and what can be checked of labels and loss before anything else is read."""
    table = read_table(config.data, progress=progress)
    tell_notes(table.notes, progress)
    class_weights(config.training.class_weights, table.targets, classes=table.classes, task=table.task)
    asked = config.data.positive_from
    grade = table.positive_from if asked is None else asked
    return table, Scoring(table.task, table.classes, grade, positive_class=positive_class(table, config.data))


def _folds(config: Config, table: ImageTable) -> tuple[Fold, ...]:
    return assign_folds(table, config.splits, seed=config.seed, allow_leakage=config.data.allow_leakage)


def _monitor_notes(config: Config, table: ImageTable, folds: Sequence[Fold], scoring: Scoring) -> Iterator[str]:
    """Says where the monitored AUC does not exist."""
    if config.training.monitor != "auc":
        return
    for fold in folds:
        targets = table.targets[fold.split == "val"]
        if exact_auc(targets, np.nan_to_num(targets), scoring) is None:
            yield f"fold {fold.number}: the AUC of its validation images is undefined; their loss picks the best epoch"


def preprocessing_for(
    config: Config, card: Backbone, source: WeightSource | None, notify: Callable[[str], None]
) -> str:
    """The input scale, and a word where it may surprise."""
    if not has_weights(config) and card.pretrained:
        notify(f"{card.name} starts from random weights; --weights imagenet or a file starts it from pretrained ones")
    own = source and source.preprocessing_for(card.name)[0]
    if config.model.preprocessing == "auto":
        return own or RANDOM_PREPROCESSING
    if own not in (None, config.model.preprocessing):
        notify(f"the weights were trained with {own} input, {config.model.preprocessing} is used as asked")
    return config.model.preprocessing


def load_for(
    config: Config,
    card: Backbone,
    source: WeightSource | None,
    widths: Mapping[str, float],
    notify: Callable[[str], None],
    *,
    model: "keras.Model | None" = None,
) -> PretrainedWeights | None:
    """The weights, for the network at full width: a slim one takes from them what it can.

    Args:
        config: Of which `model` counts.
        card: Of the network.
        source: Of the weights; None for random ones.
        widths: Of its stages.
        notify: Hears of a download.
        model: The network, if it stands already; used where it has full width.

    Raises:
        WeightsError: They cannot be used.
    """
    if source is None:
        return None
    if model is None or any(width < 1 for width in widths.values()):
        from radtransfer.models.architecture import build_architecture

        model = build_architecture(card, image_size=config.model.image_size)
    return load_pretrained(
        source,
        backbone=card.name,
        model=model,
        notify=notify,
        ignore_lambda=config.model.ignore_lambda,
    )


def _activation(config: Config, table: ImageTable) -> str:
    activation = _head(config, table)
    check_loss(config.training.loss, activation=activation)
    return activation


def _head(config: Config, table: ImageTable) -> str:
    if table.task == "multilabel" and config.model.head == "softmax":
        raise ConfigError("--head softmax needs one label per image; this table has several. Use sigmoid or auto.")
    if config.model.head == "auto":
        return "sigmoid" if table.task == "multilabel" else "softmax"
    return config.model.head


def _learners(
    config: Config,
    networks: "Networks",
    classifier: "Classifier",
    plan: "TransferPlan",
    device: Device,
    progress: Progress,
) -> "tuple[Learner, Learner | None]":
    """The one that trains what the plan trains; and before it the one of the head alone, if the plan has one."""
    training, cache = config.training, config.system.cache_features
    without = training.augmentation == "none" and config.system.distribute == "none"
    from_features = without if cache == "auto" else cache

    def learner(settings: TrainingSettings, frozen: frozenset[str]) -> "Learner":
        return networks.learner(classifier, settings, jit=device.jit, frozen=frozen, from_features=from_features)

    head = learner(head_phase(training), plan.layers) if plan.head_first else None
    whole = learner(training, plan.frozen)
    cached = [item for item in (head, whole) if item is not None and item.from_features]
    if cache is True and not cached:
        raise ConfigError(_NOTHING_FROZEN)
    if cached and training.augmentation != "none":
        progress.note(f"features of the frozen part are kept: there is no {training.augmentation} augmentation")
    return whole, head


def _batches(config: Config, checked: CheckedImages, device: Device) -> "Batches":
    from radtransfer.images.pipeline import make_batches

    return make_batches(
        checked.table.paths,
        checked.table.files,
        checked.facts,
        checked.table.targets,
        image_size=config.model.image_size,
        reading=config.images,
        batch_size=config.training.batch_size,
        workers=device.workers,
        augmentation=config.training.augmentation,
    )
