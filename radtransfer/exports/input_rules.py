"""What of the way from a file to a probability is inside an exported model, and what is left to whoever calls it."""

from collections.abc import Mapping
from typing import Any

from radtransfer.preprocessing import MODES
from radtransfer.settings import ImageSettings

_SQUARES = {
    "stretch": "resize it to {size}×{size}, stretched where it is not square",
    "pad": "resize it so that it fits into {size}×{size}, and pad it with black to that square, in its middle",
    "crop": "cut out its central square and resize that to {size}×{size}",
}


def inside_text(mode: str) -> str:
    """The input scale that is built in, as a sentence without its full stop."""
    return f"input scale {mode} ({MODES[mode].description})" if mode in MODES else "its own input scale"


def caller_text(size: int, reading: ImageSettings) -> str:
    """What has to be done with an image file for the signature that takes images, as a sentence without full stop."""
    disc = "cut it to the disc of the retina, " if reading.fundus_crop else ""
    square = _SQUARES[reading.aspect].format(size=size)
    return (
        f"decode the image to RGB, turn it as its EXIF orientation says, {disc}{square}, with a resize that averages "
        "(antialiased: Pillow's BILINEAR, TensorFlow's antialias=True, OpenCV's INTER_AREA when it shrinks), and give "
        "the values 0–255 as float32, not scaled further"
    )


def depth_text(reading: ImageSettings) -> str:
    """What became of values of more than 8 bits."""
    said = {
        "auto": "DICOM by the window in its header, PNG and TIFF of 16 bits by all that 16 bits hold",
        "minmax": "each image from its own smallest to its largest value",
    }
    return said.get(reading.window, f"the window {reading.window} (centre, width)") + " to 0–255"


def input_record(record: Mapping[str, Any], reading: ImageSettings, *, size: int) -> dict[str, Any]:
    """The same as plain values, for the metadata of an export.

    Args:
        record: What `run.json` says.
        reading: How the run read its images.
        size: Side of the square, pixels.
    """
    return {
        "name": "image",
        "shape": [None, size, size, 3],
        "dtype": "float32",
        "channels": "RGB",
        "range": [0, 255],
        "preprocessing": record["preprocessing"],
        "inside": inside_text(record["preprocessing"]),
        "caller": caller_text(size, reading),
        "aspect": reading.aspect,
        "fundus_crop": reading.fundus_crop,
        "window": reading.window,
        "deep_values": depth_text(reading),
    }
