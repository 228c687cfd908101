"""The output of a layer inside a SavedModel, which holds operations and no layers.

Keras gives the operations of a layer its name as scope; the graph is laid flat, and the last in that scope is taken.
"""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from radtransfer.errors import UnknownNameError, WeightsError
from radtransfer.predictions.saved_signature import image_signature

_NO_LAYER = ("Const", "Identity", "NoOp", "ReadVariableOp")
"""Operations that compute nothing."""


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

    loaded, function, _ = image_signature(path)
    flat = convert_variables_to_constants_v2(function)  # reads the variables that `loaded` holds
    del loaded
    scopes = _scopes(flat.graph)
    if layer not in scopes:
        raise UnknownNameError("stage or layer", layer, [*known, *scopes])
    tensor = scopes[layer]
    if tensor.shape.rank is None or None in tensor.shape[1:]:
        raise WeightsError(f"{path}: layer {layer} gives outputs of no fixed shape. Use the run or a .keras export.")
    pruned = flat.prune(flat.inputs[0], tensor)
    return pruned, tuple(tensor.shape[1:])


def _scopes(graph: Any) -> dict[str, tf.Tensor]:
    """Layer to its last output, in order.

    Keras traces a model that it has called before, so that every layer's scope is its name with a number (`conv1_1`).
    """
    operations = [
        (operation.name.split("/"), operation.outputs[0])
        for operation in graph.get_operations()
        if operation.outputs and operation.type not in _NO_LAYER and operation.name.count("/") > 1
    ]
    start = len(os.path.commonprefix([parts[:-1] for parts, _ in operations]))
    scopes = {parts[start]: output for parts, output in operations if len(parts) > start + 1}
    numbered = all(re.search(r"_\d+$", scope) for scope in scopes)
    return {re.sub(r"_\d+$", "", scope) if numbered else scope: output for scope, output in scopes.items()}
