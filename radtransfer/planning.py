"""A network as a transfer plan starts it, without data and without training."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from radtransfer.backbones import BACKBONES
from radtransfer.backbones.architecture import build_architecture
from radtransfer.backbones.backbone import Backbone
from radtransfer.classifier import build_classifier
from radtransfer.environment import keras_defaults
from radtransfer.errors import ConfigError
from radtransfer.figures.filters import draw_filters
from radtransfer.figures.style import save_figure
from radtransfer.initialization import start
from radtransfer.layers import convolution_kernels
from radtransfer.outline import outline_plan
from radtransfer.preparation import load_for, preprocessing_for
from radtransfer.pretrained.loading import PretrainedWeights
from radtransfer.run_names import has_weights
from radtransfer.runs import whole_file
from radtransfer.settings import Config
from radtransfer.system_errors import writing
from radtransfer.transfer import TransferPlan, lay_out


@dataclass(frozen=True)
class PlannedNetwork:
    """A network before its first step.

    Attributes:
        card: Of the backbone.
        plan: What each layer starts from, and whether it trains.
        model: With every weight set.
        pretrained: The weights it starts from; None for random.
        preprocessing: The input scale that fits it; built into the model if it has a head.
    """

    card: Backbone
    plan: TransferPlan
    model: keras.Model
    pretrained: PretrainedWeights | None
    preprocessing: str

    @property
    def starting_weights(self) -> Mapping[str, tuple[np.ndarray, ...]] | None:
        """Layer name to its pretrained arrays."""
        return None if self.pretrained is None else self.pretrained.layers


@keras_defaults()
def plan_network(
    config: Config, *, classes: int | None = None, notify: Callable[[str], None] = lambda _: None
) -> PlannedNetwork:
    """Build the network, lay the plan out, load the weights and set every tensor.

    Args:
        config: Of which the sections `model` and `transfer`, and the seed, count.
        classes: With a number, the network has its preprocessing and a softmax head of that many classes; without,
            it is the backbone alone, pooled, for images that are already preprocessed.
        notify: Hears what is worth a note.

    Raises:
        ConfigError: The plan contradicts itself or does not fit the network.
        WeightsError: The weights cannot be used.
    """
    card = BACKBONES[config.model.backbone]
    outline = outline_plan(config.transfer, card, weights=has_weights(config))
    preprocessing = preprocessing_for(config, card, notify)
    model = _built(config, card, outline.widths, classes, preprocessing)
    plan = lay_out(outline, model, card)
    pretrained = load_for(config, card, outline.widths, notify)
    for note in plan.notes():
        notify(note)
    start(model, plan, None if pretrained is None else pretrained.layers, seed=config.seed)
    return PlannedNetwork(card, plan, model, pretrained, preprocessing)


def save_planned(network: PlannedNetwork, path: Path) -> None:
    """The model as plain Keras, whole or not at all.

    Raises:
        ConfigError: `path` exists, or does not end in .keras.
        DiskError, RunError: It cannot be written.
    """
    if path.suffix != ".keras" or path.exists():
        raise ConfigError(f"--out takes a new file that ends in .keras. Received: {path}.")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as part:
            network.model.save(part)


def save_filters(network: PlannedNetwork, path: Path) -> None:
    """The first convolution's filters and the weights' histograms by stage, beside the pretrained ones.

    Raises:
        ConfigError: `path` has no suffix of a figure.
        DiskError, RunError: It cannot be written.
    """
    found = [kernel for kernel in convolution_kernels(network.model) if kernel[0] in network.plan.layers]
    source = network.starting_weights or {}
    if not found:
        raise ConfigError(f"{network.card.name} has no 2-D convolution, so there are no filters to draw.")
    kernels = [(layer, kernel.numpy()) for layer, _, kernel in found]
    pretrained = [(layer, source[layer][place]) for layer, place, _ in found if layer in source]
    figure = draw_filters(
        kernels[0][1],
        _by_stage(kernels, network.plan),
        pretrained=_by_stage(pretrained, network.plan),
        title=f"{network.card.name}, {network.plan.scheme}",
    )
    with writing(path):
        save_figure(figure, path)


def _built(
    config: Config, card: Backbone, widths: Mapping[str, float], classes: int | None, preprocessing: str
) -> keras.Model:
    size = config.model.image_size
    if classes is None:
        return build_architecture(card, image_size=size, widths=widths)
    classifier = build_classifier(
        card,
        classes=classes,
        image_size=size,
        activation="softmax",
        dropout=config.model.dropout,
        preprocessing=preprocessing,
        widths=widths,
    )
    return classifier.model


def _by_stage(kernels: Sequence[tuple[str, np.ndarray]], plan: TransferPlan) -> dict[str, np.ndarray]:
    """All values of each stage's kernels."""
    stages = {layer: part.stage for part in plan.parts for layer in part.layers}
    values: dict[str, list[np.ndarray]] = {}
    for layer, kernel in kernels:
        values.setdefault(stages[layer], []).append(kernel.ravel())
    return {stage: np.concatenate(parts) for stage, parts in values.items()}
