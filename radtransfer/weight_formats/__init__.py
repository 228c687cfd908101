"""The file formats that weights come in: one card per format, one file per card.

A file's format is told by its content, never by its suffix. To add a format, write
`radtransfer/weight_formats/<name>.py` with a `WeightFormat` and name it here.
"""

from radtransfer.registry import Table

FORMATS = Table(
    "weight format",
    {
        "legacy_h5": "radtransfer.weight_formats.legacy_h5:LEGACY_H5",
        "weights_h5": "radtransfer.weight_formats.weights_h5:WEIGHTS_H5",
        "keras_archive": "radtransfer.weight_formats.keras_archive:KERAS_ARCHIVE",
    },
)
"""Name to `WeightFormat`; a format is imported when a file is read."""
