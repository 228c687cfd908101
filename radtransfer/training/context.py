"""A run that is ready for its first step: images, folds, network, weights, plan, all read and checked.

Networks that this process has built, with what was traced for them; a run that needs the same takes them over.

Building and tracing a large network costs longer than many of its steps. Runs whose networks agree in everything that
decides the graph (other seeds, schemes, weights and images do not) share one, and those that also train the same
layers alike share its traced functions. Whoever takes a network sets its weights, and its learner's state, before the
first step, so that nothing of an earlier run is left; only the few networks and functions used last are kept.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from radtransfer.config.schema import Config, TrainingSettings
from radtransfer.data.run_data import images_digest
from radtransfer.data.splits import Fold, fold_count
from radtransfer.data.table import ImageTable
from radtransfer.errors import DataError, DiskError
from radtransfer.evaluation.metrics import accuracy, curve_figures, exact_auc
from radtransfer.evaluation.scoring import Scoring
from radtransfer.images.pipeline import Batches, epoch_order, keep_images
from radtransfer.models.backbone import Backbone
from radtransfer.models.classifier import Classifier, build_classifier
from radtransfer.pretrained.match import PretrainedWeights
from radtransfer.process import Device, Progress, derive_seed
from radtransfer.runs.cache import cache_note
from radtransfer.training.batch_norm import IMAGES, settled_after
from radtransfer.training.curve import HeldOut
from radtransfer.training.distributed import Replicas, ReplicatedLearner
from radtransfer.training.loop import FoldData
from radtransfer.training.losses import class_weights
from radtransfer.training.step import Evaluator, Learner
from radtransfer.transfer.frozen import FeatureBatches, UncachedFeatures, features_once
from radtransfer.transfer.initialize import draw_random
from radtransfer.transfer.plan import TransferPlan

_NETWORKS = 2
"""Kept at a time: one, and its float32 twin where it computes in less."""

_FUNCTIONS = 6
"""Learners and evaluators kept for each network: those of a sweep over five stages, and an evaluator."""


@dataclass(frozen=True)
class _Network:
    classifier: Classifier
    functions: OrderedDict[Hashable, Evaluator]


class Networks:
    """The networks of a process; one run at a time uses them.

    Args:
        before_building: Called whenever none fits and another is built.
        replicas: Where each network stands, if it is on several devices.
    """

    def __init__(self, *, before_building: Callable[[], None] = lambda: None, replicas: Replicas | None = None) -> None:
        self._before_building, self._replicas = before_building, replicas
        self._networks: OrderedDict[Hashable, _Network] = OrderedDict()

    def classifier(self, card: Backbone, *, widths: Mapping[str, float], **facts: Any) -> Classifier:
        """As `build_classifier` gives it: random weights, and every layer trains.

        Raises:
            ConfigError, UnknownNameError: As `build_classifier`.
        """
        key = (card.name, *sorted(widths.items()), *sorted(facts.items()))
        known = key in self._networks

        def build() -> _Network:
            self._before_building()
            with self._replicas.strategy.scope() if self._replicas else nullcontext():
                return _Network(build_classifier(card, widths=widths, **facts), OrderedDict())

        classifier = _recent(self._networks, key, build, limit=_NETWORKS).classifier
        if known:
            for layer in classifier.model.layers:
                layer.trainable = True
            draw_random(classifier.model, seed=0)
        return classifier

    def learner(
        self,
        classifier: Classifier,
        settings: TrainingSettings,
        *,
        jit: bool,
        frozen: frozenset[str],
        from_features: bool,
    ) -> Learner:
        """Trains `classifier`, which came from here; the arguments are those of `Learner`."""
        # The rate of each step is set before it; what else the settings say happens outside the graph.
        graph = (settings.optimizer, settings.momentum, settings.weight_decay, settings.ema_momentum)
        graph += (settings.loss, settings.batch_size)

        def build() -> Learner:
            if self._replicas is not None:
                return ReplicatedLearner(classifier, settings, replicas=self._replicas, jit=jit, frozen=frozen)
            return Learner(
                classifier,
                settings,
                batch_size=settings.batch_size,
                jit=jit,
                frozen=frozen,
                from_features=from_features,
            )

        learner = self._function(classifier, ("learner", *graph, jit, frozen, from_features), build)
        learner.freeze()
        return learner

    def evaluator(self, classifier: Classifier, *, loss: str, batch_size: int, jit: bool) -> Evaluator:
        """Predicts with `classifier`, which came from here, from images on; the arguments are those of `Evaluator`."""

        def build() -> Evaluator:
            return Evaluator(classifier, loss=loss, batch_size=batch_size, jit=jit)

        return self._function(classifier, ("evaluator", loss, batch_size, jit), build)

    def _function(self, classifier: Classifier, key: Hashable, build: Callable[[], Evaluator]) -> Any:
        network = next(network for network in self._networks.values() if network.classifier is classifier)
        return _recent(network.functions, key, build, limit=_FUNCTIONS)


def _recent(kept: OrderedDict, key: Hashable, make: Callable[[], Any], *, limit: int) -> Any:
    """What is kept under `key`, or is made now; the one that was not used for longest makes room for it."""
    if key not in kept:
        while len(kept) >= limit:
            kept.popitem(last=False)
        kept[key] = make()
    kept.move_to_end(key)
    return kept[key]


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
