"""A `.weights.h5` file, for a network that is built elsewhere; `radtransfer.json` is an attribute of it."""

from pathlib import Path

from radtransfer.export_formats.embedded import add_to_hdf5, read_from_hdf5
from radtransfer.export_formats.export_format import Exportable, ExportFormat


def _write(exported: Exportable, path: Path) -> None:
    exported.model.save_weights(path)
    add_to_hdf5(path, exported.metadata)


WEIGHTS = ExportFormat(
    suffix=".weights.h5",
    write=_write,
    read_metadata=read_from_hdf5,
    read="""
import keras
model = keras.models.load_model(original, safe_mode=True)
model.set_weights([0 * weight for weight in model.get_weights()])
model.load_weights(path)
probabilities = model.predict(images, verbose=0)
""",
    usage="model.load_weights(path), of a model that is built elsewhere",
)
