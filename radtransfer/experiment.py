"""A run that is ready for its first step: images, folds, network, weights, plan, all read and checked."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np

from radtransfer.backbones.backbone import Backbone
from radtransfer.batch_norm import IMAGES, settled_after
from radtransfer.cache import cache_note
from radtransfer.classifier import Classifier
from radtransfer.curve import HeldOut
from radtransfer.datasets.image_table import ImageTable
from radtransfer.device import Device
from radtransfer.distribution.replicas import Replicas
from radtransfer.epoch_order import epoch_order
from radtransfer.errors import DataError, DiskError
from radtransfer.examination.data_changes import images_digest
from radtransfer.features import FeatureBatches, UncachedFeatures, features_once
from radtransfer.fold_data import FoldData
from radtransfer.learner import Evaluator, Learner
from radtransfer.losses import class_weights
from radtransfer.metrics.evaluation import accuracy, curve_figures, exact_auc
from radtransfer.metrics.scoring import Scoring
from radtransfer.networks import Networks
from radtransfer.pipeline.batches import Batches
from radtransfer.pipeline.kept_images import keep_images
from radtransfer.pretrained.loading import PretrainedWeights
from radtransfer.progress import Progress
from radtransfer.seeds import derive_seed
from radtransfer.settings import Config
from radtransfer.splits.folds import Fold, fold_count
from radtransfer.transfer import TransferPlan


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
        pretrained: The weights that were given; None for random.
        plan: What each layer starts from, and whether it trains.
        preprocessing: The resolved mode.
        networks: Where the network and what is traced for it are kept; without replicas.
        replicas: Those that train; None for an ordinary run.
        classifier: The network that is trained.
        learner: Trains it.
        head_learner: Trains the head alone first, if the plan says so.
        batches: Of the table's images.
    """

    config: Config
    card: Backbone
    device: Device
    table: ImageTable
    folds: tuple[Fold, ...]
    scoring: Scoring
    pretrained: PretrainedWeights | None
    plan: TransferPlan
    preprocessing: str
    networks: Networks
    replicas: Replicas | None
    classifier: Classifier
    learner: Learner
    head_learner: Learner | None
    batches: Batches

    def rows(self, fold: Fold, *splits: str) -> np.ndarray:
        """The table rows of `splits` in a fold, in table order."""
        return np.flatnonzero(np.isin(fold.split, splits))

    @property
    def learners(self) -> tuple[Learner, ...]:
        """Those that train, in turn."""
        return (self.learner,) if self.head_learner is None else (self.head_learner, self.learner)

    def inputs(self, learner: Learner, progress: Progress) -> Batches | FeatureBatches | UncachedFeatures:
        """What `learner` trains on: the images, or what its frozen trunk, as it stands, makes of them.

        Raises:
            DiskError: The features, which the user asked to cache, do not fit on the disk.
        """
        if self.replicas is not None:
            return self._own_part
        if not learner.from_features:
            return self.batches
        count = partial(progress.count, "features of the frozen part")
        size = self.config.training.batch_size
        try:
            return features_once(learner.cut, self.batches, self.table.targets, batch_size=size, count=count)
        except DiskError as error:
            if self.config.system.cache_features is True:
                raise
            note = cache_note(error)
            if note:
                progress.note(note)
            return UncachedFeatures(learner.cut, self.batches)

    def fold_data(self, fold: Fold, batches: Batches | FeatureBatches | UncachedFeatures) -> FoldData:
        """What `fold` trains and validates on, in the form of `batches`."""
        training, validation = self.rows(fold, "train"), self.rows(fold, "val")
        # Epochs count from 1: the order of epoch 0 is free to choose the images for batch-norm statistics.
        chosen = training[epoch_order(len(training), seed=fold.seed, fold=fold.number, epoch=0)[:IMAGES]]
        targets = self.table.targets[validation]
        return FoldData(
            epoch=lambda epoch: batches.shuffled(epoch, rows=training, seed=fold.seed, fold=fold.number),
            plain=lambda: batches.in_order(chosen),
            validation=lambda: batches.in_order(validation),
            steps=-(-len(training) // self.config.training.batch_size),
            images=len(training),
            auc=lambda probabilities: exact_auc(targets, probabilities, self.scoring),
            accuracy=lambda probabilities: accuracy(targets, probabilities, self.scoring),
            watched=[self._held_out(self.rows(fold, split), split, batches) for split in ("val", "test")],
        )

    def _held_out(self, rows: np.ndarray, split: str, batches: Batches | FeatureBatches | UncachedFeatures) -> HeldOut:
        figures = partial(curve_figures, self.table.targets[rows], scoring=self.scoring)
        return HeldOut(split, lambda: batches.in_order(rows), figures)

    @property
    def fold_count(self) -> int:
        """Folds of the whole cross-validation, those that are not run included."""
        return fold_count(self.table, self.config.splits)

    def fold_seed(self, fold: Fold) -> int:
        """The seed of everything random in a fold that is not the data's."""
        return derive_seed(fold.seed, "fold", fold.number)

    def class_weights(self, fold: Fold) -> np.ndarray:
        """The factor of each class in the loss, from the training images of `fold`."""
        return loss_weights(self.config, self.table, self.rows(fold, "train"))

    @property
    def starting_weights(self) -> Mapping[str, tuple[np.ndarray, ...]] | None:
        """Layer name to its pretrained arrays."""
        return None if self.pretrained is None else self.pretrained.layers

    @property
    def settled_after(self) -> int:
        """Steps until which batch-norm statistics are re-estimated."""
        return settled_after(self.card.batch_norm_momentum)

    def exact_evaluator(self) -> Evaluator:
        """The trained network from images on, in float32, on one device: what is saved, predicted with and scored."""
        if self.device.precision == "float32" and self.replicas is None:
            return self._image_evaluator if self.learner.from_features else self.learner
        self._float32_evaluator.classifier.model.set_weights(self.classifier.model.get_weights())
        return self._float32_evaluator

    @cached_property
    def _own_part(self) -> Batches:
        return self.batches.part(self.replicas.worker, self.replicas.workers)

    @cached_property
    def _image_evaluator(self) -> Evaluator:
        return self._evaluator(self.classifier)

    @cached_property
    def _float32_evaluator(self) -> Evaluator:
        widths = {part.stage: part.width for part in self.plan.parts}
        classifier = make_classifier(
            self.networks,
            self.config,
            self.card,
            self.table,
            widths=widths,
            activation=self.classifier.activation,
            preprocessing=self.preprocessing,
        )
        return self._evaluator(classifier)

    def _evaluator(self, classifier: Classifier) -> Evaluator:
        training = self.config.training
        return self.networks.evaluator(
            classifier, loss=training.loss, batch_size=training.batch_size, jit=self.device.jit
        )

    @property
    def table_sha256(self) -> str:
        """Fingerprint of the rows: path, label, patient and split of each image in each fold."""
        rows = zip(self.table.paths, self.table.labels, self.table.groups, strict=True)
        lines = ["\t".join(row) for row in rows] + [",".join(fold.split) for fold in self.folds]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    @cached_property
    def images_sha256(self) -> str:
        """Fingerprint of the files of the images that take part, in the order of `folds.csv`.

        Raises:
            DataError: One cannot be read any more.
        """
        rows = dict.fromkeys(row for fold in self.folds for row in np.flatnonzero(fold.split != "").tolist())
        try:
            return images_digest((self.table.files[row] for row in rows), workers=self.device.workers)
        except OSError as error:
            raise DataError(f"{error.filename} cannot be read any more: {error.strerror}. Restore it.") from None


def with_kept_images(experiment: Experiment, progress: Progress) -> Experiment:
    """The experiment, its images decoded once for all if the settings say so.

    Raises:
        RadtransferError: There is no room for them, or one cannot be decoded.
    """
    where = experiment.config.system.cache
    learners = experiment.learners
    if where == "none" or all(learner.from_features for learner in learners):
        return experiment
    batches = keep_images(experiment.batches, where, count=partial(progress.count, "images decoded"))
    return replace(experiment, batches=batches)


def loss_weights(config: Config, table: ImageTable, rows: np.ndarray) -> np.ndarray:
    """The factor of each class in the loss, from the images numbered `rows`."""
    return class_weights(config.training.class_weights, table.targets[rows], classes=table.classes, task=table.task)


def make_classifier(
    networks: Networks,
    config: Config,
    card: Backbone,
    table: ImageTable,
    *,
    widths: Mapping[str, float],
    activation: str,
    preprocessing: str,
    precision: str = "float32",
) -> Classifier:
    """The network that the settings ask for, with an output for each class of `table`."""
    return networks.classifier(
        card,
        classes=len(table.classes),
        image_size=config.model.image_size,
        activation=activation,
        dropout=config.model.dropout,
        preprocessing=preprocessing,
        precision=precision,
        widths=widths,
    )
