"""A `.keras` file, which `keras.models.load_model` opens in safe mode."""

from radtransfer.export_formats.export_format import ExportFormat

KERAS = ExportFormat(
    suffix=".keras",
    write=lambda model, path: model.save(path),
    read="""
import keras
probabilities = keras.models.load_model(path, safe_mode=True).predict(images, verbose=0)
""",
)
