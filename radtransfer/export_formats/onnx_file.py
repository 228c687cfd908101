"""An `.onnx` file, opset 17, with the input `image` and the output `probabilities`; `radtransfer.json` is a property.

Written by Keras' own exporter, which drives tf2onnx and mends what of it NumPy 2 broke.
"""

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radtransfer.export_formats.embedded import NAME, as_json
from radtransfer.export_formats.export_format import Exportable, ExportFormat
from radtransfer.export_formats.fresh_python import run_python

if TYPE_CHECKING:
    import keras

_CONVERT = """
import sys
import keras
import numpy
import onnx
original, path, name, metadata = sys.argv[1:]
model = keras.models.load_model(original, safe_mode=True, compile=False)
model(keras.ops.zeros((1, *model.input_shape[1:])))  # Keras exports no model that was never called
model.export(path, format="onnx", opset_version=17, verbose=False)
model = onnx.load(path)
nodes, one = [], onnx.numpy_helper.from_array(numpy.float32(1), "one")
for node in model.graph.node:
    if node.op_type == "Erfc":  # TensorFlow's GELU; ONNX has no such operation
        (x,), (y,) = node.input, node.output
        nodes.append(onnx.helper.make_node("Erf", [x], [y + "_erf"]))
        nodes.append(onnx.helper.make_node("Sub", [one.name, y + "_erf"], [y]))
    else:
        nodes.append(node)
if len(nodes) > len(model.graph.node):
    model.graph.initializer.append(one)
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
(result,) = model.graph.output
for node in model.graph.node:
    node.output[:] = ["probabilities" if output == result.name else output for output in node.output]
result.name = "probabilities"
with open(metadata, encoding="utf-8") as file:
    model.metadata_props.add(key=name, value=file.read())
onnx.checker.check_model(model)
onnx.save(model, path)
"""


def _write(exported: Exportable, path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        original, metadata = Path(folder) / "model.keras", Path(folder) / NAME
        _without_groups(exported.model).save(original)
        metadata.write_text(as_json(exported.metadata), encoding="utf-8")
        failure = "The model cannot be converted to ONNX"
        run_python(_CONVERT, [original, path, NAME, metadata], failure=failure)


def _without_groups(model: "keras.Model") -> "keras.Model":
    """The same network with depthwise layers for convolutions of one channel a group, which TensorFlow leaves to XLA.

    tf2onnx does not look into functions that XLA compiles (ConvNeXt).
    """
    import keras

    grouped = {layer.name for layer in model.layers if _has_group_per_channel(layer)}
    if not grouped:
        return model

    def renewed(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if layer.name not in grouped:
            return type(layer).from_config(config)
        kept = ("name", "kernel_size", "strides", "padding", "dilation_rate", "activation", "use_bias", "dtype")
        return keras.layers.DepthwiseConv2D(**{name: config[name] for name in kept})

    copy = keras.models.clone_model(model, clone_function=renewed)
    for layer in model.layers:
        weights = layer.get_weights()
        if layer.name in grouped:
            weights[0] = weights[0].transpose(0, 1, 3, 2)
        copy.get_layer(layer.name).set_weights(weights)
    return copy


def _has_group_per_channel(layer: "keras.Layer") -> bool:
    return getattr(layer, "groups", 1) > 1 and layer.groups == layer.filters == layer.input.shape[-1]


def _read_metadata(path: Path) -> dict[str, Any]:
    import onnx

    for item in onnx.load(path, load_external_data=False).metadata_props:
        if item.key == NAME:
            return json.loads(item.value)
    return {}


ONNX = ExportFormat(
    suffix=".onnx",
    write=_write,
    read_metadata=_read_metadata,
    read="""
import onnxruntime
session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
(probabilities,) = session.run(["probabilities"], {"image": images})
""",
    usage='onnxruntime.InferenceSession(path).run(["probabilities"], {"image": images})',
    needs=("onnx", "tf2onnx", "onnxruntime"),
)
