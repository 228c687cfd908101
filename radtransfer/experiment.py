"""Everything a run needs before its first step, read and checked: images, folds, network, weights."""

import hashlib
from collections.abc import Sequence
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
from radtransfer.evaluation import exact_auc
from radtransfer.folds import Fold, assign_folds, fold_notes
from radtransfer.images import ImageFacts, check_images
from radtransfer.learner import Learner
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
        facts: How each image is stored, in the table's order.
        folds: Who trains, validates and tests where.
        pretrained: What the backbone starts from; None for random.
        preprocessing: The resolved mode.
        classifier: The network that is trained.
        learner: Trains it.
    """

    config: Config
    card: Backbone
    device: Device
    table: ImageTable
    facts: Sequence[ImageFacts]
    folds: tuple[Fold, ...]
    pretrained: PretrainedWeights | None
    preprocessing: str
    classifier: Classifier
    learner: Learner

    def rows(self, fold: Fold, *splits: str) -> np.ndarray:
        """The table rows of `splits` in a fold, in table order."""
        return np.flatnonzero(np.isin(fold.split, splits))

    def batches(self, fold: Fold, rows: np.ndarray) -> Batches:
        """Batches of some rows; augmented where they are shuffled."""
        return make_batches(
            [self.table.paths[i] for i in rows],
            [self.table.files[i] for i in rows],
            [self.facts[i] for i in rows],
            self.table.targets[rows],
            image_size=self.config.model.image_size,
            batch_size=self.config.training.batch_size,
            workers=self.device.workers,
            augmentation=self.config.training.augmentation,
            seed=fold.seed,
            fold=fold.number,
        )

    def fold_data(self, fold: Fold) -> FoldData:
        """What `fold` trains and validates on."""
        training, validation = self.rows(fold, "train"), self.rows(fold, "val")
        batches, checked = self.batches(fold, training), self.batches(fold, validation)
        measured = epoch_order(len(training), seed=fold.seed, fold=fold.number, epoch=0)[:IMAGES]
        return FoldData(
            epoch=batches.shuffled,
            plain=lambda: batches.in_order(measured),
            validation=checked.in_order,
            steps=-(-len(training) // self.config.training.batch_size),
            images=len(training),
            auc=lambda probabilities: exact_auc(self.table.targets[validation], probabilities, self.scoring),
        )

    @property
    def scoring(self) -> Scoring:
        """Which questions the outputs answer."""
        return Scoring(self.table.task, self.table.classes, self.config.data.positive_from)

    def fold_seed(self, fold: Fold) -> int:
        """The seed of everything random in a fold that is not the data's."""
        return derive_seed(fold.seed, "fold", fold.number)

    @property
    def settled_after(self) -> int:
        """Steps until which batch-norm statistics are re-estimated."""
        return settled_after(self.card.batch_norm_momentum)

    def exact_learner(self) -> Learner:
        """The learner in float32, with the trained weights: what is saved, predicted with and scored."""
        if self.device.precision == "float32":
            return self.learner
        self._float32_learner.classifier.model.set_weights(self.classifier.model.get_weights())
        return self._float32_learner

    @cached_property
    def _float32_learner(self) -> Learner:
        classifier = _classifier(
            self.config, self.card, self.table, preprocessing=self.preprocessing, precision="float32"
        )
        return Learner(
            classifier, self.config.training, batch_size=self.config.training.batch_size, jit=self.device.jit
        )

    @property
    def table_sha256(self) -> str:
        """Fingerprint of the rows: path, label, patient and split of each image in each fold."""
        rows = zip(self.table.paths, self.table.labels, self.table.groups, strict=True)
        text = "\n".join("\t".join(row) for row in rows) + "\n".join("".join(fold.split) for fold in self.folds)
        return hashlib.sha256(text.encode()).hexdigest()


def prepare(config: Config, *, report_file: Path, progress: Progress) -> Experiment:
    """Read and check everything, cheapest first.

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
    table = read_table(config.data)
    for note in table.notes:
        progress.note(note)
    if config.model.weights == "random" and card.pretrained:
        progress.note(
            f"{card.name} starts from random weights; --weights imagenet or a file starts it from pretrained ones."
        )
    preprocessing = config.model.preprocessing
    if preprocessing == "auto":
        preprocessing = preprocessing_of(config.model.weights, backbone=card.name) or RANDOM_PREPROCESSING
    classifier = _classifier(config, card, table, preprocessing=preprocessing, precision=device.precision)
    pretrained = load_pretrained(
        config.model.weights, backbone=card.name, model=classifier.backbone, notify=progress.note
    )
    checked = check_images(
        table,
        workers=device.workers,
        on_bad_image=config.data.on_bad_image,
        report_file=report_file,
        progress=progress,
    )
    folds = assign_folds(checked.table, config.splits, seed=config.seed, allow_leakage=config.data.allow_leakage)
    for note in fold_notes(checked.table, config.splits, folds):
        progress.note(note)
    learner = Learner(classifier, config.training, batch_size=config.training.batch_size, jit=device.jit)
    return Experiment(
        config,
        card,
        device,
        checked.table,
        checked.facts,
        folds,
        pretrained,
        preprocessing,
        classifier,
        learner,
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
    if config.training.augmentation not in AUGMENTATIONS:
        AUGMENTATIONS[config.training.augmentation]
    if config.model.preprocessing != "auto":
        preprocessing_mode(config.model.preprocessing)
    return BACKBONES[config.model.backbone]


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
