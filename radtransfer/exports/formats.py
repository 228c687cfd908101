"""The file formats for the export of a trained model. To add one, write an `ExportFormat` and a line in the table.

keras        for `keras.models.load_model` in safe mode; `radtransfer.json` is a member of the file
savedmodel   a folder with two signatures; `assets.extra/` contains `radtransfer.json` and `labels.txt`
               serve: images, float32 (batch, size, size, 3), RGB, 0–255; also the default signature
               serve_bytes: image_bytes, string (batch,), encoded JPEGs or PNGs, with all preprocessing
tflite       in float32; a ZIP at its end, which interpreters skip, contains `radtransfer.json` and `labels.txt`
onnx         opset 17, with the input `image` and the output `probabilities`; `radtransfer.json` is a property. Written
             by the exporter of Keras, which calls tf2onnx and fixes its problems with NumPy 2
weights      `.weights.h5`, for a network that is built elsewhere; `radtransfer.json` is an attribute of the file
"""

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radtransfer.config.schema import ImageSettings
from radtransfer.errors import ExportError, Table
from radtransfer.files import disk_number
from radtransfer.process import clean_variables

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

EXPORT_FORMATS = Table(
    "export format",
    {
        "keras": "radtransfer.exports.formats:KERAS",
        "savedmodel": "radtransfer.exports.formats:SAVED_MODEL",
        "tflite": "radtransfer.exports.formats:TFLITE",
        "onnx": "radtransfer.exports.formats:ONNX",
        "weights": "radtransfer.exports.formats:WEIGHTS",
    },
)


@dataclass(frozen=True, eq=False)
class Exportable:
    """A model to export."""

    model: "keras.Model"  # float32 RGB images 0–255, (batch, size, size, 3) → float32 (batch, outputs)
    metadata: Mapping[str, Any]  # plain values, for JSON
    # From an encoded JPEG or PNG, a string scalar, to one such image; None if not possible in a graph.
    from_bytes: Callable[["tf.Tensor"], "tf.Tensor"] | None = None


@dataclass(frozen=True)
class ExportFormat:
    """How to write a model, and how to read it without this package.

    Attributes:
        suffix: Of the file; empty for a folder.
        write: Writes a model and its metadata to a path.
        read_metadata: Reads the metadata from a path.
        read: Python code, without this package, that computes `probabilities` of `images` (both NumPy arrays) from the
            export at `path`; `original` is the run's model.keras, for formats without architecture.
        read_bytes: Code that continues with the same for `encoded`, a list of the bytes of JPEGs and PNGs; None if the
            caller has to decode images.
        usage: How to use it, in one sentence.
        needs: Required packages of the extra `export`.
    """

    suffix: str
    write: Callable[[Exportable, Path], None]
    read_metadata: Callable[[Path], dict[str, Any]]
    read: str
    usage: str
    read_bytes: str | None = None
    needs: tuple[str, ...] = ()


NAME = "radtransfer.json"  # the name of the metadata (member, file, attribute or property)
LABELS = "labels.txt"  # the classes, one per line, in the order of the outputs


def _descriptions(metadata: Mapping[str, Any]) -> dict[str, str]:
    """File name to text; NaN is refused, because JSON has no NaN."""
    return {
        NAME: json.dumps(metadata, indent=2, ensure_ascii=False, allow_nan=False),
        LABELS: "".join(f"{' '.join(str(name).split())}\n" for name in metadata.get("classes", ())),
    }


def reading_of(metadata: Mapping[str, Any]) -> ImageSettings:
    """How an exported model reads images, from its metadata; by default stretched."""
    rules, names = metadata.get("input") or {}, (field.name for field in fields(ImageSettings))
    return ImageSettings(**{name: rules[name] for name in names if name in rules})


def add_to_zip(path: Path, metadata: Mapping[str, Any], *, labels: bool = False) -> None:
    """Add the metadata to a ZIP; to another file, append a ZIP, which its readers ignore."""
    with zipfile.ZipFile(path, "a") as archive:
        for name, text in _descriptions(metadata).items():
            if name == NAME or labels:
                # A fixed date, as in members by Keras, so that the same model gives the same file.
                archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), text)


def read_from_zip(path: Path) -> dict[str, Any]:
    """The metadata from `add_to_zip`; empty without any."""
    if not zipfile.is_zipfile(path):
        return {}
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read(NAME)) if NAME in archive.namelist() else {}


def run_python(code: str, arguments: Sequence[str | Path], *, failure: str) -> None:
    """Run Python code with `arguments` in `sys.argv` in a new process; ExportError (or OSError) if it fails."""
    # -P removes the current folder from the path, so that only installed packages are found.
    command = [sys.executable, "-P", "-c", code, *map(str, arguments)]
    process = subprocess.run(command, capture_output=True, text=True, errors="replace", env=clean_variables())
    if process.returncode:
        last = process.stderr.strip().splitlines()[-1:] or [f"exit code {process.returncode}"]
        number = disk_number(last[0])
        if number is not None:
            raise OSError(number, os.strerror(number))
        raise ExportError(f"{failure}: {last[0].rstrip('.')}. Nothing was written.")


def _write_keras(exported: Exportable, path: Path) -> None:
    exported.model.save(path)
    add_to_zip(path, exported.metadata)


KERAS = ExportFormat(
    suffix=".keras",
    write=_write_keras,
    read_metadata=read_from_zip,
    read="""
import keras
probabilities = keras.models.load_model(path, safe_mode=True).predict(images, verbose=0)
""",
    usage="keras.models.load_model(path).predict(images)",
)


_EXTRA = "assets.extra"  # the folder of a SavedModel for additional files, which TensorFlow ignores


def _archive(model: "keras.Model", serve: Callable[["tf.Tensor"], Any]) -> "keras.export.ExportArchive":
    import keras
    import tensorflow as tf

    archive = keras.export.ExportArchive()
    archive.track(model)
    images = tf.TensorSpec((None, *model.input_shape[1:]), tf.float32, name="image")
    archive.add_endpoint("serve", serve, input_signature=[images])
    return archive


def _write_saved_model(exported: Exportable, path: Path) -> None:
    import tensorflow as tf

    model = exported.model
    archive = _archive(model, partial(model, training=False))
    if exported.from_bytes is not None:

        def serve_bytes(contents: tf.Tensor) -> tf.Tensor:
            kind = tf.TensorSpec(model.input_shape[1:], tf.float32)
            return model(tf.map_fn(exported.from_bytes, contents, fn_output_signature=kind), training=False)

        contents = tf.TensorSpec((None,), tf.string, name="image_bytes")
        archive.add_endpoint("serve_bytes", serve_bytes, input_signature=[contents])
    archive.write_out(str(path), verbose=False)
    (path / _EXTRA).mkdir()
    for name, text in _descriptions(exported.metadata).items():
        (path / _EXTRA / name).write_text(text, encoding="utf-8")


def _read_saved_model_metadata(path: Path) -> dict[str, Any]:
    file = path / _EXTRA / NAME
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


SAVED_MODEL = ExportFormat(
    suffix="",
    write=_write_saved_model,
    read_metadata=_read_saved_model_metadata,
    read="""
import tensorflow as tf
model = tf.saved_model.load(path)
probabilities = model.serve(images).numpy()
""",
    read_bytes="""
probabilities = model.serve_bytes(tf.constant(encoded)).numpy()
""",
    usage="tf.saved_model.load(path).serve(images), or .serve_bytes(encoded JPEGs and PNGs)",
)


_CONVERT = """
import sys
import tensorflow as tf
saved, path = sys.argv[1:]
with open(path, "wb") as file:
    file.write(tf.lite.TFLiteConverter.from_saved_model(saved).convert())
"""


def _write_tflite(exported: Exportable, path: Path) -> None:
    archive = _archive(exported.model, lambda image: {"probabilities": exported.model(image, training=False)})
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        archive.write_out(folder, verbose=False)
        run_python(_CONVERT, [folder, path], failure="The model cannot be converted to TensorFlow Lite")
    add_to_zip(path, exported.metadata, labels=True)


TFLITE = ExportFormat(
    suffix=".tflite",
    write=_write_tflite,
    read_metadata=read_from_zip,
    read="""
import tensorflow as tf
run = tf.lite.Interpreter(model_path=path).get_signature_runner()
probabilities = run(image=images)["probabilities"]
""",
    usage='tf.lite.Interpreter(model_path=path).get_signature_runner()(image=images)["probabilities"]',
)


_CONVERT_ONNX = """
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


def _write_onnx(exported: Exportable, path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        original, metadata = Path(folder) / "model.keras", Path(folder) / NAME
        _without_groups(exported.model).save(original)
        metadata.write_text(_descriptions(exported.metadata)[NAME], encoding="utf-8")
        failure = "The model cannot be converted to ONNX"
        run_python(_CONVERT_ONNX, [original, path, NAME, metadata], failure=failure)


def _without_groups(model: "keras.Model") -> "keras.Model":
    """The network with depthwise layers instead of convolutions with one channel per group (ConvNeXt).

    TensorFlow compiles the latter with XLA, which tf2onnx does not support.
    """
    import keras

    grouped = {
        layer.name
        for layer in model.layers
        if getattr(layer, "groups", 1) > 1 and layer.groups == layer.filters == layer.input.shape[-1]
    }
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


def _read_onnx_metadata(path: Path) -> dict[str, Any]:
    import onnx

    for item in onnx.load(path, load_external_data=False).metadata_props:
        if item.key == NAME:
            return json.loads(item.value)
    return {}


ONNX = ExportFormat(
    suffix=".onnx",
    write=_write_onnx,
    read_metadata=_read_onnx_metadata,
    read="""
import onnxruntime
session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
(probabilities,) = session.run(["probabilities"], {"image": images})
""",
    usage='onnxruntime.InferenceSession(path).run(["probabilities"], {"image": images})',
    needs=("onnx", "tf2onnx", "onnxruntime"),
)


def _write_weights(exported: Exportable, path: Path) -> None:
    import h5py

    exported.model.save_weights(path)
    with h5py.File(path, "r+") as file:
        file.attrs[NAME] = _descriptions(exported.metadata)[NAME]


def _read_weights_metadata(path: Path) -> dict[str, Any]:
    import h5py

    with h5py.File(path) as file:
        return json.loads(file.attrs[NAME]) if NAME in file.attrs else {}


WEIGHTS = ExportFormat(
    suffix=".weights.h5",
    write=_write_weights,
    read_metadata=_read_weights_metadata,
    read="""
import keras
model = keras.models.load_model(original, safe_mode=True)
model.set_weights([0 * weight for weight in model.get_weights()])
model.load_weights(path)
probabilities = model.predict(images, verbose=0)
""",
    usage="model.load_weights(path), for a model that is built elsewhere",
)
