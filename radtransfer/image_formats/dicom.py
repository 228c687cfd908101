"""DICOM files as images, through pydicom (extra `dicom`).

Reading the file is in `dicom_file.py`, what a viewer shows of grey values in `dicom_grey.py`.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from radtransfer.errors import BadImageError
from radtransfer.image_formats.dicom_file import GREY, PALETTE, open_dicom, stored_frame
from radtransfer.image_formats.dicom_grey import grey_image
from radtransfer.image_formats.dicom_guard import reading
from radtransfer.image_place import ImagePlace, as_part
from radtransfer.intensity_window import parse_window

if TYPE_CHECKING:
    from pydicom import Dataset

DICOM_SUFFIXES = frozenset([".dcm", ".dicom", ".ima"])
"""File names that say DICOM, in small letters; of files called so, even the old ones without preamble are read."""

PREAMBLE = 132
"""Bytes that tell whether a file is DICOM."""


@dataclass(frozen=True, slots=True)
class DicomHeader:
    """What the header of a DICOM image says.

    Attributes:
        height: Pixels.
        width: Pixels.
        frames: How many images the file holds.
        patient_id: None where it is empty or missing.
        transfer_syntax: How the pixels are stored, by its name in the standard.
        photometric: What the values mean: "MONOCHROME2", "RGB", ….
        bits: Per value.
    """

    height: int
    width: int
    frames: int
    patient_id: str | None
    transfer_syntax: str
    photometric: str
    bits: int


def is_dicom(start: bytes) -> bool:
    """Whether a file that begins with `start`, its first `PREAMBLE` bytes, is DICOM with a preamble."""
    return start[128:PREAMBLE] == b"DICM"


def read_header(place: ImagePlace) -> DicomHeader:
    """What the header of the file at `place` says; the pixels are not read.

    Raises:
        BadImageError: Not DICOM, no image in it, cut off, of a kind that is not read, or pydicom or the plugin for
            its compression is missing.
    """
    with reading(place):
        file = open_dicom(place)
        header = file.header
        return DicomHeader(
            height=int(header.Rows),
            width=int(header.Columns),
            frames=file.frames,
            patient_id=str(header.get("PatientID") or "").strip().strip("\0") or None,
            transfer_syntax=file.syntax.name,
            photometric=header.PhotometricInterpretation,
            bits=_bits(header),
        )


def decode_dicom(place: ImagePlace, window: str, *, notes: list[str] | None = None) -> np.ndarray:
    """What a viewer shows of a frame, float32 (height, width, 3), RGB, 0–255.

    Grey images go through their modality LUT, the window, and the inversion of MONOCHROME1 (see
    `dicom_grey.grey_image`); others have no window. Images of more than 8 bits are not rounded.

    Args:
        place: The file, or a frame in it.
        window: The setting `images.window`: auto, minmax or CENTRE,WIDTH.
        notes: Gets in what the header and the pixels disagree, and how they were read.

    Raises:
        BadImageError: As in `read_header`, or the pixels are damaged, or not finite numbers, or it is not certain what
            they are.
        ConfigError: No such window.
    """
    part, asked = as_part(place), parse_window(window)
    with reading(place):
        file = open_dicom(place)
        if part.frame >= file.frames:
            raise BadImageError(place, f"there is no frame {part.frame + 1}: the file has {file.frames}")
        photometric = file.header.PhotometricInterpretation
        stored, found = stored_frame(file, part.frame)
        noted = list(found)
        if not np.isfinite(stored).all():
            raise BadImageError(place, "it holds values that are not finite numbers")
        if photometric in GREY:
            grey = grey_image(stored, file.header, place, asked, noted)
            image = np.repeat(grey[:, :, None], 3, axis=2)
        else:
            if photometric == "YBR_FULL_422" and file.options.get("photometric_interpretation") == "RGB":
                stored = _full_length(stored, place, noted)
            image = _coloured(stored, file.header, place)
        if notes is not None:
            notes += noted
        return image if _bits(file.header) > 8 else np.rint(image)


def _full_length(stored: np.ndarray, place: ImagePlace, notes: list[str]) -> np.ndarray:
    """RGB of pixels that are called YBR_FULL_422 but have three values each: RGB, or YBR_FULL.

    Black, white and strong colours of RGB are no colours at all when taken for YBR; of YBR_FULL, most is near grey.
    """
    luminance, blue, red = np.moveaxis(stored.astype("float32") - np.float32([0, 128, 128]), -1, 0)
    colours = np.stack(
        [luminance + 1.402 * red, luminance - 0.344136 * blue - 0.714136 * red, luminance + 1.772 * blue], axis=-1
    )
    impossible = ((colours < -16) | (colours > 271)).any(axis=-1).mean()
    grey = ((np.abs(blue) <= 4) & (np.abs(red) <= 4) & (np.abs(luminance - 128) > 16)).mean()
    known = "the header says YBR_FULL_422, the pixels are not subsampled; read as"
    if impossible > 0.001 or np.abs(colours - stored).max() <= 1:
        notes.append(f"{known} RGB")
        return stored
    if grey > 0.1:
        notes.append(f"{known} YBR_FULL")
        return np.rint(np.clip(colours, 0, 255)).astype(stored.dtype)
    raise BadImageError(
        place, "its header says YBR_FULL_422, its pixels are not subsampled, and may be RGB or YBR_FULL"
    )


def _bits(header: "Dataset") -> int:
    return int(header.get("BitsStored") or header.BitsAllocated)


def _coloured(stored: np.ndarray, header: "Dataset", place: ImagePlace) -> np.ndarray:
    """RGB, 0–255, of a palette's indices or of colours."""
    if header.PhotometricInterpretation != PALETTE:
        return stored.astype("float32") * (255 / (2**header.BitsStored - 1))
    from pydicom.pixels import apply_color_lut

    try:
        colours = apply_color_lut(stored, header)[:, :, :3]
    except Exception as error:  # pydicom checks little of it
        what = "its palette is missing, or not as long as its header says; export it again"
        raise BadImageError(place, what) from error
    # Some palettes of 8 bits are stored in 16.
    deep = colours.dtype.itemsize > 1 and colours.max() > 255
    return colours.astype("float32") / (257 if deep else 1)
