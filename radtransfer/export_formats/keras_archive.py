"""A `.keras` file, which `keras.models.load_model` opens in safe mode; `radtransfer.json` is a member of it."""

from pathlib import Path

from radtransfer.export_formats.embedded import add_to_zip, read_from_zip
from radtransfer.export_formats.export_format import Exportable, ExportFormat


def _write(exported: Exportable, path: Path) -> None:
    exported.model.save(path)
    add_to_zip(path, exported.metadata)


KERAS = ExportFormat(
    suffix=".keras",
    write=_write,
    read_metadata=read_from_zip,
    read="""
import keras
probabilities = keras.models.load_model(path, safe_mode=True).predict(images, verbose=0)
""",
    usage="keras.models.load_model(path).predict(images)",
)
