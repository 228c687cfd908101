"""A `.weights.h5` file, for a network that is built elsewhere."""

from radtransfer.export_formats.export_format import ExportFormat

WEIGHTS = ExportFormat(
    suffix=".weights.h5",
    write=lambda model, path: model.save_weights(path),
    read="""
import keras
model = keras.models.load_model(original, safe_mode=True)
model.set_weights([0 * weight for weight in model.get_weights()])
model.load_weights(path)
probabilities = model.predict(images, verbose=0)
""",
)
