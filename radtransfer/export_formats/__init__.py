"""The file formats a trained model is taken home in.

To add one, write an `ExportFormat` in a file of its own and a line here.
"""

from radtransfer.registry import Table

EXPORT_FORMATS = Table(
    "export format",
    {
        "keras": "radtransfer.export_formats.keras_archive:KERAS",
        "savedmodel": "radtransfer.export_formats.saved_model:SAVED_MODEL",
        "tflite": "radtransfer.export_formats.tensorflow_lite:TFLITE",
        "onnx": "radtransfer.export_formats.onnx_file:ONNX",
        "weights": "radtransfer.export_formats.weights_only:WEIGHTS",
    },
)
