"""A prepared run, and the networks that the runs of one process share."""

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
from radtransfer.transfer.frozen import FeatureBatches, UncachedFeatures, cached_features
from radtransfer.transfer.initialize import draw_random, initialize_weights
from radtransfer.transfer.plan import TransferPlan


@dataclass(frozen=True)
class TrainingContext:
    """A run before its first step: images, folds, network, weights and plan, all read and checked."""

    config: Config
    backbone: Backbone
    device: Device
    table: ImageTable
    folds: tuple[Fold, ...]
    scoring: Scoring
    pretrained: PretrainedWeights | None  # None for random weights
    plan: TransferPlan
    network: Mapping[str, Any]  # arguments of `build_classifier` except the precision
    models: "ModelCache"  # single-device networks
    coordinator: Coordinator
    classifier: Classifier
    learner: Learner
    head_learner: Learner | None  # for plans that first train the head alone
    batches: Batches
    callbacks: tuple[Any, ...] = ()

    @property
    def learners(self) -> tuple[Learner, ...]:
        return (self.learner,) if self.head_learner is None else (self.head_learner, self.learner)

    @property
    def fold_count(self) -> int:
        """The number of folds of the whole cross-validation, also of those that are not run."""
        return fold_count(self.table, self.config.splits)

    @property
    def settled_after(self) -> int:
        return settled_after(self.backbone.batch_norm_momentum)

    def seed(self, fold: Fold) -> int:
        """The seed of a fold for initialization and dropout."""
        return derive_seed(fold.seed, "fold", fold.number)

    def rows(self, fold: Fold, *splits: str) -> np.ndarray:
        """The table rows of `splits` in a fold, in table order."""
        return np.flatnonzero(np.isin(fold.split, splits))

    def initialize(self, fold: Fold) -> None:
        """Set every weight as the transfer plan says."""
        layers = None if self.pretrained is None else self.pretrained.layers
        initialize_weights(self.classifier.model, self.plan, layers, seed=self.seed(fold))

    def reset(self, learner: Learner, fold: Fold) -> None:
        """Reset the optimizer, and compute class weights from the training images of a fold."""
        targets = self.table.targets[self.rows(fold, "train")]
        setting, classes = self.config.training.class_weights, self.table.classes
        learner.reset(class_weights(setting, targets, classes=classes, task=self.table.task))

    def fold_data(self, fold: Fold, batches: Batches | FeatureBatches | UncachedFeatures) -> FoldData:
        return FoldData(batches, self.table.targets, fold, self.scoring, self.config.training.batch_size)

    def inputs(self, learner: Learner, progress: Progress) -> Batches | FeatureBatches | UncachedFeatures:
        """The images that `learner` trains on, or their features from its frozen layers with their current weights."""
        if not learner.from_features:
            return self._own_batches
        count = partial(progress.count, "features of the frozen layers")
        size = self.config.training.batch_size
        try:
            return cached_features(learner.cut, self.batches, self.table.targets, batch_size=size, count=count)
        except DiskError as error:
            if self.config.system.cache_features is True:
                raise
            note = cache_note(error)
            if note:
                progress.note(note)
            return UncachedFeatures(learner.cut, self.batches)

    def with_cached_images(self, progress: Progress) -> "TrainingContext":
        """The same run with its images cached, if the settings say so."""
        where = self.config.system.cache
        if where == "none" or all(learner.from_features for learner in self.learners):
            return self
        return replace(self, batches=cache_images(self.batches, where, count=partial(progress.count, "images decoded")))

    def float32_evaluator(self) -> Evaluator:
        """The trained network on images, in float32 on one device: for saving, prediction and scores."""
        classifier, training = self._float32_classifier, self.config.training
        if classifier is not self.classifier:
            classifier.model.set_weights(self.classifier.model.get_weights())
        elif not self.learner.from_features:
            return self.learner
        size, jit = training.batch_size, self.device.jit
        return self.models.evaluator(classifier, loss=training.loss, batch_size=size, jit=jit)

    @cached_property
    def _own_batches(self) -> Batches:
        return self.coordinator.part(self.batches)

    @cached_property
    def _float32_classifier(self) -> Classifier:
        if self.device.precision == "float32" and not self.coordinator.distributed:
            return self.classifier
        return self.models.classifier(self.backbone, **self.network, precision="float32")


class ModelCache:
    """The most recently used networks of this process and their traced functions; one run at a time uses them.

    Building and tracing a large network takes longer than many training steps. Runs with the same graph share a
    network, whatever their seeds, schemes, weights and images; runs that also train the same layers share its traced
    functions. The user of a network sets all its weights and the learner's state before the first step, so that
    nothing remains of an earlier run. `before_building` is called before a new network is built.
    """

    def __init__(
        self, *, before_building: Callable[[], None] = lambda: None, coordinator: Coordinator | None = None
    ) -> None:
        self._before_building, self._coordinator = before_building, coordinator or Coordinator()
        self._networks: OrderedDict[Hashable, tuple[Classifier, OrderedDict[Hashable, Evaluator]]] = OrderedDict()

    def classifier(self, backbone: Backbone, *, widths: Mapping[str, float], **facts: Any) -> Classifier:
        """The result of `build_classifier`, with random weights and every layer trainable."""
        key = (backbone.name, *sorted(widths.items()), *sorted(facts.items()))
        known = key in self._networks

        def build() -> tuple[Classifier, OrderedDict[Hashable, Evaluator]]:
            self._before_building()
            with self._coordinator.scope():
                return build_classifier(backbone, widths=widths, **facts), OrderedDict()

        # Two: a network in lower precision and its float32 copy.
        classifier, _ = _get_or_build(self._networks, key, build, limit=2)
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
        """A `Learner` for a `classifier` of this cache; the arguments are those of `Learner`."""
        # Only these settings are part of the graph; the learning rate is set before each step.
        graph = (settings.optimizer, settings.momentum, settings.weight_decay, settings.ema_momentum)
        graph += (settings.loss, settings.batch_size)
        options = {"jit": jit, "frozen": frozen, "from_features": from_features}
        build = partial(self._coordinator.learner, classifier, settings, **options)
        learner = self._evaluator(classifier, ("learner", *graph, *options.values()), build)
        learner.freeze()
        return learner

    def evaluator(self, classifier: Classifier, *, loss: str, batch_size: int, jit: bool) -> Evaluator:
        build = partial(Evaluator, classifier, loss=loss, batch_size=batch_size, jit=jit)
        return self._evaluator(classifier, ("evaluator", loss, batch_size, jit), build)

    def _evaluator(self, classifier: Classifier, key: Hashable, build: Callable[[], Evaluator]) -> Any:
        evaluators = next(evaluators for known, evaluators in self._networks.values() if known is classifier)
        return _get_or_build(evaluators, key, build, limit=6)  # a sweep over five stages, and an evaluator


def _get_or_build(cache: OrderedDict, key: Hashable, build: Callable[[], Any], *, limit: int) -> Any:
    """The entry under `key`, built if missing in place of the least recently used one."""
    if key not in cache:
        while len(cache) >= limit:
            cache.popitem(last=False)
        cache[key] = build()
    cache.move_to_end(key)
    return cache[key]
