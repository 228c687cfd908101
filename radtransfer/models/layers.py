"""Every variable of a layer by its path, also where the layer is made of other layers.

    layer_variables(attention)["query/kernel"].variable

A path names the layers on the way to a variable; a plain layer has `kernel` and `bias`. Numbers that Keras gives to
unnamed layers (`dense_17`) count anew within the layer that holds them, so that a path does not depend on what was
built before; of several with one name all but the first get a number. Each path is therefore of one variable.
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

    `owner` is the layer that created it: the layer itself, or one within it. `learned` says whether it trains where the
    layer does; moving statistics do not.
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
            # A wrapper may hold what the layer within it created.
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
    """`layer_variables` of every layer of `model`, by its name; what layers share is the first one's.

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
            f"{model.name} has variables outside its layers (first: {outside[0]}), which no transfer plan reaches. "
            "Put them into a layer."
        )
    return found


def sub_layers(layer: keras.Layer) -> dict[str, keras.Layer]:
    """Path to layer, of `layer` itself ("") and of every layer within it, each once."""
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
    """What `layer` holds itself, in the order in which Keras saves it; a wrapper may hold another layer's as well."""
    # Keras has no public list of the layers in a layer, nor of the variables that are its own.
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def convolution_kernels(model: keras.Model) -> Iterator[tuple[str, int, keras.Variable]]:
    """The kernels of all ordinary 2-D convolutions, in order: layer, place among the layer's weights, and kernel."""
    for layer in model.layers:
        for place, item in enumerate(layer_variables(layer).values()):
            if isinstance(item.owner, keras.layers.Conv2D) and item.variable.name == "kernel":
                yield layer.name, place, item.variable


def seed_states(model: keras.Model) -> list[keras.Variable]:
    """The states of the random generators (dropout, stochastic depth) of all layers, in order."""
    states = {id(state): state for state in model.variables if state.name == "seed_generator_state"}
    return list(states.values())


def with_dtype(config: dict[str, Any], dtype: str) -> dict[str, Any]:
    """The config of a layer with another dtype policy, its own and that of every layer serialized within it."""

    def renewed(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(map(renewed, value))
        if not isinstance(value, dict):
            return value
        inner = value.get("config")
        if "class_name" in value and isinstance(inner, dict) and {"name", "dtype"} <= inner.keys():
            policy = "float32" if value["class_name"] == "InputLayer" else dtype
            return value | {"config": with_dtype(inner, policy)}
        return {key: renewed(item) for key, item in value.items()}

    return {key: renewed(value) for key, value in config.items()} | {"dtype": dtype}


def stable_names(things: Sequence[keras.Operation | keras.Variable]) -> list[str]:
    """A name for each, which does not depend on numbers that Keras gave.

    Keras numbers unnamed layers by a global count (`conv2d_94`); the stable name counts within `things` (`conv2d`), in
    the order of creation, which gives the names of a fresh process.
    """
    numbered: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for place, thing in enumerate(things):
        base, number = re.fullmatch(r"(.*?)(?:_(\d+))?", thing.name).groups()
        chosen = re.sub("^(forward|backward)_", "", base).replace("_", "") != type(thing).__name__.lower()
        numbered[thing.name if chosen else base].append((0 if chosen else int(number or 0), place))
    names, taken = [""] * len(things), set(numbered)
    for base, members in numbered.items():
        for rank, (_, place) in enumerate(sorted(members)):
            name = base
            while rank and name in taken:
                name, rank = f"{base}_{rank}", rank + 1
            taken.add(name)
            names[place] = name
    return names
