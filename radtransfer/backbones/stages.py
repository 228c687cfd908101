"""Which layer belongs to which stage: the ground that freezing, transfusion and analysis stand on."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from radtransfer.backbones.backbone import Backbone

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
