"""A TensorFlow SavedModel folder with the serving signature `serve`, float32 RGB images 0–255."""

from pathlib import Path
from typing import TYPE_CHECKING

from radtransfer.export_formats.export_format import ExportFormat

if TYPE_CHECKING:
    import keras


def _write(model: "keras.Model", path: Path) -> None:
    model.export(path, format="tf_saved_model", verbose=False)


SAVED_MODEL = ExportFormat(
    suffix="",
    write=_write,
    read="""
import tensorflow as tf
model = tf.saved_model.load(path)
probabilities = model.serve(images).numpy()
""",
)
