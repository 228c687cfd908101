"""Every variable of a layer by its path, including those of sub-layers.

    layer_variables(attention)["query/kernel"].variable

A path consists of the names of the sub-layers and the variable; a plain layer has `kernel` and `bias`. Numbers that
Keras gives to unnamed layers (`dense_17`) are counted again within the containing layer, so that paths are unique and
do not depend on models built before.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from radtransfer.errors import ConfigError


@dataclass(frozen=True)
class LayerVariable:
    """A variable of a layer.

    `owner` is the layer or sub-layer that created it. `learned` is False for variables that never train, such as moving
    statistics.
    """

    variable: keras.Variable
    owner: keras.Layer
    learned: bool


def layer_variables(layer: keras.Layer) -> dict[str, LayerVariable]:
    """Path to variable, in the order of `layer.weights`."""
    parts, owners = sub_layers(layer), {}
    for path, part in parts.items():
        for variable in own_variables(part):
            known = owners.get(id(variable))
            # A wrapper may list variables that its sub-layer created.
            if known is None or known == "" or path.startswith(f"{known}/"):
                owners[id(variable)] = path
    grouped: dict[str, list[keras.Variable]] = defaultdict(list)
    for variable in layer.weights:
        grouped[owners.get(id(variable), "")].append(variable)
    paths = {
        id(variable): f"{path}/{name}".lstrip("/")
        for path, variables in grouped.items()
        for name, variable in zip(stable_names(variables), variables, strict=True)
    }
    learned = {id(variable) for part in parts.values() for variable in part._trainable_variables}
    return {
        paths[id(variable)]: LayerVariable(variable, parts[owners.get(id(variable), "")], id(variable) in learned)
        for variable in layer.weights
    }


def model_variables(model: keras.Model) -> dict[str, dict[str, LayerVariable]]:
    """Layer name to `layer_variables`; shared variables belong to the first layer.

    Raises ConfigError if the model has variables outside its layers.
    """
    seen: set[int] = set()
    found = {}
    for layer in model.layers:
        variables = layer_variables(layer)
        found[layer.name] = {path: item for path, item in variables.items() if id(item.variable) not in seen}
        seen |= {id(item.variable) for item in variables.values()}
    outside = [variable.path for variable in model.weights if id(variable) not in seen]
    if outside:
        raise ConfigError(
            f"{model.name}: expected all variables in layers. Received: variables outside (first: {outside[0]}), which "
            "a transfer plan cannot set. Put them into a layer."
        )
    return found


def sub_layers(layer: keras.Layer) -> dict[str, keras.Layer]:
    """Path to layer, for `layer` itself ("") and every layer inside it, each once."""
    found: dict[str, keras.Layer] = {}

    def visit(part: keras.Layer, path: str) -> None:
        if any(part is known for known in found.values()):
            return
        found[path] = part
        for name, inner in zip(stable_names(part._layers), part._layers, strict=True):
            visit(inner, f"{path}/{name}".lstrip("/"))

    visit(layer, "")
    return found


def own_variables(layer: keras.Layer) -> list[keras.Variable]:
    """The variables of `layer` without those of sub-layers, in the order in which Keras saves them."""
    # Keras has no public list of sub-layers, nor of a layer's own variables.
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def convolution_kernels(model: keras.Model) -> Iterator[tuple[str, int, keras.Variable]]:
    """The kernels of all 2-D convolutions, in order: layer name, index in the layer's weights, and kernel."""
    for layer in model.layers:
        for index, item in enumerate(layer_variables(layer).values()):
            if isinstance(item.owner, keras.layers.Conv2D) and item.variable.name == "kernel":
                yield layer.name, index, item.variable


def seed_states(model: keras.Model) -> list[keras.Variable]:
    """The states of the random generators (dropout, stochastic depth) of all layers, in order."""
    states = {id(state): state for state in model.variables if state.name == "seed_generator_state"}
    return list(states.values())


def with_dtype(config: dict[str, Any], dtype: str) -> dict[str, Any]:
    """The config of a layer with another dtype policy for it and every layer serialized inside it."""

    def changed(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(map(changed, value))
        if not isinstance(value, dict):
            return value
        inner = value.get("config")
        if "class_name" in value and isinstance(inner, dict) and {"name", "dtype"} <= inner.keys():
            policy = "float32" if value["class_name"] == "InputLayer" else dtype
            return value | {"config": with_dtype(inner, policy)}
        return {key: changed(item) for key, item in value.items()}

    return {key: changed(value) for key, value in config.items()} | {"dtype": dtype}


def stable_names(things: Sequence[keras.Operation | keras.Variable]) -> list[str]:
    """Names that do not depend on Keras' global counter.

    Keras numbers unnamed layers across the process (`conv2d_94`); stable names count within `things` (`conv2d`), in the
    order of creation, which gives the names of a new process.
    """
    numbered: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for index, thing in enumerate(things):
        base, number = re.fullmatch(r"(.*?)(?:_(\d+))?", thing.name).groups()
        is_named = re.sub("^(forward|backward)_", "", base).replace("_", "") != type(thing).__name__.lower()
        numbered[thing.name if is_named else base].append((0 if is_named else int(number or 0), index))
    names, taken = [""] * len(things), set(numbered)
    for base, members in numbered.items():
        for rank, (_, index) in enumerate(sorted(members)):
            name = base
            while rank and name in taken:
                name, rank = f"{base}_{rank}", rank + 1
            taken.add(name)
            names[index] = name
    return names
