"""Opens or reads whole models after checking that they do nothing but compute.

A `.keras` or HDF5 file is opened by Keras in safe mode. The weights of a SavedModel folder are read from its
checkpoint (variables/variables.index, .data-…: each variable by key, and its name, "conv1_conv/kernel") without loading
the graph.

A graph is a program. Loading it restores variables and may run functions; predicting runs others. TensorFlow has
operations that read and write any file, call Python or other processes, wait, or end the process. Therefore only
operations that compute and that image networks use are allowed, and those of the saver if only the saver can call them.
"""

import json
import re
import zipfile
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from radtransfer.errors import WeightsError
from radtransfer.pretrained.read import DAMAGED, SavedLayer, WeightFile
from radtransfer.pretrained.safety import MODEL_WEIGHTS, check_is_plain_keras, container_of, open_archive, open_hdf5
from radtransfer.process import keras_defaults

if TYPE_CHECKING:
    import keras
    from tensorflow.core.framework.node_def_pb2 import NodeDef
    from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

_OBJECTS = "_CHECKPOINTABLE_OBJECT_GRAPH"
_NOT_THE_MODEL = ("optimizer", "adam", "sgd", "rmsprop", "iteration", "learning_rate", "seed_generator")

_SAVER = re.compile(r"(DTensor|Distributed)?(Save|Restore)(V2|Slice|Slices)?|MergeV2Checkpoints")
"""Operations that save and restore variables in any file."""

_COMPUTING = frozenset(files("radtransfer.pretrained").joinpath("operations.txt").read_text(encoding="utf-8").split())
"""Operations that only compute: arithmetic, matrices, networks and their gradients, array layout, images, random
numbers, function calls, lists, variables, tables and text."""

_REFUSED = {
    "runs Python": r".*PyFunc.*|_?XlaHostCompute.*",
    "reads or writes files": (
        r"ReadFile|WriteFile|MatchingFiles|ImmutableConst|RecordInput|.*Dataset.*|.*Reader.*|.*TextFile(V2)?"
        r"|GenerateVocabRemapping|LoadAndRemapMatrix|FixedUnigramCandidateSampler|Skipgram|(De|En)codeProto(V2)?"
        r"|Print(V2)?|Debug.*|DumpTensor|CalibrationStatisticsSaver|CreateSummary.*|Write.*Summary|ImportEvent"
        rf"|FileSystemSetConfiguration|{_SAVER.pattern}"
    ),
    "calls other processes": r"Rpc.*|RemoteCall|_?(Host)?(Send|Recv)",
    "ends the process": r"Abort",
}
_EFFECTS = {what: re.compile(pattern) for what, pattern in _REFUSED.items()}


@keras_defaults()
def open_model(path: Path) -> "keras.Model":
    """Open the model in `path`, without compiling it, by Keras in safe mode.

    Raises WeightsError if it is not a model, is damaged, or has parts other than Keras' own layers and functions.
    """
    import keras

    _check_container(path)
    check_is_plain_keras(path)
    try:
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except MemoryError:
        raise
    except Exception as error:  # Keras raises errors of any type for a damaged file
        raise WeightsError(f"{path} is not a model that Keras can load: {_reason(error)}") from error


def open_weights(model: "keras.Model", path: Path) -> None:
    """Load the weights in `path`; raises WeightsError if they are damaged or of a different architecture."""
    _check_container(path)
    try:
        model.load_weights(path)
    except MemoryError:
        raise
    except Exception as error:  # as above
        raise WeightsError(f"{path} does not hold the weights of this network: {_reason(error)}") from error


def layer_names(path: Path) -> tuple[str, ...]:
    """The names of a model's layers, read without Keras; empty if the file does not have them."""
    try:
        with zipfile.ZipFile(path) as archive:
            layers = json.loads(archive.read("config.json"))["config"]["layers"]
        return tuple(layer["config"]["name"] for layer in layers)
    except DAMAGED:
        return ()


def is_saved_model(path: Path) -> bool:
    return (path / "saved_model.pb").is_file() and (path / "variables" / "variables.index").is_file()


def read_saved_model(path: Path) -> WeightFile:
    """All weights in the folder `path`; raises WeightsError if it is damaged or its variables have no names."""
    import tensorflow as tf
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

    prefix = path / "variables" / "variables"
    stored = sum(item.stat().st_size for item in prefix.parent.glob("variables.data-*"))
    try:
        checkpoint = tf.train.load_checkpoint(str(prefix))
        shapes, dtypes = checkpoint.get_variable_to_shape_map(), checkpoint.get_variable_to_dtype_map()
        objects = TrackableObjectGraph()
        if _OBJECTS in shapes:
            objects.ParseFromString(checkpoint.get_tensor(_OBJECTS))
        # Variable name, without ":0", to its keys in the checkpoint, in the order of the model.
        keys: dict[str, list[str]] = {}
        for attribute in (attribute for node in objects.nodes for attribute in node.attributes):
            name, key = attribute.full_name.partition(":")[0], attribute.checkpoint_key
            if key and name and not name.lower().startswith(_NOT_THE_MODEL):
                found = keys.setdefault(name, [])
                found += [key] if key in shapes and dtypes[key].is_floating else []
        declared = sum(4 * int(np.prod(shapes[key], dtype=float)) for of in keys.values() for key in of)
        if declared > 4 * stored + 2**20:
            raise WeightsError(
                f"{path} declares {declared / 1e6:,.0f} MB of weights in {stored / 1e6:,.1f} MB, which is impossible. "
                "Nothing was read. Export it again."
            )
        read = {name: [np.asarray(checkpoint.get_tensor(key), np.float32) for key in of] for name, of in keys.items()}
    except (tf.errors.OpError, ValueError, KeyError, IndexError, RuntimeError, DecodeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"weights of {path} are damaged ({reason}). Export it again.") from None
    layers: dict[str, dict[str, np.ndarray]] = {}
    for name, (array, *others) in ((name, found) for name, found in read.items() if found):
        owner, _, leaf = name.rpartition("/")
        # Variables of one name that differ are ambiguous and left out.
        if all(np.array_equal(array, other, equal_nan=True) for other in others):
            layers.setdefault(owner, {})[leaf] = array
    if not layers:
        raise WeightsError(f"{path} holds no weights with names. Export it with model.export, or pass its .keras file.")
    return WeightFile(path, "saved_model", tuple(SavedLayer(owner, leaves) for owner, leaves in layers.items()))


def check_graph(path: Path) -> None:
    """Raise WeightsError unless the SavedModel in the folder `path` can be read and does nothing but compute."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
    from tensorflow.python.framework import op_def_registry

    saved = SavedModel()
    try:
        saved.ParseFromString((path / "saved_model.pb").read_bytes())
    except (OSError, DecodeError) as error:
        raise WeightsError(f"{path} is not a SavedModel that TensorFlow can load: {error}") from None
    for graph in saved.meta_graphs:
        saver, functions = _saver_functions(graph), {item.signature.name for item in graph.graph_def.library.function}
        calls = ((function, name) for function, node in _nodes(graph) for name in _called(node))
        for function, name in calls:
            effect = None if name in functions else refusal(name)
            if effect is None or (function in saver and _SAVER.fullmatch(name)):
                continue
            place = f"{name} in {function}" if function else name
            if op_def_registry.get(name) is None:
                raise WeightsError(f"{path} is not a SavedModel that TensorFlow can load: no such operation, {place}.")
            raise WeightsError(
                f"{path} holds an operation that {effect} ({place}); nothing was loaded. Give the run, a .keras file, "
                "or a SavedModel written by radtransfer export."
            )
        taken = sorted(name for name in functions if op_def_registry.get(name) is not None)
        if taken:
            raise WeightsError(f"{path} has a function with the name of an operation, {taken[0]}; nothing was loaded.")


def refusal(operation: str) -> str | None:
    """Why this operation is refused, such as "runs Python"; None if it only computes."""
    if operation in _COMPUTING:
        return None
    effects = (effect for effect, pattern in _EFFECTS.items() if pattern.fullmatch(operation))
    return next(effects, "no image network needs")


def _nodes(graph: "MetaGraphDef") -> Iterator[tuple[str | None, "NodeDef"]]:
    """Every node with the name of its function, None for the graph itself."""
    yield from ((None, node) for node in graph.graph_def.node)
    for function in graph.graph_def.library.function:
        yield from ((function.signature.name, node) for node in function.node_def)


def _saver_functions(graph: "MetaGraphDef") -> set[str]:
    """The functions that only the saver calls; none in a SavedModel of TensorFlow 1, whose graph itself is run."""
    if not graph.HasField("object_graph_def"):
        return set()
    saver = {graph.saver_def.save_tensor_name.partition(":")[0], graph.saver_def.restore_op_name}
    objects, library = graph.object_graph_def, graph.graph_def.library
    own, others = set(), {*objects.concrete_functions}
    for node in objects.nodes:
        others |= {*node.function.concrete_functions, node.bare_concrete_function.concrete_function_name}
    for gradient in library.gradient:
        others |= {gradient.function_name, gradient.gradient_func}
    for function, node in _nodes(graph):
        (own if function is None and node.name in saver else others).update(_called(node))
    return own - others


def _called(node: "NodeDef") -> Iterator[str]:
    """The operation or function of a node, and the functions that it calls."""
    yield node.op
    for value in node.attr.values():
        functions = [value.func] if value.HasField("func") else value.list.func
        yield from (function.name for function in functions if function.name)


def _check_container(path: Path) -> None:
    """Check that `path` has the format of its suffix, a plausible size, and no references to other files."""
    expected = {".keras": "zip", ".h5": "hdf5", ".hdf5": "hdf5"}.get(path.suffix)
    try:
        if not path.is_file() or expected is None or container_of(path) != expected:
            named = "an HDF5 file" if expected == "hdf5" else "a .keras file" + (", which is a zip" if expected else "")
            raise WeightsError(f"is not a model that Keras can load: expected {named}, whole.")
        if expected == "hdf5":
            open_hdf5(path).close()
            return
        with open_archive(path) as archive:
            open_hdf5(archive.read(MODEL_WEIGHTS)).close()
    except WeightsError as error:
        raise WeightsError(str(error) if str(path) in str(error) else f"{path} {error}") from None
    except DAMAGED as error:
        raise WeightsError(f"{path} is not a model that Keras can load: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
