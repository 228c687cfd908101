"""A TensorFlow SavedModel folder with two signatures; `assets.extra/` holds `radtransfer.json` and `labels.txt`.

serve         images, float32 (batch, size, size, 3), RGB, 0–255; also the default signature
serve_bytes   image_bytes, string (batch,): each an encoded JPEG or PNG; everything that training did is inside
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

from radtransfer.export_formats.embedded import LABELS, NAME, as_json, as_lines
from radtransfer.export_formats.export_format import Exportable, ExportFormat

_EXTRA = "assets.extra"
"""Where TensorFlow keeps files that a SavedModel carries along and does not use."""


def _write(exported: Exportable, path: Path) -> None:
    import keras
    import tensorflow as tf

    model = exported.model
    archive = keras.export.ExportArchive()
    archive.track(model)
    images = tf.TensorSpec((None, *model.input_shape[1:]), tf.float32, name="image")
    archive.add_endpoint("serve", partial(model, training=False), input_signature=[images])
    if exported.from_bytes is not None:

        def serve_bytes(contents: tf.Tensor) -> tf.Tensor:
            kind = tf.TensorSpec(model.input_shape[1:], tf.float32)
            return model(tf.map_fn(exported.from_bytes, contents, fn_output_signature=kind), training=False)

        contents = tf.TensorSpec((None,), tf.string, name="image_bytes")
        archive.add_endpoint("serve_bytes", serve_bytes, input_signature=[contents])
    archive.write_out(str(path), verbose=False)
    (path / _EXTRA).mkdir()
    (path / _EXTRA / NAME).write_text(as_json(exported.metadata), encoding="utf-8")
    (path / _EXTRA / LABELS).write_text(as_lines(exported.metadata), encoding="utf-8")


def _read_metadata(path: Path) -> dict[str, Any]:
    file = path / _EXTRA / NAME
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


SAVED_MODEL = ExportFormat(
    suffix="",
    write=_write,
    read_metadata=_read_metadata,
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
