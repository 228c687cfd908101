"""Networks that this process has built, with what was traced for them; a run that needs the same takes them over.

Building and tracing a large network costs longer than many of its steps. Runs whose networks agree in everything that
decides the graph (other seeds, schemes, weights and images do not) share one, and those that also train the same
layers alike share its traced functions. Whoever takes a network sets its weights, and its learner's state, before the
first step, so that nothing of an earlier run is left; only the few networks and functions used last are kept.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from radtransfer.backbones.backbone import Backbone
from radtransfer.classifier import Classifier, build_classifier
from radtransfer.distribution.replicas import Replicas
from radtransfer.distribution.replicated_learner import ReplicatedLearner
from radtransfer.initialization import draw_random
from radtransfer.learner import Evaluator, Learner
from radtransfer.settings import TrainingSettings

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
