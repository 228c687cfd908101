"""Everything a run needs before its first step, read and checked: images, folds, network, weights."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from radtransfer.augmentations import AUGMENTATIONS
from radtransfer.backbones import BACKBONES
from radtransfer.backbones.backbone import Backbone
from radtransfer.batch_norm import IMAGES, settled_after
from radtransfer.classifier import Classifier, build_classifier
from radtransfer.datasets import read_table
from radtransfer.datasets.image_table import ImageTable
from radtransfer.device import Device, resolve_device
from radtransfer.epoch_order import epoch_order
from radtransfer.errors import ConfigError
from radtransfer.evaluation import accuracy, exact_auc
from radtransfer.folds import Fold, assign_folds, fold_notes
from radtransfer.images import CheckedImages, check_images
from radtransfer.learner import Evaluator, Learner
from radtransfer.losses import class_weights
from radtransfer.pipeline import Batches, make_batches
from radtransfer.preprocessing import preprocessing_mode
from radtransfer.pretrained import PretrainedWeights, load_pretrained, preprocessing_of
from radtransfer.progress import Progress
from radtransfer.scoring import Scoring
from radtransfer.seeds import derive_seed
from radtransfer.settings import Config
from radtransfer.training import FoldData

RANDOM_PREPROCESSING = "torch"
"""Input scale of networks that start from random weights (Transfusion, Appendix A)."""


@dataclass(frozen=True)
class Experiment:
    """A run that is ready for its first step.

    Attributes:
        config: The settings as given.
        card: The backbone's card.
        device: The resolved device, precision and compilation.
        table: Every readable image.
        folds: Who trains, validates and tests where.
        scoring: Which questions the outputs answer.
        pretrained: What the backbone starts from; None for random.
        preprocessing: The resolved mode.
        classifier: The network that is trained.
        learner: Trains it.
        batches: Of the table's images.
    """

    config: Config
    card: Backbone
    device: Device
    table: ImageTable
    folds: tuple[Fold, ...]
    scoring: Scoring
    pretrained: PretrainedWeights | None
    preprocessing: str
    classifier: Classifier
    learner: Learner
    batches: Batches

    def rows(self, fold: Fold, *splits: str) -> np.ndarray:
        """The table rows of `splits` in a fold, in table order."""
        return np.flatnonzero(np.isin(fold.split, splits))

    def fold_data(self, fold: Fold) -> FoldData:
        """What `fold` trains and validates on."""
        training, validation = self.rows(fold, "train"), self.rows(fold, "val")
        # Epochs count from 1: the order of epoch 0 is free to choose the images for batch-norm statistics.
        chosen = training[epoch_order(len(training), seed=fold.seed, fold=fold.number, epoch=0)[:IMAGES]]
        targets = self.table.targets[validation]
        return FoldData(
            epoch=lambda epoch: self.batches.shuffled(epoch, rows=training, seed=fold.seed, fold=fold.number),
            plain=lambda: self.batches.in_order(chosen),
            validation=lambda: self.batches.in_order(validation),
            steps=-(-len(training) // self.config.training.batch_size),
            images=len(training),
            auc=lambda probabilities: exact_auc(targets, probabilities, self.scoring),
            accuracy=lambda probabilities: accuracy(targets, probabilities, self.scoring),
        )

    def fold_seed(self, fold: Fold) -> int:
        """The seed of everything random in a fold that is not the data's."""
        return derive_seed(fold.seed, "fold", fold.number)

    def class_weights(self, fold: Fold) -> np.ndarray:
        """The factor of each class in the loss, from the training images of `fold`."""
        return _class_weights(self.config, self.table, self.rows(fold, "train"))

    @property
    def settled_after(self) -> int:
        """Steps until which batch-norm statistics are re-estimated."""
        return settled_after(self.card.batch_norm_momentum)

    def exact_evaluator(self) -> Evaluator:
        """The trained network in float32: what is saved, predicted with and scored."""
        if self.device.precision == "float32":
            return self.learner
        self._float32_evaluator.classifier.model.set_weights(self.classifier.model.get_weights())
        return self._float32_evaluator

    @cached_property
    def _float32_evaluator(self) -> Evaluator:
        classifier = _classifier(
            self.config, self.card, self.table, preprocessing=self.preprocessing, precision="float32"
        )
        training = self.config.training
        return Evaluator(classifier, loss=training.loss, batch_size=training.batch_size, jit=self.device.jit)

    @property
    def table_sha256(self) -> str:
        """Fingerprint of the rows: path, label, patient and split of each image in each fold."""
        rows = zip(self.table.paths, self.table.labels, self.table.groups, strict=True)
        lines = ["\t".join(row) for row in rows] + [",".join(fold.split) for fold in self.folds]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def prepare(config: Config, *, report_file: Path, progress: Progress) -> Experiment:
    """Read and check everything, cheapest first; images are decoded last.

    Args:
        config: The settings.
        report_file: Where unreadable images are listed.
        progress: Hears what is found.

    Raises:
        ConfigError: A setting names what does not exist, or does not fit the others.
        WeightsError: The weights cannot be used.
        DataError: The images, labels or splits cannot be used.
    """
    card = check_names(config)
    device = resolve_device(config.system)
    table, scoring = _read_table(config, progress)
    folds = _folds(config, table)
    preprocessing = _preprocessing(config, card, progress)
    classifier = _classifier(config, card, table, preprocessing=preprocessing, precision=device.precision)
    pretrained = load_pretrained(
        config.model.weights, backbone=card.name, model=classifier.backbone, notify=progress.note
    )
    learner = Learner(classifier, config.training, batch_size=config.training.batch_size, jit=device.jit)
    checked = check_images(
        table,
        workers=device.workers,
        on_bad_image=config.data.on_bad_image,
        report_file=report_file,
        progress=progress,
    )
    if checked.bad:
        folds = _folds(config, checked.table)
    for note in (
        *fold_notes(checked.table, config.splits, folds),
        *_monitor_notes(config, checked.table, folds, scoring),
    ):
        progress.note(note)
    return Experiment(
        config=config,
        card=card,
        device=device,
        table=checked.table,
        folds=folds,
        scoring=scoring,
        pretrained=pretrained,
        preprocessing=preprocessing,
        classifier=classifier,
        learner=learner,
        batches=_batches(config, checked, device),
    )


def check_names(config: Config) -> Backbone:
    """The backbone's card, after every name in the settings was looked up.

    Raises:
        ConfigError: No images are given, or a table holds no such name.
    """
    if config.data.source is None:
        raise ConfigError(
            "No images given. Pass --data with a folder or a CSV, or a config; try `radtransfer finetune quickstart`."
        )
    AUGMENTATIONS.check(config.training.augmentation)
    if config.model.preprocessing != "auto":
        preprocessing_mode(config.model.preprocessing)
    return BACKBONES[config.model.backbone]


def _read_table(config: Config, progress: Progress) -> tuple[ImageTable, Scoring]:
    """The table, and what can be checked of labels and loss before anything else is read."""
    table = read_table(config.data)
    for note in table.notes:
        progress.note(note)
    _class_weights(config, table, np.arange(len(table)))
    return table, Scoring(table.task, table.classes, config.data.positive_from)


def _class_weights(config: Config, table: ImageTable, rows: np.ndarray) -> np.ndarray:
    return class_weights(config.training.class_weights, table.targets[rows], classes=table.classes, task=table.task)


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


def _preprocessing(config: Config, card: Backbone, progress: Progress) -> str:
    """The input scale, and a word where it may surprise."""
    if config.model.weights == "random" and card.pretrained:
        progress.note(
            f"{card.name} starts from random weights; --weights imagenet or a file starts it from pretrained ones"
        )
    own = preprocessing_of(config.model.weights, backbone=card.name)
    if config.model.preprocessing == "auto":
        return own or RANDOM_PREPROCESSING
    if own not in (None, config.model.preprocessing):
        progress.note(f"the weights were trained with {own} input, {config.model.preprocessing} is used as asked")
    return config.model.preprocessing


def _classifier(config: Config, card: Backbone, table: ImageTable, *, preprocessing: str, precision: str) -> Classifier:
    return build_classifier(
        card,
        classes=len(table.classes),
        image_size=config.model.image_size,
        activation=_activation(config, table),
        dropout=config.model.dropout,
        preprocessing=preprocessing,
        precision=precision,
    )


def _activation(config: Config, table: ImageTable) -> str:
    if table.task == "multilabel" and config.model.head == "softmax":
        raise ConfigError("--head softmax needs one label per image; this table has several. Use sigmoid or auto.")
    if config.model.head == "auto":
        return "sigmoid" if table.task == "multilabel" else "softmax"
    return config.model.head


def _batches(config: Config, checked: CheckedImages, device: Device) -> Batches:
    return make_batches(
        checked.table.paths,
        checked.table.files,
        checked.facts,
        checked.table.targets,
        image_size=config.model.image_size,
        batch_size=config.training.batch_size,
        workers=device.workers,
        augmentation=config.training.augmentation,
    )
