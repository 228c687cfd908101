"""A look at the operations in a SavedModel before TensorFlow loads it: a graph is a program, and not all are networks.

Loading restores variables, and may run functions; predicting runs others. TensorFlow has operations that read and
write any file, call Python or other processes, or end this one. A network that maps images to probabilities needs
none. Only what the saver itself uses is let through, where nothing but the saver can call it.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from radtransfer.errors import WeightsError

if TYPE_CHECKING:
    from tensorflow.core.framework.node_def_pb2 import NodeDef
    from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

_SAVER = re.compile(r"(DTensor|Distributed)?(Save|Restore)(V2|Slice|Slices)?|MergeV2Checkpoints")
"""What keeps and restores variables, in files of any name."""

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
_PATTERNS = {what: re.compile(pattern) for what, pattern in _REFUSED.items()}


def check_graph(path: Path) -> None:
    """See that the SavedModel in the folder `path` does nothing but compute.

    Raises:
        WeightsError: One of its operations does more, or it cannot be read.
    """
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    saved = SavedModel()
    try:
        saved.ParseFromString((path / "saved_model.pb").read_bytes())
    except (OSError, DecodeError) as error:
        raise WeightsError(f"{path} is not a SavedModel that TensorFlow can load: {error}") from None
    for graph in saved.meta_graphs:
        allowed = _of_the_saver(graph)
        for function, node in _nodes(graph):
            what = refusal(node.op)
            if what is not None and not (function in allowed and _SAVER.fullmatch(node.op)):
                where = f" in {function}" if function else ""
                raise WeightsError(
                    f"{path} holds an operation that {what} ({node.op}{where}), which no network needs; nothing was "
                    "loaded. Give the run, a .keras file, or a SavedModel that radtransfer export wrote."
                )


def refusal(operation: str) -> str | None:
    """What an operation of this name does besides computing, such as "runs Python"; None if nothing."""
    return next((what for what, pattern in _PATTERNS.items() if pattern.fullmatch(operation)), None)


def _nodes(graph: "MetaGraphDef") -> Iterator[tuple[str | None, "NodeDef"]]:
    """Every node, with the function that it stands in; None in the graph itself."""
    yield from ((None, node) for node in graph.graph_def.node)
    for function in graph.graph_def.library.function:
        yield from ((function.signature.name, node) for node in function.node_def)


def _of_the_saver(graph: "MetaGraphDef") -> set[str]:
    """The functions that the saver calls, and nothing else can.

    A SavedModel of TensorFlow 1 has no objects, and its graph itself is run: none then.
    """
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


def _called(node: "NodeDef") -> Iterable[str]:
    """The functions that a node names."""
    yield node.op
    for value in node.attr.values():
        yield value.func.name
        yield from (function.name for function in value.list.func)
