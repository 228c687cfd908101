"""TensorFlow SavedModel folders: the variables are read from the checkpoint in them, the graph is never loaded.

variables/variables.index, .data-…   each variable by key, and its name: "conv1_conv/kernel"
"""

from pathlib import Path

import numpy as np

from radtransfer.errors import WeightsError
from radtransfer.weight_formats.weight_file import SavedLayer, WeightFile

_OBJECTS = "_CHECKPOINTABLE_OBJECT_GRAPH"
_NOT_THE_MODEL = ("optimizer", "adam", "sgd", "rmsprop", "iteration", "learning_rate", "seed_generator")


def is_saved_model(path: Path) -> bool:
    """Whether `path` is such a folder."""
    return (path / "saved_model.pb").is_file() and (path / "variables" / "variables.index").is_file()


def read_saved_model(path: Path) -> WeightFile:
    """All weights of the folder `path`.

    Raises:
        WeightsError: It is damaged, or names none of its variables.
    """
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    prefix = path / "variables" / "variables"
    stored = sum(item.stat().st_size for item in prefix.parent.glob("variables.data-*"))
    try:
        checkpoint = tf.train.load_checkpoint(str(prefix))
        shapes, dtypes = checkpoint.get_variable_to_shape_map(), checkpoint.get_variable_to_dtype_map()
        names = _names(checkpoint.get_tensor(_OBJECTS)) if _OBJECTS in shapes else {}
        keys = {name: [key for key in of if key in shapes and dtypes[key].is_floating] for name, of in names.items()}
        declared = sum(4 * int(np.prod(shapes[key], dtype=float)) for of in keys.values() for key in of)
        if declared > 4 * stored + 2**20:
            raise WeightsError(
                f"{path} declares {declared / 1e6:,.0f} MB of weights in {stored / 1e6:,.1f} MB, which cannot be. "
                "Nothing was read."
            )
        read = {name: [np.asarray(checkpoint.get_tensor(key), np.float32) for key in of] for name, of in keys.items()}
    except (tf.errors.OpError, ValueError, KeyError, IndexError, RuntimeError, DecodeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"weights of {path} are damaged ({reason}). Export it again.") from None
    layers: dict[str, dict[str, np.ndarray]] = {}
    for name, (array, *others) in ((name, found) for name, found in read.items() if found):
        owner, _, leaf = name.rpartition("/")
        # Where they differ, nobody can tell which of them is meant.
        if all(np.array_equal(array, other, equal_nan=True) for other in others):
            layers.setdefault(owner, {})[leaf] = array
    if not layers:
        raise WeightsError(f"{path} holds no weights with names. Export it with model.export, or pass its .keras file.")
    return WeightFile(path, "saved_model", tuple(SavedLayer(owner, leaves) for owner, leaves in layers.items()))


def _names(objects: bytes) -> dict[str, list[str]]:
    """The name of each variable, without ":0", to its keys in the checkpoint, in the order of the model."""
    from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

    graph = TrackableObjectGraph()
    graph.ParseFromString(objects)
    found: dict[str, list[str]] = {}
    for node in graph.nodes:
        for attribute in node.attributes:
            name = attribute.full_name.partition(":")[0]
            if attribute.checkpoint_key and name and not name.lower().startswith(_NOT_THE_MODEL):
                found.setdefault(name, []).append(attribute.checkpoint_key)
    return found
