"""A run that is ready for its first step; and the networks that runs of one process share."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from radtransfer.config.schema import Config, TrainingSettings
from radtransfer.data.splits import Fold, fold_count
from radtransfer.data.table import ImageTable
from radtransfer.errors import DiskError
from radtransfer.evaluation.scoring import Scoring
from radtransfer.images.pipeline import Batches, cache_images
from radtransfer.models.backbone import Backbone
from radtransfer.models.classifier import Classifier, build_classifier
from radtransfer.pretrained.match import PretrainedWeights
from radtransfer.process import Device, Progress, derive_seed
from radtransfer.runs.cache import cache_note
from radtransfer.training.distributed import Coordinator
from radtransfer.training.loop import FoldData
from radtransfer.training.losses import class_weights
from radtransfer.training.step import Evaluator, Learner, settled_after
from radtransfer.transfer.frozen import FeatureBatches, UncachedFeatures, features_once
from radtransfer.transfer.initialize import draw_random, start
from radtransfer.transfer.plan import TransferPlan


@dataclass(frozen=True)
class TrainingContext:
    """A run that is ready for its first step: images, folds, network, weights, plan, all read and checked."""

    config: Config
    backbone: Backbone
    device: Device
    table: ImageTable
    folds: tuple[Fold, ...]
    scoring: Scoring
    pretrained: PretrainedWeights | None  # the weights that were given; None for random
    plan: TransferPlan
    network: Mapping[str, Any]  # arguments of `build_classifier`, but for the precision
    models: "ModelCache"  # where networks on one device are kept, with what is traced for them
    coordinator: Coordinator
    classifier: Classifier
    learner: Learner
    head_learner: Learner | None  # trains the head alone first, if the plan says so
    batches: Batches
    callbacks: tuple[Any, ...] = ()

    @property
    def learners(self) -> tuple[Learner, ...]:
        return (self.learner,) if self.head_learner is None else (self.head_learner, self.learner)

    @property
    def fold_count(self) -> int:
        """Folds of the whole cross-validation, those that are not run included."""
        return fold_count(self.table, self.config.splits)

    @property
    def settled_after(self) -> int:
        return settled_after(self.backbone.batch_norm_momentum)

    def seed(self, fold: Fold) -> int:
        """Of everything random in a fold that is not the data's."""
        return derive_seed(fold.seed, "fold", fold.number)

    def rows(self, fold: Fold, *splits: str) -> np.ndarray:
        """The table rows of `splits` in a fold, in table order."""
        return np.flatnonzero(np.isin(fold.split, splits))

    def start(self, fold: Fold) -> None:
        layers = None if self.pretrained is None else self.pretrained.layers
        start(self.classifier.model, self.plan, layers, seed=self.seed(fold))

    def reset(self, learner: Learner, fold: Fold) -> None:
        """A fresh optimizer, and class weights from the training images of a fold."""
        targets = self.table.targets[self.rows(fold, "train")]
        setting, classes = self.config.training.class_weights, self.table.classes
        learner.reset(class_weights(setting, targets, classes=classes, task=self.table.task))

    def fold_data(self, fold: Fold, batches: Batches | FeatureBatches | UncachedFeatures) -> FoldData:
        return FoldData(batches, self.table.targets, fold, self.scoring, self.config.training.batch_size)

    def inputs(self, learner: Learner, progress: Progress) -> Batches | FeatureBatches | UncachedFeatures:
        """What `learner` trains on: the images, or what its frozen trunk, as it is now, makes of them."""
        if not learner.from_features:
            return self._own_batches
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

    def with_cached_images(self, progress: Progress) -> "TrainingContext":
        """The same, its images decoded once for all if the settings say so."""
        where = self.config.system.cache
        if where == "none" or all(learner.from_features for learner in self.learners):
            return self
        return replace(self, batches=cache_images(self.batches, where, count=partial(progress.count, "images decoded")))

    def exact_evaluator(self) -> Evaluator:
        """The trained network from images on, in float32, on one device: what is saved, predicted with and scored."""
        exact = self.device.precision == "float32" and not self.coordinator.distributed
        if exact and not self.learner.from_features:
            return self.learner
        evaluator = self._float32_evaluator
        if not exact:
            evaluator.classifier.model.set_weights(self.classifier.model.get_weights())
        return evaluator

    @cached_property
    def _own_batches(self) -> Batches:
        return self.coordinator.part(self.batches)

    @cached_property
    def _float32_evaluator(self) -> Evaluator:
        exact = self.device.precision == "float32" and not self.coordinator.distributed
        twin = self.classifier if exact else self.models.classifier(self.backbone, **self.network, precision="float32")
        training = self.config.training
        return self.models.evaluator(twin, loss=training.loss, batch_size=training.batch_size, jit=self.device.jit)


class ModelCache:
    """The networks that this process has built, with what was traced for them; one run at a time uses them.

    Building and tracing a large network costs longer than many of its steps. Runs whose networks agree in everything
    that decides the graph (other seeds, schemes, weights and images do not) share one, and those that also train the
    same layers alike share its traced functions. Whoever takes a network sets its weights, and its learner's state,
    before the first step, so that nothing of an earlier run is left; only the few used last are kept. `before_building`
    is called whenever none fits and another is built.
    """

    def __init__(
        self, *, before_building: Callable[[], None] = lambda: None, coordinator: Coordinator | None = None
    ) -> None:
        self._before_building, self._coordinator = before_building, coordinator or Coordinator()
        self._networks: OrderedDict[Hashable, tuple[Classifier, OrderedDict[Hashable, Evaluator]]] = OrderedDict()

    def classifier(self, backbone: Backbone, *, widths: Mapping[str, float], **facts: Any) -> Classifier:
        """As `build_classifier` gives it: random weights, and every layer trains."""
        key = (backbone.name, *sorted(widths.items()), *sorted(facts.items()))
        known = key in self._networks

        def build() -> tuple[Classifier, OrderedDict[Hashable, Evaluator]]:
            self._before_building()
            with self._coordinator.scope():
                return build_classifier(backbone, widths=widths, **facts), OrderedDict()

        # One, and its float32 twin where it computes in less.
        classifier, _ = _recent(self._networks, key, build, limit=2)
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
            return self._coordinator.learner(classifier, settings, jit=jit, frozen=frozen, from_features=from_features)

        learner = self._function(classifier, ("learner", *graph, jit, frozen, from_features), build)
        learner.freeze()
        return learner

    def evaluator(self, classifier: Classifier, *, loss: str, batch_size: int, jit: bool) -> Evaluator:
        build = partial(Evaluator, classifier, loss=loss, batch_size=batch_size, jit=jit)
        return self._function(classifier, ("evaluator", loss, batch_size, jit), build)

    def _function(self, classifier: Classifier, key: Hashable, build: Callable[[], Evaluator]) -> Any:
        functions = next(functions for known, functions in self._networks.values() if known is classifier)
        return _recent(functions, key, build, limit=6)  # those of a sweep over five stages, and an evaluator


def _recent(kept: OrderedDict, key: Hashable, make: Callable[[], Any], *, limit: int) -> Any:
    """What is kept under `key`, or is made now; the one that was not used for longest makes room for it."""
    if key not in kept:
        while len(kept) >= limit:
            kept.popitem(last=False)
        kept[key] = make()
    kept.move_to_end(key)
    return kept[key]
