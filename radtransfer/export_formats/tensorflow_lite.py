"""A `.tflite` file in float32; a ZIP at its end, which interpreters skip, holds `radtransfer.json` and `labels.txt`."""

import tempfile
from pathlib import Path

from radtransfer.export_formats.embedded import add_to_zip, read_from_zip
from radtransfer.export_formats.export_format import Exportable, ExportFormat
from radtransfer.export_formats.fresh_python import run_python

_CONVERT = """
import sys
import tensorflow as tf
saved, path = sys.argv[1:]
with open(path, "wb") as file:
    file.write(tf.lite.TFLiteConverter.from_saved_model(saved).convert())
"""


def _write(exported: Exportable, path: Path) -> None:
    import keras
    import tensorflow as tf

    model = exported.model
    archive = keras.export.ExportArchive()
    archive.track(model)
    images = tf.TensorSpec((None, *model.input_shape[1:]), tf.float32, name="image")
    archive.add_endpoint(
        "serve", lambda image: {"probabilities": model(image, training=False)}, input_signature=[images]
    )
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        archive.write_out(folder, verbose=False)
        run_python(_CONVERT, [folder, path], failure="The model cannot be converted to TensorFlow Lite")
    add_to_zip(path, exported.metadata, labels=True)


TFLITE = ExportFormat(
    suffix=".tflite",
    write=_write,
    read_metadata=read_from_zip,
    read="""
import tensorflow as tf
run = tf.lite.Interpreter(model_path=path).get_signature_runner()
probabilities = run(image=images)["probabilities"]
""",
    usage='tf.lite.Interpreter(model_path=path).get_signature_runner()(image=images)["probabilities"]',
)
