"""The output of a layer inside a SavedModel, which holds operations and no layers.

Keras gives the operations of a layer its name as scope; the graph is laid flat, and the last in that scope is taken.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from radtransfer.errors import UnknownNameError, WeightsError
from radtransfer.predictions.trained_model import image_signature


def saved_layer(
    path: Path, layer: str, *, known: Mapping[str, str]
) -> tuple[Callable[[tf.Tensor], tf.Tensor], tuple[int, ...]]:
    """A function from float32 images to what `layer` makes of them, and the shape of that without the batch.

    Args:
        path: Of the SavedModel.
        layer: Name of a Keras layer.
        known: Stage to layer, for messages.

    Raises:
        UnknownNameError: No operation lies in the scope of such a layer.
        WeightsError: The model cannot be loaded, or the output has no fixed shape.
    """
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    _, function, _ = image_signature(path)
    flat = convert_variables_to_constants_v2(function)
    scopes = _scopes(flat.graph)
    if layer not in scopes:
        raise UnknownNameError("stage or layer", layer, [*known, *scopes])
    tensor = scopes[layer]
    if tensor.shape.rank is None or None in tensor.shape[1:]:
        raise WeightsError(f"{path}: layer {layer} gives outputs of no fixed shape. Use the run or a .keras export.")
    pruned = flat.prune(flat.inputs[0], tensor)
    return pruned, tuple(tensor.shape[1:])


def _scopes(graph: Any) -> dict[str, tf.Tensor]:
    """Layer to its last output, in order; Keras numbers the scopes of a graph that it traces again (`name_1`)."""
    found: dict[str, tf.Tensor] = {}
    for operation in graph.get_operations():
        parts = operation.name.split("/")
        if len(parts) < 2 or not operation.outputs or operation.type in ("Const", "Identity", "ReadVariableOp"):
            continue
        for part in parts[:-1]:
            found[part] = operation.outputs[0]
            found[re.sub(r"_\d+$", "", part)] = operation.outputs[0]
    return found
