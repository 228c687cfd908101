"""The backbones: one card per network, one file per card (the CBR family shares one).

To add a network, write `radtransfer/backbones/<name>.py` with a `Backbone` and name it here.

What a backbone is: an architecture with named stages, and nothing learned.

Which layer belongs to which stage: the ground that freezing, transfusion and analysis stand on.

How wide each stage of a slim network is.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radtransfer.errors import ConfigError, Table, UnknownNameError, near_names

BACKBONES = Table(
    "backbone",
    {
        "resnet50": "radtransfer.models.resnet:RESNET50",
        "inception_v3": "radtransfer.models.inception:INCEPTION_V3",
        "densenet121": "radtransfer.models.densenet:DENSENET121",
        "resnet50_v1_5": "radtransfer.models.resnet:RESNET50_V1_5",
        "inception_v3_torch": "radtransfer.models.inception:INCEPTION_V3_TORCH",
        "inception_resnet_v2": "radtransfer.models.inception:INCEPTION_RESNET_V2",
        "cbr_large_t": "radtransfer.models.cbr:CBR_LARGE_T",
        "cbr_large_w": "radtransfer.models.cbr:CBR_LARGE_W",
        "cbr_small": "radtransfer.models.cbr:CBR_SMALL",
        "cbr_tiny": "radtransfer.models.cbr:CBR_TINY",
        "cbr_tiny_wide": "radtransfer.models.cbr:CBR_TINY_WIDE",
        "efficientnet_v2_b0": "radtransfer.models.efficientnet:EFFICIENTNET_V2_B0",
        "convnext_tiny": "radtransfer.models.convnext:CONVNEXT_TINY",
    },
)
"""Name to `Backbone`; a card is imported when it is asked for, and none imports TensorFlow."""


if TYPE_CHECKING:
    import keras

_LAYERS = Path(__file__).with_name("layers.txt")
"""The layers of the networks, a line each, so that a name is looked up before a network is built."""

_AROUND = ("image", "preprocessing", "avg_pool", "global_average_pooling2d", "head_dropout", "head", "probabilities")
"""Layers of a classifier that are not its backbone's."""


@dataclass(frozen=True)
class Backbone:
    """The card of one network. Reading it imports no TensorFlow.

    Attributes:
        name: As in tables, files, YAML and on the command line.
        build: `build(image, pooling)` gives a functional `keras.Model` from `image`, a symbolic
            tensor of preprocessed images, float32 (batch, height, width, channels), to the last
            feature map (`pooling` None) or to its average over positions ("avg"). Sequential parts
            and auto-numbered layer names are fine: `build_architecture` flattens and renames them.
        stages: Stage name to the name of its last layer, in order from the input.
        preprocessing: Mode that the network's ImageNet weights were trained with.
        parameters: Weights with 3 input channels, without a head.
        minimum_size: Smallest image side in pixels.
        batch_norm_momentum: Momentum that its batch-norm layers are built with; decides when moving
            statistics are re-estimated. None for networks without batch norm.
        description: One line for `radtransfer backbones`.
        application: Name of the class in `keras.applications`, if it comes from there.
        paper_parameters: The parameters as the network's paper counts them, where that differs.
        tail: Layers after the last stage's end that still belong to that stage.
        build_slim: `build_slim(image, pooling, widths)` gives the same network with fewer channels;
            `widths` names every stage and its fraction of the full width, in (0, 1]. Layer names and
            their order are those of `build`, and so are the shapes up to the first narrower stage.
            None for networks that are built at full width only.
        replacements: Class name of an operation that is no public Keras layer to
            `replacement(operation, inputs, name=…, dtype=…)`, which does the same with public ones.
    """

    name: str
    build: Callable[["keras.KerasTensor", str | None], "keras.Model"]
    stages: Mapping[str, str]
    preprocessing: str
    parameters: int
    minimum_size: int
    batch_norm_momentum: float | None
    description: str
    application: str | None = None
    paper_parameters: int | None = None
    tail: tuple[str, ...] = ()
    build_slim: Callable[["keras.KerasTensor", str | None, Mapping[str, float]], "keras.Model"] | None = None
    replacements: Mapping[str, Callable[..., "keras.KerasTensor"]] = field(default_factory=dict)

    @property
    def pretrained(self) -> bool:
        """Whether ImageNet weights exist for it."""
        return self.application is not None

    def check_image_size(self, size: int) -> None:
        """Raises ConfigError if images of `size` pixels are too small."""
        if size < self.minimum_size:
            raise ConfigError(f"Image size {size} is too small for {self.name} (minimum {self.minimum_size}).")

    def check_layer(self, name: str) -> None:
        """Raises UnknownNameError if `name` is known to be neither a stage nor a layer; of other networks nothing is.

        Only a network that is not in `layers.txt` has to be built to know.
        """
        lines = (line.partition(": ") for line in _LAYERS.read_text(encoding="utf-8").splitlines())
        layers = next((names.split() for network, _, names in lines if network == self.name), None)
        if layers is None or name in (*self.stages, *layers, *_AROUND):
            return
        raise self.unknown_layer(name, layers)

    def unknown_layer(self, name: str, layers: Iterable[str]) -> UnknownNameError:
        """The error that `name` is neither a stage nor one of `layers`; it names the closest of both."""
        # Without a close name the message lists all it is given: hundreds of layers would help nobody.
        known = [*self.stages, *near_names(name, layers)]
        return UnknownNameError(f"stage or layer of {self.name}", name, known, see=f"radtransfer backbones {self.name}")

    def stage_end(self, stage: str) -> str:
        """The last layer of `stage`.

        Raises:
            UnknownNameError: This backbone has no such stage.
        """
        if stage not in self.stages:
            see = f"radtransfer backbones {self.name}"
            raise UnknownNameError(f"stage of {self.name}", stage, self.stages, see=see)
        return self.stages[stage]


if TYPE_CHECKING:
    import keras

HEAD = "head"
"""Where layers belong that come after the last stage."""


@dataclass(frozen=True)
class StageSummary:
    """One stage of a built model.

    Attributes:
        name: Of the stage.
        layers: Names of its layers, in the model's order; the input is not counted.
        end: Its last layer.
        output_shape: Of that layer, without the batch.
        parameters: Weights of all its layers.
    """

    name: str
    layers: tuple[str, ...]
    end: str
    output_shape: tuple[int | None, ...]
    parameters: int


def layer_stages(model: "keras.Model", card: Backbone) -> dict[str, str]:
    """The stage of every layer of `model`, in the model's order.

    A layer belongs to the first stage whose end depends on it; what no stage depends on (pooling,
    dropout, classifier) is "head". Layers before the backbone, such as preprocessing, count as stem.

    Args:
        model: A flat model that holds the backbone's layers, alone or within a classifier.
        card: The backbone's.
    """
    sources = layer_sources(model)
    stages: dict[str, str] = {}
    for stage, end in card.stages.items():
        pending = [end]
        while pending:
            name = pending.pop()
            if name not in stages:  # else it and all before it belong to this stage or an earlier one
                stages[name] = stage
                pending += sources[name]
    stages.update(dict.fromkeys(card.tail, list(card.stages)[-1]))
    return {layer.name: stages.get(layer.name, HEAD) for layer in model.layers}


def layer_sources(model: "keras.Model") -> dict[str, list[str]]:
    """Each operation of the graph to those whose outputs it takes.

    Read from the config, the public form of the graph, which holds only the calls made in this model:
    the same layers may also be part of another.
    """
    return {entry["name"]: list(_origins(entry["inbound_nodes"])) for entry in model.get_config()["layers"]}


def _origins(nodes: Any) -> Iterator[str]:
    if isinstance(nodes, dict) and "keras_history" in nodes:
        yield nodes["keras_history"][0]
    elif isinstance(nodes, (dict, list, tuple)):
        for part in nodes.values() if isinstance(nodes, dict) else nodes:
            yield from _origins(part)


def resolve_layer(model: "keras.Model", card: Backbone, name: str) -> str:
    """The layer that `name` means: a stage means its last layer, a layer itself.

    Raises:
        UnknownNameError: Neither; names the closest of both.
    """
    if name in card.stages:
        return card.stages[name]
    layers = [layer.name for layer in model.layers]
    if name in layers:
        return name
    raise card.unknown_layer(name, layers)


def stage_summaries(model: "keras.Model", card: Backbone) -> tuple[StageSummary, ...]:
    """The stages of a built backbone, in order."""
    import keras

    stages = layer_stages(model, card)
    summaries = []
    for stage, end in card.stages.items():
        layers = [
            layer
            for layer in model.layers
            if stages[layer.name] == stage and not isinstance(layer, keras.layers.InputLayer)
        ]
        summaries.append(
            StageSummary(
                name=stage,
                layers=tuple(layer.name for layer in layers),
                end=end,
                output_shape=tuple(model.get_layer(end).output.shape[1:]),
                parameters=sum(layer.count_params() for layer in layers),
            )
        )
    return tuple(summaries)


def layers_up_to(model: "keras.Model", card: Backbone, name: str) -> frozenset[str]:
    """The layers of `model` up to and including `name`, a stage or a layer: all that its output depends on.

    With a stage or a layer of a later stage, whole earlier stages are in it.

    Raises:
        UnknownNameError: Neither a stage nor a layer.
    """
    end = resolve_layer(model, card, name)
    sources, stages = layer_sources(model), layer_stages(model, card)
    order = [*card.stages, HEAD]
    if name in card.stages:
        return frozenset(layer for layer, stage in stages.items() if order.index(stage) <= order.index(name))
    found, pending = set(), [end]
    while pending:
        layer = pending.pop()
        if layer not in found:
            found.add(layer)
            pending += sources[layer]
    earlier = {layer for layer, stage in stages.items() if order.index(stage) < order.index(stages[end])}
    return frozenset(found & stages.keys() | earlier)


def narrowed(channels: int, fraction: float) -> int:
    """`fraction` of `channels` to the nearest whole number (of two, the even one), and never less than 1."""
    return max(1, round(channels * fraction))


def stage_widths(card: Backbone, widths: Mapping[str, float]) -> dict[str, float]:
    """The fraction of every stage of `card`, in order; 1.0 where `widths` names none.

    Raises:
        UnknownNameError: `widths` names a stage that the network lacks.
        ConfigError: A fraction is not in (0, 1], or the network cannot be slim.
    """
    for stage, fraction in widths.items():
        card.stage_end(stage)  # raises if there is no such stage
        if not isinstance(fraction, int | float) or not 0 < fraction <= 1:
            raise ConfigError(f"The width of {stage} is a fraction above 0, at most 1. Received: {fraction!r}.")
    if card.build_slim is None and any(fraction < 1 for fraction in widths.values()):
        slim = ", ".join(name for name in BACKBONES if BACKBONES[name].build_slim)
        raise ConfigError(f"{card.name} cannot be slim: leave its stages at 1.0, or use one of {slim}.")
    return {stage: float(widths.get(stage, 1.0)) for stage in card.stages}
